-- What a database of a Supabase project has before the first migration. The default privileges are those of older projects, so that a
-- forgotten revoke fails here, too. supabase_admin runs this once per database.
do $$ begin
    if current_database() <> 'template1' then
        execute format('alter database %I owner to postgres', current_database());
    end if;
end $$;

create schema extensions authorization postgres;
grant usage on schema extensions to anon, authenticated, service_role;
grant usage on schema public to anon, authenticated, service_role;
grant all on schema public to postgres;

alter default privileges for role postgres in schema public grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on sequences to postgres, anon, authenticated, service_role;
