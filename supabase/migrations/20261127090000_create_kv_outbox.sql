-- Two stores side by side: what orders the writes of one key, and the trace of a write that the other store may lack.
--
-- The stamp does not order them: a transaction that began earlier may get the row's lock later. So a row has a version,
-- which is taken while its lock is held. It costs no rewrite of the table: rows that nobody has written since have 0.

create sequence public.kv_store_version;
revoke all on sequence public.kv_store_version from anon, authenticated;
grant all on sequence public.kv_store_version to service_role;

alter table public.kv_store add column version bigint not null default 0;
comment on column public.kv_store.version is 'Grows with every write of the row, also after the row was deleted and written anew; 0: not written since there are versions.';

-- The lock of a row that is there is held when the triggers before an update run. An insert, and an update that gives a row another
-- key, have no lock yet: either may wait for whoever else is writing the key, and meanwhile the entry that was there may be written
-- once more, and deleted. So a version says, in its last bits, how many deletes there had been when it was taken. Where it is another
-- number once the row is in the table, the row takes a new version: nobody else can write the key until this transaction ends.
create sequence public.kv_store_deletes;
revoke all on sequence public.kv_store_deletes from anon, authenticated;
grant all on sequence public.kv_store_deletes to service_role;

-- Inlined. pg_sequence_last_value is null before the first delete.
create function public.kv_deletes() returns bigint
    language sql volatile security invoker
as $$
    select coalesce(pg_catalog.pg_sequence_last_value('public.kv_store_deletes'::pg_catalog.regclass), 0) & 1048575
$$;
comment on function public.kv_deletes() is 'How many statements have deleted entries, or given them other keys, modulo 2^20.';

create function public.kv_store_count_version() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    new.version := public.kv_deletes(); -- before the number: a delete in between counts as later
    new.version := (nextval('public.kv_store_version') << 20) + new.version;
    return new;
end
$$;
create trigger kv_store_version before insert or update on public.kv_store -- after kv_store_derive, by name
    for each row execute function public.kv_store_count_version();

create function public.kv_store_count_delete() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    perform nextval('public.kv_store_deletes');
    return null;
end
$$;
create trigger kv_store_count_delete after delete on public.kv_store
    for each statement execute function public.kv_store_count_delete();
create trigger kv_store_count_rename after update of key on public.kv_store
    for each statement execute function public.kv_store_count_delete();

create function public.kv_store_count_again() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    update public.kv_store set version = 0 where key = new.key; -- any other one, which also tells kv_store_derive
    return null;
end
$$;
create trigger kv_store_count_inserted after insert on public.kv_store
    for each row when ((new.version & 1048575) <> public.kv_deletes()) execute function public.kv_store_count_again();
create trigger kv_store_count_renamed after update of key on public.kv_store
    for each row when (new.key <> old.key and (new.version & 1048575) <> public.kv_deletes()) execute function public.kv_store_count_again();

create table public.kv_outbox (
    id      bigint generated always as identity,
    key     text collate "C" not null,
    first   text not null,
    at      timestamptz not null default clock_timestamp(),
    request uuid,
    constraint kv_outbox_pkey primary key (id),
    constraint kv_outbox_first check (first in ('blobs', 'supabase'))
);
comment on table public.kv_outbox is 'One row for each write whose copy in the other store is not confirmed: written in the same transaction, removed when the copy is there. What stays is for migrate-kv-store repair.';
comment on column public.kv_outbox.first is 'The store that was written and answered; the other one may lack the write.';
create index kv_outbox_request on public.kv_outbox (request) where request is not null;
alter table public.kv_outbox enable row level security;
revoke all on table public.kv_outbox from anon, authenticated;
revoke all on sequence public.kv_outbox_id_seq from anon, authenticated;
grant all on table public.kv_outbox to service_role;
grant all on sequence public.kv_outbox_id_seq to service_role;

create function public.kv_lineage() returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (select left(md5(concat_ws('/', s.system_identifier, c.timeline_id, 'public.kv_store'::regclass::oid)), 8)
            from pg_control_system() as s, pg_control_checkpoint() as c);
end
$$;
comment on function public.kv_lineage() is 'Tells databases apart whose versions cannot be compared: another cluster, another timeline, a table made anew.';

-- An index entry changes without a write of its row, when members are added: their number counts too. They are only ever
-- added while the row's version stays.
create function public.kv_token(p_key text) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return coalesce((
        select public.kv_lineage() || '.' || s.version || '.'
            || case when s.is_index then (select count(*) from public.kv_member as m where m.index_key = s.key) else 0 end
        from public.kv_store as s where s.key = p_key), '');
end
$$;
comment on function public.kv_token(text) is 'What an entry is like: "<lineage>.<version>.<members>", growing within a lineage; empty where there is no entry.';

create function public.kv_mirror_state(p_key text) returns json
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return coalesce((
        select json_build_object(
            'key', s.key, 'token', public.kv_token(s.key),
            'value', case when s.is_index then public.kv_index_value(s.key, s.value::text) else s.value::text end,
            'indexes', to_json(s.index_pairs), 'is_index', s.is_index,
            'created', (extract(epoch from s.created_at) * 1000000)::bigint, 'updated', (extract(epoch from s.updated_at) * 1000000)::bigint)
        from public.kv_store as s where s.key = p_key), json_build_object('key', p_key, 'token', ''));
end
$$;
comment on function public.kv_mirror_state(text) is 'An entry as the other store is to have it. The value is a JSON string, which keeps every byte of its text.';

create function public.kv_mirror_states(p_keys text[]) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (select coalesce(json_agg(public.kv_mirror_state(k) order by n), '[]')::text from unnest(p_keys) with ordinality as t (k, n));
end
$$;
comment on function public.kv_mirror_states(text[]) is '[kv_mirror_state,...] of the keys.';

-- Supabase first. The trace goes when the entry is still what was copied; else the answer is what it is now. The check and the
-- removal are one statement's snapshot: a write that commits after it has a trace of its own.
create function public.kv_mirror_done(p_id bigint, p_key text, p_token text) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if public.kv_token(p_key) = p_token then
        delete from public.kv_outbox where id = p_id;
        return '';
    end if;
    return public.kv_mirror_state(p_key)::text;
end
$$;
comment on function public.kv_mirror_done(bigint, text, text) is 'Removes the trace if the entry is what the token says: then the answer is empty. Else it is kv_mirror_state.';

-- Blobs first: the traces of what is about to be written there, and what the entries are here.
create function public.kv_mirror_begin(p_keys text[], p_request uuid) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(p_request::text, 0));
    if not exists (select from public.kv_outbox where request = p_request) then
        insert into public.kv_outbox (key, first, request) select k, 'blobs', p_request from unnest(p_keys) as k;
    end if;
    return (select coalesce(json_agg(json_build_object('id', id, 'key', key, 'token', public.kv_token(key)) order by id), '[]')::text
            from public.kv_outbox where request = p_request);
end
$$;
comment on function public.kv_mirror_begin(text[], uuid) is 'Leaves a trace for each key; the answer is [{"id","key","token"},...].';

create function public.kv_mirror_forget(p_ids bigint[]) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    delete from public.kv_outbox where id = any (p_ids);
    return '';
end
$$;
comment on function public.kv_mirror_forget(bigint[]) is 'Removes traces: the copies are there.';

create function public.kv_traces(p_after bigint, p_limit integer) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (select coalesce(json_agg(json_build_object('id', o.id, 'key', o.key, 'first', o.first, 'token', public.kv_token(o.key)) order by o.id), '[]')::text
            from (select id, key, first from public.kv_outbox where id > p_after order by id limit p_limit) as o);
end
$$;
comment on function public.kv_traces(bigint, integer) is 'The traces that are left, from the oldest: [{"id","key","first","token"},...].';

create function public.kv_set_members(p_key text, p_members text[]) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_kept bigint;
    v_base bigint;
begin
    -- not in (select …), here and below: it is hashed. <> all (array) compares each member with each, which took 5 s for 10,000.
    delete from public.kv_member where index_key = p_key and member not in (select unnest(p_members));
    -- What is there keeps its place if it is the beginning of the new list; else everything is numbered anew.
    select count(*) into v_kept from public.kv_member where index_key = p_key;
    if p_members[1:v_kept] is distinct from
        coalesce((select array_agg(member order by position, member) from public.kv_member where index_key = p_key), '{}')
    then
        delete from public.kv_member where index_key = p_key;
        v_kept := 0;
    end if;
    for v_first in 0 .. (cardinality(p_members) - v_kept - 1) / 1000 loop -- a sequence value has room for 1,024
        v_base := nextval('public.kv_member_position');
        insert into public.kv_member (index_key, member, position)
        select p_key, member, v_base + n
        from unnest(p_members[v_kept + v_first * 1000 + 1 : v_kept + (v_first + 1) * 1000]) with ordinality as m (member, n)
        order by member
        on conflict do nothing;
    end loop;
end
$$;
comment on function public.kv_set_members(text, text[]) is 'Makes the members of an index entry these, in this order. The caller holds the entry''s row.';

create function public.kv_add_members(p_key text, p_members text[]) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    -- One by one, each with a place of its own: some are added at a time, in the order of the list.
    insert into public.kv_member (index_key, member, position)
    select p_key, member, nextval('public.kv_member_position')
    from (
        select member, n from unnest(p_members) with ordinality as m (member, n)
        where member not in (
            select member from public.kv_member where index_key = p_key
            union all
            select public.kv_array_members(value) from public.kv_store where key = p_key)
        order by n
    ) as added
    on conflict do nothing;
end
$$;
comment on function public.kv_add_members(text, text[]) is 'Adds to an index entry the members that it does not have, in this order. The caller holds the entry''s row.';

create function public.kv_members_of(p_value text) returns text[]
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_document jsonb := public.kv_document(p_value::json);
    v_members  text[];
begin
    if jsonb_typeof(v_document) <> 'array' or v_document is null then
        return null;
    elsif p_value = '[]' then
        return '{}'::text[];
    end if;
    select array_agg(member order by n) into v_members
    from (select public.kv_json_member(e) as member, n from json_array_elements(p_value::json) with ordinality as a (e, n)) as elements
    having bool_and(octet_length(member) between 1 and 1024) and count(distinct member) = count(*)
       and '[' || string_agg(public.kv_member_json(member), ',' order by n) || ']' = p_value;
    return v_members;
end
$$;
comment on function public.kv_members_of(text) is 'The members whose index entry reads exactly so; null where no members would.';

create function public.kv_mirror_copy(
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
        perform from public.kv_store where key = p_key for update;
        if public.kv_token(p_key) <> p_expected then
            return json_build_object('applied', false, 'token', public.kv_token(p_key))::text;
        end if;
        if v_value is null then
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
                set is_index = true, index_pairs = coalesce(p_indexes, index_pairs), created_at = coalesce(v_created, created_at),
                    updated_at = coalesce(v_updated, updated_at)
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
comment on function public.kv_mirror_copy(text, text, text, text[], boolean, boolean, bigint, bigint, uuid) is
    'Makes an entry what the other store has (p_value null: no entry), if it is still what p_expected, a token, says. p_add: members were added there, and those that only are here stay.';

drop function public.kv_upsert(text, text, text[], uuid);
create function public.kv_upsert(
    p_key     text,
    p_value   text,
    p_indexes text[] default null,
    p_request uuid default null,
    p_mirror  boolean default false
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_value  json := p_value::json;
    v_stamp  xid8 := public.kv_begin_request(p_request);
    v_key    text;
    v_arrays text[] := '{}'::text[];
    v_grown  text[];
    v_base   bigint;
begin
    if v_stamp is null then
        if exists (select from public.kv_pairs(p_indexes) where index_key = p_key) then
            raise exception using errcode = 'PT400', message = 'an entry cannot be one of its own indexes';
        end if;

        for v_key in
            select distinct k collate "C" from (
                select p_key as k union all select index_key from public.kv_pairs(p_indexes)) as touched
            order by 1
        loop
            if v_key <> p_key then
                if public.kv_hold_index(v_key) then
                    v_arrays := v_arrays || v_key;
                end if;
                continue;
            end if;
            -- Update first: insert … on conflict would derive the document twice.
            update public.kv_store
            set value = v_value, index_pairs = coalesce(p_indexes, index_pairs)
            where key = p_key;
            if not found then
                insert into public.kv_store (key, value, index_pairs) values (p_key, v_value, coalesce(p_indexes, '{}'))
                on conflict (key) do update
                set value = excluded.value, index_pairs = coalesce(p_indexes, public.kv_store.index_pairs);
            end if;
        end loop;

        if p_indexes <> '{}' then
            v_base := nextval('public.kv_member_position');
            with stored as materialized ( -- each array is read once, however many members come
                select s.key, member
                from public.kv_store as s, public.kv_array_members(s.value) as member
                where s.key = any (v_arrays)
            ), added as (
                insert into public.kv_member (index_key, member, position)
                select a.index_key, a.member, v_base + min(a.ordinal)
                from public.kv_pairs(p_indexes) as a
                where not exists (select from stored as s where s.key = a.index_key and s.member = a.member)
                group by a.index_key, a.member
                order by a.index_key, a.member
                on conflict do nothing
                returning index_key
            )
            select array_agg(distinct index_key) into v_grown from added;
        end if;

        if p_mirror then
            insert into public.kv_outbox (key, first, request) select k, 'supabase', p_request from unnest(p_key || v_grown) as k;
        end if;
        v_stamp := pg_current_xact_id();
        if random() < 0.01 then
            perform public.kv_prune_log();
        end if;
    end if;
    return public.kv_written(v_stamp, null, p_request, p_mirror);
end
$$;
comment on function public.kv_upsert(text, text, text[], uuid, boolean) is
    'Creates or replaces an entry. p_value is JSON text, kept as it is; p_indexes is {{key,member},...}: null leaves the entry''s indexes, {} clears them. A request with the same p_request is applied once, however often it arrives. p_mirror leaves a trace of every key that changes.';

create function public.kv_written(p_stamp xid8, p_deleted boolean, p_request uuid, p_mirror boolean) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    if not p_mirror then
        return json_strip_nulls(json_build_object('deleted', p_deleted, 'version', public.kv_version(p_stamp)))::text;
    end if;
    return json_strip_nulls(json_build_object('deleted', p_deleted, 'version', public.kv_version(p_stamp), 'outbox', (
        select json_agg(json_build_object('id', id, 'key', key) order by id) from public.kv_outbox where request = p_request)))::text;
end
$$;
comment on function public.kv_written(xid8, boolean, uuid, boolean) is 'The answer to a write.';

drop function public.kv_delete(text, uuid);
create function public.kv_delete(p_key text, p_request uuid default null, p_mirror boolean default false)
    returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_stamp   xid8 := public.kv_begin_request(p_request);
    v_deleted boolean := v_stamp is not null;
begin
    if v_stamp is null then
        delete from public.kv_store where key = p_key;
        v_deleted := found;
        if p_mirror then -- also where there was no entry: the other store may have one
            insert into public.kv_outbox (key, first, request) values (p_key, 'supabase', p_request);
        end if;
        v_stamp := pg_current_xact_id();
        if random() < 0.01 then
            perform public.kv_prune_log();
        end if;
    end if;
    return public.kv_written(v_stamp, v_deleted, p_request, p_mirror);
end
$$;
comment on function public.kv_delete(text, uuid, boolean) is 'Removes an entry, and the members if it is an index entry; says whether there was one. p_mirror leaves a trace.';

revoke all on function public.kv_store_count_version(), public.kv_deletes(), public.kv_store_count_delete(), public.kv_store_count_again(), public.kv_lineage(), public.kv_token(text), public.kv_mirror_state(text),
    public.kv_mirror_states(text[]), public.kv_mirror_done(bigint, text, text), public.kv_mirror_begin(text[], uuid),
    public.kv_mirror_forget(bigint[]), public.kv_traces(bigint, integer), public.kv_set_members(text, text[]), public.kv_add_members(text, text[]), public.kv_members_of(text),
    public.kv_mirror_copy(text, text, text, text[], boolean, boolean, bigint, bigint, uuid), public.kv_written(xid8, boolean, uuid, boolean),
    public.kv_upsert(text, text, text[], uuid, boolean), public.kv_delete(text, uuid, boolean)
    from public, anon, authenticated;
grant execute on function public.kv_store_count_version(), public.kv_deletes(), public.kv_store_count_delete(), public.kv_store_count_again(), public.kv_lineage(), public.kv_token(text), public.kv_mirror_state(text),
    public.kv_mirror_states(text[]), public.kv_mirror_done(bigint, text, text), public.kv_mirror_begin(text[], uuid),
    public.kv_mirror_forget(bigint[]), public.kv_traces(bigint, integer), public.kv_set_members(text, text[]), public.kv_add_members(text, text[]), public.kv_members_of(text),
    public.kv_mirror_copy(text, text, text, text[], boolean, boolean, bigint, bigint, uuid), public.kv_written(xid8, boolean, uuid, boolean),
    public.kv_upsert(text, text, text[], uuid, boolean), public.kv_delete(text, uuid, boolean)
    to service_role;

notify pgrst, 'reload schema';
