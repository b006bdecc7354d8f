-- A member of an index stays when the entry that it names is deleted, or leaves the index. To a later run of the migration it then looks
-- as if it named any other entry that ends in it. So while a migration is open, what callers left is remembered (their requests have an
-- id, see kv_begin_request; the import and SQL by hand have none: whatever these take away, a later run brings again).

create table public.kv_import_left (
    index_key text collate "C" not null,
    member    text collate "C" not null,
    constraint kv_import_left_pkey primary key (index_key, member)
);
comment on table public.kv_import_left is 'While a migration is open: members whose entries were deleted by callers, or left the index.';

alter table public.kv_import_left enable row level security;
revoke all on table public.kv_import_left from anon, authenticated;
grant all on table public.kv_import_left to service_role;

create or replace function public.kv_store_post() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
declare
    v_gone record;
    v_open boolean;
begin
    if tg_op <> 'INSERT' then
        -- One by one: a join is planned for the thousand rows that Postgres expects of a function, and may read the whole table.
        for v_gone in
            select index_key, member from public.kv_postings_of(old.index_pairs)
            except
            select index_key, member from public.kv_postings_of(new.index_pairs) where tg_op = 'UPDATE' and new.key = old.key
            order by 1, 2
        loop
            delete from public.kv_posting where index_key = v_gone.index_key and member = v_gone.member and key = old.key;
            if v_gone.member = '' then
                continue;
            elsif v_open is null then
                v_open := coalesce(current_setting('kv.request', true), '') <> '' and exists (select from public.kv_migration);
            end if;
            if v_open then -- also where another entry has the member: that one may be leaving, too, in a transaction that does not show yet
                insert into public.kv_import_left (index_key, member) values (v_gone.index_key, v_gone.member) on conflict do nothing;
            end if;
        end loop;
    end if;
    -- Somebody's again: a repair takes indexes away to give them back. Without anything remembered this costs a look into an empty table.
    if tg_op = 'UPDATE' and exists (select from public.kv_import_left) then
        delete from public.kv_import_left as l using public.kv_postings_of(new.index_pairs) as p
        where l.index_key = p.index_key and l.member = p.member;
    end if;
    if tg_op <> 'DELETE' then
        insert into public.kv_posting (index_key, member, key)
        select index_key, member, new.key from public.kv_postings_of(new.index_pairs)
        on conflict do nothing;
    end if;
    return null;
end
$$;

create or replace function public.kv_import_close() returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s'
as $$
begin
    lock table public.kv_migration in access exclusive mode;
    if exists (select from public.kv_migration where held_until > clock_timestamp()) then
        raise exception using errcode = 'PT409', message = 'a run of the migration is at work';
    end if;
    delete from public.kv_migration where true; -- without a condition, Supabase refuses it
    truncate public.kv_import, public.kv_import_left;
    return '';
end
$$;

create function public.kv_import_left_after(p_index_key text, p_member text, p_limit integer) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (
        select coalesce(json_agg(json_build_array(index_key, member) order by index_key, member), '[]')::text
        from (
            select index_key, member from public.kv_import_left as l
            where (index_key, member) > (p_index_key collate "C", p_member collate "C")
                and not exists (select from public.kv_posting as p where p.index_key = l.index_key and p.member = l.member)
            order by index_key, member limit p_limit) as page);
end
$$;
comment on function public.kv_import_left_after(text, text, integer) is 'The members of kv_import_left after one that no entry has now, in order: [["key","member"],...].';

revoke all on function public.kv_import_left_after(text, text, integer) from public, anon, authenticated;
grant execute on function public.kv_import_left_after(text, text, integer) to service_role;
