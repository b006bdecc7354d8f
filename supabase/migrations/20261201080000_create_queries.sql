-- kv-query in one round trip: first the keys of a page, then the response from their rows; or aggregates.
create function kv.query_sort(p_sort jsonb, out columns text, out order_by text)
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_path text;
    v_way  text;
begin
    columns := '<key> as key';
    for i in 0 .. jsonb_array_length(p_sort) - 1 loop
        v_path := p_sort -> i ->> 'path';
        v_way := case when (p_sort -> i -> 'descending')::boolean then 'desc' else 'asc' end;
        continue when v_path = 'key'; -- the last one in any case
        if kv.time_column(v_path) is not null then
            columns := columns || format(', s.%s as at%s', kv.time_column(v_path), i);
            order_by := concat_ws(', ', order_by, format('at%s %s', i, v_way));
        else
            columns := columns || replace(format(', case jsonb_typeof(s.document #> <path>) when ''number'' then 0 when ''string'' then 1'
                ' else case when s.document #> <path> is null then 3 else 2 end end as class%1$s, kv.number_at(s.document, <path>) as number%1$s,'
                ' left(kv.text_at(s.document, <path>), 200) collate "C" as text%1$s', i), '<path>', format('kv.parse_path($1 #>> ''{sort,%s,path}'')', i));
            order_by := concat_ws(', ', order_by, format('class%1$s, number%1$s %2$s, text%1$s %2$s', i, v_way));
        end if;
    end loop;
    order_by := concat_ws(', ', order_by, 'key ' || v_way);
end
$$;
comment on function kv.query_sort(jsonb) is
    'The columns to sort by, and their order. At a path, numbers come first, then strings (their first 200 characters), then other values, then entries without one.';

create function kv.query_after(p_query jsonb, p_at text, p_key text) returns text
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_than  text := case when (p_query #> '{sort,0,descending}')::boolean then '<' else '>' end;
    v_class integer := case when jsonb_typeof(p_query #> '{cursor,position}') = 'array' then (p_query #> '{cursor,position,0}')::integer end;
    c_key   constant text := '(($1 #>> ''{cursor,key}'') collate "C")';
begin
    return case
        when p_query #> '{cursor,key}' is null or p_query #>> '{sort,0,path}' = 'key' then 'true' -- by key, it bounds the range
        when v_class is null then format('(%s, %s) %s (to_timestamp(0) + ($1 #>> ''{cursor,position}'')::bigint * interval ''1 microsecond'', %s)', p_at, p_key, v_than, c_key)
        else format('(class0 > %1$s or class0 = %1$s and ', v_class) || case v_class
            when 0 then format('(number0, key) %s (($1 #> ''{cursor,position,1}'')::numeric, %s))', v_than, c_key)
            when 1 then format('(text0, key) %s (($1 #>> ''{cursor,position,1}'') collate "C", %s))', v_than, c_key)
            else format('key %s %s)', v_than, c_key) end
        end;
end
$$;
comment on function kv.query_after(jsonb, text, text) is
    'The condition that an entry comes after the cursor. p_at and p_key are the time and the key to compare; other orders use the columns of kv.query_sort.';

create function kv.query_statement(p_query jsonb, p_plan kv.query_plan, p_columns text, p_row boolean) returns text
    language plpgsql immutable security invoker set search_path = ''
as $$
declare
    v_key  text := kv.query_entry(p_plan) || '.key';
    v_at   text := 's.' || kv.time_column(p_query #>> '{sort,0,path}');
    v_way  text := case when (p_query #> '{sort,0,descending}')::boolean then 'desc' else 'asc' end;
    v_sort record;
begin
    if p_plan.ordered_by = 'key' and p_plan.driver in ('index', 'prefix') then
        return format('select %1$s as key%2$s from %3$s order by %1$s %4$s limit $6 offset $7',
            v_key, replace(p_columns, '<key>', v_key), kv.query_source_in_key_order(p_plan, v_way, p_row), v_way);
    elsif p_plan.ordered_by = 'time' and p_plan.driver in ('order', 'planner') then
        return format('select s.key, %1$s as at0%2$s from %3$s and %4$s order by %1$s %5$s, s.key %5$s limit $6 offset $7',
            v_at, replace(p_columns, '<key>', v_key), kv.query_source(p_plan, null, true), kv.query_after(p_query, v_at, v_key), v_way);
    end if;
    v_sort := kv.query_sort(p_query -> 'sort');
    return format('select * from (select %s from %s offset 0) as found where %s order by %s limit $6 offset $7', -- the inner offset keeps the order out of it
        replace(v_sort.columns || p_columns, '<key>', v_key),
        kv.query_source(p_plan, case when cardinality(p_plan.cover) = 1 then p_plan.cover[1] end, p_row or p_query #>> '{sort,0,path}' <> 'key'),
        kv.query_after(p_query, 'at0', 'key'), v_sort.order_by);
end
$$;
comment on function kv.query_statement(jsonb, kv.query_plan, text, boolean) is
    'The statement that finds $6 entries from $7 on, in their order: their key, and p_columns of a row s, which p_row asks for. An order that no index keeps takes all matches and sorts them.';

create function kv.query_page(p_query jsonb, p_plan kv.query_plan, p_statement text, p_limit bigint, p_offset bigint) returns text[]
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_keys text[];
begin
    execute 'select coalesce(array_agg(key), ''{}'') from (' || p_statement || ') as page' into v_keys
        using p_query, p_plan.pairs, p_plan.search, p_plan.from_key, p_plan.to_key, p_limit, p_offset;
    return v_keys;
end
$$;
comment on function kv.query_page(jsonb, kv.query_plan, text, bigint, bigint) is
    'The keys that a statement finds. $6 is its limit, $7 its offset.';

create function kv.query_keys_by_number(p_query jsonb, p_plan kv.query_plan, p_limit bigint, p_offset bigint) returns text[]
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_plan    kv.query_plan := p_plan;
    c_number  constant text := 'kv.number_at(s.document, kv.parse_path($1 #>> ''{sort,0,path}''))';
    v_way     text := case when (p_query #> '{sort,0,descending}')::boolean then 'desc' else 'asc' end;
    v_class   integer := coalesce((p_query #> '{cursor,position,0}')::integer, 0);
    v_keys    text[] := '{}'::text[];
    v_numbers bigint := 0;
begin
    if v_class = 0 then
        v_plan.leads := p_plan.leads || (c_number || ' is not null')::text;
        if p_query #> '{cursor,key}' is not null then
            v_plan.leads := v_plan.leads || format('(%s, s.key) %s (($1 #> ''{cursor,position,1}'')::numeric, ($1 #>> ''{cursor,key}'') collate "C")',
                c_number, case v_way when 'desc' then '<' else '>' end);
        end if;
        v_keys := kv.query_page(p_query, v_plan, format('select s.key from %s order by %s %s, s.key %3$s limit $6 offset $7',
            kv.query_source(v_plan, null, false), c_number, v_way), p_limit, p_offset);
    end if;
    if cardinality(v_keys) = p_limit or p_plan.leads <> '{}' then
        return v_keys; -- what leads compares with numbers: there is no rest
    end if;
    if p_offset > 0 and v_keys = '{}' then -- it ends somewhere in the rest
        execute 'select count(*) from ' || kv.query_source(v_plan, null, false) into v_numbers
            using p_query, p_plan.pairs, p_plan.search, p_plan.from_key, p_plan.to_key;
    end if;
    v_plan.leads := array['(' || c_number || ' is null) is true'];
    return v_keys || kv.query_page(p_query, v_plan, kv.query_statement(p_query, v_plan, '', false), p_limit - cardinality(v_keys),
        case when v_keys = '{}' then greatest(p_offset - v_numbers, 0) else 0 end);
end
$$;
comment on function kv.query_keys_by_number(jsonb, kv.query_plan, bigint, bigint) is
    'The keys of a page in the order of an index of kv_index_path: the numbers, and after the last one the other entries.';

create function kv.query_keys_by_relevance(p_query jsonb, p_limit bigint, p_offset bigint, out keys text[], out cut boolean)
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    c_ranked constant integer := 10000;
    v_query  jsonb := jsonb_set(p_query, '{sort}', '[{"path": "key", "descending": false}]');
    v_plan   kv.query_plan := kv.query_plan(v_query);
    v_words  tsquery := kv.search_terms(p_query -> 'search', true);
    v_found  text[] := kv.query_page(v_query, v_plan, kv.query_statement(v_query, v_plan, '', false), c_ranked + 1, 0);
begin
    cut := cardinality(v_found) > c_ranked;
    select coalesce(array_agg(key), '{}') into keys from (
        select f.key from unnest(v_found[1:c_ranked]) as f (key)
        cross join lateral (select s.search from public.kv_store as s where s.key = f.key offset 0) as s
        order by ts_rank(s.search, v_words) desc, f.key collate "C" limit p_limit offset p_offset) as ranked;
end
$$;
comment on function kv.query_keys_by_relevance(jsonb, bigint, bigint) is
    'The keys of a page, best match first. Only the first 10,000 matches by key are ranked; cut says that there were more.';

create function kv.query_keys(p_query jsonb, p_limit bigint, p_offset bigint, out keys text[], out cursors boolean, out cut boolean)
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_plan kv.query_plan;
begin
    cut := false;
    cursors := false;
    if p_query #>> '{sort,0,path}' = 'relevance' then
        select r.keys, r.cut into keys, cut from kv.query_keys_by_relevance(p_query, p_limit, p_offset) as r;
        return;
    end if;
    v_plan := kv.query_plan(p_query);
    cursors := v_plan.ordered_by <> 'none';
    keys := case when v_plan.ordered_by = 'path' and v_plan.driver = 'order' then kv.query_keys_by_number(p_query, v_plan, p_limit, p_offset)
        else kv.query_page(p_query, v_plan, kv.query_statement(p_query, v_plan, '', false), p_limit, p_offset) end;
end
$$;
comment on function kv.query_keys(jsonb, bigint, bigint) is
    'The keys of a page. cursors: the order has cursors. cut: see kv.query_keys_by_relevance.';

create function kv.format_cursor(p_question text, p_position json, p_key text) returns text
    language plpgsql immutable security invoker set search_path = ''
as $$
begin
    return translate(encode(convert_to(json_build_object('question', p_question, 'position', p_position, 'key', kv.bare_key(p_key))::text, 'UTF8'), 'base64'), E'+/=\n', '-_');
end
$$;
comment on function kv.format_cursor(text, json, text) is
    'The cursor of a page (Cursor in pkg/kv): base64url of JSON. p_question is the digest of what the page answers; p_position and p_key are those of its last entry.';

create function kv.query_cursor(p_query jsonb, p_question text, p_key text) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_by   text := p_query #>> '{sort,0,path}';
    v_path text[];
    v_row  public.kv_store;
begin
    if v_by = 'key' then
        return kv.format_cursor(p_question, null, p_key);
    end if;
    select * into v_row from public.kv_store where key = p_key;
    if kv.time_column(v_by) is not null then
        return kv.format_cursor(p_question, to_json((extract(epoch from case v_by when 'createdAt' then v_row.created_at else v_row.updated_at end) * 1000000)::bigint), p_key);
    end if;
    v_path := kv.parse_path(v_by);
    return kv.format_cursor(p_question, case jsonb_typeof(v_row.document #> v_path)
        when 'number' then json_build_array(0, kv.number_at(v_row.document, v_path))
        when 'string' then json_build_array(1, left(kv.text_at(v_row.document, v_path), 200))
        else json_build_array(case when v_row.document #> v_path is null then 3 else 2 end, null) end, p_key);
end
$$;
comment on function kv.query_cursor(jsonb, text, text) is 'The cursor of a page whose last entry has the key.';

create function kv.query_notices(p_notices text[]) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return case when p_notices = '{}' then '' else ',"notices":[' || array_to_string(p_notices, ',') || ']' end;
end
$$;
comment on function kv.query_notices(text[]) is 'The field with the notices of a response, after a comma. Empty where there are none.';

create function kv.query_paths(p_query jsonb) returns text[]
    language plpgsql immutable strict security invoker set search_path = ''
as $$
begin
    return array(
        select path
        from (select e ->> 'path' as path from jsonb_array_elements((p_query -> 'where') || (p_query -> 'aggregate')) as e
              union all
              select e ->> 'path' from jsonb_array_elements(p_query -> 'sort') as e where p_query -> 'aggregate' = '[]' and e ->> 'path' <> 'relevance'
              union all
              select p_query ->> 'groupBy' where p_query ->> 'groupBy' <> '' and p_query ->> 'groupBy' not like 'index:%') as paths
        where path is not null and kv.entry_field(path) is null);
end
$$;
comment on function kv.query_paths(jsonb) is 'The paths of values that a query compares, sorts by or aggregates.';

create function kv.query_unseen(p_query jsonb) returns text[]
    language plpgsql stable strict security invoker set search_path = ''
as $$
declare
    c_looked_at constant integer := 1000;
    v_from      text := p_query ->> 'prefix';
    v_to        text := kv.prefix_end(v_from);
    v_searched  boolean := p_query -> 'search' <> '[]';
    v_paths     text[] := kv.query_paths(p_query);
    v_pairs     text[] := '{}'::text[];
    v_of        jsonb;
    v_filters   jsonb := kv.query_filters(p_query);
    v_filter    text := 'true';
    v_unsearched bigint;
    v_replaced  bigint;
    v_more      boolean;
    v_notices   text[] := '{}'::text[];
begin
    if not (v_searched or v_paths <> '{}') or not exists (
        select from public.kv_store
        where (replaced or search is null and not is_index) and key >= v_from and key < v_to and kv.is_live(expires_at)) then
        return '{}'::text[];
    end if;
    if v_filters <> '[]' then
        select pairs, positions into v_pairs, v_of from kv.query_pairs(v_filters);
        select replace(string_agg((kv.query_index(filter, v_of, '{}')).condition, ' and '), '<key>', 's.key') into v_filter
        from jsonb_array_elements(v_filters) as filter;
    end if;
    execute format(
        'select count(*) filter (where search is null), count(*) filter (where replaced and exists ('
        '    select from unnest($5) as paths (path) where kv.is_replaced(unseen.value, kv.parse_path(path)))), count(*) > $6'
        ' from (select search, replaced, value from public.kv_store as s'
        '    where (replaced or search is null and not is_index) and key >= $3 and key < $4 and kv.is_live(expires_at) and %s order by key limit $6 + 1) as unseen', v_filter)
        into v_unsearched, v_replaced, v_more using p_query, v_pairs, v_from, v_to, v_paths, c_looked_at;
    if v_searched and v_unsearched > 0 then
        v_notices := v_notices || format('{"code":"not_searched","count":%1$s,"message":"entries under this prefix and with these indexes that were not searched: %1$s%2$s.'
            ' Their values are over 200 kB, have more words than are kept, or are not JSON"}', v_unsearched, case when v_more then ' or more' else '' end);
    end if;
    if v_replaced > 0 then
        v_notices := v_notices || format('{"code":"replaced","count":%1$s,"message":"entries under this prefix and with these indexes that have at a path of the query what the database cannot hold: %1$s%2$s.'
            ' U+0000 and half surrogate pairs count as U+FFFD, numbers beyond its range as text"}', v_replaced, case when v_more then ' or more' else '' end);
    end if;
    return v_notices;
end
$$;
comment on function kv.query_unseen(jsonb) is
    'Notices about values that a query cannot see: those that are not searched, and those of which something at one of its paths was replaced. Counted up to a bound, regardless of where.';

create function kv.query_results(p_query jsonb, p_question text) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_limit   bigint := (p_query ->> 'limit')::bigint;
    v_offset  bigint := coalesce((p_query ->> 'offset')::bigint, 0);
    v_found   record := kv.query_keys(p_query, v_limit + 1, v_offset);
    v_field   text;
    v_columns text := '';
    v_parts   text[] := '{}'::text[];
    v_sizes   text[] := '{}'::text[];
    v_results text;
    v_count   integer;
    v_more    boolean;
    v_expires timestamptz;
    v_notices text[] := kv.query_unseen(p_query);
begin
    for i in 0 .. jsonb_array_length(p_query -> 'select') - 1 loop
        v_field := p_query -> 'select' ->> i;
        if v_field not like 'value.%' then
            v_parts := v_parts || case v_field
                when 'key' then '''"key":'' || to_json(kv.bare_key(key))'
                when 'value' then '''"value":'' || case when is_index then kv.index_value(key, value::text) else coalesce(value::text, ''null'') end'
                when 'indexes' then '''"indexes":'' || array_to_json(indexes)'
                else '''"' || v_field || '":"'' || ' || kv.entry_field(v_field) || ' || ''"'''
                end;
            v_sizes := v_sizes || case v_field
                when 'key' then 'octet_length(to_json(s.key)::text) + 7'
                when 'value' then 's.bytes + case when s.is_index then kv.member_bytes(s.key) else 0 end + 9'
                when 'indexes' then 'octet_length(array_to_json(s.indexes)::text) + 11'
                else '39' end;
        else -- in the exact text, where the document says that there is something
            v_columns := v_columns || replace(format(', case when s.document #> <path> is null then null when not s.replaced then (s.value #> <path>)::text'
                ' else coalesce(kv.exact_part(s.value, <path>), (s.document #> <path>)::text) end as part%s', i),
                '<path>', format('kv.parse_path(substr($2 #>> ''{select,%s}'', 7))', i));
            v_parts := v_parts || format('to_json($2 #>> ''{select,%1$s}'') || '':'' || part%1$s', i);
            v_sizes := v_sizes || format('coalesce(octet_length(part%1$s) + octet_length(to_json($2 #>> ''{select,%1$s}'')::text) + 2, 0)', i);
        end if;
    end loop;

    execute format(
        'select coalesce(string_agg(case when total > kv.response_limit() then kv.raise_too_large(format(''the entry %%s alone is larger than'
        ' the 6 MB of a response: select less than its value, or go on after it'', to_json(kv.bare_key(key)))) else ''{'' || concat_ws('','', %s) || ''}'' end, '','' order by n)'
        '    filter (where kept), ''''), count(*) filter (where kept), coalesce(bool_or(not kept), false), min(expires_at)'
        ' from (select *, n <= $3 and (n = 1 or total <= $4) as kept'
        '    from (select *, sum(%s + 3) over (order by n rows unbounded preceding) as total'
        '        from (select f.n, s.*%s from unnest($1) with ordinality as f (key, n)'
        '              cross join lateral (select * from public.kv_store as s where s.key = f.key offset 0) as s offset 0) as s) as sized) as s',
        array_to_string(v_parts, ', '), array_to_string(v_sizes, ' + '), v_columns)
        into v_results, v_count, v_more, v_expires
        using v_found.keys, p_query, v_limit, least((p_query ->> 'pageBytes')::bigint, kv.page_limit());
    if v_offset > 0 then
        v_expires := least(v_expires, kv.next_expiry());
    end if;

    if v_found.cut then
        v_notices := v_notices || '{"code":"ranked_first","message":"the first 10,000 matches by key were ranked, and there were more: narrow the search"}'::text;
    end if;
    if v_more and not v_found.cursors then
        v_notices := v_notices || format('{"code":"no_cursor","message":"this order has no cursor: go on with offset %s"}', v_offset + v_count);
    end if;
    return kv.expiry_line(v_expires) || '{"results":[' || v_results || '],"count":' || v_count
        || format(',"pagination":{"limit":%s,"offset":%s,"hasMore":%s,"nextCursor":%s}', v_limit, v_offset, v_more::text,
            case when v_more and v_found.cursors then '"' || kv.query_cursor(p_query, p_question, v_found.keys[v_count]) || '"' else 'null' end)
        || kv.query_notices(v_notices) || '}';
end
$$;
comment on function kv.query_results(jsonb, text) is 'The response to a query for entries.';

-- The pattern cannot match inside a JSON string, where a backslash precedes each quotation mark.
create function kv.cut_notices(p_aggregates text) returns text[]
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return case when strpos(p_aggregates, ',"cut":true') = 0 then '{}'
        else array['{"code":"text_cut","message":"text is compared and shown up to its 200th character, and some of it is longer"}'] end;
end
$$;
comment on function kv.cut_notices(text) is 'The notice that the text of some min or max was cut.';

-- Text is compared up to its 200th character; the 201st tells that there is more.
create function kv.query_aggregate(p_aggregates jsonb) returns text
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
        v_own := kv.entry_field(p_aggregates -> i ->> 'path');
        v_part := case
            when v_op = 'count' and p_aggregates -> i -> 'path' is null then 'count(*)'
            when v_op = 'count' then 'count(<part>)'
            when v_op = 'distinct' then 'count(distinct <part>)'
            when v_op = 'sum' then 'coalesce(trim_scale(sum(<number>)), 0) || '',"excluded":'' || count(*) - count(<number>)'
            when v_op = 'avg' then 'coalesce(trim_scale(avg(<number>))::text, ''null'') || '',"excluded":'' || count(*) - count(<number>)'
            when v_op in ('min', 'max') then format('coalesce(%1$s(<number>)::text, to_json(left(%1$s(<text>), 200))::text'
                ' || case when length(%1$s(<text>)) > 200 then '',"cut":true'' else '''' end, ''null'')'
                ' || '',"excluded":'' || count(*) - case when count(<number>) > 0 then count(<number>) else count(<text>) end', v_op)
            end;
        v_parts := v_parts || ('''{"op":"' || v_op || '"'
            || case when p_aggregates -> i -> 'path' is null then '' else format(',"path":'' || to_json($1 #>> ''{aggregate,%s,path}'') || ''', i) end
            || ',"value":'' || ' || replace(replace(replace(v_part,
                '<number>', case when v_own is null then 'kv.number_at(s.document, <path>)' else 'null::numeric' end),
                '<text>', 'left(' || coalesce(v_own, 'kv.text_at(s.document, <path>)') || ', 201) collate "C"'),
                '<part>', coalesce(v_own, '(s.document #> <path>)'))
            || ' || ''}''');
        v_parts[i + 1] := replace(v_parts[i + 1], '<path>', format('kv.parse_path($1 #>> ''{aggregate,%s,path}'')', i));
    end loop;
    return '''['' || concat_ws('','', ' || array_to_string(v_parts, ', ') || ') || '']''';
end
$$;
comment on function kv.query_aggregate(jsonb) is 'The expression that computes the aggregates over rows s.';

create function kv.query_aggregates(p_query jsonb) returns text
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_plan    kv.query_plan := kv.query_plan(p_query);
    v_group   text := p_query ->> 'groupBy';
    v_index   boolean := v_group like 'index:%';
    v_row     boolean := jsonb_path_exists(p_query, '$.aggregate[*].path') or v_group <> '';
    v_source  text := kv.query_source(v_plan, case when cardinality(v_plan.cover) = 1 then v_plan.cover[1] end, v_row);
    v_answer  text := kv.query_aggregate(p_query -> 'aggregate');
    v_totals  text;
    v_groups  text;
    v_count   bigint;
    v_more    boolean;
    v_expires timestamptz;
    v_notices text[] := kv.query_unseen(p_query);
begin
    execute format('select %s, min(%s.expires_at) from %s', v_answer, kv.query_entry(v_plan), v_source) into v_totals, v_expires
        using p_query, v_plan.pairs, v_plan.search, v_plan.from_key, v_plan.to_key;
    if v_group = '' then
        return kv.expiry_line(v_expires) || '{"aggregates":' || v_totals || kv.query_notices(v_notices || kv.cut_notices(v_totals)) || '}';
    end if;

    execute format(
        'select coalesce(string_agg(text, '','' order by n) filter (where kept), ''''), count(*) filter (where kept), coalesce(bool_or(not kept), false)'
        ' from (select *, n <= $6 and sum(octet_length(text) + 1) over (order by n rows unbounded preceding) <= $7 as kept'
        '    from (select row_number() over () as n, text from (select ''{"group":'' || %s || '',"aggregates":'' || %s || ''}'' as text'
        '        from (select s.key, s.document, s.index_pairs, s.created_at, s.updated_at from %s offset 0) as s cross join lateral (%s) as grouped (part) group by part'
        '        order by %s limit $6 + 1) as ordered) as numbered) as page',
        case when v_index then 'kv.member_to_json(part)' else 'coalesce(part::text, ''null,"absent":true'')' end, v_answer, v_source,
        case when v_index then 'select distinct member from kv.pairs(s.index_pairs) where index_key = substr($1 ->> ''groupBy'', 7)'
            else 'select ' || coalesce('to_jsonb(' || kv.entry_field(v_group) || ')', 's.document #> kv.parse_path($1 ->> ''groupBy'')') end,
        case when v_index then 'part' else 'case jsonb_typeof(part) when ''number'' then 0 when ''string'' then 1 else 2 end,'
            ' case when jsonb_typeof(part) = ''number'' then part::numeric end,'
            ' case when jsonb_typeof(part) = ''string'' then left(part #>> ''{}'', 200) collate "C" end, part::text collate "C"' end)
        into v_groups, v_count, v_more
        using p_query, v_plan.pairs, v_plan.search, v_plan.from_key, v_plan.to_key, (p_query ->> 'limit')::bigint, kv.page_limit();
    if v_more then
        v_notices := v_notices || format('{"code":"groups_cut","message":"these are the first %s groups, and there are more: narrow the filter"}', v_count);
    end if;
    return kv.expiry_line(v_expires) || '{"aggregates":' || v_totals || ',"groups":[' || v_groups || ']'
        || kv.query_notices(v_notices || kv.cut_notices(v_totals || v_groups)) || '}';
exception
    when numeric_value_out_of_range then
        raise exception using errcode = 'PT400', message = 'the numbers are too large to be added up';
end
$$;
comment on function kv.query_aggregates(jsonb) is 'The response to a query for aggregates.';

create function kv.query(p_query jsonb, p_question text) returns text
    language plpgsql stable security invoker
    set search_path = ''
    set enable_seqscan = off  -- what leads is decided by kv.query_plan
    set enable_sort = off     -- an order that an index keeps is not to be sorted for
    set enable_hashjoin = off -- lists of postings come in key order and are merged in it
    set enable_nestloop = off
    set jit = off -- what is switched off above counts as expensive, and an expensive plan is compiled first: half a second
    set max_parallel_workers_per_gather = 0 -- workers start slower than a page is read
as $$
begin
    return case when p_query -> 'aggregate' = '[]' then kv.query_results(p_query, p_question) else kv.query_aggregates(p_query) end;
end
$$;
comment on function kv.query(jsonb, text) is 'The response of kv-query.';

create function public.kv_query(p_query jsonb, p_question text, p_since text default null) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker
    set search_path = ''
    set statement_timeout = '10s' -- pkg/kv, MaxQueryTime
as $$
begin
    return kv.changes_line(p_since) || kv.query(p_query, p_question);
end
$$;
comment on function public.kv_query(jsonb, text, text) is
    'The response of kv-query to a query that Go has checked and completed (Query in pkg/kv). p_question is the digest of what it asks. p_since: see kv_get.';
revoke all on function public.kv_query(jsonb, text, text) from public, anon, authenticated;
grant execute on function public.kv_query(jsonb, text, text) to service_role;
