-- Writes to two stores. Each leaves an outbox entry, until its copy in the other store is confirmed.

create table kv.outbox (
    id            bigint generated always as identity,
    key           text collate "C" not null,
    primary_store text not null,
    at            timestamptz not null default clock_timestamp(),
    request       uuid,
    constraint outbox_pkey primary key (id),
    constraint outbox_primary_store check (primary_store in ('blobs', 'supabase'))
);
comment on table kv.outbox is 'One row for each write whose copy in the other store is not confirmed. The write''s transaction adds it, and the confirmation removes it. A repair copies what is left.';
comment on column kv.outbox.primary_store is 'The store that was written first; the other one may lack the write.';

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
comment on function kv.database_id() is 'Identifies what row revisions can be compared in: the cluster, its timeline and the table.';

-- A new member changes an index entry without a write of its row, so the number of members counts, too. While the row stays,
-- members are only added.
create function kv.row_revision(p_key text) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return coalesce((
        select kv.database_id() || '.' || s.revision || '.'
            || case when s.is_index then (select count(*) from kv.member as m where m.index_key = s.key) else 0 end
        from public.kv_store as s where s.key = p_key and kv.is_live(s.expires_at)), '');
end
$$;
comment on function kv.row_revision(text) is 'The state of an entry: "<database>.<revision>.<members>" (RowRevision in pkg/kv), which grows within a database. Empty where there is no entry.';

-- Copies of an index entry compare the row alone: whoever adds a member copies it. With the members, other callers could overtake a
-- copy again and again.
create function kv.without_member_count(p_revision text) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return regexp_replace(p_revision, '[.][0-9]+$', '');
end
$$;
comment on function kv.without_member_count(text) is 'A row revision without the number of members.';

create function kv.mirror_state(p_key text) returns json
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return coalesce((
        select json_build_object(
            'key', kv.bare_key(s.key), 'revision', kv.row_revision(s.key),
            'value', case when s.is_index then kv.index_value(s.key, s.value::text) else s.value::text end,
            'data', replace(encode(s.data, 'base64'), E'\n', ''), 'content_type', s.content_type, 'metadata', s.metadata::text,
            'expires', (extract(epoch from s.expires_at) * 1000000)::bigint,
            'indexes', to_json(s.index_pairs), 'is_index', s.is_index,
            'created', (extract(epoch from s.created_at) * 1000000)::bigint, 'updated', (extract(epoch from s.updated_at) * 1000000)::bigint)
        from public.kv_store as s where s.key = p_key and kv.is_live(s.expires_at)), json_build_object('key', kv.bare_key(p_key), 'revision', ''));
end
$$;
comment on function kv.mirror_state(text) is 'An entry for the other store or a backup. The value is a JSON string, which keeps every byte of its text, or data the base64 of bytes that are not JSON.';

create function public.kv_mirror_states(p_keys text[]) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (select coalesce(json_agg(kv.mirror_state(k) order by n), '[]')::text from unnest(p_keys) with ordinality as t (k, n));
end
$$;
comment on function public.kv_mirror_states(text[]) is '[kv.mirror_state,...] for the keys.';
revoke all on function public.kv_mirror_states(text[]) from public, anon, authenticated;
grant execute on function public.kv_mirror_states(text[]) to service_role;

-- A write that commits after this check has an outbox entry of its own.
create function public.kv_mirror_done(p_id bigint, p_key text, p_revision text) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if kv.without_member_count(kv.row_revision(p_key)) = kv.without_member_count(p_revision) then
        delete from kv.outbox where id = p_id;
        return '';
    end if;
    return kv.mirror_state(p_key)::text;
end
$$;
comment on function public.kv_mirror_done(bigint, text, text) is
    'Confirms a copy of an entry in Blobs. If the row is still of p_revision, the outbox entry goes and the response is empty. Otherwise the response is kv.mirror_state.';
revoke all on function public.kv_mirror_done(bigint, text, text) from public, anon, authenticated;
grant execute on function public.kv_mirror_done(bigint, text, text) to service_role;

create function public.kv_mirror_begin(p_keys text[], p_request uuid) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(p_request::text, 0));
    if not exists (select from kv.outbox where request = p_request) then
        insert into kv.outbox (key, primary_store, request) select k, 'blobs', p_request from unnest(p_keys) as k;
    end if;
    return (select coalesce(json_agg(json_build_object('id', id, 'key', key, 'revision', kv.row_revision(key)) order by id), '[]')::text
            from kv.outbox where request = p_request);
end
$$;
comment on function public.kv_mirror_begin(text[], uuid) is 'Adds outbox entries for keys that are about to be written in Blobs: [{"id","key","revision"},...], with the revisions of the entries here.';
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
comment on function public.kv_mirror_forget(bigint[]) is 'Removes outbox entries whose copies are confirmed.';
revoke all on function public.kv_mirror_forget(bigint[]) from public, anon, authenticated;
grant execute on function public.kv_mirror_forget(bigint[]) to service_role;

create function public.kv_mirror_outbox(p_after bigint, p_limit integer) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (select coalesce(json_agg(json_build_object('id', o.id, 'key', o.key, 'primary', o.primary_store, 'revision', kv.row_revision(o.key)) order by o.id), '[]')::text
            from (select id, key, primary_store from kv.outbox where id > p_after order by id limit p_limit) as o);
end
$$;
comment on function public.kv_mirror_outbox(bigint, integer) is 'Outbox entries after an id, from the oldest: [{"id","key","primary","revision"},...].';
revoke all on function public.kv_mirror_outbox(bigint, integer) from public, anon, authenticated;
grant execute on function public.kv_mirror_outbox(bigint, integer) to service_role;

create function public.kv_mirror_copy(
    p_key          text,
    p_expected     text,
    p_value        text,
    p_indexes      text[],
    p_is_index     boolean,
    p_add          boolean,
    p_created      bigint,
    p_updated      bigint,
    p_request      uuid,
    p_data         text default null,
    p_content_type text default null,
    p_metadata     text default null,
    p_expires      bigint default null
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_value    json := p_value::json;
    v_data     bytea := decode(p_data, 'base64');
    v_gone     boolean := p_value is null and p_data is null;
    v_expires  timestamptz := to_timestamp(0) + p_expires * interval '1 microsecond';
    v_expired  boolean;
    v_created  timestamptz := to_timestamp(0) + p_created * interval '1 microsecond';
    v_updated  timestamptz := to_timestamp(0) + p_updated * interval '1 microsecond';
    v_is_index boolean;
    v_revision text;
    v_members  text[]; -- of the copy, if it is one of an index entry
    v_add      boolean;
begin
    if kv.begin_request(p_request) is not null then
        return json_build_object('applied', true, 'revision', kv.row_revision(p_key))::text;
    end if;
    if v_gone then
        perform kv.lock_import_key(p_key);
    end if;
    select is_index, expires_at <= clock_timestamp() into v_is_index, v_expired from public.kv_store where key = p_key for update;
    if v_expired then
        delete from public.kv_store where key = p_key;
        v_is_index := null;
    elsif v_is_index then
        perform kv.lock_members(p_key);
    end if;
    v_revision := kv.row_revision(p_key);
    if p_is_index or v_is_index or exists (select from kv.posting where index_key = p_key) then
        v_members := kv.parse_members(p_value);
    end if;
    v_add := coalesce(p_add and v_is_index, false) and v_members is not null;
    if v_revision <> p_expected and not (v_add and kv.without_member_count(v_revision) = kv.without_member_count(p_expected)) then
        return json_build_object('applied', false, 'revision', v_revision)::text;
    end if;

    if v_gone then
        perform kv.mark_deleted(p_key);
        delete from public.kv_store where key = p_key;
    elsif v_add then
        perform kv.add_members(p_key, v_members);
    elsif p_expected = '' then
        insert into public.kv_store (key, value, data, content_type, metadata, expires_at, index_pairs, is_index, created_at, updated_at)
        values (p_key, case when v_members is null then v_value else '[]' end, v_data, p_content_type, p_metadata::json, v_expires,
            coalesce(p_indexes, '{}'), v_members is not null, coalesce(v_created, clock_timestamp()), coalesce(v_updated, clock_timestamp()))
        on conflict do nothing;
        if not found then -- another call has created the entry meanwhile
            return json_build_object('applied', false, 'revision', kv.row_revision(p_key))::text;
        end if;
    elsif v_members is null then
        update public.kv_store
        set value = v_value, data = v_data, content_type = p_content_type, metadata = p_metadata::json, expires_at = v_expires,
            index_pairs = coalesce(p_indexes, index_pairs), created_at = coalesce(v_created, created_at),
            updated_at = coalesce(v_updated, updated_at)
        where key = p_key;
    else -- in two steps, since a new value ends the members of an index entry (kv.clear_index)
        update public.kv_store set value = '[]', data = null where key = p_key and (not is_index or value::text <> '[]');
        update public.kv_store
        set is_index = true, auto_created = false, content_type = p_content_type, metadata = p_metadata::json, expires_at = v_expires,
            index_pairs = coalesce(p_indexes, index_pairs),
            created_at = coalesce(v_created, created_at), updated_at = coalesce(v_updated, updated_at)
        where key = p_key;
    end if;
    if v_members is not null and not v_add then
        perform kv.set_members(p_key, v_members);
    end if;
    return json_build_object('applied', true, 'revision', kv.row_revision(p_key))::text;
end
$$;
comment on function public.kv_mirror_copy(text, text, text, text[], boolean, boolean, bigint, bigint, uuid, text, text, text, bigint) is
    'Copies an entry from Blobs (p_value and p_data, which is the base64 of bytes that are not JSON, null: no entry), if it is still of the revision p_expected. With p_add, members were added there: the copy adds those that are missing here, and further members may have been added here since.';
revoke all on function public.kv_mirror_copy(text, text, text, text[], boolean, boolean, bigint, bigint, uuid, text, text, text, bigint) from public, anon, authenticated;
grant execute on function public.kv_mirror_copy(text, text, text, text[], boolean, boolean, bigint, bigint, uuid, text, text, text, bigint) to service_role;
