-- kv-list in one round trip: the entries that kv_query finds, written as far as they fit.
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
    v_count  integer;
begin
    v_rows := format('select *, row_number() over w as n, sum(cost) over w as total from (%s) as matching'
        ' window w as (order by %s rows between unbounded preceding and current row)',
        kv.query_statement(p_query, v_plan, case when p_values
            then ', s.value, s.is_index, octet_length(to_json(<key>)::text) * 2 + 3 + s.bytes + case when s.is_index then kv.member_bytes(s.key) else 0 end as cost'
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
        || case when p_values then
            ' string_agg(to_json(key)::text || '':'' || case'
            ' when total > kv.response_limit() then kv.raise_too_large(format(''the entry %s alone is larger than the 6 MB'
            ' of a response: list this page without includeValues, and go on with its nextCursor'', to_json(key)))'
            ' when is_index then kv.index_value(key, value::text)'
            ' else value::text end, '','') filter (where kept)'
            else ' null' end
        || ', coalesce(bool_or(not kept), false) from ('
        '    select *, $8 is null or n <= $8 and (n = 1 or total <= kv.page_limit()) as kept'
        '    from (' || v_rows || ') as numbered) as page'
        into v_keys, v_data, v_more
        using p_query, v_plan.pairs, v_plan.search, v_plan.from_key, v_plan.to_key, v_limit + 1, v_offset, v_limit;
    v_count := cardinality(v_keys);

    return '{"keys":' || array_to_json(v_keys) || ',"count":' || v_count
        || case when p_values then ',"data":{' || coalesce(v_data, '') || '}' else '' end
        || case when v_paged then format(',"pagination":{"limit":%s,"offset":%s,"hasMore":%s,"nextCursor":%s}',
                coalesce(v_wanted::text, 'null'), v_offset, v_more::text,
                case when v_more then '"' || kv.query_cursor(p_query, p_question, v_keys[v_count]) || '"' else 'null' end)
            else '' end
        || '}';
end
$$;
comment on function kv.list(jsonb, boolean, text) is 'The answer of kv-list.';

create function public.kv_list(p_query jsonb, p_values boolean, p_question text, p_since text default null) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return kv.changes_line(p_since) || kv.list(p_query, p_values, p_question);
end
$$;
comment on function public.kv_list(jsonb, boolean, text, text) is
    'The answer of kv-list to a query that was checked and is complete (pkg/kv, Query), in order by key or by a time; a limit of 0 is none. The other arguments are those of kv_query.';
revoke all on function public.kv_list(jsonb, boolean, text, text) from public, anon, authenticated;
grant execute on function public.kv_list(jsonb, boolean, text, text) to service_role;

-- What a new instance loads before anybody asks.
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
        exception when sqlstate 'PT413' then -- too large for any answer; nobody will get it later either
            v_answer := null;
        end;
        v_answers := v_answers || case when v_bytes <= p_bytes then v_answer end;
    end loop;
    return public.kv_changes(null)::text || E'\n' || array_to_json(v_answers);
end
$$;
comment on function public.kv_warm_list(jsonb, bigint) is
    'kv_changes, a line break, and the answers of kv_list to arguments of it, in order: null for one that is too large, and for those that do not fit into so many bytes.';
revoke all on function public.kv_warm_list(jsonb, bigint) from public, anon, authenticated;
grant execute on function public.kv_warm_list(jsonb, bigint) to service_role;
