-- kv doctor asks a database in one round trip which objects of the schema it has, who may use them, and what is in their way.

create function kv.schema_version() returns text
    language sql immutable parallel safe security invoker set search_path = ''
as $$
    select '20261201110000'
$$;
comment on function kv.schema_version() is 'The version of the newest migration. Every later file redefines it.';

-- This calls no function of the schema, so that its text can be run where only some migrations are applied.
create function public.kv_health() returns json
    language sql stable security invoker set search_path = ''
as $$
    with relation as (
        select c.*, n.nspname || '.' || c.relname as name
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = 'kv' or n.nspname = 'public' and c.relname like 'kv\_%'
    ), function as (
        select p.*, n.nspname || '.' || p.proname as name
        from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname = 'kv' or n.nspname = 'public' and p.proname like 'kv\_%'
    ), role as (
        select oid, rolname, rolbypassrls from pg_roles where rolname in ('anon', 'authenticated', 'service_role')
    ), access as (
        select r.rolname || ' execute ' || f.name as line
        from role as r join function as f on has_schema_privilege(r.oid, f.pronamespace, 'usage') and has_function_privilege(r.oid, f.oid, 'execute')
        union all
        select r.rolname || ' ' || privilege || ' ' || t.name
        from role as r join relation as t on t.relkind in ('r', 'p', 'v', 'm', 'f') and has_schema_privilege(r.oid, t.relnamespace, 'usage')
            cross join unnest('{select,insert,update,delete,truncate}'::text[]) as privilege
        where has_table_privilege(r.oid, t.oid, privilege)
           or privilege in ('select', 'insert', 'update') and has_any_column_privilege(r.oid, t.oid, privilege)
        union all
        select r.rolname || ' usage ' || s.name
        from role as r join relation as s on s.relkind = 'S' and has_schema_privilege(r.oid, s.relnamespace, 'usage')
            and has_sequence_privilege(r.oid, s.oid, 'usage')
    ), stranded as ( -- a publication of updates or deletes refuses both on these
        select t.oid, t.name
        from relation as t
        where t.relkind = 'r' and not case t.relreplident
            when 'f' then true
            when 'd' then exists (select from pg_index as i where i.indrelid = t.oid and i.indisprimary)
            when 'i' then exists (select from pg_index as i where i.indrelid = t.oid and i.indisreplident)
            else false end
    )
    select json_build_object(
        'revision', (select substring(prosrc from '[0-9]{14}') from function where name = 'kv.schema_version'),
        'role', current_user,
        'bypass', (select rolbypassrls from role where rolname = 'service_role'),
        'now', clock_timestamp(),
        'database', (select system_identifier from pg_control_system()) || '/' || (select oid from pg_database where datname = current_database()),
        'functions', (select coalesce(json_agg(json_build_array(name, md5(replace(prosrc, E'\r', ''))) order by name), '[]') from function),
        'tables', (select coalesce(json_agg(json_build_object('name', name, 'security', relrowsecurity,
                'columns', (select coalesce(json_agg(attname order by attnum), '[]') from pg_attribute where attrelid = t.oid and attnum > 0 and not attisdropped),
                'policies', (select coalesce(json_agg(polname), '[]') from pg_policy where polrelid = t.oid)) order by name), '[]')
            from relation as t where relkind in ('r', 'p')),
        'indexes', (select coalesce(json_agg(c.name order by c.name), '[]') from relation as c join pg_index as i on i.indexrelid = c.oid where i.indisvalid),
        'triggers', (select coalesce(json_agg(json_build_array(t.name, g.tgname, g.tgenabled) order by t.name, g.tgname), '[]')
            from relation as t join pg_trigger as g on g.tgrelid = t.oid where not g.tgisinternal),
        'access', (select coalesce(json_agg(line order by line), '[]') from access),
        'publications', (select coalesce(json_agg(json_build_array(p.pubname, s.name) order by p.pubname, s.name), '[]')
            from stranded as s join pg_publication as p on p.pubupdate or p.pubdelete
            where p.puballtables or exists (select from pg_publication_tables as t where t.pubname = p.pubname and t.schemaname || '.' || t.tablename = s.name))
    )
$$;
comment on function public.kv_health() is 'What kv doctor compares with the needs of the release: functions, tables, triggers, indexes, privileges, publications, clock.';
revoke all on function public.kv_health() from public, anon, authenticated;
grant execute on function public.kv_health() to service_role;

notify pgrst, 'reload schema';
