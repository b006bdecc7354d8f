-- How kv_query finds entries: from a query that Go has parsed and checked to the FROM and WHERE of a statement.
--
-- The statement is put together from the fixed fragments below and positions in the query. What a caller sent is
-- bound: $1 the query, $2 the pairs its index filters spell, $3 the words searched for, $4 and $5 the range of keys.
-- Functions of constants become constants when the statement is planned, so an index on a path matches.
--
-- The planner is not asked what to begin with: it knows nothing of entries that came after the last analyze, and a
-- limit makes it bet on finding rows early. Instead each filter that could lead counts its matches, up to a bound.
create function kv.elements(p_array jsonb) returns jsonb[]
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return array(select jsonb_array_elements(p_array));
end
$$;
comment on function kv.elements(jsonb) is 'The elements of a JSON array.';

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
comment on function kv.search_terms(jsonb, boolean) is 'The words of a search: [[{"text","not","prefix"},...],...], any of all; null where there are none. Without p_phrases, what an entry without positions must match to be looked at by kv.matches_search.';

create function kv.has_phrase(p_query tsquery) returns boolean
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return p_query::text ~ '<(-|[0-9]+)>'; -- no word has such signs in it
end
$$;
comment on function kv.has_phrase(tsquery) is 'Whether words are to be in a row.';

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
comment on function kv.search_query(jsonb) is 'What the words of an entry must match. With a phrase, and where positions are missing ("*", see kv.search_vector), kv.matches_search decides about what matches.';

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
comment on function kv.matches_search(jsonb, jsonb) is 'Whether the document''s own text is what a search asks for.';

create function kv.entry_field(p_by text) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return case p_by
        when 'key' then 's.key'
        when 'createdAt' then 'to_char(s.created_at at time zone ''UTC'', ''YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'')' -- as JavaScript's toISOString writes it
        when 'updatedAt' then 'to_char(s.updated_at at time zone ''UTC'', ''YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'')'
        end;
end
$$;
comment on function kv.entry_field(text) is 'The expression that shows a field of the entry''s own (key, createdAt, updatedAt) of a row s; null for anything else.';

create function kv.entry_field_condition(p_by text, p_op text, p_value text) returns text
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_at text := case p_by when 'createdAt' then 's.created_at' when 'updatedAt' then 's.updated_at' end;
    v_ms text := format('(to_timestamp(0) + (%s)::bigint * interval ''1 millisecond'')', p_value);
begin
    return case
        when p_op = 'contains' then format('strpos(%s, %s #>> ''{}'') > 0', case p_by when 'key' then '<key>' else kv.entry_field(p_by) end, p_value)
        when p_op = 'exists' then format('(%s)::boolean', p_value)
        when p_by = 'key' and p_op = 'in' then format('<key> = any (kv.path(%s))', p_value)
        when p_by = 'key' then format('<key> <op> (%s #>> ''{}'') collate "C"', p_value)
        -- A time is what answers show, whole milliseconds.
        when p_op = 'in' then format('floor(extract(epoch from %s) * 1000)::bigint = any (kv.path(%s)::bigint[])', v_at, p_value)
        when p_op = 'gte' then format('%s >= %s', v_at, v_ms)
        when p_op = 'lt' then format('%s < %s', v_at, v_ms)
        when p_op = 'gt' then format('%s >= %s + interval ''1 millisecond''', v_at, v_ms)
        when p_op = 'lte' then format('%s < %s + interval ''1 millisecond''', v_at, v_ms)
        when p_op = 'eq' then format('(%1$s >= %2$s and %1$s < %2$s + interval ''1 millisecond'')', v_at, v_ms)
        when p_op = 'ne' then format('not (%1$s >= %2$s and %1$s < %2$s + interval ''1 millisecond'')', v_at, v_ms)
        end;
end
$$;
comment on function kv.entry_field_condition(text, text, text) is 'A condition on a field of the entry''s own. Its value is text, or milliseconds since 1970 where times are compared.';

create function kv.query_where(p_where jsonb) returns text[]
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_conditions text[] := '{}'::text[];
    v_template   text;
    v_by         text;
    v_op         text;
    v_type       text;
begin
    for i in 0 .. jsonb_array_length(p_where) - 1 loop
        v_by := p_where -> i ->> 'by';
        v_op := p_where -> i ->> 'op';
        v_type := jsonb_typeof(p_where -> i -> 'value');
        v_template := case
            when v_by <> 'path' then kv.entry_field_condition(v_by, v_op, '<value>')
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
        v_template := replace(v_template, '<path>', format('kv.path($1 #> ''{where,%s,path}'')', i));
        v_conditions := v_conditions || replace(v_template, '<value>', format('$1 #> ''{where,%s,value}''', i));
    end loop;
    return v_conditions;
end
$$;
comment on function kv.query_where(jsonb) is 'A condition on s, a row of kv_store, for each element of where. <key> stands for its key, from wherever that is read.';

create function kv.serving_index(p_condition jsonb) returns text
    language plpgsql stable strict security invoker set search_path = ''
as $$
declare
    v_path text[] := kv.path(coalesce(p_condition -> 'path', '[]'));
begin
    return case
        when p_condition ->> 'op' not in ('eq', 'gt', 'gte', 'lt', 'lte') then null
        when p_condition ->> 'by' = 'createdAt' then 'kv_store_created_at'
        when p_condition ->> 'by' = 'updatedAt' then 'kv_store_updated_at'
        when p_condition ->> 'by' = 'path' and jsonb_typeof(p_condition -> 'value') = 'number' and kv.has_path_index(v_path)
            then kv.path_index_name(v_path)
        end;
end
$$;
comment on function kv.serving_index(jsonb) is 'The index of kv_store of which a condition of where is a range; null where there is none.';

create function kv.query_index(
    p_filter jsonb, p_pairs jsonb, p_counts bigint[],
    out condition text, out cover integer[], out cost bigint, out exact boolean
) language plpgsql immutable security invoker set search_path = ''
as $$
declare
    v_op    text := p_filter ->> 0;
    v_found integer[];
    v_part  record;
begin
    if jsonb_typeof(p_filter) = 'number' then
        v_found := array(select jsonb_array_elements(p_pairs -> (p_filter::integer - 1))::integer);
        select coalesce('(' || string_agg(format('exists (select from kv.posting as p where p.index_key = $2[%1$s][1]'
                   ' and p.member = $2[%1$s][2] and p.key = <key> offset 0)', pair), ' or ') || ')', 'false'), -- offset keeps it a lookup
               coalesce(sum(p_counts[pair]), 0)
        into condition, cost
        from unnest(v_found) as pair;
        cover := v_found;
        exact := true;
        return;
    end if;

    for i in 1 .. jsonb_array_length(p_filter) - 1 loop
        v_part := kv.query_index(p_filter -> i, p_pairs, p_counts);
        if v_op = 'not' then
            condition := 'not ' || v_part.condition;
            exact := false;
        elsif i = 1 then
            condition := v_part.condition;
            cover := v_part.cover;
            cost := v_part.cost;
            exact := v_op = 'or' and v_part.exact;
        elsif v_op = 'or' then
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
    'Of a filter on indexes: its condition on <key>; the pairs whose postings together hold every match (null: none do), how many those are, and whether they hold nothing else.';

create type kv.query_plan as (
    driver     text,       -- what leads: index, range, search, prefix, or order: the index that keeps the order
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
comment on type kv.query_plan is 'How the entries of a query are found. See kv.query_source and kv_query_conditions.';

create function kv.query_pairs(p_terms jsonb, out pairs text[], out of_terms jsonb)
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_term  jsonb;
    v_first integer;
begin
    pairs := '{}';
    of_terms := '[]';
    for v_term in select jsonb_array_elements(p_terms) loop
        v_first := coalesce(array_length(pairs, 1), 0) + 1;
        if v_term ? 'spelled' then
            pairs := pairs || coalesce((
                select array_agg(array[s.index_key, s.member])
                from kv.candidate_pairs(v_term ->> 'spelled') as s
                where exists (select from kv.posting as p where p.index_key = s.index_key and p.member = s.member offset 0)), '{}');
        else
            pairs := pairs || array[array[v_term ->> 'key', v_term ->> 'member']];
        end if;
        of_terms := of_terms || jsonb_build_array((
            select coalesce(jsonb_agg(i), '[]') from generate_series(v_first, array_length(pairs, 1)) as i));
    end loop;
end
$$;
comment on function kv.query_pairs(jsonb) is 'The pairs that the terms of an index filter stand for, and for each term the positions of its own.';

-- An index lists all matches before the first one. So where matches are common among the first keys, kv_query reads in key order
-- until the page is full. What either way reads is estimated from that sample; where the matches are far fewer, they are counted.
create function kv.query_count(p_query jsonb, p_plan kv.query_plan, p_condition text, p_limit integer) returns bigint
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    c_sample constant integer := 500;
    c_common constant integer := 5;
    c_fewer  constant integer := 4; -- an entry that an index leads to costs more than the next one in order, and is sorted
    v_limit  bigint := p_limit;
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
        v_read := ((p_query -> 'limit')::bigint + (p_query -> 'offset')::bigint + 1) * c_sample / v_count;
        select reltuples into v_all from pg_class where oid = 'public.kv_store'::regclass; -- -1: never analyzed
        if v_all < 0 or v_all * v_count / c_sample * c_fewer > v_read then
            return p_limit;
        end if;
        v_limit := least(v_read / c_fewer, p_limit);
    end if;
    execute format(
        'select count(*) from (select from public.kv_store as s where %s and (s.key >= $4 and s.key < $5) is true limit %s) as capped',
        p_condition, v_limit)
        into v_count using p_query, p_plan.pairs, p_plan.search, p_plan.from_key, p_plan.to_key;
    return case when v_count < v_limit then v_count else p_limit end;
end
$$;
comment on function kv.query_count(jsonb, kv.query_plan, text, integer) is
    'How many entries meet a condition that an index serves, up to a limit: the limit, from a sample, where reading in order fills the page with less.';

create function kv.query_plan(p_query jsonb, p_order text, p_descending boolean, p_index text default null) returns kv.query_plan
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    c_few     constant integer := 10000; -- looking at all takes as long as reading a million in order until a page is full
    c_many    constant integer := 50000; -- what is rare among the first keys and not here may be anywhere: looking at all takes 0.1 s, searching for it seconds
    c_rare    constant integer := 1000;  -- a lookup costs what reading some ten postings in order does
    v_plan    kv.query_plan;
    v_phrase  boolean := false; -- is searched for
    v_where   text[] := kv.query_where(p_query -> 'where');
    v_keys    integer[]; -- positions in where of the conditions on the key,
    v_ranges  integer[]; -- and of those that one other index serves,
    v_serving text;      -- this one
    v_filters jsonb := '[]'::jsonb; -- index filters that must all hold
    v_filter  jsonb;
    v_found   record;
    v_of      jsonb;
    v_counts  bigint[];
    v_lead    jsonb; -- the filter whose postings lead
    v_exact   boolean;
    v_cost    bigint;
    v_best    bigint := c_few; -- of the driver
    v_count   bigint;
    v_indexes text[] := '{}'::text[];
    v_choices integer;
begin
    v_plan.from_key := p_query ->> 'prefix';
    v_plan.to_key := kv.prefix_end(v_plan.from_key);
    if p_order = 'key' and p_query #> '{after,key}' is not null then
        if p_descending then
            v_plan.to_key := least(v_plan.to_key collate "C", p_query #>> '{after,key}');
        else
            v_plan.from_key := greatest(v_plan.from_key collate "C", (p_query #>> '{after,key}') || chr(1)); -- no text sorts between
        end if;
    end if;
    v_plan.pairs := '{}';
    v_plan.merged := '{}';
    v_plan.leads := '{}';
    if p_query -> 'search' <> 'null' then
        v_plan.search := kv.search_query(p_query -> 'search');
        v_phrase := kv.has_phrase(v_plan.search);
    end if;

    v_keys := array(select i from generate_subscripts(v_where, 1) as i where p_query #>> array['where', (i - 1)::text, 'by'] = 'key');
    select array_agg(c.i), c.serving into v_ranges, v_serving
    from (select i, kv.serving_index(p_query #> array['where', (i - 1)::text]) as serving from generate_subscripts(v_where, 1) as i) as c
    where c.serving is not null
    group by c.serving order by c.serving = p_index desc nulls last, min(c.i) limit 1;

    -- The filters that could lead, each counted where there is a choice.
    if p_query -> 'filter' <> 'null' then
        v_filter := p_query -> 'filter';
        v_filters := case when v_filter ->> 0 = 'and' then v_filter - 0 else jsonb_build_array(v_filter) end;
        select pairs, of_terms into v_plan.pairs, v_of from kv.query_pairs(p_query -> 'terms');
    end if;
    v_choices := jsonb_array_length(v_filters) + (v_ranges is not null)::integer + (v_plan.search is not null)::integer
        + (p_order <> 'key')::integer;
    select coalesce(array_agg(c.postings order by i), '{}') into v_counts
    from generate_subscripts(v_plan.pairs, 1) as i,
         lateral (select count(*) as postings from (
            select from kv.posting as p
            where p.index_key = v_plan.pairs[i][1] and p.member = v_plan.pairs[i][2]
              and p.key >= v_plan.from_key and p.key < v_plan.to_key
            limit case when v_choices = 1 then 0 when v_choices = jsonb_array_length(v_filters) then c_rare else c_few end) as capped) as c;
    for v_filter in select jsonb_array_elements(v_filters) loop
        v_found := kv.query_index(v_filter, v_of, v_counts);
        if v_found.cover is not null and (v_cost is null or v_found.cost < v_cost) then
            v_lead := v_filter;
            v_cost := v_found.cost;
            v_exact := v_found.exact;
            v_plan.cover := array(select distinct unnest(v_found.cover));
        end if;
    end loop;
    if v_cost < v_best then
        v_best := v_cost;
        v_plan.driver := 'index';
    end if;
    if v_plan.driver is null or v_best >= c_rare then
        if v_ranges is not null and p_index is distinct from v_serving then
            v_count := kv.query_count(p_query, v_plan,
                (select string_agg(v_where[i], ' and ') from unnest(v_ranges) as i), c_many);
            if v_count < (case when v_plan.driver is null then c_many else v_best end) then
                v_best := v_count;
                v_plan.driver := 'range';
            end if;
        end if;
        if v_plan.search is not null and querytree(v_plan.search) <> 'T' then -- else no index can lead to it
            v_count := kv.query_count(p_query, v_plan, 's.search @@ $3', c_many);
            if v_count < (case when v_plan.driver is null then c_many else v_best end) then
                v_best := v_count;
                v_plan.driver := 'search';
            end if;
        end if;
        if p_order <> 'key' and (p_query ->> 'prefix' <> '' or v_keys <> '{}') then
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
        when p_order in ('time', 'path') then 'order'
        when v_plan.cover is not null then 'index'
        when p_order = 'key' then 'prefix'
        when v_ranges is not null then 'range'
        when querytree(v_plan.search) <> 'T' then 'search'
        else 'prefix' end;

    -- What is left to look at for each entry that the driver leads to.
    for v_filter in select jsonb_array_elements(v_filters) loop
        v_found := kv.query_index(v_filter, v_of, v_counts);
        if v_plan.driver = 'index' and v_filter = v_lead and v_exact then
            continue; -- its postings say it all
        elsif v_plan.driver = 'index' and v_found.exact and cardinality(v_found.cover) = 1 and cardinality(v_plan.cover) = 1
              and v_best >= c_rare then
            v_plan.merged := v_plan.merged || array(select unnest(v_found.cover) except select unnest(v_plan.merged));
        else
            v_indexes := v_indexes || v_found.condition;
        end if;
    end loop;
    for i in 1 .. cardinality(v_where) loop
        if coalesce(i = any (v_ranges) and (v_plan.driver = 'range' or v_plan.driver = 'order' and p_index = v_serving), false)
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
    v_plan.others := coalesce(v_plan.others, '{}') || v_indexes;
    return v_plan;
end
$$;
comment on function kv.query_plan(jsonb, text, boolean, text) is
    'How to find the entries of a query. p_order: key; time or path, which p_index keeps; none where all must be found.';

create function kv.query_source(p_plan kv.query_plan, p_pair integer, p_row boolean) returns text
    language plpgsql immutable security invoker set search_path = ''
as $$
declare
    c_posting constant text := 'select p.key from kv.posting as p'
        ' where p.index_key = $2[%1$s][1] and p.member = $2[%1$s][2] and p.key >= $4 and p.key < $5';
    v_key     text := case p_plan.driver when 'index' then 'd.key' else 's.key' end;
    v_source  text := 'public.kv_store as s';
    v_where   text[] := p_plan.leads;
    v_range   text := format('(%1$s >= $4 and %1$s < $5)', v_key);
begin
    if p_plan.driver <> 'index' then
        v_where := v_where || (v_range || case p_plan.driver when 'prefix' then '' else ' is true' end); -- no index serves that
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
                'select null::text collate "C" as key where false') || ') as d';
        end if;
        if p_plan.needs_row or p_row then
            v_source := v_source || ' cross join lateral (select * from public.kv_store as s where s.key = d.key offset 0) as s';
        end if;
    end if;
    v_where := v_where || array(select '(' || condition || ') is true' from unnest(p_plan.others) as condition);
    return replace(v_source || ' where ' || coalesce(nullif(array_to_string(v_where, ' and '), ''), 'true'), '<key>', v_key);
end
$$;
comment on function kv.query_source(kv.query_plan, integer, boolean) is
    'What follows "from": the entries that one pair of the cover leads to, or all (null). d.key is the key where the driver is index, s a row of kv_store where it is not or p_row asks for it.';
