-- The writes, each in one transaction.
--
-- Locks: a transaction locks the rows of the entry and of its indexes in one pass in byte order, then adds members in
-- (index, member) order. So two transactions never wait for each other in both directions. Upserts that add to one index
-- share its lock and do not queue. Nothing here raises 40001: PostgREST 12.0.2 would repeat such a call for ever.

create function kv.lock_index(p_key text, p_row boolean, p_convert boolean default true) returns boolean
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_is_index boolean;
    v_bytes    integer;
    v_expires  timestamptz;
    v_expired  boolean;
begin
    loop
        select is_index into v_is_index from public.kv_store where key = p_key;
        if v_is_index is null then
            insert into public.kv_store (key, value, is_index, auto_created) values (p_key, '[]', true, true) on conflict do nothing
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
            -- The entry was replaced or deleted before the lock was held. Calls that share it could not all take the row as well.
            -- Callers repeat lock_not_available.
            raise exception using errcode = 'lock_not_available', message = 'an index entry is being replaced';
        else
            select expires_at into v_expires from public.kv_store where key = p_key and not is_index for no key update;
            continue when not found;
            if not p_convert then
                return null;
            end if;
            v_expired := coalesce(v_expires <= clock_timestamp(), false); -- once the row is held
            update public.kv_store
            set is_index = true, data = null, content_type = null, metadata = null, expires_at = null,
                value = case when json_typeof(value) = 'array' and not v_expired then value else '[]' end,
                auto_created = v_expired, created_at = case when v_expired then clock_timestamp() else created_at end,
                index_pairs = case when v_expired then '{}' else index_pairs end
            where key = p_key
            returning bytes into v_bytes;
            exit;
        end if;
    end loop;
    return v_bytes > 2; -- []
end
$$;
comment on function kv.lock_index(text, boolean, boolean) is 'Makes sure that an index entry exists and stays until the transaction ends: by a lock on its members, or with p_row on its row. True where its value is an array that may hold members. Without p_convert, a plain entry is only locked and stays as it is: null.';

create function kv.begin_request(p_request uuid) returns xid8
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if p_request is null then
        return null;
    end if;
    -- If another attempt is running, this one waits until it has ended, and then sees what it wrote.
    perform pg_advisory_xact_lock(hashtextextended(p_request::text, 0));
    perform set_config('kv.request', p_request::text, true);
    return (select transaction_id from kv.log where request = p_request limit 1);
end
$$;
comment on function kv.begin_request(uuid) is 'Names the request in the log. Returns the transaction that has applied it already, as after a lost reply; otherwise null.';

create function kv.write_response(p_transaction xid8, p_deleted boolean, p_request uuid, p_mirror boolean) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return concat('{', '"deleted":' || p_deleted || ',', '"version":"', kv.boot_id(), '.', p_transaction, '"',
        case when p_mirror then (
            select ',"outbox":' || json_agg(json_build_object('id', id, 'key', key) order by id) from kv.outbox where request = p_request) end,
        '}');
end
$$;
comment on function kv.write_response(xid8, boolean, uuid, boolean) is 'The response to a write. Its version is the X-KV-Version of the endpoints; its outbox are the entries that p_mirror added.';

create function kv.add_index_members(p_arrays text[], p_pairs text[]) returns text[]
    language plpgsql volatile security invoker set search_path = ''
    set enable_seqscan = off -- kv.member has pages of upserts that failed: where few rows are left, a scan for each pair looked cheap
as $$
declare
    c_room    constant integer := 1000; -- a value of the sequence has room for 1,024
    v_members text[] := p_pairs;
    v_bases   bigint[];
begin
    if p_arrays <> '{}' then
        with stored as materialized ( -- each array is read once, however many members come
            select s.key, member
            from public.kv_store as s, kv.array_members(s.value) as member
            where s.key = any (p_arrays)
        )
        select array_agg(array[a.index_key, a.member] order by a.ordinal) into v_members
        from kv.pairs(p_pairs) as a
        -- Hashed once, where "not exists" may be planned as a loop over both.
        where (a.index_key, a.member) not in (select s.key, s.member from stored as s);
    end if;
    if v_members <> '{}' then -- most members have been there for long: a look costs less than an insert that does nothing
        select array_agg(array[a.index_key, a.member] order by a.ordinal) into v_members
        from kv.pairs(v_members) as a
        where not exists (select from kv.member as m where m.index_key = a.index_key and m.member = a.member offset 0);
    end if;
    if v_members <> '{}' then
        v_bases := array[nextval('kv.member_position')];
        for v_next in 1 .. (array_length(v_members, 1) - 1) / c_room loop -- of a batch
            v_bases := v_bases || nextval('kv.member_position');
        end loop;
        insert into kv.member (index_key, member, position)
        select index_key, member, v_bases[1 + (min(ordinal) - 1) / c_room] + (min(ordinal) - 1) % c_room
        from kv.pairs(v_members)
        group by index_key, member
        order by index_key, member
        on conflict do nothing;
    end if;
    return v_members;
end
$$;
comment on function kv.add_index_members(text[], text[]) is
    'Adds the pairs that their index entries lack, and returns them. p_arrays are the index entries whose stored arrays may have members. The caller holds the locks of kv.lock_index.';

create function kv.remove_expired(p_most integer) returns bigint
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_now     timestamptz := clock_timestamp(); -- compared with the function itself, each row would be read: its value may change between two
    v_removed bigint := 0;
begin
    if (select expires_at from public.kv_store where expires_at is not null order by expires_at limit 1) <= v_now
        and not exists (select from kv.migration where closed_at is null) -- their rows tell kv_import that they are somebody else's
    then
        delete from public.kv_store where ctid = any (array( -- nothing waits here, so the order of locks does not matter
            select ctid from public.kv_store where expires_at <= v_now and not is_index
            order by expires_at limit p_most for no key update skip locked));
        get diagnostics v_removed = row_count;
    end if;
    return v_removed;
exception
    when others then
        -- The write that called this goes on. Nobody sees what stays.
        raise warning 'kv.remove_expired removed nothing: % (SQLSTATE %)', sqlerrm, sqlstate;
        return 0;
end
$$;
comment on function kv.remove_expired(integer) is 'Removes up to so many entries that have expired, and returns their number; none while a migration is open. Some writes call it.';

create function kv.tidy(p_written integer) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    c_more constant integer := 20; -- takes two milliseconds, for which whoever writes one of these keys waits
begin
    if random() < 0.01 * p_written then
        perform public.kv_prune_log();
    end if;
    if random() < 0.2 * p_written then
        perform kv.remove_expired(c_more + p_written);
    end if;
end
$$;
comment on function kv.tidy(integer) is 'Every write calls this at its end with the number of entries that it wrote. So more is removed than is written of what nobody needs: old changes and expired entries.';

create function public.kv_upsert(
    p_key     text,
    p_value   text,
    p_indexes text[] default null,
    p_request uuid default null,
    p_mirror  boolean default false
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker
    set search_path = ''
    -- Postgres expects ten pairs where it does not look, and would plan every statement anew in every call to look; the triggers' too.
    set plan_cache_mode = force_generic_plan
as $$
declare
    c_few         constant integer := 32; -- advisory locks that a call takes: the server has room for some thousand, for all calls together
    v_value       json := p_value::json;
    v_transaction xid8 := kv.begin_request(p_request);
    v_rows        boolean := coalesce(array_length(p_indexes, 1), 0) > c_few;
    v_key         text;
    v_arrays      text[] := '{}'::text[];
    v_members     text[]; -- pairs that no index entry had
begin
    if v_transaction is null then
        if p_key = any (p_indexes[:][1:1]) then
            raise exception using errcode = 'PT400', message = 'an entry cannot be one of its own indexes';
        end if;

        for v_key in
            select distinct k collate "C" from (
                select p_key as k union all select index_key from kv.pairs(p_indexes)) as touched
            order by 1
        loop
            if v_key <> p_key then
                if kv.lock_index(v_key, v_rows) then
                    v_arrays := v_arrays || v_key;
                end if;
                continue;
            end if;
            -- Update first: insert … on conflict would derive the document twice. But it looks at the clock once it holds the row. An
            -- update may look, wait for whoever locked the row, and not look again: no call waits a minute.
            update public.kv_store
            set value = v_value, index_pairs = coalesce(p_indexes, index_pairs), data = null, content_type = null, metadata = null, expires_at = null
            where key = p_key and (expires_at is null or expires_at > clock_timestamp() + interval '1 minute');
            if not found then
                -- It conflicts where the entry expires soon or has expired, or another call has just created it.
                insert into public.kv_store as s (key, value, index_pairs) values (p_key, v_value, coalesce(p_indexes, '{}'))
                on conflict (key) do update
                set value = excluded.value, data = null, content_type = null, metadata = null, expires_at = null,
                    index_pairs = coalesce(p_indexes, case when s.expires_at <= clock_timestamp() then '{}' else s.index_pairs end),
                    created_at = case when s.expires_at <= clock_timestamp() then excluded.created_at else s.created_at end;
            end if;
        end loop;

        v_members := kv.add_index_members(v_arrays, p_indexes);

        if p_mirror then
            insert into kv.outbox (key, primary_store, request)
            select k, 'supabase', p_request from (select p_key as k union all select distinct index_key from kv.pairs(v_members)) as changed;
        end if;
        v_transaction := pg_current_xact_id();
        perform kv.tidy(1);
    end if;
    return kv.write_response(v_transaction, null, p_request, p_mirror);
end
$$;
comment on function public.kv_upsert(text, text, text[], uuid, boolean) is
    'Creates or replaces an entry. p_value is JSON text and kept as it is. p_indexes is {{key,member},...}; null keeps the entry''s indexes, {} clears them. A request with the same p_request is applied once, however often it arrives. p_mirror adds an outbox entry for every key that changes.';
revoke all on function public.kv_upsert(text, text, text[], uuid, boolean) from public, anon, authenticated;
grant execute on function public.kv_upsert(text, text, text[], uuid, boolean) to service_role;

create function public.kv_delete(p_key text, p_request uuid default null, p_mirror boolean default false)
    returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_transaction xid8 := kv.begin_request(p_request);
    v_deleted     boolean;
begin
    if v_transaction is null then
        perform kv.mark_deleted(p_key);
        delete from public.kv_store where key = p_key returning expires_at is null or expires_at > clock_timestamp() into v_deleted;
        v_deleted := coalesce(v_deleted, false);
        if not v_deleted and p_request is not null then
            insert into kv.log (key, missed) values (p_key, true);
        end if;
        if p_mirror then -- also where there was no entry: the other store may have one
            insert into kv.outbox (key, primary_store, request) values (p_key, 'supabase', p_request);
        end if;
        v_transaction := pg_current_xact_id();
        perform kv.tidy(1);
    else
        v_deleted := not exists (select from kv.log where request = p_request and missed);
    end if;
    return kv.write_response(v_transaction, v_deleted, p_request, p_mirror);
end
$$;
comment on function public.kv_delete(text, uuid, boolean) is 'Removes an entry, with the members of an index entry, and tells whether there was one. p_mirror adds an outbox entry.';
revoke all on function public.kv_delete(text, uuid, boolean) from public, anon, authenticated;
grant execute on function public.kv_delete(text, uuid, boolean) to service_role;
