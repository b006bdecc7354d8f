-- The migration of another store's entries, beside live writes: kv_import never overwrites what anybody else wrote, and never
-- brings back what a caller deleted while a migration is open.
--
-- It knows its own rows by their revision, in kv.import. A delete has no row to leave a revision in, so it leaves a mark there,
-- under the same lock that kv_import takes first. Order of locks: the keys' rows of kv.import, then those of kv_store, each in
-- byte order. Upserts take only the latter.

create table kv.migration (
    one        boolean not null default true,
    run        uuid not null,
    session    uuid not null,
    opened_at  timestamptz not null default clock_timestamp(),
    held_until timestamptz not null,
    constraint migration_pkey primary key (one),
    constraint migration_one check (one)
);
comment on table kv.migration is 'Its one row is the migration that is open; see kv_import_open and kv_import_close.';
comment on column kv.migration.run is 'Who imports: a journal of migrate-kv-store.';
comment on column kv.migration.session is 'The process that is at work for the run: what an earlier one sent and is late is refused.';
comment on column kv.migration.held_until is 'Until then no other run may take over; prolonged while one is at work.';
alter table kv.migration enable row level security;

create table kv.import (
    key     text collate "C" not null,
    revision bigint,
    deleted boolean not null default false,
    constraint import_pkey primary key (key)
);
comment on table kv.import is 'What a migration has to know of a key, while it is open.';
comment on column kv.import.revision is 'kv_store.revision as kv_import wrote it; a row with another one is somebody else''s.';
comment on column kv.import.deleted is 'A caller deleted the entry while the migration was open.';
alter table kv.import enable row level security;

-- A member of an index stays when the entry that it names is deleted, or leaves the index. To a later run of the migration it then looks
-- as if it named any other entry that ends in it. So while a migration is open, what callers left is remembered (their requests have an
-- id, see kv.begin_request; the import and SQL by hand have none: whatever these take away, a later run brings again).
create table kv.import_left (
    index_key text collate "C" not null,
    member    text collate "C" not null,
    constraint import_left_pkey primary key (index_key, member)
);
comment on table kv.import_left is 'While a migration is open: members whose entries were deleted by callers, or left the index.';
alter table kv.import_left enable row level security;

create function kv.lock_import_key(p_key text) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if exists (select from kv.migration) then -- a statement of its own: kv.migration is locked before kv_import
        insert into kv.import (key) values (p_key) on conflict (key) do update set key = excluded.key;
    end if;
end
$$;
comment on function kv.lock_import_key(text) is 'While a migration is open: keeps kv_import away from the key until the transaction ends. Before any lock of kv_store.';

create function kv.mark_deleted(p_key text) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if exists (select from kv.migration) then -- as in kv.lock_import_key
        insert into kv.import (key, deleted) values (p_key, true) on conflict (key) do update set deleted = true;
    end if;
end
$$;
comment on function kv.mark_deleted(text) is 'While a migration is open: kv_import will not bring the entry back. Before any lock of kv_store, or after kv.lock_import_key.';

-- Whoever deletes looks for an open migration, and holds the table until its transaction ends. So when this has its lock, every
-- later delete leaves a mark, and the earlier ones have ended.
create function public.kv_import_open(p_run uuid, p_session uuid) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s'
as $$
declare
    v_open kv.migration;
begin
    lock table kv.migration in access exclusive mode;
    select * into v_open from kv.migration;
    if v_open.run <> p_run and v_open.held_until > clock_timestamp() then
        return ceil(extract(epoch from v_open.held_until - clock_timestamp()))::text;
    end if;
    insert into kv.migration (run, session, held_until) values (p_run, p_session, clock_timestamp() + interval '1 minute')
    on conflict (one) do update set run = excluded.run, session = excluded.session, held_until = excluded.held_until;
    return '0';
end
$$;
comment on function public.kv_import_open(uuid, uuid) is 'Opens the migration, or takes it over from a run that no longer holds it: the answer is 0. Where another run is at work: for how many seconds it holds it.';
revoke all on function public.kv_import_open(uuid, uuid) from public, anon, authenticated;
grant execute on function public.kv_import_open(uuid, uuid) to service_role;

create function public.kv_import_renew_lease(p_session uuid, p_release boolean default false) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    update kv.migration set held_until = clock_timestamp() + case when p_release then interval '0' else interval '1 minute' end
    where session = p_session;
    if not found then
        raise exception using errcode = 'PT409', message = 'another run has taken over the migration, or it was closed';
    end if;
    return (select count(*) from kv.outbox
            where primary_store = 'supabase' and at < (select opened_at from kv.migration))::text;
end
$$;
comment on function public.kv_import_renew_lease(uuid, boolean) is 'Keeps other runs away for another minute, or lets them in at once. The answer is how many writes from before the migration was opened may not have reached the source.';
revoke all on function public.kv_import_renew_lease(uuid, boolean) from public, anon, authenticated;
grant execute on function public.kv_import_renew_lease(uuid, boolean) to service_role;

create function public.kv_import_close() returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s'
as $$
begin
    lock table kv.migration in access exclusive mode;
    if exists (select from kv.migration where held_until > clock_timestamp()) then
        raise exception using errcode = 'PT409', message = 'a run of the migration is at work';
    end if;
    delete from kv.migration where true; -- without a condition, Supabase refuses it
    truncate kv.import, kv.import_left;
    return '';
end
$$;
comment on function public.kv_import_close() is 'Ends the migration: what it knew of the keys is forgotten, and deletes leave no mark any more.';
revoke all on function public.kv_import_close() from public, anon, authenticated;
grant execute on function public.kv_import_close() to service_role;

create function kv.import_members(p_key text, p_members text[]) returns boolean
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_gone  bigint;
    v_moved bigint;
begin
    delete from kv.member as m
    where m.index_key = p_key and m.position < 0 and not exists (select from unnest(p_members) as n (member) where n.member = m.member);
    get diagnostics v_gone = row_count;
    insert into kv.member (index_key, member, position)
    select p_key, member, n - (1::bigint << 40)
    from unnest(p_members) with ordinality as m (member, n)
    order by member collate "C"
    on conflict (index_key, member) do update set position = excluded.position
    where kv.member.position <> excluded.position;
    get diagnostics v_moved = row_count;
    return v_gone + v_moved > 0;
end
$$;
comment on function kv.import_members(text, text[]) is 'Makes these the imported members of an index entry, in this order. Their positions are negative: they come before those that were added live, which stay. The caller holds the entry''s row.';

create function kv.import_entry(
    p_key      text,
    p_value    text,
    p_indexes  text[],
    p_is_index boolean,
    p_created  timestamptz,
    p_updated  timestamptz,
    p_known    kv.import
) returns text
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_value   json := p_value::json;
    v_members text[];
    v_row     public.kv_store;
    v_revision bigint;
    v_changed boolean := true;
begin
    if p_is_index then
        v_members := kv.parse_members(p_value);
    end if;
    loop
        select * into v_row from public.kv_store where key = p_key for update;
        exit when found;
        if p_known.deleted then
            return 'deleted';
        elsif v_value is null then
            return 'absent';
        end if;
        insert into public.kv_store (key, value, index_pairs, is_index, created_at, updated_at)
        values (p_key, case when v_members is null then v_value else '[]' end, coalesce(p_indexes, '{}'), v_members is not null,
            coalesce(p_created, clock_timestamp()), coalesce(p_updated, clock_timestamp()))
        on conflict do nothing returning revision into v_revision;
        exit when found; -- else another call has made the entry meanwhile, perhaps by adding a member: look at that
    end loop;
    if v_row.is_index then
        perform kv.lock_members(p_key);
    end if;
    if v_revision is not null then -- it is new, and may have got another version by now: kv.renew_revision
        select revision into v_revision from public.kv_store where key = p_key;
    elsif v_row.revision is distinct from p_known.revision and (not v_row.auto_created or p_known.deleted) then
        return 'live';
    elsif v_members is null and v_row.is_index and exists (select from kv.member where index_key = p_key and position > 0) then
        return 'live';
    elsif v_value is null then
        delete from public.kv_store where key = p_key;
        return 'removed';
    elsif v_members is not null and v_row.is_index then
        -- Without its value, which is [] already: writing that would end its members (kv.clear_index).
        update public.kv_store
        set auto_created = false, index_pairs = coalesce(p_indexes, index_pairs), created_at = coalesce(p_created, created_at),
            updated_at = coalesce(p_updated, updated_at)
        where key = p_key and (auto_created or index_pairs <> p_indexes or created_at <> p_created or updated_at <> p_updated)
        returning revision into v_revision;
        v_changed := found;
        v_revision := coalesce(v_revision, v_row.revision);
    elsif v_members is not null or v_row.is_index or v_row.value::text <> p_value
        or p_indexes <> v_row.index_pairs or p_created <> v_row.created_at or p_updated <> v_row.updated_at
    then
        update public.kv_store
        set value = case when v_members is null then v_value else '[]' end, is_index = v_members is not null,
            index_pairs = coalesce(p_indexes, index_pairs), created_at = coalesce(p_created, created_at),
            updated_at = coalesce(p_updated, updated_at)
        where key = p_key
        returning revision into v_revision;
    else
        v_revision := v_row.revision;
        v_changed := false;
    end if;
    if v_members is not null then
        v_changed := kv.import_members(p_key, v_members) or v_changed;
    end if;
    update kv.import set revision = v_revision where key = p_key and revision is distinct from v_revision;
    return case when v_changed then 'written' else 'same' end;
end
$$;
comment on function kv.import_entry(text, text, text[], boolean, timestamptz, timestamptz, kv.import) is
    'Imports one entry whose row of kv_import the caller holds; what it returns: see kv_import.';

create function public.kv_import(
    p_session  uuid,
    p_keys     text[],
    p_values   text[],
    p_indexes  text[],
    p_is_index boolean[],
    p_created  bigint[],
    p_updated  bigint[]
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = '' set statement_timeout = '55s'
as $$
declare
    v_known  kv.import;
    v_n      integer;
    v_done   text[] := array_fill(null::text, array[cardinality(p_keys)]);
begin
    if not exists (select from kv.migration where session = p_session) then
        raise exception using errcode = 'PT409', message = 'another run has taken over the migration, or it was closed';
    end if;
    insert into kv.import (key) select k from unnest(p_keys) as k order by k collate "C"
    on conflict (key) do update set key = excluded.key;
    for v_n in select n from unnest(p_keys) with ordinality as t (k, n) order by k collate "C" loop
        select * into v_known from kv.import where key = p_keys[v_n];
        v_done[v_n] := kv.import_entry(p_keys[v_n], p_values[v_n],
            (select coalesce(array_agg(array[p ->> 0, p ->> 1] order by n), '{}')
             from json_array_elements(p_indexes[v_n]::json) with ordinality as a (p, n) having p_indexes[v_n] is not null),
            p_is_index[v_n], to_timestamp(0) + p_created[v_n] * interval '1 microsecond',
            to_timestamp(0) + p_updated[v_n] * interval '1 microsecond', v_known);
    end loop;
    if random() < 0.1 then
        perform public.kv_prune_log();
    end if;
    return to_json(v_done)::text;
end
$$;
comment on function public.kv_import(uuid, text[], text[], text[], boolean[], bigint[], bigint[]) is
    'Imports entries with distinct keys, all or none. A value is JSON text (null: the source has no such entry any more), indexes are [["key","member"],...] as JSON text (null: leave what the row has), times are microseconds since 1970 (null: now). The answer says of each: written, same (nothing to do), removed, absent, live (somebody else wrote it: left alone), deleted (a caller deleted it: left so).';
revoke all on function public.kv_import(uuid, text[], text[], text[], boolean[], bigint[], bigint[]) from public, anon, authenticated;
grant execute on function public.kv_import(uuid, text[], text[], text[], boolean[], bigint[], bigint[]) to service_role;

create function public.kv_import_states(p_keys text[]) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (
        select coalesce(json_agg(case
            when s.key is null and i.deleted then 'deleted'
            when s.key is null then 'absent'
            when s.revision = i.revision then 'imported'
            else 'live' end order by n), '[]')::text
        from unnest(p_keys) with ordinality as t (k, n)
            left join public.kv_store as s on s.key = k
            left join kv.import as i on i.key = k);
end
$$;
comment on function public.kv_import_states(text[]) is 'What became of keys: imported (and unchanged since), live, deleted, absent.';
revoke all on function public.kv_import_states(text[]) from public, anon, authenticated;
grant execute on function public.kv_import_states(text[]) to service_role;

create function public.kv_import_status() returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return json_build_object(
        'lineage', kv.database_id(),
        'run', (select run from kv.migration),
        'opened_at', (select opened_at from kv.migration),
        'at_work', exists (select from kv.migration where held_until > clock_timestamp()),
        'entries', (select count(*) from public.kv_store),
        'imported', (select count(*) from kv.import as i join public.kv_store as s using (key) where s.revision = i.revision),
        'deleted', (select count(*) from kv.import where deleted),
        'outbox', (select count(*) from kv.outbox))::text;
end
$$;
comment on function public.kv_import_status() is 'Where the migration is, with counts of entries, of those that are as they were imported, of deletes since it was opened, and of traces in the outbox.';
revoke all on function public.kv_import_status() from public, anon, authenticated;
grant execute on function public.kv_import_status() to service_role;

create function public.kv_import_left_after(p_index_key text, p_member text, p_limit integer) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (
        select coalesce(json_agg(json_build_array(index_key, member) order by index_key, member), '[]')::text
        from (
            select index_key, member from kv.import_left as l
            where (index_key, member) > (p_index_key collate "C", p_member collate "C")
                and not exists (select from kv.posting as p where p.index_key = l.index_key and p.member = l.member)
            order by index_key, member limit p_limit) as page);
end
$$;
comment on function public.kv_import_left_after(text, text, integer) is 'The members of kv.import_left after one that no entry has now, in order: [["key","member"],...].';
revoke all on function public.kv_import_left_after(text, text, integer) from public, anon, authenticated;
grant execute on function public.kv_import_left_after(text, text, integer) to service_role;

create function kv.digest_pairs(p_pairs text[]) returns text
    language plpgsql immutable security invoker set search_path = ''
as $$
begin
    return encode(sha256(convert_to(coalesce((
        select string_agg(concat(octet_length(index_key), ':', index_key, octet_length(member), ':', member), ''
            order by index_key collate "C", member collate "C")
        from (select distinct index_key, member from kv.pairs(p_pairs)) as p), ''), 'UTF8')), 'hex');
end
$$;
comment on function kv.digest_pairs(text[]) is 'SHA-256 of the pairs in order, each as <bytes>:<key><bytes>:<member>.';

-- Of each key: what a reader of it gets, and whether queries find it.
create function public.kv_digests_of(p_keys text[]) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return (
        select coalesce(json_agg(json_build_object(
            'key', s.key,
            'value', encode(sha256(convert_to(case when s.is_index then kv.index_value(s.key, s.value::text) else s.value::text end, 'UTF8')), 'hex'),
            'indexes', kv.digest_pairs(s.index_pairs),
            'unposted', case when s.index_pairs = '{}' then 0 else (
                -- With limit, each is a look into the index: not exists would be planned as a join that reads the whole table.
                select count(*) from kv.postings_of(s.index_pairs) as p
                where (select true from kv.posting as q
                       where q.index_key = p.index_key and q.member = p.member and q.key = s.key limit 1) is null) end,
            'document', s.is_index or not s.replaced,
            'search', s.is_index or s.search is not null) order by s.key), '[]')::text
        from public.kv_store as s where s.key = any (p_keys));
end
$$;
comment on function public.kv_digests_of(text[]) is 'SHA-256 of the values and of the indexes of the keys that exist, and how many postings lack.';
revoke all on function public.kv_digests_of(text[]) from public, anon, authenticated;
grant execute on function public.kv_digests_of(text[]) to service_role;

create function public.kv_digests(p_after text, p_limit integer) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return public.kv_digests_of(array(select key from public.kv_store where key > p_after order by key limit p_limit));
end
$$;
comment on function public.kv_digests(text, integer) is 'kv_digests_of the entries after a key, in key order.';
revoke all on function public.kv_digests(text, integer) from public, anon, authenticated;
grant execute on function public.kv_digests(text, integer) to service_role;

create function public.kv_stray_postings() returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return (
        select count(*) from kv.posting as p
        where not exists (
            select from public.kv_store as s, kv.postings_of(s.index_pairs) as q
            where s.key = p.key and q.index_key = p.index_key and q.member = p.member))::text;
end
$$;
comment on function public.kv_stray_postings() is 'How many postings there are that no entry''s indexes have.';
revoke all on function public.kv_stray_postings() from public, anon, authenticated;
grant execute on function public.kv_stray_postings() to service_role;
