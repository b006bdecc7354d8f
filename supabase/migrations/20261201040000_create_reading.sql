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
    return repeat(chr(1114111), 257); -- sorts after every key of at most 1,024 bytes
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

create function public.kv_get(p_key text, p_since text default null) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return kv.changes_line(p_since) || coalesce((
        select case
            when s.bytes + case when s.is_index then kv.member_bytes(s.key) else 0 end > kv.response_limit()
                then kv.raise_too_large('the value is larger than the 6 MB of a response: ' || case when s.is_index
                    then 'kv-list with indexKey lists what the index names, page by page'
                    else 'kv-query reads parts of it, with select=value.<path>' end)
            when s.is_index then kv.index_value(s.key, s.value::text)
            else s.value::text
        end
        from public.kv_store as s
        where s.key = p_key), '');
end
$$;
comment on function public.kv_get(text, text) is 'The JSON text of a value; empty where there is no entry. With p_since, which is a cursor, or '''' where there is none yet, kv_changes and a line break come first.';
revoke all on function public.kv_get(text, text) from public, anon, authenticated;
grant execute on function public.kv_get(text, text) to service_role;

create function kv.candidate_pairs(p_index text) returns table (index_key text, member text)
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return query
        select left(p_index, colon - 1) collate "C", m.member collate "C"
        from (select (sum(length(part) + 1) over (order by n))::integer as colon
              from string_to_table(p_index, ':') with ordinality as parts (part, n)) as colons
        cross join lateral (select substr(p_index, colon + 1) as text) as s
        cross join lateral (
            select kv.member_from_text(s.text) as member
            union all
            select E'\x01' || s.text where s.text ~ '^-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?$') as m
        where colon between 2 and length(p_index) - 1;
end
$$;
comment on function kv.candidate_pairs(text) is 'Every pair that "<key>:<member>" may stand for. A member that looks like a number may be a number or a string.';

create function kv.format_cursor(p_question text, p_position json, p_key text) returns text
    language plpgsql immutable security invoker set search_path = ''
as $$
begin
    return translate(encode(convert_to(json_build_array(p_question, p_position, p_key)::text, 'UTF8'), 'base64'), E'+/=\n', '-_');
end
$$;
comment on function kv.format_cursor(text, json, text) is 'Where a page ended: base64url of [digest of the question, position, key] (Cursor in pkg/kv).';

create function public.kv_list(
    p_prefix     text default '',
    p_values     boolean default false,
    p_limit      integer default null,
    p_offset     integer default null,
    p_sort       text default 'key',
    p_descending boolean default false,
    p_after_key  text default null,
    p_after_at   bigint default null,
    p_indexes    text[] default '{}',
    p_index_keys text[] default '{}',
    p_question   text default null,
    p_since      text default null
) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker
    set search_path = ''
    set enable_seqscan = off    -- an answer that is too large is found out while reading in order,
    set enable_bitmapscan = off -- which a plan that sorts everything first would undo
    set enable_hashjoin = off   -- lists of postings come in key order and are merged in it
    set enable_nestloop = off
    set jit = off -- what is switched off above counts as expensive, and an expensive plan is compiled first: half a second
    set max_parallel_workers_per_gather = 0 -- workers start slower than a page is read
as $$
declare
    v_paged    boolean := p_limit is not null or p_offset is not null or p_after_key is not null;
    v_from     text := p_prefix;
    v_to       text := kv.prefix_end(p_prefix);
    v_after_at timestamptz := to_timestamp(0) + p_after_at * interval '1 microsecond';
    v_at       text := case p_sort when 'key' then 'null::timestamptz' when 'created' then 's.created_at' when 'updated' then 's.updated_at' end;
    v_way      text := case when p_descending then 'desc' else 'asc' end;
    v_order    text := case when p_sort = 'key' then 'key ' || v_way else format('at %1$s, key %1$s', v_way) end;
    v_source   text := 'public.kv_store as s';
    v_key      text := 's.key';
    v_where    text := '';
    c_rare     constant integer := 1000; -- a lookup costs what reading some ten postings in order does
    c_key      constant text := '<key>';
    c_lookup   constant text := 'exists (select from kv.posting as p where p.index_key = %1$s[%2$s][1]'
        ' and p.member = %1$s[%2$s][2] and p.key = <key> offset 0)';
    v_pairs    text[] := '{}'::text[];
    v_others   text[] := '{}'::text[];
    v_spelled  text;
    v_found    text[];
    v_rarest   integer;
    v_postings bigint;
    v_rows     text;
    v_limit    bigint := p_limit;
    v_fits     bigint;
    v_keys     text[];
    v_ats      timestamptz[];
    v_data     text;
    v_more     boolean;
    v_count    integer;
begin
    if v_at is null then
        raise exception using errcode = 'PT400', message = 'p_sort must be key, created or updated';
    end if;

    -- Index filters. Where one is rare, its postings are read in key order and every other filter is looked up for each;
    -- else the lists of postings are merged. The planner is not asked: for entries that came after the last analyze it
    -- expects no rows, and then takes any plan for as good as another ("offset 0" keeps it from rewriting a lookup).
    for v_spelled in select distinct unnest(p_indexes) loop
        select coalesce(array_agg(array[s.index_key, s.member]), '{}') into v_found
        from kv.candidate_pairs(v_spelled) as s
        where exists (select from kv.posting as p where p.index_key = s.index_key and p.member = s.member offset 0);
        if array_length(v_found, 1) = 1 then
            v_pairs := v_pairs || v_found;
        else -- none of the pairs that it spells exists, or several
            v_where := v_where || ' and (false';
            for i in 1 .. coalesce(array_length(v_found, 1), 0) loop
                v_others := v_others || v_found[i:i];
                v_where := v_where || ' or ' || format(c_lookup, '$5', array_length(v_others, 1));
            end loop;
            v_where := v_where || ')';
        end if;
    end loop;
    select v_pairs || coalesce(array_agg(array[index_key, '']), '{}') into v_pairs
    from (select distinct unnest(p_index_keys) as index_key) as k;
    if v_pairs <> '{}' then
        select i, c.postings into v_rarest, v_postings
        from generate_subscripts(v_pairs, 1) as i,
             lateral (select count(*) as postings from (
                select from kv.posting as p
                where p.index_key = v_pairs[i][1] and p.member = v_pairs[i][2] and p.key >= v_from and p.key < v_to
                limit case when array_length(v_pairs, 1) > 1 then c_rare else 0 end) as capped) as c
        order by c.postings limit 1;
        v_source := 'kv.posting as d';
        v_where := v_where || format(' and d.index_key = $6[%1$s][1] and d.member = $6[%1$s][2]', v_rarest);
        for i in 1 .. array_length(v_pairs, 1) loop
            if i = v_rarest then
                continue;
            elsif v_postings < c_rare then
                v_where := v_where || ' and ' || format(c_lookup, '$6', i);
            else
                v_source := v_source || format(' join kv.posting as p%1$s on p%1$s.key = d.key and p%1$s.index_key = $6[%1$s][1]'
                    ' and p%1$s.member = $6[%1$s][2] and p%1$s.key >= $1 and p%1$s.key < $2', i);
            end if;
        end loop;
        v_source := v_source || ' cross join lateral (select * from public.kv_store as s where s.key = d.key offset 0) as s';
        v_key := 'd.key';
    end if;
    v_where := replace(v_where, c_key, v_key);

    -- The cursor: a bound of the range where the order is by key, else a row comparison that the order's index serves.
    if p_after_key is not null then
        if p_sort <> 'key' then
            v_where := v_where || format(' and (%s, %s) %s ($3, $4)', v_at, v_key, case when p_descending then '<' else '>' end);
        elsif p_descending then
            v_to := least(v_to, p_after_key collate "C");
        else
            v_from := greatest(v_from collate "C", p_after_key || chr(1)); -- no text sorts between a key and this
        end if;
    end if;

    v_rows := format(
        'select key, at, value, is_index, row_number() over w as n, sum(cost) over w as total from ('
        '    select %7$s as key, %4$s as at, s.value, s.is_index, octet_length(to_json(%7$s)::text) * %5$s + %6$s as cost'
        '    from %1$s where %7$s >= $1 and %7$s < $2 %2$s order by %3$s limit $7 offset $8) as matching'
        ' window w as (order by %3$s rows between unbounded preceding and current row)',
        v_source, v_where, v_order, v_at,
        case when p_values then 2 else 1 end,
        case when p_values then '3 + s.bytes + case when s.is_index then kv.member_bytes(s.key) else 0 end' else '1' end,
        v_key);

    if p_limit is null then
        execute 'select n - 1 from (' || v_rows || ') as r where total > $9 limit 1' into v_fits
            using v_from, v_to, v_after_at, p_after_key, v_others, v_pairs, null::bigint, coalesce(p_offset, 0),
                  case when v_paged then kv.page_limit() else kv.response_limit() end;
        if v_fits is not null and not v_paged then
            perform kv.raise_too_large('the answer would be larger than the 6 MB of a response: page with limit');
        end if;
        v_limit := case when v_fits is not null then greatest(v_fits, 1) end;
    end if;

    -- The aggregates see the rows in the order of the sub-query.
    execute 'select coalesce(array_agg(key) filter (where kept), ''{}''), array_agg(at) filter (where kept),'
        || case when p_values then
            ' string_agg(to_json(key)::text || '':'' || case'
            ' when total > kv.response_limit() then kv.raise_too_large(format(''the entry %s alone is larger than the 6 MB'
            ' of a response: list this page without includeValues, and go on with its nextCursor'', to_json(key)))'
            ' when is_index then kv.index_value(key, value::text)'
            ' else value::text end, '','') filter (where kept)'
            else ' null' end
        || ', coalesce(bool_or(not kept), false) from ('
        '    select *, $9 is null or n <= $9 and (n = 1 or total <= kv.page_limit()) as kept'
        '    from (' || v_rows || ') as numbered) as page'
        into v_keys, v_ats, v_data, v_more
        using v_from, v_to, v_after_at, p_after_key, v_others, v_pairs, v_limit + 1, coalesce(p_offset, 0), v_limit;
    v_count := cardinality(v_keys);

    return kv.changes_line(p_since) || '{"keys":' || array_to_json(v_keys) || ',"count":' || v_count
        || case when p_values then ',"data":{' || coalesce(v_data, '') || '}' else '' end
        || case when v_paged then format(',"pagination":{"limit":%s,"offset":%s,"hasMore":%s,"nextCursor":%s}',
                coalesce(p_limit::text, 'null'), coalesce(p_offset, 0), v_more::text,
                case when v_more then '"' || kv.format_cursor(p_question,
                    to_json((extract(epoch from v_ats[v_count]) * 1000000)::bigint), v_keys[v_count]) || '"' else 'null' end)
            else '' end
        || '}';
end
$$;
comment on function public.kv_list(text, boolean, integer, integer, text, boolean, text, bigint, text[], text[], text, text) is
    'The answer of kv-list. p_indexes holds "<key>:<member>" strings; p_after_key and p_after_at (microseconds) are the last entry of the page before, p_question is what its cursor belongs to. p_since: see kv_get.';
revoke all on function public.kv_list(text, boolean, integer, integer, text, boolean, text, bigint, text[], text[], text, text) from public, anon, authenticated;
grant execute on function public.kv_list(text, boolean, integer, integer, text, boolean, text, bigint, text[], text[], text, text) to service_role;

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
                where s.key >= p.prefix collate "C" and s.key < kv.prefix_end(p.prefix) collate "C"
                order by s.key limit p_entries) as found
        ), wanted as (
            select key, row_number() over (order by min(n), min(place)) as n from named group by key order by 2 limit p_entries
        ), sized as (
            select *, sum(bytes) over (order by n) as total from (
                select w.key, w.n, s.value, s.is_index,
                    coalesce(s.bytes + case when s.is_index then kv.member_bytes(s.key) else 0 end, 0) as bytes
                from wanted as w left join lateral (select * from public.kv_store as s where s.key = w.key offset 0) as s on true) as found
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

create function public.kv_warm_list(p_prefixes text[], p_bytes bigint) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_prefix  text;
    v_values  boolean;
    v_body    text;
    v_bytes   bigint := 0;
    v_lists   text[] := '{}'::text[];
begin
    foreach v_prefix in array p_prefixes loop
        foreach v_values in array array[false, true] loop
            begin
                v_body := public.kv_list(v_prefix, v_values);
                v_bytes := v_bytes + octet_length(v_body);
                if v_bytes <= p_bytes then
                    v_lists := v_lists || json_build_object('prefix', v_prefix, 'values', v_values, 'body', v_body)::text;
                end if;
            exception when sqlstate 'PT413' then -- too large for a response, and so it will be later
            end;
        end loop;
    end loop;
    return public.kv_changes() || E'\n[' || array_to_string(v_lists, ',') || ']';
end
$$;
comment on function public.kv_warm_list(text[], bigint) is
    'kv_changes, a line break, and [{"prefix","values","body"},...]: the responses of kv_list for each prefix, without and with values, within p_bytes.';
revoke all on function public.kv_warm_list(text[], bigint) from public, anon, authenticated;
grant execute on function public.kv_warm_list(text[], bigint) to service_role;
