-- Writes to two stores: an outbox entry for each write that the other store may lack, and what copies need to know of an entry.

create table kv.outbox (
    id      bigint generated always as identity,
    key     text collate "C" not null,
    primary_store text not null,
    at      timestamptz not null default clock_timestamp(),
    request uuid,
    constraint outbox_pkey primary key (id),
    constraint outbox_primary_store check (primary_store in ('blobs', 'supabase'))
);
comment on table kv.outbox is 'One row for each write whose copy in the other store is not confirmed: written in the same transaction, removed when the copy is there. What stays is for migrate-kv-store repair.';
comment on column kv.outbox.primary_store is 'The store that was written and answered; the other one may lack the write.';

create index outbox_request on kv.outbox (request) where request is not null;
alter table kv.outbox enable row level security;

create function kv.database_id() returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (select left(md5(concat_ws('/', s.system_identifier, c.timeline_id, 'public.kv_store'::regclass::oid)), 8)
            from pg_control_system() as s, pg_control_checkpoint() as c);
end
$$;
comment on function kv.database_id() is 'Tells databases apart whose versions cannot be compared: another cluster, another timeline, a table made anew.';

-- An index entry changes without a write of its row, when members are added: their number counts too. They are only ever
-- added while the row's version stays.
create function kv.row_revision(p_key text) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return coalesce((
        select kv.database_id() || '.' || s.revision || '.'
            || case when s.is_index then (select count(*) from kv.member as m where m.index_key = s.key) else 0 end
        from public.kv_store as s where s.key = p_key), '');
end
$$;
comment on function kv.row_revision(text) is 'What an entry is like: "<lineage>.<version>.<members>", growing within a lineage; empty where there is no entry.';

-- Copies of an index entry compare the row alone. While the row stays, members are only ever added, and whoever adds one copies
-- it. A comparison to the last member would let other callers overtake a copy again and again.
create function kv.without_member_count(p_token text) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return regexp_replace(p_token, '[.][0-9]+$', '');
end
$$;
comment on function kv.without_member_count(text) is 'What a token says of the row, without the number of members.';

create function kv.mirror_state(p_key text) returns json
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return coalesce((
        select json_build_object(
            'key', s.key, 'token', kv.row_revision(s.key),
            'value', case when s.is_index then kv.index_value(s.key, s.value::text) else s.value::text end,
            'indexes', to_json(s.index_pairs), 'is_index', s.is_index,
            'created', (extract(epoch from s.created_at) * 1000000)::bigint, 'updated', (extract(epoch from s.updated_at) * 1000000)::bigint)
        from public.kv_store as s where s.key = p_key), json_build_object('key', p_key, 'token', ''));
end
$$;
comment on function kv.mirror_state(text) is 'An entry as the other store is to have it. The value is a JSON string, which keeps every byte of its text.';

create function public.kv_mirror_states(p_keys text[]) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (select coalesce(json_agg(kv.mirror_state(k) order by n), '[]')::text from unnest(p_keys) with ordinality as t (k, n));
end
$$;
comment on function public.kv_mirror_states(text[]) is '[kv.mirror_state,...] of the keys.';
revoke all on function public.kv_mirror_states(text[]) from public, anon, authenticated;
grant execute on function public.kv_mirror_states(text[]) to service_role;

-- Supabase first. The trace goes when the entry is still what was copied; else the answer is what it is now. The check and the
-- removal are one statement's snapshot: a write that commits after it has a trace of its own.
create function public.kv_mirror_done(p_id bigint, p_key text, p_token text) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if kv.without_member_count(kv.row_revision(p_key)) = kv.without_member_count(p_token) then
        delete from kv.outbox where id = p_id;
        return '';
    end if;
    return kv.mirror_state(p_key)::text;
end
$$;
comment on function public.kv_mirror_done(bigint, text, text) is
    'Removes the trace if the row is what the token says, and has that many members or more: then the answer is empty. Else it is kv.mirror_state.';
revoke all on function public.kv_mirror_done(bigint, text, text) from public, anon, authenticated;
grant execute on function public.kv_mirror_done(bigint, text, text) to service_role;

-- Blobs first: the traces of what is about to be written there, and what the entries are here.
create function public.kv_mirror_begin(p_keys text[], p_request uuid) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(p_request::text, 0));
    if not exists (select from kv.outbox where request = p_request) then
        insert into kv.outbox (key, primary_store, request) select k, 'blobs', p_request from unnest(p_keys) as k;
    end if;
    return (select coalesce(json_agg(json_build_object('id', id, 'key', key, 'token', kv.row_revision(key)) order by id), '[]')::text
            from kv.outbox where request = p_request);
end
$$;
comment on function public.kv_mirror_begin(text[], uuid) is 'Leaves a trace for each key; the answer is [{"id","key","token"},...].';
revoke all on function public.kv_mirror_begin(text[], uuid) from public, anon, authenticated;
grant execute on function public.kv_mirror_begin(text[], uuid) to service_role;

create function public.kv_mirror_forget(p_ids bigint[]) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    delete from kv.outbox where id = any (p_ids);
    return '';
end
$$;
comment on function public.kv_mirror_forget(bigint[]) is 'Removes traces: the copies are there.';
revoke all on function public.kv_mirror_forget(bigint[]) from public, anon, authenticated;
grant execute on function public.kv_mirror_forget(bigint[]) to service_role;

create function public.kv_mirror_outbox(p_after bigint, p_limit integer) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (select coalesce(json_agg(json_build_object('id', o.id, 'key', o.key, 'primary', o.primary_store, 'token', kv.row_revision(o.key)) order by o.id), '[]')::text
            from (select id, key, primary_store from kv.outbox where id > p_after order by id limit p_limit) as o);
end
$$;
comment on function public.kv_mirror_outbox(bigint, integer) is 'The traces that are left, from the oldest: [{"id","key","first","token"},...].';
revoke all on function public.kv_mirror_outbox(bigint, integer) from public, anon, authenticated;
grant execute on function public.kv_mirror_outbox(bigint, integer) to service_role;

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
    v_done    xid8 := kv.begin_request(p_request);
    v_members text[];
    v_created timestamptz := to_timestamp(0) + p_created * interval '1 microsecond';
    v_updated timestamptz := to_timestamp(0) + p_updated * interval '1 microsecond';
begin
    if v_done is null then
        if v_value is null then
            perform kv.lock_import_key(p_key);
        end if;
        perform from public.kv_store where key = p_key for update;
        if exists (select from public.kv_store where key = p_key and is_index) then
            perform kv.lock_members(p_key);
        end if;
        if kv.row_revision(p_key) <> p_expected
            and not (p_add and kv.without_member_count(kv.row_revision(p_key)) = kv.without_member_count(p_expected)
                and kv.parse_members(p_value) is not null) then
            return json_build_object('applied', false, 'token', kv.row_revision(p_key))::text;
        end if;
        if v_value is null then
            perform kv.mark_deleted(p_key);
            delete from public.kv_store where key = p_key;
        else
            if p_is_index or exists (select from public.kv_store where key = p_key and is_index)
                or exists (select from kv.posting where index_key = p_key) then
                v_members := kv.parse_members(p_value);
            end if;
            if p_add and v_members is not null and exists (select from public.kv_store where key = p_key and is_index) then
                perform kv.add_members(p_key, v_members);
            -- Where another call creates the entry meanwhile, that one wins, and this one is told to look again.
            elsif p_expected = '' then
                insert into public.kv_store (key, value, index_pairs, is_index, created_at, updated_at)
                values (p_key, case when v_members is null then v_value else '[]' end, coalesce(p_indexes, '{}'), v_members is not null,
                    coalesce(v_created, clock_timestamp()), coalesce(v_updated, clock_timestamp()))
                on conflict do nothing;
                if not found then
                    return json_build_object('applied', false, 'token', kv.row_revision(p_key))::text;
                end if;
            elsif v_members is null then
                update public.kv_store
                set value = v_value, index_pairs = coalesce(p_indexes, index_pairs), created_at = coalesce(v_created, created_at),
                    updated_at = coalesce(v_updated, updated_at)
                where key = p_key;
            else
                -- Two steps: writing the value of an index entry ends its members (kv.clear_index).
                update public.kv_store set value = '[]' where key = p_key and (not is_index or value::text <> '[]');
                update public.kv_store
                set is_index = true, auto_created = false, index_pairs = coalesce(p_indexes, index_pairs),
                    created_at = coalesce(v_created, created_at), updated_at = coalesce(v_updated, updated_at)
                where key = p_key;
            end if;
            if v_members is not null and not p_add then
                perform kv.set_members(p_key, v_members);
            elsif v_members is not null then
                perform kv.add_members(p_key, v_members);
            end if;
        end if;
    end if;
    return json_build_object('applied', true, 'token', kv.row_revision(p_key))::text;
end
$$;
comment on function public.kv_mirror_copy(text, text, text, text[], boolean, boolean, bigint, bigint, uuid) is
    'Makes an entry what the other store has (p_value null: no entry), if it is still what p_expected, a token, says. p_add: members were added there, and those that only are here stay; then, where p_value is an array of members, it may have got more of them since.';
revoke all on function public.kv_mirror_copy(text, text, text, text[], boolean, boolean, bigint, bigint, uuid) from public, anon, authenticated;
grant execute on function public.kv_mirror_copy(text, text, text, text[], boolean, boolean, bigint, bigint, uuid) to service_role;
