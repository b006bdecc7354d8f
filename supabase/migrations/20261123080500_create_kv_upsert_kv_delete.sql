-- The writes, each in one transaction.
--
-- Locks: a transaction touches the rows of {entry key} and {index keys} in one pass in byte order, then the members in
-- (index, member) order. Two transactions can then wait for each other in one direction only. An index entry that is
-- there already is held with a share lock, so that upserts which add to one index do not queue behind each other.
-- Nothing here raises 40001: PostgREST 12.0.2 would repeat such a call for ever.

create function public.kv_array_members(p_array json) returns setof text
    language plpgsql immutable strict security invoker set search_path = ''
as $$
begin
    if public.kv_document(p_array) is not null then
        return query select member from (select public.kv_json_member(e) as member from json_array_elements(p_array) as e) as m where member is not null;
    else -- Postgres can hold most strings, if not all
        return query
            select member from (
                select case json_typeof(e) when 'string' then public.kv_text_member(public.kv_document(e) #>> '{}') else public.kv_json_member(e) end as member
                from json_array_elements(p_array) as e) as m
            where member is not null;
    end if;
end
$$;
comment on function public.kv_array_members(json) is 'The members among an array''s elements.';

create function public.kv_hold_index(p_key text) returns boolean
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_is_index boolean;
    v_bytes    integer;
begin
    loop
        select is_index into v_is_index from public.kv_store where key = p_key;
        if v_is_index is null then
            insert into public.kv_store (key, value, is_index) values (p_key, '[]', true) on conflict do nothing
            returning bytes into v_bytes;
            exit when found;
        elsif v_is_index then
            select is_index, bytes into v_is_index, v_bytes from public.kv_store where key = p_key for share;
            exit when v_is_index;
            if v_is_index is not null then
                -- It was replaced by a plain entry between the two statements. Two calls that hold it shared could not both
                -- turn it back, so this one starts over; callers repeat lock_not_available.
                raise exception using errcode = 'lock_not_available', message = 'an index entry is being replaced';
            end if;
        else
            perform from public.kv_store where key = p_key for no key update;
            update public.kv_store
            set is_index = true, value = case json_typeof(value) when 'array' then value else '[]' end
            where key = p_key and not is_index
            returning bytes into v_bytes;
            exit when found;
        end if;
    end loop;
    return v_bytes > length('[]');
end
$$;
comment on function public.kv_hold_index(text) is 'Makes sure that the index entry exists and stays one until the transaction ends. True when an array is stored there, which may hold members already.';

create function public.kv_version(p_stamp xid8) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return public.kv_epoch() || '.' || p_stamp;
end
$$;
comment on function public.kv_version(xid8) is 'The opaque token of a write: the answer''s X-KV-Version.';

create function public.kv_begin_request(p_request uuid) returns xid8
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if p_request is null then
        return null;
    end if;
    -- Another attempt may be running: whoever comes second waits here until it has ended, and then sees what it wrote.
    perform pg_advisory_xact_lock(hashtextextended(p_request::text, 0));
    perform set_config('kv.request', p_request::text, true);
    return (select stamp from public.kv_log where request = p_request limit 1);
end
$$;
comment on function public.kv_begin_request(uuid) is 'Names the request in the log. Returns the transaction in which it was applied already: sent again after a lost reply, or arriving late; else null.';

create function public.kv_upsert(
    p_key     text,
    p_value   text,
    p_indexes text[] default null,
    p_request uuid default null
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_value  json := p_value::json;
    v_stamp  xid8 := public.kv_begin_request(p_request);
    v_key    text;
    v_arrays text[] := '{}'::text[];
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
            )
            insert into public.kv_member (index_key, member, position)
            select a.index_key, a.member, v_base + min(a.ordinal)
            from public.kv_pairs(p_indexes) as a
            where not exists (select from stored as s where s.key = a.index_key and s.member = a.member)
            group by a.index_key, a.member
            order by a.index_key, a.member
            on conflict do nothing;
        end if;

        v_stamp := pg_current_xact_id();
        if random() < 0.01 then
            perform public.kv_prune_log();
        end if;
    end if;
    return json_build_object('version', public.kv_version(v_stamp))::text;
end
$$;
comment on function public.kv_upsert(text, text, text[], uuid) is
    'Creates or replaces an entry. p_value is JSON text, kept as it is; p_indexes is {{key,member},...}: null leaves the entry''s indexes, {} clears them. A request with the same p_request is applied once, however often it arrives.';

create function public.kv_delete(p_key text, p_request uuid default null)
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
        v_stamp := pg_current_xact_id();
        if random() < 0.01 then
            perform public.kv_prune_log();
        end if;
    end if;
    return json_build_object('deleted', v_deleted, 'version', public.kv_version(v_stamp))::text;
end
$$;
comment on function public.kv_delete(text, uuid) is 'Removes an entry, and the members if it is an index entry; says whether there was one.';

revoke all on function public.kv_array_members(json), public.kv_hold_index(text), public.kv_version(xid8),
    public.kv_begin_request(uuid), public.kv_upsert(text, text, text[], uuid),
    public.kv_delete(text, uuid) from public, anon, authenticated;
grant execute on function public.kv_array_members(json), public.kv_hold_index(text), public.kv_version(xid8),
    public.kv_begin_request(uuid), public.kv_upsert(text, text, text[], uuid),
    public.kv_delete(text, uuid) to service_role;

notify pgrst, 'reload schema';
