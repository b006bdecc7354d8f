-- kv-list in one round trip. It finds entries with the statement of kv_query, and writes as many as fit.

-- Postgres inlines the next three.
create function kv.list_cost(p_key text, p_bytes integer, p_is_index boolean) returns bigint
    language sql stable security invoker
as $$
    select pg_catalog.octet_length(pg_catalog.to_json(p_key)::text) * 2 + 3 + p_bytes
        + case when p_is_index then kv.member_bytes(p_key) else 0 end
$$;
comment on function kv.list_cost(text, integer, boolean) is 'The bytes that an entry takes in a list with values: its key twice, and its value.';

create function kv.list_cost_at_most(p_key text, p_bytes integer, p_is_index boolean) returns bigint
    language sql stable security invoker
as $$
    select pg_catalog.octet_length(p_key) * 12 + 7 + p_bytes + case when p_is_index then kv.member_bytes(p_key) else 0 end
$$;
comment on function kv.list_cost_at_most(text, integer, boolean) is 'Not less than kv.list_cost, and found in half the time: a byte of a key is at most \u and four digits in JSON.';

create function kv.list_value(p_key text, p_value json, p_is_index boolean, p_total numeric) returns text
    language sql stable security invoker
as $$
    select pg_catalog.to_json(kv.bare_key(p_key))::text || ':' || case
        when p_total > kv.response_limit() then kv.raise_too_large(pg_catalog.format('the entry %s alone is larger than the 6 MB'
            ' of a response: list this page without includeValues, and go on with its nextCursor', pg_catalog.to_json(kv.bare_key(p_key))))
        when p_value is null then kv.raise_not_json(p_key)
        when p_is_index then kv.index_value(p_key, p_value::text)
        else p_value::text end
$$;
comment on function kv.list_value(text, json, boolean, numeric) is 'An entry in the data of a list. p_total is what the list takes up to it: only the first entry can be too large.';

create function kv.write_list(
    p_query jsonb, p_question text, p_keys text[], p_values boolean, p_data text, p_more boolean, p_expires_at timestamptz
) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_count integer := cardinality(p_keys);
    v_keys  text[] := p_keys;
begin
    if p_keys[1] >= U&'\+10FFFF' then -- not in the statement below, which Postgres evaluates faster without a query in it
        v_keys := array(select kv.bare_key(k) from unnest(p_keys) with ordinality as u (k, n) order by n);
    end if;
    return concat(kv.expiry_line(p_expires_at), '{"keys":', array_to_json(v_keys), ',"count":', v_count, -- || would copy the data again and again
        case when p_values then ',"data":{' end, p_data, case when p_values then '}' end,
        case when (p_query ->> 'limit')::bigint > 0 or p_query ->> 'offset' is not null or p_query ->> 'cursor' is not null
            then format(',"pagination":{"limit":%s,"offset":%s,"hasMore":%s,"nextCursor":%s}',
                coalesce(nullif(p_query ->> 'limit', '0'), 'null'), coalesce(p_query ->> 'offset', '0'), p_more::text,
                case when p_more then '"' || kv.query_cursor(p_query, p_question, p_keys[v_count]) || '"' else 'null' end) end,
        '}');
end
$$;
comment on function kv.write_list(jsonb, text, text[], boolean, text, boolean, timestamptz) is
    'The response of kv-list with these keys. For a page, p_more says whether more entries follow. p_expires_at is when the first of them expires.';

-- The lists that are asked for most: entries in key order, under a prefix or in one index, all of them or a page. Their statements are
-- planned once. Finding a plan for a query (kv.query_plan) takes several times as long as reading such a page.
create function kv.list_in_key_order(p_query jsonb, p_values boolean, p_question text) returns text
    language plpgsql stable security invoker
    set search_path = ''
    set plan_cache_mode = force_generic_plan -- Postgres would plan anew for every limit
    set enable_sort = off -- and would rather read all and sort it than begin in key order, where it expects few rows
as $$
declare
    c_most  constant integer := 1000; -- so many keys always fit
    v_all   boolean := (p_query ->> 'limit')::integer = 0; -- all, if they are no more
    v_limit integer := case when v_all then c_most else (p_query ->> 'limit')::integer end;
    v_from  text := p_query ->> 'prefix';
    v_to    text := kv.prefix_end(v_from);
    v_after text := p_query #>> '{cursor,key}';
    v_index jsonb := coalesce(p_query #> '{indexes,all}', '[]');
    v_pairs text[];
    v_keys  text[];
    v_data  text;
    v_bytes bigint;
    v_more  boolean;
    v_expires timestamptz;
begin
    if v_limit > c_most or v_all and v_after is not null or p_query ->> 'offset' is not null or p_query ->> 'indexKeys' is not null
        or p_query #>> '{sort,0,path}' <> 'key' or (p_query #> '{sort,0,descending}')::boolean
        or jsonb_array_length(v_index) > 1 or not v_index -> 0 ?| '{pair,exact}'
    then
        return null;
    end if;
    if v_index -> 0 ? 'exact' then
        v_pairs := array[array[v_index #>> '{0,exact,key}', v_index #>> '{0,exact,member}']];
    elsif v_index -> 0 ? 'pair' then
        select array_agg(array[c.index_key, c.member]) into v_pairs
        from kv.candidate_pairs(v_index #>> '{0,pair}') as c
        where exists (select from kv.posting as p where p.index_key = c.index_key and p.member = c.member offset 0);
        if array_length(v_pairs, 1) is distinct from 1 then
            return null; -- no pair that is written so, or several
        end if;
    end if;
    if v_after is not null then
        v_from := greatest(v_from collate "C", v_after || chr(1)); -- no text sorts between a key and this
    end if;

    if v_pairs is not null then
        select coalesce(array_agg(key), '{}'), min(expires_at) into v_keys, v_expires from (
            select p.key, p.expires_at from kv.posting as p
            where p.index_key = v_pairs[1][1] and p.member = v_pairs[1][2] and p.key >= v_from and p.key < v_to and kv.is_live(p.expires_at)
            order by p.key limit v_limit + 1) as found;
    elsif not p_values then
        select coalesce(array_agg(key), '{}'), min(expires_at) into v_keys, v_expires from (
            select s.key, s.expires_at from public.kv_store as s
            where s.key >= v_from and s.key < v_to and kv.is_live(s.expires_at) order by s.key limit v_limit + 1) as found;
    else
        select coalesce(array_agg(key), '{}'), min(expires_at), sum(kv.list_cost_at_most(key, bytes, is_index)) into v_keys, v_expires, v_bytes from (
            select s.key, s.expires_at, s.bytes, s.is_index from public.kv_store as s
            where s.key >= v_from and s.key < v_to and kv.is_live(s.expires_at) order by s.key limit v_limit + 1) as found;
    end if;
    v_more := cardinality(v_keys) > v_limit;
    if v_all and v_more then
        return null;
    end if;
    v_keys := v_keys[:v_limit];

    -- Values are read once it is known that all of them fit.
    if p_values and v_pairs is not null then
        select sum(kv.list_cost_at_most(k, s.bytes, s.is_index)) into v_bytes
        from unnest(v_keys) as k cross join lateral (select bytes, is_index from public.kv_store where key = k offset 0) as s;
    end if;
    if v_bytes > kv.page_limit() then
        return null;
    elsif p_values and v_pairs is not null then
        select string_agg(kv.list_value(k, s.value, s.is_index, 0), ',' order by n) into v_data
        from unnest(v_keys) with ordinality as u (k, n)
        cross join lateral (select value, is_index from public.kv_store where key = k offset 0) as s;
    elsif p_values then
        select string_agg(kv.list_value(key, value, is_index, 0), ',') into v_data from (
            select s.key, s.value, s.is_index from public.kv_store as s
            where s.key >= v_from and s.key <= v_keys[cardinality(v_keys)] and kv.is_live(s.expires_at) order by s.key) as found;
    end if;
    return kv.write_list(p_query, p_question, v_keys, p_values, v_data, v_more, v_expires);
end
$$;
comment on function kv.list_in_key_order(jsonb, boolean, text) is 'The answer of kv-list; null where it is not one of these lists, or its values do not fit into one.';

create function kv.list(p_query jsonb, p_values boolean, p_question text) returns text
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
    v_wanted bigint := nullif((p_query ->> 'limit')::bigint, 0);
    v_offset bigint := coalesce((p_query ->> 'offset')::bigint, 0);
    v_paged  boolean := v_wanted is not null or p_query ->> 'offset' is not null or p_query ->> 'cursor' is not null;
    v_plan   kv.query_plan := kv.query_plan(p_query, true);
    v_rows   text;
    v_limit  bigint := v_wanted;
    v_fits   bigint;
    v_keys   text[];
    v_data   text;
    v_more   boolean;
    v_expires timestamptz;
    v_column text := ', ' || kv.query_entry(v_plan) || '.expires_at';
begin
    v_rows := format('select *, row_number() over w as n, sum(cost) over w as total from (%s) as matching'
        ' window w as (order by %s rows between unbounded preceding and current row)',
        kv.query_statement(p_query, v_plan, v_column || case when p_values
            then ', s.value, s.is_index, kv.list_cost(<key>, s.bytes, s.is_index) as cost'
            else ', octet_length(to_json(<key>)::text) + 1 as cost' end, p_values),
        (kv.query_sort(p_query -> 'sort')).order_by);

    if v_limit is null then
        execute 'select n - 1 from (' || v_rows || ') as r where total > $8 limit 1' into v_fits
            using p_query, v_plan.pairs, v_plan.search, v_plan.from_key, v_plan.to_key, null::bigint, v_offset,
                  case when v_paged then kv.page_limit() else kv.response_limit() end;
        if v_fits is not null and not v_paged then
            perform kv.raise_too_large('the answer would be larger than the 6 MB of a response: page with limit');
        end if;
        v_limit := case when v_fits is not null then greatest(v_fits, 1) end;
    end if;

    -- The aggregates see the rows in the order of the sub-query.
    execute 'select coalesce(array_agg(key) filter (where kept), ''{}''), '
        || case when p_values then ' string_agg(kv.list_value(key, value, is_index, total), '','') filter (where kept)' else ' null' end
        || ', coalesce(bool_or(not kept), false), min(expires_at) from ('
        '    select *, $8 is null or n <= $8 and (n = 1 or total <= kv.page_limit()) as kept'
        '    from (' || v_rows || ') as numbered) as page'
        into v_keys, v_data, v_more, v_expires
        using p_query, v_plan.pairs, v_plan.search, v_plan.from_key, v_plan.to_key, v_limit + 1, v_offset, v_limit;
    if v_offset > 0 then
        v_expires := least(v_expires, kv.next_expiry());
    end if;
    return kv.write_list(p_query, p_question, v_keys, p_values, v_data, v_more, v_expires);
end
$$;
comment on function kv.list(jsonb, boolean, text) is 'The answer of kv-list.';

create function public.kv_list(p_query jsonb, p_values boolean, p_question text, p_since text default null) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return kv.changes_line(p_since)
        || coalesce(kv.list_in_key_order(p_query, p_values, p_question), kv.list(p_query, p_values, p_question));
end
$$;
comment on function public.kv_list(jsonb, boolean, text, text) is
    'The response of kv-list to a query that Go has checked and completed (Query in pkg/kv), in order by key or by a time. A limit of 0 means no limit. The other arguments are those of kv_query.';
revoke all on function public.kv_list(jsonb, boolean, text, text) from public, anon, authenticated;
grant execute on function public.kv_list(jsonb, boolean, text, text) to service_role;

-- A new instance loads these before anybody asks.
create function public.kv_warm_list(p_lists jsonb, p_bytes bigint) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_list    jsonb;
    v_answer  text;
    v_bytes   bigint := 0;
    v_answers text[] := '{}'::text[];
begin
    for v_list in select jsonb_array_elements(p_lists) loop
        begin
            v_answer := kv.list(v_list -> 'p_query', (v_list -> 'p_values')::boolean, v_list ->> 'p_question');
            v_bytes := v_bytes + octet_length(v_answer);
        exception when sqlstate 'PT413' or sqlstate 'PT415' then -- too large for a response, or not JSON, and so it will be later
            v_answer := null;
        end;
        v_answers := v_answers || case when v_bytes <= p_bytes then v_answer end;
    end loop;
    return public.kv_changes(null)::text || E'\n' || array_to_json(v_answers);
end
$$;
comment on function public.kv_warm_list(jsonb, bigint) is
    'kv_changes, a line break, and the responses of kv_list to the arguments in p_lists, in order. Null stands for one that is too large or not JSON, and for those beyond p_bytes together.';
revoke all on function public.kv_warm_list(jsonb, bigint) from public, anon, authenticated;
grant execute on function public.kv_warm_list(jsonb, bigint) to service_role;
