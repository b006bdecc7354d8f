-- The functions behind kv-entries and kv-batch: entries of any bytes in any store, with conditions, expiry and metadata. Keys carry
-- the space of their store (kv.space_of).

-- An entry without what may be large. Functions get rows of this: a row of kv_store that is passed on is first read whole.
create view kv.entry with (security_invoker = true) as
    select key, revision, is_index, bytes, coalesce(content_type, case when data is null then 'application/json' else 'application/octet-stream' end) as content_type,
        metadata, created_at, updated_at, expires_at, data is null as is_json
    from public.kv_store;
comment on view kv.entry is 'What describes an entry, whether it has expired or not.';

create function kv.etag(p_entry kv.entry) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return to_hex(p_entry.revision) -- new members do not write the row of an index entry
        || case when p_entry.is_index then '.' || (select count(*) from kv.member where index_key = p_entry.key) else '' end;
end
$$;
comment on function kv.etag(kv.entry) is 'Changes with every write of an entry, and never comes again for a key.';

create function kv.iso_time(p_time timestamptz) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return to_char(p_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
end
$$;
comment on function kv.iso_time(timestamptz) is 'The time as JavaScript''s toISOString writes it.';

create function kv.entry_bytes(p_key text, p_value json, p_data bytea, p_is_index boolean) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return case
        when p_value is null then replace(encode(p_data, 'base64'), E'\n', '')
        when p_is_index then kv.index_value(p_key, p_value::text)
        else p_value::text end;
end
$$;
comment on function kv.entry_bytes(text, json, bytea, boolean) is 'The bytes of an entry: JSON text, or base64 where data has them.';

create function kv.size(p_entry kv.entry) returns bigint
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return case when p_entry.is_index then (select octet_length(kv.index_value(key, value::text)) from public.kv_store where key = p_entry.key)
        else p_entry.bytes end;
end
$$;
comment on function kv.size(kv.entry) is 'The number of bytes that a read of the entry returns.';

create function kv.room(p_entry kv.entry) returns bigint
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return kv.size(p_entry) * 4 / 3 + coalesce(octet_length(p_entry.metadata::text), 0) + 300;
end
$$;
comment on function kv.room(kv.entry) is 'What the entry takes in the response to a batch at most: its bytes as base64, metadata and the rest.';

create function kv.entry_info(p_entry kv.entry, p_metadata boolean) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return '"etag":"' || kv.etag(p_entry) || '","size":' || kv.size(p_entry) || ',"contentType":' || to_json(p_entry.content_type)
        || ',"updatedAt":"' || kv.iso_time(p_entry.updated_at) || '"'
        || coalesce(',"expiresAt":"' || kv.iso_time(p_entry.expires_at) || '"', '')
        || case when p_metadata then coalesce(',"metadata":' || p_entry.metadata::text, '') else '' end;
end
$$;
comment on function kv.entry_info(kv.entry, boolean) is 'The fields of an object that describe an entry beside its bytes.';

create function public.kv_entry(p_key text, p_since text default null) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_entry kv.entry;
begin
    select * into v_entry from kv.entry as e where e.key = p_key and kv.is_live(e.expires_at);
    if v_entry.key is null then
        return kv.changes_line(p_since);
    elsif kv.size(v_entry) > kv.response_limit() then
        perform kv.raise_too_large('the entry is larger than the 6 MB of a response: kv-query reads parts of it, with select=value.<path>');
    end if;
    return kv.changes_line(p_since) || kv.expiry_line(v_entry.expires_at)
        || '{"json":' || v_entry.is_json::text || ',' || kv.entry_info(v_entry, true) || '}' || E'\n'
        || (select kv.entry_bytes(s.key, s.value, s.data, s.is_index) from public.kv_store as s where s.key = p_key);
end
$$;
comment on function public.kv_entry(text, text) is 'An entry: an object that describes it, a line break, and its bytes, JSON text where "json" is true and base64 otherwise. Empty where there is none. p_since: see kv_get.';
revoke all on function public.kv_entry(text, text) from public, anon, authenticated;
grant execute on function public.kv_entry(text, text) to service_role;

-- Reads one entry after another in key order, and leaps over the keys that a prefix stands for.
create function kv.list_entries(p_query jsonb, p_question text) returns text
    language plpgsql stable security invoker
    set search_path = ''
    set plan_cache_mode = force_generic_plan
    set enable_sort = off
    set enable_seqscan = off
as $$
declare
    v_limit     integer := (p_query ->> 'limit')::integer;
    v_prefix    text := p_query ->> 'prefix';
    v_delimiter text := nullif(p_query ->> 'delimiter', '');
    v_metadata  boolean := (p_query ->> 'metadata')::boolean;
    v_from      text := v_prefix;
    v_to        text := kv.prefix_end(v_prefix);
    v_last      text := p_query #>> '{cursor,key}';
    v_entry     kv.entry;
    v_at        integer;
    v_item      text;
    v_bytes     bigint := 0;
    v_entries   text[] := '{}'::text[];
    v_prefixes  text[] := '{}'::text[];
    v_expires   timestamptz;
    v_more      boolean := false;
begin
    if v_last is not null then -- a key that holds the delimiter is a prefix that stood for others
        v_from := greatest(v_from collate "C", case when strpos(substr(v_last, length(v_prefix) + 1), v_delimiter) > 0
            then kv.prefix_end(v_last) else v_last || chr(1) end);
    end if;
    loop
        select * into v_entry from kv.entry as s
        where s.key >= v_from and s.key < v_to and kv.is_live(s.expires_at) order by s.key limit 1;
        exit when v_entry.key is null;
        v_at := coalesce(strpos(substr(v_entry.key, length(v_prefix) + 1), v_delimiter), 0);
        if v_at > 0 then
            v_entry.key := left(v_entry.key, length(v_prefix) + v_at + length(v_delimiter) - 1);
            v_item := to_json(kv.bare_key(v_entry.key))::text;
        else
            v_item := '{"key":' || to_json(kv.bare_key(v_entry.key)) || ',' || kv.entry_info(v_entry, v_metadata) || '}';
        end if;
        v_bytes := v_bytes + octet_length(v_item) + 1;
        v_more := cardinality(v_entries) + cardinality(v_prefixes) = v_limit or v_bytes > kv.page_limit();
        v_expires := least(v_expires, v_entry.expires_at); -- also of the one that makes hasMore true
        exit when v_more;
        v_last := v_entry.key;
        if v_at > 0 then
            v_prefixes := v_prefixes || v_item;
            v_from := kv.prefix_end(v_last);
        else
            v_entries := v_entries || v_item;
            v_from := v_last || chr(1); -- no text sorts between
        end if;
    end loop;
    return kv.expiry_line(v_expires) || '{"entries":[' || array_to_string(v_entries, ',') || '],"prefixes":[' || array_to_string(v_prefixes, ',')
        || '],"count":' || cardinality(v_entries)
        || format(',"pagination":{"limit":%s,"hasMore":%s,"nextCursor":%s}}', v_limit, v_more::text,
            case when v_more then '"' || kv.format_cursor(p_question, null, v_last) || '"' else 'null' end);
end
$$;
comment on function kv.list_entries(jsonb, text) is 'The list of a store.';

create function public.kv_entry_list(p_query jsonb, p_question text, p_since text default null) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return kv.changes_line(p_since) || kv.list_entries(p_query, p_question);
end
$$;
comment on function public.kv_entry_list(jsonb, text, text) is
    'A page of a store: {"entries","prefixes","count","pagination"}. p_query is {"prefix","delimiter","metadata","limit","cursor"} (EntryQuery in pkg/kv). The other arguments are those of kv_query.';
revoke all on function public.kv_entry_list(jsonb, text, text) from public, anon, authenticated;
grant execute on function public.kv_entry_list(jsonb, text, text) to service_role;

create function kv.count_entries(p_from text, p_to text, p_most integer) returns integer
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (select count(*) from (
        select from public.kv_store as s where s.key >= p_from and s.key < p_to and kv.is_live(s.expires_at) limit p_most) as found);
end
$$;
comment on function kv.count_entries(text, text, integer) is 'The number of entries in a range of keys, up to p_most.';

create function public.kv_stores(p_namespace text, p_most integer) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker
    set search_path = ''
    set enable_seqscan = off
as $$
declare
    v_namespace text := U&'\+10FFFF' || p_namespace || '/';
    v_from      text := v_namespace;
    v_to        text := kv.prefix_end(v_namespace);
    v_next      text;
    v_space     text;
    v_count     integer;
    v_stores    json[] := '{}'::json[];
begin
    if p_namespace = '' then
        v_count := kv.count_entries('', U&'\+10FFFF', p_most + 1);
        if v_count > 0 then
            v_stores := v_stores || json_build_object('store', 'kv', 'count', least(v_count, p_most), 'more', v_count > p_most);
        end if;
    end if;
    loop
        select s.key into v_next from public.kv_store as s where s.key >= v_from and s.key < v_to order by s.key limit 1;
        exit when v_next is null;
        v_space := kv.space_of(v_next);
        v_from := kv.prefix_end(v_space);
        v_count := kv.count_entries(v_space, v_from, p_most + 1);
        if v_count > 0 then
            v_stores := v_stores || json_build_object('store', split_part(v_space, '/', 2), 'count', least(v_count, p_most), 'more', v_count > p_most);
        end if;
    end loop;
    return (select coalesce(json_agg(store order by store ->> 'store' collate "C"), '[]') from unnest(v_stores) as store)::text;
end
$$;
comment on function public.kv_stores(text, integer) is 'The stores of a namespace that have entries: [{"store","count","more"},...]. A count stops at p_most.';
revoke all on function public.kv_stores(text, integer) from public, anon, authenticated;
grant execute on function public.kv_stores(text, integer) to service_role;

-- A batch that is sent again, after its reply was lost or with its Idempotency-Key, gets the first response.
create table kv.response (
    request  uuid not null,
    digest   text,
    response text not null,
    at       timestamptz not null default clock_timestamp(),
    constraint response_pkey primary key (request)
);
comment on table kv.response is 'The responses to batches that wrote. kv_prune_log removes them after kv.log_retention().';
comment on column kv.response.digest is 'What the batch was, where a caller gave it an Idempotency-Key.';
create index response_at on kv.response (at);
alter table kv.response enable row level security;

create type kv.operation as (
    action        text,
    key           text,
    value         text,     -- JSON text,
    data          text,     -- or base64
    content_type  text,
    metadata      text,
    ttl           numeric,  -- seconds
    expires       timestamptz,
    indexes       text[],   -- {{key,member},...}
    if_match      text[],
    if_none_match text[],
    delta         numeric   -- what an increment adds
);
comment on type kv.operation is 'An operation of a batch (Operation in pkg/kv), with the defaults of kv_store for its content type.';

create type kv.outcome as (
    code    text, -- null: done
    message text,
    existed boolean,
    entry   kv.entry, -- what was read or written
    info    text,     -- kv.entry_info of that, as it was then: a take deletes it
    bytes   text,     -- that were read, or the number after an increment
    room    bigint,   -- kv.room of what was read
    wrote   boolean
);
comment on type kv.outcome is 'What came of an operation.';

create function kv.holds(p_operation kv.operation, p_entry kv.entry) returns boolean
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_etag text;
begin
    if p_operation.if_match is null and p_operation.if_none_match is null then
        return true;
    elsif p_entry.key is null then
        return p_operation.if_match is null;
    end if;
    v_etag := kv.etag(p_entry);
    return (p_operation.if_match is null or v_etag = any (p_operation.if_match) or '*' = any (p_operation.if_match))
       and (p_operation.if_none_match is null or v_etag <> all (p_operation.if_none_match) and '*' <> all (p_operation.if_none_match));
end
$$;
comment on function kv.holds(kv.operation, kv.entry) is 'Whether the condition of an operation holds of an entry, or of none (a null row).';

create function kv.put_entry(p_operation kv.operation, p_present boolean, out existed boolean, out entry kv.entry)
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_value   json := p_operation.value::json;
    v_data    bytea := decode(p_operation.data, 'base64');
    v_now     timestamptz := clock_timestamp();
    v_expires timestamptz := coalesce(p_operation.expires, date_trunc('milliseconds', v_now + p_operation.ttl * interval '1 second'));
begin
    existed := false;
    if p_present is distinct from false then
        update public.kv_store as s
        set value = v_value, data = v_data, content_type = p_operation.content_type, metadata = p_operation.metadata::json, expires_at = v_expires,
            index_pairs = coalesce(p_operation.indexes, s.index_pairs)
        where s.key = p_operation.key and (p_present or s.expires_at is null or s.expires_at > v_now + interval '1 minute'); -- see kv_upsert
        existed := found;
    end if;
    if not existed then
        -- It conflicts where the entry expires soon or has expired, or another call has just created it.
        insert into public.kv_store as s (key, value, data, content_type, metadata, expires_at, index_pairs, created_at)
        values (p_operation.key, v_value, v_data, p_operation.content_type, p_operation.metadata::json, v_expires, coalesce(p_operation.indexes, '{}'), v_now)
        on conflict (key) do update
        set value = excluded.value, data = excluded.data, content_type = excluded.content_type, metadata = excluded.metadata,
            expires_at = excluded.expires_at, created_at = case when s.expires_at <= clock_timestamp() then excluded.created_at else s.created_at end,
            index_pairs = case when p_operation.indexes is not null or s.expires_at <= clock_timestamp() then excluded.index_pairs else s.index_pairs end
        where p_present is distinct from false or s.expires_at <= clock_timestamp();
        if not found then
            return;
        end if;
    end if;
    select * into entry from kv.entry as e where e.key = p_operation.key; -- triggers have changed it
    existed := entry.created_at <> v_now;
end
$$;
comment on function kv.put_entry(kv.operation, boolean) is
    'Creates or replaces an entry. p_present is what the caller has found: true of one that it has locked, even if that has just expired; false of none, and entry is null where another call has just created one.';

create function kv.increment(p_document jsonb, p_delta numeric, out code text, out message text, out value text)
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    c_digits constant integer := 1000;
begin
    if jsonb_typeof(p_document) is distinct from 'number' then
        code := 'conflict';
        message := 'the value is not a number that can be added to';
        return;
    end if;
    value := trim_scale(p_document::numeric + p_delta);
    if length(value) > c_digits then
        code := 'unstorable_value';
        message := format('the sum would have more than %s digits', c_digits);
    end if;
end
$$;
comment on function kv.increment(jsonb, numeric) is 'The sum of a number and p_delta.';

create function kv.delete_entry(p_key text) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    perform kv.mark_deleted(p_key);
    delete from public.kv_store where key = p_key;
end
$$;
comment on function kv.delete_entry(text) is 'Deletes an entry for a caller, who has locked it.';

-- The entry and its bytes come from one statement, and so from one moment, also where nothing locks the row.
create function kv.look_at_entry(p_operation kv.operation, p_lock boolean, p_room bigint) returns kv.outcome
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_outcome  kv.outcome;
    v_is_index boolean;
    v_locked   boolean;
    v_read     record;
begin
    loop
        if p_lock then
            select is_index into v_is_index from public.kv_store where key = p_operation.key for no key update;
            v_locked := found;
            if v_is_index then
                perform kv.lock_members(p_operation.key);
            end if;
        end if;
        select e as entry, kv.entry_info(e, true) as info, kv.room(e) as room,
            case when p_operation.action in ('get', 'take') and kv.room(e) <= p_room then kv.entry_bytes(s.key, s.value, s.data, s.is_index) end as bytes
        into v_read
        from public.kv_store as s join kv.entry as e on e.key = s.key
        where s.key = p_operation.key and (s.expires_at is null or s.expires_at > clock_timestamp());
        v_outcome.existed := found;
        exit when v_locked or not p_lock or not v_outcome.existed;
        -- Another call has created the entry after the attempt to lock it.
    end loop;
    v_outcome.wrote := false;
    if not v_outcome.existed then
        v_outcome.code := case when not kv.holds(p_operation, null) then 'condition_failed'
            when p_operation.action in ('get', 'take') then 'not_found' end;
        return v_outcome;
    end if;
    v_outcome.entry := v_read.entry;
    v_outcome.info := v_read.info;
    v_outcome.bytes := v_read.bytes;
    v_outcome.room := case when v_read.bytes is not null then v_read.room end;
    if not kv.holds(p_operation, v_read.entry) then
        v_outcome.code := 'condition_failed';
    elsif p_operation.action in ('get', 'take') and v_read.bytes is null then
        v_outcome.code := 'too_large';
        v_outcome.message := 'the values of this batch together do not fit into a response: read fewer at once';
    end if;
    return v_outcome;
end
$$;
comment on function kv.look_at_entry(kv.operation, boolean, bigint) is
    'The present entry, whether the condition holds, and for a get or a take the bytes, which must fit into p_room.';

create function kv.apply_operation(p_operation kv.operation, p_atomic boolean, p_careful boolean, p_room bigint) returns kv.outcome
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_outcome kv.outcome;
    v_put     kv.operation := p_operation;
    v_sum     record;
    v_written record;
begin
    if p_operation.expires <= clock_timestamp() then
        v_outcome.code := 'invalid_input';
        v_outcome.message := 'the time of expiry must be in the future: in the database it is ' || kv.iso_time(clock_timestamp());
        return v_outcome;
    end if;
    loop
        if p_operation.action <> 'put' or p_operation.if_match is not null or p_operation.if_none_match is not null then
            v_outcome := kv.look_at_entry(p_operation, p_atomic or p_operation.action <> 'get', p_room);
        end if;
        if v_outcome.code is not null or p_operation.action in ('get', 'check') then
            return v_outcome;
        elsif p_operation.action = 'delete' and not v_outcome.existed then
            perform kv.mark_deleted(p_operation.key); -- the source of a migration may have it
            return v_outcome;
        elsif p_operation.action in ('delete', 'take') then
            perform kv.delete_entry(p_operation.key);
            v_outcome.wrote := true;
            return v_outcome;
        elsif p_operation.action = 'increment' then
            v_sum := kv.increment(case when v_outcome.existed then (select document from public.kv_store where key = p_operation.key) else '0' end, p_operation.delta);
            if v_sum.code is not null then
                v_outcome.code := v_sum.code;
                v_outcome.message := v_sum.message;
                return v_outcome;
            end if;
            v_put.value := v_sum.value;
            v_outcome.bytes := v_sum.value;
            if v_outcome.existed then
                v_put.ttl := null;
                v_put.expires := (v_outcome.entry).expires_at;
                v_put.metadata := (v_outcome.entry).metadata;
                v_put.content_type := nullif((v_outcome.entry).content_type, 'application/json');
            end if;
        end if;

        if p_careful then -- in a subtransaction, which costs
            begin
                v_written := kv.put_entry(v_put, v_outcome.existed);
            exception
                when invalid_text_representation or untranslatable_character or numeric_value_out_of_range
                  or statement_too_complex or program_limit_exceeded then
                    v_outcome.code := 'unstorable_value';
                    return v_outcome;
            end;
        else
            v_written := kv.put_entry(v_put, v_outcome.existed);
        end if;
        if (v_written.entry).key is not null then
            v_outcome.existed := v_written.existed;
            v_outcome.entry := v_written.entry;
            v_outcome.info := kv.entry_info(v_written.entry, true);
            v_outcome.wrote := true;
            return v_outcome;
        end if;
        -- Another call has just created the entry: look again.
    end loop;
end
$$;
comment on function kv.apply_operation(kv.operation, boolean, boolean, bigint) is
    'Applies one operation. What it reads must fit into p_room bytes. In an atomic batch, a row that is only read is locked as well. With p_careful, a value that Postgres refuses is an outcome, and otherwise an error.';

create function kv.outcome_json(p_outcome kv.outcome) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return '{"existed":' || coalesce(p_outcome.existed, false)::text
        || coalesce(',"code":' || to_json(p_outcome.code), '') || coalesce(',"message":' || to_json(p_outcome.message), '')
        || coalesce(',' || p_outcome.info, '')
        || coalesce(',"json":' || (p_outcome.entry).is_json || ',"bytes":' || to_json(p_outcome.bytes), '')
        || '}';
end
$$;
comment on function kv.outcome_json(kv.outcome) is
    'An outcome: {"existed","code","message"}, the fields of kv.entry_info and, of what was read, {"json","bytes"}. The bytes are a JSON string, which keeps every byte of their text.';

create function kv.lock_absent(p_keys text[]) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('', 2)); -- two could look before either commits
    if exists (select from public.kv_store where key = any (p_keys) and (expires_at is null or expires_at > clock_timestamp())) then
        raise exception using errcode = 'lock_not_available', message = 'an entry that was absent has been created'; -- callers repeat it
    end if;
end
$$;
comment on function kv.lock_absent(text[]) is 'Nothing can lock an entry that does not exist. So an atomic batch looks again at its end, when it holds all others, and one batch at a time. The index entries that it makes itself are not meant.';

-- One pass over all keys, in the order of locks (see kv_upsert): the entries and their indexes. What operations on different keys
-- do does not depend on their order, and those on one key stay in theirs.
create function kv.apply_operations(p_operations kv.operation[], p_atomic boolean, p_careful boolean, p_mirror boolean, p_request uuid, out results text[], out failed integer, out written integer)
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    c_room    constant bigint := kv.page_limit()::bigint * 4 / 3 + 3000; -- for the first value, which fits into a response in any form
    v_touched record;
    v_outcome kv.outcome;
    v_op      kv.operation;
    v_bytes   bigint := 0;
    v_rows    boolean;
    v_arrays  text[] := '{}'::text[];
    v_pairs   text[] := '{}'::text[];
    v_added   text[];
    v_fresh   text[] := '{}'::text[]; -- index keys without an entry
    v_plain   text[] := '{}'::text[]; -- index keys with a plain entry, which stays one if what was to be filed there fails
    v_array   boolean;
    v_key     text;
    v_written text[] := '{}'::text[];
    v_absent  text[] := '{}'::text[];
begin
    if cardinality(p_operations) = 1 and p_operations[1].indexes is null and not p_mirror then -- nothing to put in order
        if p_operations[1].action in ('delete', 'take') then
            perform kv.lock_import_key(p_operations[1].key);
        end if;
        v_outcome := kv.apply_operation(p_operations[1], p_atomic, p_careful, c_room);
        results := array[kv.outcome_json(v_outcome)];
        failed := case when v_outcome.code is not null then 1 end;
        written := coalesce(v_outcome.wrote, false)::integer;
        return;
    end if;

    results := array_fill(null::text, array[cardinality(p_operations)]);
    written := 0;
    perform kv.lock_import_key(d.key) from (select key from unnest(p_operations) where action in ('delete', 'take') order by key) as d;
    select count(*) > 32 into v_rows from unnest(p_operations) as o, kv.pairs(o.indexes) as p; -- 32: see kv_upsert
    for v_touched in
        select key collate "C" as key, n from (
            select o.key, n from unnest(p_operations) with ordinality as o (action, key, value, data, content_type, metadata, ttl, expires, indexes, if_match, if_none_match, delta, n)
            union all
            select distinct p.index_key, null::bigint from unnest(p_operations) as o, kv.pairs(o.indexes) as p) as touched
        order by 1, 2 nulls last
    loop
        if v_touched.n is null then
            if not exists (select from public.kv_store where key = v_touched.key) then
                v_fresh := v_fresh || v_touched.key;
            end if;
            v_array := kv.lock_index(v_touched.key, v_rows, false);
            if v_array is null then
                v_plain := v_plain || v_touched.key;
            elsif v_array then
                v_arrays := v_arrays || v_touched.key;
            end if;
            continue;
        end if;
        v_op := p_operations[v_touched.n];
        v_outcome := kv.apply_operation(v_op, p_atomic, p_careful, case v_bytes when 0 then c_room else kv.page_limit() - v_bytes end);
        v_bytes := v_bytes + coalesce(v_outcome.room, 0);
        results[v_touched.n] := kv.outcome_json(v_outcome);
        if v_outcome.code is not null then
            failed := least(failed, v_touched.n);
        elsif v_op.action = 'put' and v_op.indexes <> '{}' then
            v_pairs := v_pairs || v_op.indexes;
        end if;
        if v_outcome.wrote or p_mirror and v_op.action = 'delete' and v_outcome.code is null then -- the other store may have one: see kv_delete
            v_written := v_written || v_op.key;
        end if;
        if not v_outcome.wrote and not v_outcome.existed then
            v_absent := v_absent || v_op.key;
        end if;
    end loop;
    if failed is not null and v_fresh <> '{}' then -- what was to be filed there failed
        delete from public.kv_store as s
        where s.key = any (v_fresh) and s.auto_created and s.key not in (select index_key from kv.pairs(v_pairs))
          and not exists (select from kv.member as m where m.index_key = s.key);
    end if;
    if p_atomic and failed is not null then
        return;
    end if;
    if v_pairs <> '{}' then
        for v_key in select distinct index_key from kv.pairs(v_pairs) where index_key = any (v_plain) order by 1 loop
            if kv.lock_index(v_key, v_rows) then
                v_arrays := v_arrays || v_key;
            end if;
        end loop;
        v_added := kv.add_index_members(v_arrays, v_pairs);
    end if;
    if p_atomic and v_absent <> '{}' then
        perform kv.lock_absent(array(select k from unnest(v_absent) as k where k not in (select index_key from kv.pairs(v_pairs))));
    end if;
    written := cardinality(v_written);
    if p_mirror then
        insert into kv.outbox (key, primary_store, request)
        select k, 'supabase', p_request
        from (select distinct k from (select unnest(v_written) as k union all select index_key from kv.pairs(v_added)) as written) as changed
        where kv.space_of(k) = '';
    end if;
end
$$;
comment on function kv.apply_operations(kv.operation[], boolean, boolean, boolean, uuid) is
    'Applies a batch. results are those of the operations, in their order; failed is the first that failed, from 1. In an atomic batch it means that the caller must undo the others. written is the number of entries that it wrote.';

create function public.kv_batch(
    p_operations jsonb,
    p_atomic     boolean default false,
    p_request    uuid default null,
    p_digest     text default null,
    p_mirror     boolean default false
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker
    set search_path = ''
    set plan_cache_mode = force_generic_plan
as $$
declare
    v_operations kv.operation[] := array(select o from jsonb_populate_recordset(null::kv.operation, p_operations) as o);
    v_known      kv.response;
    v_applied    record;
    v_careful    boolean := false;
    v_response   text;
begin
    if p_request is not null then
        perform kv.begin_request(p_request);
        select * into v_known from kv.response where request = p_request;
        if v_known.digest is distinct from p_digest and v_known.request is not null then
            raise exception using errcode = 'PT422', message = 'this Idempotency-Key came with another request before: use a new one for each request';
        elsif v_known.request is not null then
            return v_known.response;
        end if;
    end if;
    if cardinality(v_operations) = 1 then
        v_applied := kv.apply_operations(v_operations, p_atomic, false, p_mirror, p_request);
    else
        loop
            begin
                v_applied := kv.apply_operations(v_operations, p_atomic, v_careful, p_mirror, p_request);
                if p_atomic and v_applied.failed is not null then
                    raise exception using errcode = 'KV001'; -- undoes what was applied; variables keep their values
                end if;
                exit;
            exception
                when sqlstate 'KV001' then
                    exit;
                when invalid_text_representation or untranslatable_character or numeric_value_out_of_range
                  or statement_too_complex or program_limit_exceeded then
                    if v_careful then
                        raise;
                    end if;
                    v_careful := true; -- once more, to find the operation
            end;
        end loop;
    end if;
    v_response := '{"results":[' || array_to_string(v_applied.results, ',') || ']'
        || case when v_applied.failed is not null then ',"failed":' || v_applied.failed - 1 else '' end;
    if v_applied.written > 0 then
        v_response := v_response || ',"version":"' || kv.boot_id() || '.' || pg_current_xact_id() || '"'
            || case when p_mirror then coalesce((
                select ',"outbox":' || json_agg(json_build_object('id', id, 'key', key) order by id) from kv.outbox where request = p_request), '') else '' end;
        perform kv.tidy(v_applied.written);
    end if;
    v_response := v_response || '}';
    if p_request is not null then
        insert into kv.response (request, digest, response) values (p_request, p_digest, v_response);
    end if;
    return v_response;
end
$$;
comment on function public.kv_batch(jsonb, boolean, uuid, text, boolean) is
    'Applies operations, [kv.operation,...]: {"results","failed","version","outbox"}. Atomic: all or none. A batch with the same p_request is applied once, however often it arrives, and always gets the first response; p_digest tells batches with one p_request apart. p_mirror adds an outbox entry for every key of the store kv that changes.';
revoke all on function public.kv_batch(jsonb, boolean, uuid, text, boolean) from public, anon, authenticated;
grant execute on function public.kv_batch(jsonb, boolean, uuid, text, boolean) to service_role;

create function public.kv_clear(p_prefix text, p_confirm integer, p_most integer, p_request uuid, p_mirror boolean default false)
    returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker
    set search_path = ''
    set statement_timeout = '55s'
as $$
declare
    v_to          text := kv.prefix_end(p_prefix);
    v_transaction xid8 := kv.begin_request(p_request);
    v_count       integer;
    v_live        integer;
    v_indexes     integer;
    v_keys        text[];
    v_held        text[]; -- those of v_keys that are there when they are locked
begin
    if v_transaction is null then
        v_count := kv.count_entries(p_prefix, v_to, p_most + 1);
        if v_count > p_most then
            raise exception using errcode = 'PT413', message = format('there are more than %s entries under the prefix: remove them in parts, by longer prefixes', p_most);
        elsif v_count <> p_confirm then
            raise exception using errcode = 'PT409', message = format('there are %s entries under the prefix: repeat the request with confirm=%1$s to remove them', v_count);
        end if;
        v_keys := array(select s.key from public.kv_store as s where s.key >= p_prefix and s.key < v_to order by s.key);
        perform kv.mark_deleted(k) from unnest(v_keys) as k;
        -- Row after row, and with an index entry its members: see kv_upsert.
        select coalesce(array_agg(key), '{}'), count(*) filter (where expires_at is null or expires_at > clock_timestamp()), count(case when is_index then kv.lock_members(key)::text end)
        into v_held, v_live, v_indexes
        from (select s.key, s.is_index, s.expires_at from public.kv_store as s where s.key = any (v_keys) order by s.key for update) as held;
        select count(*) filter (where s.expires_at is null or s.expires_at > clock_timestamp()) into v_count
        from public.kv_store as s where s.key >= p_prefix and s.key < v_to;
        if v_count <> p_confirm or v_live <> p_confirm then -- as many may be others
            raise exception using errcode = 'PT409', message = format('there are %s entries under the prefix by now: repeat the request with confirm=%1$s to remove them', v_count);
        end if;
        -- An entry that was deleted and created again meanwhile is not locked. To wait for it here, after higher keys, could be a deadlock.
        delete from public.kv_store where key = any (v_held);
        if p_mirror and kv.space_of(p_prefix) = '' then
            insert into kv.outbox (key, primary_store, request) select k, 'supabase', p_request from unnest(v_keys) as k;
        end if;
        v_transaction := pg_current_xact_id();
    end if;
    return kv.write_response(v_transaction, true, p_request, p_mirror);
end
$$;
comment on function public.kv_clear(text, integer, integer, uuid, boolean) is
    'Removes the entries under a prefix, if p_confirm is their number and not over p_most. The response is that of kv_delete.';
revoke all on function public.kv_clear(text, integer, integer, uuid, boolean) from public, anon, authenticated;
grant execute on function public.kv_clear(text, integer, integer, uuid, boolean) to service_role;
