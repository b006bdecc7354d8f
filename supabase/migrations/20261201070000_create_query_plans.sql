-- kv_query and kv_list find entries with a statement. These functions write its FROM and WHERE for a query that Go has checked.
--
-- The statement has fixed fragments and positions in the query. Everything that a caller sent is bound: $1 is the query, $2 the
-- pairs that its index filters name, $3 the search, $4 and $5 the range of keys. Functions of constants become constants when
-- the statement is planned, so an index on a path matches.
--
-- The planner does not decide what leads. It knows nothing of entries that came after the last analyze, and with a limit it bets
-- on finding rows early. Instead, each filter that could lead counts its matches up to a bound.
create function kv.elements(p_array jsonb) returns jsonb[]
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return array(select jsonb_array_elements(p_array));
end
$$;
comment on function kv.elements(jsonb) is 'The elements of a JSON array.';

create function kv.element_texts(p_array jsonb) returns text[]
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return array(select jsonb_array_elements_text(p_array));
end
$$;
comment on function kv.element_texts(jsonb) is 'The elements of a JSON array as text.';

create function kv.search_terms(p_search jsonb, p_phrases boolean) returns tsquery
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_branch jsonb;
    v_term   jsonb;
    v_words  text;
    v_single boolean;
    v_query  tsquery;
    v_all    tsquery;
    v_any    tsquery;
    v_empty  boolean;
begin
    for v_branch in select jsonb_array_elements(p_search) loop
        v_all := null;
        v_empty := true;
        for v_term in select jsonb_array_elements(v_branch) loop
            select string_agg(case when before is null then '' when p_phrases then '<' || n - before || '>' else '&' end || '''' || left(word, 500) || '''', '' order by n),
                   count(*) = 1
            into v_words, v_single
            from (select word, n, lag(n) over (order by n) as before
                  from unnest(kv.normalize_search_text(v_term ->> 'text')) with ordinality as w (word, n) where word <> E'\x1e') as words;
            continue when v_words is null;
            v_empty := false;
            v_query := (v_words || case when (v_term -> 'prefix')::boolean then ':*' else '' end)::tsquery; -- about the last word
            if (v_term -> 'not')::boolean then
                continue when not (v_single or p_phrases); -- an entry may have the words, and not in a row
                v_query := !! v_query;
            end if;
            v_all := coalesce(v_all && v_query, v_query);
        end loop;
        continue when v_empty;
        if v_all is null then
            return '''*'''::tsquery; -- any entry of those that are asked for
        end if;
        v_any := coalesce(v_any || v_all, v_all);
    end loop;
    return v_any;
end
$$;
comment on function kv.search_terms(jsonb, boolean) is
    'The words of a search, [[{"text","not","prefix"},...],...]: all words of any branch. Null where there are none. Without p_phrases, it is what an entry without positions must match before kv.matches_search looks at it.';

create function kv.has_phrase(p_query tsquery) returns boolean
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return p_query::text ~ '<(-|[0-9]+)>'; -- no word has such signs in it
end
$$;
comment on function kv.has_phrase(tsquery) is 'Whether the search has a phrase.';

create function kv.search_query(p_search jsonb) returns tsquery
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_exact tsquery := kv.search_terms(p_search, true);
begin
    if v_exact is null then
        raise exception using errcode = 'PT400', message = 'search has no word in it: give letters or digits to look for';
    elsif not kv.has_phrase(v_exact) then
        return v_exact;
    end if;
    return (v_exact && !! '''*'''::tsquery) || ('''*'''::tsquery && kv.search_terms(p_search, false));
end
$$;
comment on function kv.search_query(jsonb) is
    'What the search column of an entry must match. If the search has a phrase, kv.matches_search decides for entries without positions ("*", see kv.search_vector).';

create function kv.matches_search(p_document jsonb, p_search jsonb) returns boolean
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_text   text := ' ' || array_to_string(kv.normalize_search_text(kv.document_strings(p_document)), ' ') || ' ';
    v_branch jsonb;
    v_term   jsonb;
    v_words  text;
    v_all    boolean;
begin
    for v_branch in select jsonb_array_elements(p_search) loop
        v_all := null; -- a branch without words is none
        for v_term in select jsonb_array_elements(v_branch) loop
            v_words := btrim(array_to_string(kv.normalize_search_text(v_term ->> 'text'), ' '), E' \x1e');
            continue when v_words = '';
            v_all := coalesce(v_all, true) and coalesce((v_term -> 'not')::boolean, false)
                <> (strpos(v_text, ' ' || v_words || case when (v_term -> 'prefix')::boolean then '' else ' ' end) > 0);
        end loop;
        if v_all then
            return true;
        end if;
    end loop;
    return false;
end
$$;
comment on function kv.matches_search(jsonb, jsonb) is 'Whether the text of the document matches a search.';

create function kv.time_column(p_path text) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return case p_path when 'createdAt' then 'created_at' when 'updatedAt' then 'updated_at' end;
end
$$;
comment on function kv.time_column(text) is
    'The column of kv_store for createdAt or updatedAt, null for any other path. The index kv_store_<column> keeps its order.';

create function kv.entry_field(p_path text) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return case when p_path = 'key' then 'kv.bare_key(s.key)' -- a time as JavaScript's toISOString writes it
        else 'to_char(s.' || kv.time_column(p_path) || ' at time zone ''UTC'', ''YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'')' end;
end
$$;
comment on function kv.entry_field(text) is
    'The expression for the entry''s own key, createdAt or updatedAt, from a row s. Null for any other path.';

create function kv.entry_field_condition(p_path text, p_op text, p_value text) returns text
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_at text := 's.' || kv.time_column(p_path);
    v_ms text := format('(to_timestamp(0) + (%s)::bigint * interval ''1 millisecond'')', p_value);
begin
    return case
        when p_op = 'contains' then format('strpos(%s, %s #>> ''{}'') > 0', case p_path when 'key' then 'kv.bare_key(<key>)' else kv.entry_field(p_path) end, p_value)
        when p_op = 'exists' then format('(%s)::boolean', p_value)
        when p_path = 'key' and p_op = 'in' then format('<key> = any (kv.element_texts(%s))', p_value)
        when p_path = 'key' then format('<key> <op> (%s #>> ''{}'') collate "C"', p_value)
        -- A time is what answers show, whole milliseconds.
        when p_op = 'in' then format('floor(extract(epoch from %s) * 1000)::bigint = any (kv.element_texts(%s)::bigint[])', v_at, p_value)
        when p_op = 'gte' then format('%s >= %s', v_at, v_ms)
        when p_op = 'lt' then format('%s < %s', v_at, v_ms)
        when p_op = 'gt' then format('%s >= %s + interval ''1 millisecond''', v_at, v_ms)
        when p_op = 'lte' then format('%s < %s + interval ''1 millisecond''', v_at, v_ms)
        when p_op = 'eq' then format('(%1$s >= %2$s and %1$s < %2$s + interval ''1 millisecond'')', v_at, v_ms)
        when p_op = 'ne' then format('not (%1$s >= %2$s and %1$s < %2$s + interval ''1 millisecond'')', v_at, v_ms)
        end;
end
$$;
comment on function kv.entry_field_condition(text, text, text) is
    'A condition on one of the entry''s own fields. The value is a text, or milliseconds since 1970 where times are compared.';

create function kv.query_where(p_where jsonb) returns text[]
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_conditions text[] := '{}'::text[];
    v_template   text;
    v_op         text;
    v_type       text;
begin
    for i in 0 .. jsonb_array_length(p_where) - 1 loop
        v_op := p_where -> i ->> 'op';
        v_type := jsonb_typeof(p_where -> i -> 'value');
        v_template := case
            when kv.entry_field(p_where -> i ->> 'path') is not null then kv.entry_field_condition(p_where -> i ->> 'path', v_op, '<value>')
            when v_op in ('eq', 'gt', 'gte', 'lt', 'lte') and v_type = 'number'
                then 'kv.number_at(s.document, <path>) <op> (<value>)::numeric'
            when v_op in ('gt', 'gte', 'lt', 'lte') and v_type = 'string'
                then 'kv.text_at(s.document, <path>) <op> (<value> #>> ''{}'') collate "C"'
            when v_op in ('eq', 'ne') then 's.document #> <path> <op> (<value>)'
            when v_op = 'in' and v_type = 'array' then 's.document #> <path> = any (kv.elements(<value>))'
            when v_op = 'exists' and v_type = 'boolean' then
                case when (p_where -> i -> 'value')::boolean then 's.document #> <path> is not null'
                else '(s.document is not null and s.document #> <path> is null)' end
            when v_op = 'contains' and v_type = 'string'
                then '(s.document #> <path> @> (<value>) or strpos(kv.text_at(s.document, <path>), <value> #>> ''{}'') > 0)'
            when v_op = 'contains' then 's.document #> <path> @> (<value>)'
        end;
        if v_template is null then
            raise exception using errcode = 'PT400', message = format('where[%s]: the op cannot be used with this value', i);
        end if;
        v_template := replace(v_template, '<op>',
            case v_op when 'eq' then '=' when 'ne' then '<>' when 'gt' then '>' when 'gte' then '>=' when 'lt' then '<' when 'lte' then '<=' else '' end);
        v_template := replace(v_template, '<path>', format('kv.parse_path($1 #>> ''{where,%s,path}'')', i));
        v_conditions := v_conditions || replace(v_template, '<value>', format('$1 #> ''{where,%s,value}''', i));
    end loop;
    return v_conditions;
end
$$;
comment on function kv.query_where(jsonb) is
    'A condition on a row s of kv_store for each element of where. <key> stands for the key, wherever it is read from. An operator is added here and in pkg/kv (operators).';

create function kv.serving_index(p_condition jsonb) returns text
    language plpgsql stable strict security invoker set search_path = ''
as $$
declare
    v_path   text := p_condition ->> 'path';
    v_column text := kv.time_column(v_path);
begin
    return case
        when v_path = 'key' or p_condition ->> 'op' not in ('eq', 'gt', 'gte', 'lt', 'lte') then null
        when v_column is not null then 'kv_store_' || v_column
        when jsonb_typeof(p_condition -> 'value') = 'number' and kv.has_path_index(kv.parse_path(v_path)) then kv.path_index_name(kv.parse_path(v_path))
        end;
end
$$;
comment on function kv.serving_index(jsonb) is 'The index of kv_store that can serve the condition as a range, or null.';

create function kv.filter_parts(p_filter jsonb) returns setof jsonb
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_part jsonb;
begin
    if p_filter ?| '{pair,exact}' or jsonb_typeof(p_filter) = 'array' then
        return next p_filter;
        return;
    end if;
    for v_part in select jsonb_array_elements(p_filter -> 'all') loop
        if v_part ?| '{pair,exact}' then
            return next v_part;
        else
            return query select kv.filter_parts(v_part);
        end if;
    end loop;
    if p_filter ? 'any' then
        return next p_filter -> 'any';
    end if;
    if p_filter ? 'none' then
        return next jsonb_build_object('none', p_filter -> 'none');
    end if;
end
$$;
comment on function kv.filter_parts(jsonb) is
    'The parts of an index filter (IndexFilter in pkg/kv) that must all hold. {"pair"} and {"exact"} are one index. An array holds when one element does, {"none"} when no element does.';

create function kv.query_filters(p_query jsonb) returns jsonb
    language plpgsql immutable strict security invoker set search_path = ''
as $$
begin
    if p_query -> 'indexes' = 'null' and p_query -> 'indexKeys' = 'null' then
        return '[]'::jsonb;
    end if;
    return (select coalesce(jsonb_agg(part), '[]')
            from (values (p_query -> 'indexes'), (p_query -> 'indexKeys')) as filters (filter), kv.filter_parts(nullif(filter, 'null')) as part);
end
$$;
comment on function kv.query_filters(jsonb) is 'The parts of a query''s index filters that must all hold, as kv.filter_parts returns them.';

create function kv.query_index(
    p_filter jsonb, p_positions jsonb, p_counts bigint[],
    out condition text, out cover integer[], out cost bigint, out exact boolean
) language plpgsql immutable security invoker set search_path = ''
as $$
declare
    v_any   boolean := jsonb_typeof(p_filter) = 'array';
    v_pairs jsonb := p_positions -> (p_filter::text);
    v_parts jsonb[];
    v_part  record;
begin
    if v_pairs is not null then
        cover := '{}';
        cost := 0;
        exact := true;
        for pair in (v_pairs -> 0)::integer .. (v_pairs -> 1)::integer loop
            cover := cover || pair;
            cost := cost + coalesce(p_counts[pair], 0);
            condition := concat_ws(' or ', condition, format('exists (select from kv.posting as p where p.index_key = $2[%1$s][1]'
                ' and p.member = $2[%1$s][2] and p.key = <key> offset 0)', pair)); -- offset keeps it a lookup
        end loop;
        condition := coalesce('(' || condition || ')', 'false');
        return;
    elsif not v_any and p_filter - 'none' = '{}' then
        condition := 'not ' || (kv.query_index(p_filter -> 'none', p_positions, p_counts)).condition;
        exact := false;
        return;
    end if;

    v_parts := case when v_any then kv.elements(p_filter) else array(select kv.filter_parts(p_filter)) end;
    for i in 1 .. cardinality(v_parts) loop
        v_part := kv.query_index(v_parts[i], p_positions, p_counts);
        if i = 1 then
            condition := v_part.condition;
            cover := v_part.cover;
            cost := v_part.cost;
            exact := v_part.exact and (v_any or cardinality(v_parts) = 1);
        elsif v_any then
            condition := condition || ' or ' || v_part.condition;
            cover := case when cover is not null and v_part.cover is not null then cover || v_part.cover end;
            cost := cost + v_part.cost;
            exact := exact and v_part.exact;
        else
            condition := condition || ' and ' || v_part.condition;
            if v_part.cost < cost or cost is null then
                cover := v_part.cover;
                cost := v_part.cost;
            end if;
        end if;
    end loop;
    condition := '(' || condition || ')';
end
$$;
comment on function kv.query_index(jsonb, jsonb, bigint[]) is
    'An index filter''s condition on <key>. The postings of the pairs in cover together have every match (null: no pairs do); cost is how many there are, and exact says that they have nothing else. p_positions comes from kv.query_pairs.';

create type kv.query_plan as (
    ordered_by text,       -- what keeps the order: key, time, or path, where an index was made for it; or none
    driver     text,       -- what leads: index, range, search, prefix, order: the index that keeps the order, or planner: one of these two
    from_key   text,
    to_key     text,
    pairs      text[],     -- {{key,member},...}
    cover      integer[],  -- pairs whose postings lead
    merged     integer[],  -- pairs whose postings are merged with those
    search     tsquery,
    leads      text[],     -- conditions that an index is to serve
    others     text[],     -- conditions that are looked at for each row
    needs_row  boolean     -- others are about a row of kv_store
);
comment on type kv.query_plan is 'How the entries of a query are found. See kv.query_source.';

create function kv.query_pairs(p_filters jsonb, out pairs text[], out positions jsonb)
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_index jsonb;
    v_first integer;
begin
    pairs := '{}';
    positions := '{}';
    for v_index in select jsonb_path_query(p_filters, 'strict $.** ? (exists (@.pair) || exists (@.exact))') loop
        continue when positions ? v_index::text;
        v_first := coalesce(array_length(pairs, 1), 0) + 1;
        if v_index ? 'pair' then
            pairs := pairs || coalesce((
                select array_agg(array[c.index_key, c.member])
                from kv.candidate_pairs(v_index ->> 'pair') as c
                where exists (select from kv.posting as p where p.index_key = c.index_key and p.member = c.member offset 0)), '{}');
        else
            pairs := pairs || array[array[v_index #>> '{exact,key}', v_index #>> '{exact,member}']];
        end if;
        positions := positions || jsonb_build_object(v_index::text, jsonb_build_array(v_first, coalesce(array_length(pairs, 1), 0)));
    end loop;
end
$$;
comment on function kv.query_pairs(jsonb) is
    'The pairs of key and member that the indexes in filters name. positions has the first and the last of each index, by the index''s text.';

-- Where matches are common among the first keys, reading in key order until the page is full may be less than looking at all matches.
-- A sample of them says how much that would be, and a quarter as many matches are counted. The index for full text lists all matches
-- before the first one, so its matches are counted where they seem to be far fewer, or where the page does not fill soon.
create function kv.query_count(p_query jsonb, p_plan kv.query_plan, p_condition text, p_lists_all boolean, p_limit integer) returns bigint
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    c_sample constant integer := 500;
    c_common constant integer := 5;
    c_soon   constant integer := 2; -- times the estimate
    c_fewer  constant integer := 4; -- an entry that an index leads to costs more than the next one in order, and is sorted
    v_limit  bigint := p_limit;
    v_wanted bigint := (p_query ->> 'limit')::bigint + coalesce((p_query ->> 'offset')::bigint, 0) + 1;
    v_count  bigint;
    v_read   bigint;
    v_all    bigint;
begin
    execute format(
        'select count(*) filter (where hit) from ('
        '    select (%s) is true as hit from public.kv_store as s where s.key >= $4 and s.key < $5 order by s.key limit %s) as sample',
        p_condition, c_sample)
        into v_count using p_query, p_plan.pairs, p_plan.search, p_plan.from_key, p_plan.to_key;
    if v_count >= c_common then
        v_read := v_wanted * c_sample / v_count;
        select reltuples into v_all from pg_class where oid = 'public.kv_store'::regclass; -- -1: never analyzed
        if not p_lists_all or v_all >= 0 and v_all * v_count / c_sample * c_fewer <= v_read then
            v_limit := least(v_read / c_fewer, p_limit);
        else
            if v_count < v_wanted then -- else the sample fills the page
                execute format(
                    'select count(*) from (select from ('
                    '    select (%s) is true as hit from public.kv_store as s where s.key >= $4 and s.key < $5 order by s.key limit %s) as first where hit limit %s) as page',
                    p_condition, v_read * c_soon, v_wanted)
                    into v_count using p_query, p_plan.pairs, p_plan.search, p_plan.from_key, p_plan.to_key;
            end if;
            if v_count >= v_wanted then
                return p_limit;
            end if;
        end if;
    end if;
    execute format(
        'select count(*) from (select from public.kv_store as s where %s and (s.key >= $4 and s.key < $5) is true limit %s) as capped',
        p_condition, v_limit)
        into v_count using p_query, p_plan.pairs, p_plan.search, p_plan.from_key, p_plan.to_key;
    return case when v_count < v_limit then v_count else p_limit end;
end
$$;
comment on function kv.query_count(jsonb, kv.query_plan, text, boolean, integer) is
    'How many entries meet a condition that an index serves, up to p_limit. p_lists_all tells that the index lists all of them before the first one. The result is p_limit where reading in key order fills the page with less.';

create function kv.query_plan(p_query jsonb, p_trusting boolean default false) returns kv.query_plan
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    c_few     constant integer := 10000; -- looking at all takes as long as reading a million in order until a page is full
    c_many    constant integer := 50000; -- what is rare among the first keys and not here may be anywhere: looking at all takes 0.1 s, searching for it seconds
    c_rare    constant integer := 1000;  -- a lookup costs what reading some ten postings in order does
    v_plan    kv.query_plan;
    v_sort    text := p_query #>> '{sort,0,path}';
    v_after   text := p_query #>> '{cursor,key}';
    v_order   text;      -- the index that keeps the order, unless that is by key
    v_phrase  boolean := false; -- is searched for
    v_where   text[] := kv.query_where(p_query -> 'where');
    v_keys    integer[]; -- positions in where of the conditions on the key,
    v_ranges  integer[]; -- and of those that one other index serves,
    v_serving text;      -- this one
    v_filters jsonb := kv.query_filters(p_query);
    v_found   record;
    v_of      jsonb;
    v_counts  bigint[] := '{}'::bigint[];
    v_conditions text[] := '{}'::text[]; -- of the filters
    v_single  integer[] := '{}'::integer[]; -- for each filter the only pair that it asks for, if it does
    v_lead    integer; -- the filter whose postings lead
    v_exact   boolean;
    v_cost    bigint;
    v_best    bigint := c_few; -- of the driver
    v_count   bigint;
    v_indexes text[] := '{}'::text[];
    v_choices integer;
begin
    v_plan.ordered_by := 'none';
    if p_query -> 'aggregate' <> '[]' or jsonb_array_length(p_query -> 'sort') > 1 then
        null;
    elsif v_sort = 'key' then
        v_plan.ordered_by := 'key';
    elsif kv.time_column(v_sort) is not null then
        v_plan.ordered_by := 'time';
        v_order := 'kv_store_' || kv.time_column(v_sort);
    elsif kv.has_path_index(kv.parse_path(v_sort)) then
        v_plan.ordered_by := 'path';
        v_order := kv.path_index_name(kv.parse_path(v_sort));
    end if;
    v_plan.from_key := p_query ->> 'prefix';
    v_plan.to_key := kv.prefix_end(v_plan.from_key);
    if v_plan.ordered_by = 'key' and v_after is not null then
        if (p_query #> '{sort,0,descending}')::boolean then
            v_plan.to_key := least(v_plan.to_key collate "C", v_after);
        else
            v_plan.from_key := greatest(v_plan.from_key collate "C", v_after || chr(1)); -- no text sorts between
        end if;
    end if;
    v_plan.pairs := '{}';
    v_plan.merged := '{}';
    v_plan.leads := '{}';
    v_plan.others := '{}';
    v_plan.needs_row := true;
    if v_filters = '[]' and v_where = '{}' and p_query -> 'search' = '[]' and (v_plan.ordered_by = 'key' or p_trusting and v_plan.ordered_by = 'time') then
        v_plan.driver := case v_plan.ordered_by when 'key' then 'prefix' else 'planner' end;
        return v_plan;
    end if;
    if p_query -> 'search' <> '[]' then
        v_plan.search := kv.search_query(p_query -> 'search');
        v_phrase := kv.has_phrase(v_plan.search);
    end if;

    if v_where <> '{}' then
        v_keys := array(select i from generate_subscripts(v_where, 1) as i where p_query #>> array['where', (i - 1)::text, 'path'] = 'key');
        select array_agg(c.i), c.serving into v_ranges, v_serving
        from (select i, kv.serving_index(p_query #> array['where', (i - 1)::text]) as serving from generate_subscripts(v_where, 1) as i) as c
        where c.serving is not null
        group by c.serving order by c.serving = v_order desc nulls last, min(c.i) limit 1;
    end if;

    -- The filters that could lead, each counted where there is a choice.
    v_found := kv.query_pairs(v_filters);
    v_plan.pairs := v_found.pairs;
    v_of := v_found.positions;
    v_choices := jsonb_array_length(v_filters) + (v_ranges is not null)::integer + (v_plan.search is not null)::integer
        + (v_plan.ordered_by <> 'key')::integer;
    if v_choices > 1 then
        select array_agg(c.postings order by i) into v_counts
        from generate_subscripts(v_plan.pairs, 1) as i,
             lateral (select count(*) as postings from (
                select from kv.posting as p
                where p.index_key = v_plan.pairs[i][1] and p.member = v_plan.pairs[i][2]
                  and p.key >= v_plan.from_key and p.key < v_plan.to_key
                limit case when v_choices = jsonb_array_length(v_filters) then c_rare else c_few end) as capped) as c;
    end if;
    for i in 1 .. jsonb_array_length(v_filters) loop
        v_found := kv.query_index(v_filters -> i - 1, v_of, v_counts);
        v_conditions := v_conditions || v_found.condition;
        v_single := v_single || case when v_found.exact and cardinality(v_found.cover) = 1 then v_found.cover[1] end;
        if v_found.cover is not null and (v_cost is null or v_found.cost < v_cost) then
            v_lead := i;
            v_cost := v_found.cost;
            v_exact := v_found.exact;
            v_plan.cover := v_found.cover;
        end if;
    end loop;
    if cardinality(v_plan.cover) > 1 then
        v_plan.cover := array(select distinct unnest(v_plan.cover));
    end if;
    if v_cost < v_best then
        v_best := v_cost;
        v_plan.driver := 'index';
    end if;
    if v_plan.driver is null or v_best >= c_rare then
        if v_ranges is not null and v_order is distinct from v_serving then
            v_count := kv.query_count(p_query, v_plan,
                (select string_agg(v_where[i], ' and ') from unnest(v_ranges) as i), false, c_many);
            if v_count < (case when v_plan.driver is null then c_many else v_best end) then
                v_best := v_count;
                v_plan.driver := 'range';
            end if;
        end if;
        if v_plan.search is not null and querytree(v_plan.search) <> 'T' then -- else no index can lead to it
            v_count := kv.query_count(p_query, v_plan, 's.search @@ $3', true, c_many);
            if v_count < (case when v_plan.driver is null then c_many else v_best end) then
                v_best := v_count;
                v_plan.driver := 'search';
            end if;
        end if;
        if v_plan.ordered_by <> 'key' and (p_query ->> 'prefix' <> '' or v_keys <> '{}') then
            execute format('select count(*) from (select from public.kv_store as s where s.key >= $4 and s.key < $5%s limit %s) as capped',
                (select string_agg(' and ' || replace(v_where[i], '<key>', 's.key'), '') from unnest(v_keys) as i), c_few)
                into v_count using p_query, v_plan.pairs, v_plan.search, v_plan.from_key, v_plan.to_key;
            if v_count < v_best then
                v_best := v_count;
                v_plan.driver := 'prefix';
            end if;
        end if;
    end if;
    v_plan.driver := case
        when v_plan.driver is not null then v_plan.driver
        when v_order is not null then 'order'
        when v_plan.cover is not null then 'index'
        when v_plan.ordered_by = 'key' then 'prefix'
        when v_ranges is not null then 'range'
        when querytree(v_plan.search) <> 'T' then 'search'
        else 'prefix' end;

    -- What is left to look at for each entry that the driver leads to.
    for i in 1 .. cardinality(v_conditions) loop
        if v_plan.driver = 'index' and i = v_lead and v_exact then
            continue; -- its postings say it all
        elsif v_plan.driver = 'index' and v_single[i] is not null and cardinality(v_plan.cover) = 1 and v_best >= c_rare then
            if v_single[i] <> all (v_plan.merged || v_plan.cover) then
                v_plan.merged := v_plan.merged || v_single[i];
            end if;
        else
            v_indexes := v_indexes || v_conditions[i];
        end if;
    end loop;
    for i in 1 .. cardinality(v_where) loop
        if coalesce(i = any (v_ranges) and (v_plan.driver = 'range' or v_plan.driver = 'order' and v_order = v_serving), false)
           or i = any (v_keys) and v_plan.driver in ('prefix', 'index') then
            v_plan.leads := v_plan.leads || v_where[i];
        else
            v_plan.others := v_plan.others || v_where[i];
        end if;
    end loop;
    if v_plan.driver = 'search' then
        v_plan.leads := v_plan.leads || 's.search @@ $3'::text;
    elsif v_plan.search is not null then
        v_plan.others := v_plan.others || 's.search @@ $3'::text;
    end if;
    if v_phrase then
        v_plan.others := v_plan.others || '(not s.search @@ ''''''*''''''::tsquery or kv.matches_search(s.document, $1 -> ''search''))'::text;
    end if;
    v_plan.needs_row := v_plan.driver <> 'index' or v_plan.others <> '{}';
    v_plan.others := v_plan.others || v_indexes;
    return v_plan;
end
$$;
comment on function kv.query_plan(jsonb, boolean) is
    'How to find the entries of a query. With p_trusting, Postgres chooses how to read a prefix in order by time, which saves counting.';

create function kv.query_entry(p_plan kv.query_plan) returns text
    language plpgsql immutable security invoker set search_path = ''
as $$
begin
    return case p_plan.driver when 'index' then 'd' else 's' end;
end
$$;
comment on function kv.query_entry(kv.query_plan) is 'Whose key and expires_at are an entry''s in kv.query_source: d, postings, or s, rows of kv_store.';

create function kv.query_source(p_plan kv.query_plan, p_pair integer, p_row boolean) returns text
    language plpgsql immutable security invoker set search_path = ''
as $$
declare
    c_posting constant text := 'select p.key, p.expires_at from kv.posting as p'
        ' where p.index_key = $2[%1$s][1] and p.member = $2[%1$s][2] and p.key >= $4 and p.key < $5';
    v_entry   text := kv.query_entry(p_plan);
    v_source  text := 'public.kv_store as s';
    v_where   text[] := p_plan.leads;
    v_range   text := format('(%1$s.key >= $4 and %1$s.key < $5)', v_entry);
    v_condition text;
begin
    if p_plan.driver <> 'index' then
        v_where := v_where || (v_range || case when p_plan.driver in ('prefix', 'planner') then '' else ' is true' end); -- no index serves that
    else
        if p_pair is not null then
            v_source := 'kv.posting as d';
            v_where := v_where || v_range || format('d.index_key = $2[%1$s][1] and d.member = $2[%1$s][2]', p_pair);
            for i in 1 .. cardinality(p_plan.merged) loop
                v_source := v_source || format(' join kv.posting as p%1$s on p%1$s.key = d.key and p%1$s.index_key = $2[%1$s][1]'
                    ' and p%1$s.member = $2[%1$s][2] and p%1$s.key >= $4 and p%1$s.key < $5', p_plan.merged[i]);
            end loop;
        else
            v_source := '(' || coalesce((select string_agg(format(c_posting, pair), ' union ') from unnest(p_plan.cover) as pair),
                'select null::text collate "C" as key, null::timestamptz as expires_at where false') || ') as d';
        end if;
        if p_plan.needs_row or p_row then
            v_source := v_source || ' cross join lateral (select * from public.kv_store as s where s.key = d.key offset 0) as s';
        end if;
    end if;
    v_where := v_where || format('kv.is_live(%s.expires_at)', v_entry);
    foreach v_condition in array p_plan.others loop
        v_where := v_where || ('(' || v_condition || ') is true');
    end loop;
    return replace(v_source || ' where ' || array_to_string(v_where, ' and '), '<key>', v_entry || '.key');
end
$$;
comment on function kv.query_source(kv.query_plan, integer, boolean) is
    'What follows "from": the entries that are seen and that one pair of the cover leads to, or all (null). kv.query_entry has their keys; s is a row of kv_store where it is that or p_row asks for it.';

create function kv.query_source_in_key_order(p_plan kv.query_plan, p_way text, p_row boolean) returns text
    language plpgsql immutable security invoker set search_path = ''
as $$
declare
    v_branches text;
begin
    if p_plan.driver <> 'index' or cardinality(p_plan.cover) = 1 then
        return kv.query_source(p_plan, p_plan.cover[1], p_row);
    end if;
    select string_agg(format('(select d.key, d.expires_at from %s order by d.key %s limit $6 + $7)', kv.query_source(p_plan, pair, false), p_way), ' union ')
    into v_branches from unnest(p_plan.cover) as pair;
    return '(' || coalesce(v_branches, 'select null::text collate "C" as key, null::timestamptz as expires_at where false') || ') as d'
        || case when p_row then ' cross join lateral (select * from public.kv_store as s where s.key = d.key offset 0) as s' else '' end;
end
$$;
comment on function kv.query_source_in_key_order(kv.query_plan, text, boolean) is
    'kv.query_source for a page in key order, of $6 entries from $7 on. Each list of postings is read only as far as the page needs.';
