-- The migration of another store's entries, beside live writes: kv_import never overwrites what anybody else wrote, and never
-- brings back what a caller deleted while a migration is open.
--
-- It knows its own rows by their version, in kv_import. A delete has no row to leave a version in, so it leaves a mark there,
-- under the same lock that kv_import takes first. Order of locks: the keys' rows of kv_import, then those of kv_store, each in
-- byte order. Upserts take only the latter.

alter table public.kv_store add column implicit boolean not null default false;
comment on column public.kv_store.implicit is 'True of an index entry that exists because members were added; nobody has written it itself.';

create table public.kv_migration (
    one        boolean not null default true,
    run        uuid not null,
    session    uuid not null,
    opened_at  timestamptz not null default clock_timestamp(),
    held_until timestamptz not null,
    constraint kv_migration_pkey primary key (one),
    constraint kv_migration_one check (one)
);
comment on table public.kv_migration is 'Its one row is the migration that is open; see kv_import_open and kv_import_close.';
comment on column public.kv_migration.run is 'Who imports: a journal of migrate-kv-store.';
comment on column public.kv_migration.session is 'The process that is at work for the run: what an earlier one sent and is late is refused.';
comment on column public.kv_migration.held_until is 'Until then no other run may take over; prolonged while one is at work.';

create table public.kv_import (
    key     text collate "C" not null,
    version bigint,
    deleted boolean not null default false,
    constraint kv_import_pkey primary key (key)
);
comment on table public.kv_import is 'What a migration has to know of a key, while it is open.';
comment on column public.kv_import.version is 'kv_store.version as kv_import wrote it; a row with another one is somebody else''s.';
comment on column public.kv_import.deleted is 'A caller deleted the entry while the migration was open.';

alter table public.kv_migration enable row level security;
alter table public.kv_import enable row level security;
revoke all on table public.kv_migration, public.kv_import from anon, authenticated;
grant all on table public.kv_migration, public.kv_import to service_role;

-- An index entry is held by an advisory lock on its key: shared by whoever adds members, alone by whoever replaces or deletes it, or makes
-- its members others. Its row, held shared by many, would cost each of them a MultiXact: written to disk, and kept until the table is
-- frozen. The lock comes after the row's: whoever has the row may wait for it, and whoever adds to an index that is there does not touch
-- the row. (0 in place of 1 is for requests: kv_begin_request.)
create function public.kv_lock_members(p_key text) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(p_key, 1));
end
$$;
comment on function public.kv_lock_members(text) is 'Keeps everybody away from the members of an index entry until the transaction ends. The caller holds the entry''s row.';

create or replace function public.kv_store_clear_index() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    perform public.kv_lock_members(old.key);
    new.is_index := false;
    new.implicit := false;
    return new;
end
$$;

create function public.kv_store_lock_members() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    perform public.kv_lock_members(old.key);
    return case when tg_op = 'DELETE' then old else new end;
end
$$;
create trigger kv_store_lock_members_delete before delete on public.kv_store
    for each row when (old.is_index) execute function public.kv_store_lock_members();
create trigger kv_store_lock_members_rename before update of key on public.kv_store
    for each row when (old.is_index and new.key <> old.key) execute function public.kv_store_lock_members();

drop function public.kv_hold_index(text);
create function public.kv_hold_index(p_key text, p_row boolean) returns boolean
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_is_index boolean;
    v_bytes    integer;
begin
    loop
        select is_index into v_is_index from public.kv_store where key = p_key;
        if v_is_index is null then
            insert into public.kv_store (key, value, is_index, implicit) values (p_key, '[]', true, true) on conflict do nothing
            returning bytes into v_bytes;
            exit when found;
        elsif v_is_index then
            if p_row then
                perform from public.kv_store where key = p_key for share;
            else
                perform pg_advisory_xact_lock_shared(hashtextextended(p_key, 1));
            end if;
            select is_index, bytes into v_is_index, v_bytes from public.kv_store where key = p_key;
            exit when v_is_index;
            -- It was replaced or deleted before this had the lock. Two calls that hold it shared could not both have the row as well,
            -- so this one starts over; callers repeat lock_not_available.
            raise exception using errcode = 'lock_not_available', message = 'an index entry is being replaced';
        else
            perform from public.kv_store where key = p_key for no key update;
            update public.kv_store
            set is_index = true, value = case json_typeof(value) when 'array' then value else '[]' end
            where key = p_key and not is_index
            returning bytes into v_bytes;
            exit when found;
        end if;
    end loop;
    return v_bytes > 2; -- []
end
$$;
comment on function public.kv_hold_index(text, boolean) is 'Makes sure that the index entry exists and stays one until the transaction ends, by its row if p_row says so. True when an array is stored there, which may hold members already.';

create function public.kv_hold_import(p_key text) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if exists (select from public.kv_migration) then -- a statement of its own: kv_migration is locked before kv_import
        insert into public.kv_import (key) values (p_key) on conflict (key) do update set key = excluded.key;
    end if;
end
$$;
comment on function public.kv_hold_import(text) is 'While a migration is open: keeps kv_import away from the key until the transaction ends. Before any lock of kv_store.';

create function public.kv_mark_deleted(p_key text) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if exists (select from public.kv_migration) then -- as in kv_hold_import
        insert into public.kv_import (key, deleted) values (p_key, true) on conflict (key) do update set deleted = true;
    end if;
end
$$;
comment on function public.kv_mark_deleted(text) is 'While a migration is open: kv_import will not bring the entry back. Before any lock of kv_store, or after kv_hold_import.';

create or replace function public.kv_mirror_copy(
    p_key      text,
    p_expected text,
    p_value    text,
    p_indexes  text[],
    p_is_index boolean,
    p_add      boolean,
    p_created  bigint,
    p_updated  bigint,
    p_request  uuid
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_value   json := p_value::json;
    v_done    xid8 := public.kv_begin_request(p_request);
    v_members text[];
    v_created timestamptz := to_timestamp(0) + p_created * interval '1 microsecond';
    v_updated timestamptz := to_timestamp(0) + p_updated * interval '1 microsecond';
begin
    if v_done is null then
        if v_value is null then
            perform public.kv_hold_import(p_key);
        end if;
        perform from public.kv_store where key = p_key for update;
        if public.kv_token(p_key) <> p_expected then
            return json_build_object('applied', false, 'token', public.kv_token(p_key))::text;
        end if;
        if v_value is null then
            perform public.kv_mark_deleted(p_key);
            delete from public.kv_store where key = p_key;
        else
            if p_is_index or exists (select from public.kv_store where key = p_key and is_index)
                or exists (select from public.kv_posting where index_key = p_key) then
                v_members := public.kv_members_of(p_value);
            end if;
            if p_add and v_members is not null and exists (select from public.kv_store where key = p_key and is_index) then
                perform public.kv_add_members(p_key, v_members);
            -- Where another call creates the entry meanwhile, that one wins, and this one is told to look again.
            elsif p_expected = '' then
                insert into public.kv_store (key, value, index_pairs, is_index, created_at, updated_at)
                values (p_key, case when v_members is null then v_value else '[]' end, coalesce(p_indexes, '{}'), v_members is not null,
                    coalesce(v_created, clock_timestamp()), coalesce(v_updated, clock_timestamp()))
                on conflict do nothing;
                if not found then
                    return json_build_object('applied', false, 'token', public.kv_token(p_key))::text;
                end if;
            elsif v_members is null then
                update public.kv_store
                set value = v_value, index_pairs = coalesce(p_indexes, index_pairs), created_at = coalesce(v_created, created_at),
                    updated_at = coalesce(v_updated, updated_at)
                where key = p_key;
            else
                -- Two steps: writing the value of an index entry ends its members (kv_store_clear_index).
                update public.kv_store set value = '[]' where key = p_key and (not is_index or value::text <> '[]');
                update public.kv_store
                set is_index = true, implicit = false, index_pairs = coalesce(p_indexes, index_pairs),
                    created_at = coalesce(v_created, created_at), updated_at = coalesce(v_updated, updated_at)
                where key = p_key;
            end if;
            if v_members is not null and not p_add then
                perform public.kv_set_members(p_key, v_members);
            elsif v_members is not null then
                perform public.kv_add_members(p_key, v_members);
            end if;
        end if;
    end if;
    return json_build_object('applied', true, 'token', public.kv_token(p_key))::text;
end
$$;

-- Whoever deletes looks for an open migration, and holds the table until its transaction ends. So when this has its lock, every
-- later delete leaves a mark, and the earlier ones have ended.
create function public.kv_import_open(p_run uuid, p_session uuid) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s'
as $$
declare
    v_open public.kv_migration;
begin
    lock table public.kv_migration in access exclusive mode;
    select * into v_open from public.kv_migration;
    if v_open.run <> p_run and v_open.held_until > clock_timestamp() then
        return ceil(extract(epoch from v_open.held_until - clock_timestamp()))::text;
    end if;
    insert into public.kv_migration (run, session, held_until) values (p_run, p_session, clock_timestamp() + interval '1 minute')
    on conflict (one) do update set run = excluded.run, session = excluded.session, held_until = excluded.held_until;
    return '0';
end
$$;
comment on function public.kv_import_open(uuid, uuid) is 'Opens the migration, or takes it over from a run that no longer holds it: the answer is 0. Where another run is at work: for how many seconds it holds it.';

create function public.kv_import_hold(p_session uuid, p_release boolean default false) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    update public.kv_migration set held_until = clock_timestamp() + case when p_release then interval '0' else interval '1 minute' end
    where session = p_session;
    if not found then
        raise exception using errcode = 'PT409', message = 'another run has taken over the migration, or it was closed';
    end if;
    return (select count(*) from public.kv_outbox
            where first = 'supabase' and at < (select opened_at from public.kv_migration))::text;
end
$$;
comment on function public.kv_import_hold(uuid, boolean) is 'Keeps other runs away for another minute, or lets them in at once. The answer is how many writes from before the migration was opened may not have reached the source.';

create function public.kv_import_close() returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s'
as $$
begin
    lock table public.kv_migration in access exclusive mode;
    if exists (select from public.kv_migration where held_until > clock_timestamp()) then
        raise exception using errcode = 'PT409', message = 'a run of the migration is at work';
    end if;
    delete from public.kv_migration where true; -- without a condition, Supabase refuses it
    truncate public.kv_import;
    return '';
end
$$;
comment on function public.kv_import_close() is 'Ends the migration: what it knew of the keys is forgotten, and deletes leave no mark any more.';

create function public.kv_import_members(p_key text, p_members text[]) returns boolean
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_gone  bigint;
    v_moved bigint;
begin
    delete from public.kv_member as m
    where m.index_key = p_key and m.position < 0 and not exists (select from unnest(p_members) as n (member) where n.member = m.member);
    get diagnostics v_gone = row_count;
    insert into public.kv_member (index_key, member, position)
    select p_key, member, n - (1::bigint << 40)
    from unnest(p_members) with ordinality as m (member, n)
    order by member collate "C"
    on conflict (index_key, member) do update set position = excluded.position
    where public.kv_member.position <> excluded.position;
    get diagnostics v_moved = row_count;
    return v_gone + v_moved > 0;
end
$$;
comment on function public.kv_import_members(text, text[]) is 'Makes these the imported members of an index entry, in this order. Their positions are negative: they come before those that were added live, which stay. The caller holds the entry''s row.';

create function public.kv_import_entry(
    p_key      text,
    p_value    text,
    p_indexes  text[],
    p_is_index boolean,
    p_created  timestamptz,
    p_updated  timestamptz,
    p_known    public.kv_import
) returns text
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_value   json := p_value::json;
    v_members text[];
    v_row     public.kv_store;
    v_version bigint;
    v_changed boolean := true;
begin
    if p_is_index then
        v_members := public.kv_members_of(p_value);
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
        on conflict do nothing returning version into v_version;
        exit when found; -- else another call has made the entry meanwhile, perhaps by adding a member: look at that
    end loop;
    if v_row.is_index then
        perform public.kv_lock_members(p_key);
    end if;
    if v_version is not null then -- it is new, and may have got another version by now: kv_store_count_again
        select version into v_version from public.kv_store where key = p_key;
    elsif v_row.version is distinct from p_known.version and (not v_row.implicit or p_known.deleted) then
        return 'live';
    elsif v_members is null and v_row.is_index and exists (select from public.kv_member where index_key = p_key and position > 0) then
        return 'live';
    elsif v_value is null then
        delete from public.kv_store where key = p_key;
        return 'removed';
    elsif v_members is not null and v_row.is_index then
        -- Without its value, which is [] already: writing that would end its members (kv_store_clear_index).
        update public.kv_store
        set implicit = false, index_pairs = coalesce(p_indexes, index_pairs), created_at = coalesce(p_created, created_at),
            updated_at = coalesce(p_updated, updated_at)
        where key = p_key and (implicit or index_pairs <> p_indexes or created_at <> p_created or updated_at <> p_updated)
        returning version into v_version;
        v_changed := found;
        v_version := coalesce(v_version, v_row.version);
    elsif v_members is not null or v_row.is_index or v_row.value::text <> p_value
        or p_indexes <> v_row.index_pairs or p_created <> v_row.created_at or p_updated <> v_row.updated_at
    then
        update public.kv_store
        set value = case when v_members is null then v_value else '[]' end, is_index = v_members is not null,
            index_pairs = coalesce(p_indexes, index_pairs), created_at = coalesce(p_created, created_at),
            updated_at = coalesce(p_updated, updated_at)
        where key = p_key
        returning version into v_version;
    else
        v_version := v_row.version;
        v_changed := false;
    end if;
    if v_members is not null then
        v_changed := public.kv_import_members(p_key, v_members) or v_changed;
    end if;
    update public.kv_import set version = v_version where key = p_key and version is distinct from v_version;
    return case when v_changed then 'written' else 'same' end;
end
$$;
comment on function public.kv_import_entry(text, text, text[], boolean, timestamptz, timestamptz, public.kv_import) is
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
    v_known  public.kv_import;
    v_n      integer;
    v_done   text[] := array_fill(null::text, array[cardinality(p_keys)]);
begin
    if not exists (select from public.kv_migration where session = p_session) then
        raise exception using errcode = 'PT409', message = 'another run has taken over the migration, or it was closed';
    end if;
    insert into public.kv_import (key) select k from unnest(p_keys) as k order by k collate "C"
    on conflict (key) do update set key = excluded.key;
    for v_n in select n from unnest(p_keys) with ordinality as t (k, n) order by k collate "C" loop
        select * into v_known from public.kv_import where key = p_keys[v_n];
        v_done[v_n] := public.kv_import_entry(p_keys[v_n], p_values[v_n],
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

create function public.kv_import_states(p_keys text[]) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (
        select coalesce(json_agg(case
            when s.key is null and i.deleted then 'deleted'
            when s.key is null then 'absent'
            when s.version = i.version then 'imported'
            else 'live' end order by n), '[]')::text
        from unnest(p_keys) with ordinality as t (k, n)
            left join public.kv_store as s on s.key = k
            left join public.kv_import as i on i.key = k);
end
$$;
comment on function public.kv_import_states(text[]) is 'What became of keys: imported (and unchanged since), live, deleted, absent.';

create function public.kv_import_status() returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return json_build_object(
        'lineage', public.kv_lineage(),
        'run', (select run from public.kv_migration),
        'opened_at', (select opened_at from public.kv_migration),
        'at_work', exists (select from public.kv_migration where held_until > clock_timestamp()),
        'entries', (select count(*) from public.kv_store),
        'imported', (select count(*) from public.kv_import as i join public.kv_store as s using (key) where s.version = i.version),
        'deleted', (select count(*) from public.kv_import where deleted),
        'outbox', (select count(*) from public.kv_outbox))::text;
end
$$;
comment on function public.kv_import_status() is 'Where the migration is, with counts of entries, of those that are as they were imported, of deletes since it was opened, and of traces in the outbox.';

create function public.kv_digest_pairs(p_pairs text[]) returns text
    language plpgsql immutable security invoker set search_path = ''
as $$
begin
    return encode(sha256(convert_to(coalesce((
        select string_agg(concat(octet_length(index_key), ':', index_key, octet_length(member), ':', member), ''
            order by index_key collate "C", member collate "C")
        from (select distinct index_key, member from public.kv_pairs(p_pairs)) as p), ''), 'UTF8')), 'hex');
end
$$;
comment on function public.kv_digest_pairs(text[]) is 'SHA-256 of the pairs in order, each as <bytes>:<key><bytes>:<member>.';

-- Of each key: what a reader of it gets, and whether queries find it.
create function public.kv_digests_of(p_keys text[]) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return (
        select coalesce(json_agg(json_build_object(
            'key', s.key,
            'value', encode(sha256(convert_to(case when s.is_index then public.kv_index_value(s.key, s.value::text) else s.value::text end, 'UTF8')), 'hex'),
            'indexes', public.kv_digest_pairs(s.index_pairs),
            'unposted', case when s.index_pairs = '{}' then 0 else (
                -- With limit, each is a look into the index: not exists would be planned as a join that reads the whole table.
                select count(*) from public.kv_postings_of(s.index_pairs) as p
                where (select true from public.kv_posting as q
                       where q.index_key = p.index_key and q.member = p.member and q.key = s.key limit 1) is null) end,
            'document', s.is_index or not s.replaced,
            'search', s.is_index or s.search is not null) order by s.key), '[]')::text
        from public.kv_store as s where s.key = any (p_keys));
end
$$;
comment on function public.kv_digests_of(text[]) is 'SHA-256 of the values and of the indexes of the keys that exist, and how many postings lack.';

create function public.kv_digests(p_after text, p_limit integer) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return public.kv_digests_of(array(select key from public.kv_store where key > p_after order by key limit p_limit));
end
$$;
comment on function public.kv_digests(text, integer) is 'kv_digests_of the entries after a key, in key order.';

create function public.kv_stray_postings() returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return (
        select count(*) from public.kv_posting as p
        where not exists (
            select from public.kv_store as s, public.kv_postings_of(s.index_pairs) as q
            where s.key = p.key and q.index_key = p.index_key and q.member = p.member))::text;
end
$$;
comment on function public.kv_stray_postings() is 'How many postings there are that no entry''s indexes have.';

revoke all on function public.kv_lock_members(text), public.kv_store_lock_members(), public.kv_hold_index(text, boolean), public.kv_hold_import(text), public.kv_mark_deleted(text), public.kv_import_open(uuid, uuid),
    public.kv_import_hold(uuid, boolean), public.kv_import_close(), public.kv_import_members(text, text[]),
    public.kv_import_entry(text, text, text[], boolean, timestamptz, timestamptz, public.kv_import),
    public.kv_import(uuid, text[], text[], text[], boolean[], bigint[], bigint[]), public.kv_import_states(text[]),
    public.kv_import_status(), public.kv_digest_pairs(text[]), public.kv_digests_of(text[]), public.kv_digests(text, integer),
    public.kv_stray_postings()
    from public, anon, authenticated;
grant execute on function public.kv_lock_members(text), public.kv_store_lock_members(), public.kv_hold_index(text, boolean), public.kv_hold_import(text), public.kv_mark_deleted(text), public.kv_import_open(uuid, uuid),
    public.kv_import_hold(uuid, boolean), public.kv_import_close(), public.kv_import_members(text, text[]),
    public.kv_import_entry(text, text, text[], boolean, timestamptz, timestamptz, public.kv_import),
    public.kv_import(uuid, text[], text[], text[], boolean[], bigint[], bigint[]), public.kv_import_states(text[]),
    public.kv_import_status(), public.kv_digest_pairs(text[]), public.kv_digests_of(text[]), public.kv_digests(text, integer),
    public.kv_stray_postings()
    to service_role;

notify pgrst, 'reload schema';
