-- The reads. Each answers one request from one snapshot with finished JSON text, in one round trip.

create function kv.response_limit() returns integer
    language plpgsql immutable parallel safe set search_path = '' as $$ begin return 6 * 1024 * 1024; end $$;
comment on function kv.response_limit() is 'The platform''s limit for a response, in bytes.';

create function kv.page_limit() returns integer
    language plpgsql immutable parallel safe set search_path = '' as $$ begin return 4500000; end $$;
comment on function kv.page_limit() is 'The size at which a page ends early, in bytes: as base64 (4/3) it still fits into kv.response_limit().';

create function kv.raise_too_large(p_message text) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    raise exception using errcode = 'PT413', message = p_message; -- PostgREST answers 413
end
$$;
comment on function kv.raise_too_large(text) is 'Ends a request whose response is too large. Callers see the message.';

create function kv.raise_not_json(p_key text) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    raise exception using errcode = 'PT415', message = format('the entry %s is not JSON: kv-entries returns its bytes, and lists without includeValues have its key',
        to_json(kv.bare_key(p_key)));
end
$$;
comment on function kv.raise_not_json(text) is 'Ends a request for JSON that meets an entry of other bytes, as a migration may bring. Callers see the message.';

create function kv.prefix_end(p_prefix text) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
declare
    v_rest text := p_prefix;
    v_last integer;
begin
    while v_rest <> '' loop
        v_last := ascii(right(v_rest, 1));
        v_rest := left(v_rest, -1);
        if v_last < 1114111 then
            return v_rest || chr(case v_last when 55295 then 57344 else v_last + 1 end); -- there are no surrogates in UTF-8
        end if;
    end loop;
    return chr(1114111); -- the other spaces begin here
end
$$;
comment on function kv.prefix_end(text) is 'The first text after every key with the prefix: the keys are those in [prefix, end).';

create function kv.member_bytes(p_index_key text) returns bigint
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    -- A member takes at least two bytes: beyond this many, the response is too large in any case.
    return (select coalesce(sum(octet_length(kv.member_to_json(m.member)) + 1), 0)
            from (select member from kv.member where index_key = p_index_key limit 3200000) as m);
end
$$;
comment on function kv.member_bytes(text) is 'The number of bytes that the members add to the value of an index entry.';

create function kv.index_value(p_index_key text, p_stored text) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_members text;
    v_stored  text;
begin
    select string_agg(kv.member_to_json(member), ',' order by position, member) into v_members
    from kv.member where index_key = p_index_key;
    if v_members is null then
        return p_stored;
    end if;
    v_stored := rtrim(left(rtrim(p_stored, E' \t\n\r'), -1), E' \t\n\r');
    return v_stored || case when ltrim(v_stored, E' \t\n\r') = '[' then '' else ',' end || v_members || ']';
end
$$;
comment on function kv.index_value(text, text) is 'The value of an index entry: the stored array, then its members.';

-- Inlined. The time is the database's, so that a cache need not know what time it is there.
create function kv.expiry_line(p_expires_at timestamptz) returns text
    language sql volatile security invoker
as $$
    select case when p_expires_at is null then ''
        else E'\x02' || greatest(0, pg_catalog.floor(extract(epoch from p_expires_at - pg_catalog.clock_timestamp()) * 1000)::bigint) || E'\n' end
$$;
comment on function kv.expiry_line(timestamptz) is 'Begins a response of which something expires: chr(2), the milliseconds until the first does, and a line break. Empty where nothing does.';

create function kv.next_expiry() returns timestamptz
    language plpgsql stable security invoker set search_path = '' set enable_seqscan = off
as $$
begin
    return (select expires_at from public.kv_store where expires_at > statement_timestamp() order by expires_at limit 1);
end
$$;
comment on function kv.next_expiry() is 'When the next entry expires, of all stores. A page with an offset may be another one then: it depends on what it skips.';

create function public.kv_get(p_key text, p_since text default null) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return kv.changes_line(p_since) || coalesce((
        select kv.expiry_line(s.expires_at) || case
            when s.bytes + case when s.is_index then kv.member_bytes(s.key) else 0 end > kv.response_limit()
                then kv.raise_too_large('the value is larger than the 6 MB of a response: ' || case when s.is_index
                    then 'kv-list with indexKey lists what the index names, page by page'
                    else 'kv-query reads parts of it, with select=value.<path>' end)
            when s.value is null then kv.raise_not_json(s.key)
            when s.is_index then kv.index_value(s.key, s.value::text)
            else s.value::text
        end
        from public.kv_store as s
        where s.key = p_key and kv.is_live(s.expires_at)), '');
end
$$;
comment on function public.kv_get(text, text) is 'The JSON text of a value; empty where there is no entry. With p_since, which is a cursor, or '''' where there is none yet, kv_changes and a line break come first.';
revoke all on function public.kv_get(text, text) from public, anon, authenticated;
grant execute on function public.kv_get(text, text) to service_role;

create function kv.candidate_pairs(p_pair text) returns table (index_key text, member text)
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
declare
    v_colon  integer := 0;
    v_next   integer;
    v_member text;
begin
    loop
        v_next := strpos(substr(p_pair, v_colon + 1), ':');
        exit when v_next = 0;
        v_colon := v_colon + v_next;
        continue when v_colon = 1 or v_colon = length(p_pair);
        index_key := left(p_pair, v_colon - 1);
        v_member := substr(p_pair, v_colon + 1);
        member := kv.member_from_text(v_member);
        return next;
        if v_member ~ '^-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?$' then
            member := E'\x01' || v_member;
            return next;
        end if;
    end loop;
end
$$;
comment on function kv.candidate_pairs(text) is 'Every pair of key and member that "<key>:<member>" may stand for: a member that looks like a number may be one, or text.';

-- A new instance loads these before anybody asks. Values are JSON strings here, which keep every byte of their text.
create function public.kv_warm_get(p_keys text[], p_prefixes text[], p_entries integer, p_bytes bigint)
    returns public."application/vnd.kv+json"
    language plpgsql stable security invoker
    set search_path = ''
    set enable_seqscan = off
as $$
begin
    return public.kv_changes() || E'\n' || (
        with named as (
            select key collate "C" as key, n, 0::bigint as place from unnest(p_keys) with ordinality as k (key, n)
            union all
            select found.key, cardinality(p_keys) + p.n, found.place
            from unnest(p_prefixes) with ordinality as p (prefix, n)
            cross join lateral (
                select s.key, row_number() over (order by s.key) as place from public.kv_store as s
                where s.key >= p.prefix collate "C" and s.key < kv.prefix_end(p.prefix) collate "C" and s.expires_at is null
                order by s.key limit p_entries) as found
        ), wanted as (
            select key, row_number() over (order by min(n), min(place)) as n from named group by key order by 2 limit p_entries
        ), sized as (
            select *, sum(bytes) over (order by n) as total from (
                select w.key, w.n, s.value, s.is_index,
                    coalesce(s.bytes + case when s.is_index then kv.member_bytes(s.key) else 0 end, 0) as bytes
                from wanted as w left join lateral (select * from public.kv_store as s where s.key = w.key offset 0) as s on true
                where s.expires_at is null and s.data is null) as found -- what expires is not loaded beforehand, and kv_get refuses bytes
        )
        select coalesce(json_agg(json_build_array(key, coalesce(
            case when is_index then kv.index_value(key, value::text) else value::text end, '')) order by n), '[]')::text
        from sized where total <= p_bytes and bytes <= kv.response_limit() -- kv_get refuses larger ones
    );
end
$$;
comment on function public.kv_warm_get(text[], text[], integer, bigint) is
    'kv_changes, a line break, and [[key, response of kv_get],...] for the keys and for those under the prefixes, within p_entries and p_bytes.';
revoke all on function public.kv_warm_get(text[], text[], integer, bigint) from public, anon, authenticated;
grant execute on function public.kv_warm_get(text[], text[], integer, bigint) to service_role;
