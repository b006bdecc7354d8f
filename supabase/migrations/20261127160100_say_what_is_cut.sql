-- What is cut or refused says so, and how to go on.

-- Inside a string of JSON no quotation mark follows a comma without a backslash between them.
create function public.kv_query_cuts(p_aggregates text) returns text[]
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return case when strpos(p_aggregates, ',"cut":true') = 0 then '{}'
        else array['{"code":"text_cut","message":"text is compared and shown up to its 200th character, and some of it is longer"}'] end;
end
$$;
comment on function public.kv_query_cuts(text) is 'The notice that some min or max is not the whole text, if one is not.';

-- The 201st character tells that there is more.
create or replace function public.kv_query_aggregate(p_aggregates jsonb) returns text
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_parts text[] := '{}'::text[];
    v_op    text;
    v_own   text;
    v_part  text;
begin
    for i in 0 .. jsonb_array_length(p_aggregates) - 1 loop
        v_op := p_aggregates -> i ->> 'op';
        v_own := public.kv_own(p_aggregates -> i ->> 'by');
        v_part := case
            when v_op = 'count' and p_aggregates -> i -> 'name' is null then 'count(*)'
            when v_op = 'count' then 'count(<part>)'
            when v_op = 'distinct' then 'count(distinct <part>)'
            when v_op = 'sum' then 'coalesce(trim_scale(sum(<number>)), 0) || '',"excluded":'' || count(*) - count(<number>)'
            when v_op = 'avg' then 'coalesce(trim_scale(avg(<number>))::text, ''null'') || '',"excluded":'' || count(*) - count(<number>)'
            when v_op in ('min', 'max') then format('coalesce(%1$s(<number>)::text, to_json(left(%1$s(<text>), 200))::text'
                ' || case when length(%1$s(<text>)) > 200 then '',"cut":true'' else '''' end, ''null'')'
                ' || '',"excluded":'' || count(*) - case when count(<number>) > 0 then count(<number>) else count(<text>) end', v_op)
            end;
        v_parts := v_parts || ('''{"op":"' || v_op || '"'
            || case when p_aggregates -> i -> 'name' is null then '' else format(',"path":'' || to_json($1 #>> ''{aggregates,%s,name}'') || ''', i) end
            || ',"value":'' || ' || replace(replace(replace(v_part,
                '<number>', case when v_own is null then 'public.kv_number(s.document, <path>)' else 'null::numeric' end),
                '<text>', 'left(' || coalesce(v_own, 'public.kv_text(s.document, <path>)') || ', 201) collate "C"'),
                '<part>', coalesce(v_own, '(s.document #> <path>)'))
            || ' || ''}''');
        v_parts[i + 1] := replace(v_parts[i + 1], '<path>', format('public.kv_path($1 #> ''{aggregates,%s,path}'')', i));
    end loop;
    return '''['' || concat_ws('','', ' || array_to_string(v_parts, ', ') || ') || '']''';
end
$$;

create or replace function public.kv_query_aggregates(p_query jsonb) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_plan    public.kv_query_plan := public.kv_query_plan(p_query, 'none', false);
    v_group   jsonb := p_query -> 'group';
    v_row     boolean := jsonb_path_exists(p_query, '$.aggregates[*].name') or v_group <> 'null';
    v_source  text := public.kv_query_source(v_plan, case when cardinality(v_plan.cover) = 1 then v_plan.cover[1] end, v_row);
    v_answer  text := public.kv_query_aggregate(p_query -> 'aggregates');
    v_totals  text;
    v_groups  text;
    v_count   bigint;
    v_more    boolean;
    v_notices text[] := public.kv_query_unseen(p_query);
begin
    execute format('select %s from %s', v_answer, v_source) into v_totals
        using p_query, v_plan.pairs, v_plan.search, v_plan.from_key, v_plan.to_key;
    if v_group = 'null' then
        return '{"aggregates":' || v_totals || public.kv_query_notices(v_notices || public.kv_query_cuts(v_totals)) || '}';
    end if;

    execute format(
        'select coalesce(string_agg(text, '','' order by n) filter (where kept), ''''), count(*) filter (where kept), coalesce(bool_or(not kept), false)'
        ' from (select *, n <= $6 and sum(octet_length(text) + 1) over (order by n rows unbounded preceding) <= $7 as kept'
        '    from (select row_number() over () as n, text from (select ''{"group":'' || %s || '',"aggregates":'' || %s || ''}'' as text'
        '        from (select s.key, s.document, s.index_pairs, s.created_at, s.updated_at from %s offset 0) as s cross join lateral (%s) as grouped (part) group by part'
        '        order by %s limit $6 + 1) as ordered) as numbered) as page',
        case when v_group ? 'index' then 'public.kv_member_json(part)' else 'coalesce(part::text, ''null,"absent":true'')' end, v_answer, v_source,
        case when v_group ? 'index' then 'select distinct member from public.kv_pairs(s.index_pairs) where index_key = $1 #>> ''{group,index}'''
            else 'select ' || coalesce('to_jsonb(' || public.kv_own(v_group ->> 'by') || ')', 's.document #> public.kv_path($1 #> ''{group,path}'')') end,
        case when v_group ? 'index' then 'part' else 'case jsonb_typeof(part) when ''number'' then 0 when ''string'' then 1 else 2 end,'
            ' case when jsonb_typeof(part) = ''number'' then part::numeric end,'
            ' case when jsonb_typeof(part) = ''string'' then left(part #>> ''{}'', 200) collate "C" end, part::text collate "C"' end)
        into v_groups, v_count, v_more
        using p_query, v_plan.pairs, v_plan.search, v_plan.from_key, v_plan.to_key, (p_query -> 'limit')::bigint, public.kv_page_limit();
    if v_more then
        v_notices := v_notices || format('{"code":"groups_cut","message":"these are the first %s groups, and there are more: narrow the filter"}', v_count);
    end if;
    return '{"aggregates":' || v_totals || ',"groups":[' || v_groups || ']'
        || public.kv_query_notices(v_notices || public.kv_query_cuts(v_totals || v_groups)) || '}';
exception
    when numeric_value_out_of_range then
        raise exception using errcode = 'PT400', message = 'the numbers are too large to be added up';
end
$$;

create or replace function public.kv_get(p_key text) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return coalesce((
        select case
            when s.bytes + case when s.is_index then public.kv_member_bytes(s.key) else 0 end > public.kv_answer_limit()
                then public.kv_too_large('the value is larger than the 6 MB of a response: ' || case when s.is_index
                    then 'kv-list with indexKey lists what the index names, page by page'
                    else 'kv-query reads parts of it, with select=value.<path>' end)
            when s.is_index then public.kv_index_value(s.key, s.value::text)
            else s.value::text
        end
        from public.kv_store as s
        where s.key = p_key), '');
end
$$;

revoke all on function public.kv_query_cuts(text) from public, anon, authenticated;
grant execute on function public.kv_query_cuts(text) to service_role;
