-- The reads of a cache: what changed since its cursor, a line break, and the answer, from one snapshot in one round trip.
-- So the answer is exactly as new as the cursor that comes with it. The functions are STABLE for that reason.

create function public.kv_look(p_cursor text) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return public.kv_changes(p_cursor)::text;
end
$$;
comment on function public.kv_look(text) is 'kv_changes as a finished answer.';

create function public.kv_get_since(p_cursor text, p_key text) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return public.kv_changes(p_cursor)::text || E'\n' || public.kv_get(p_key);
end
$$;
comment on function public.kv_get_since(text, text) is 'kv_changes, a line break, and kv_get.';

create function public.kv_list_since(
    p_cursor     text,
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
    p_question   text default null
) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return public.kv_changes(p_cursor)::text || E'\n'
        || public.kv_list(p_prefix, p_values, p_limit, p_offset, p_sort, p_descending, p_after_key, p_after_at, p_indexes, p_index_keys, p_question);
end
$$;
comment on function public.kv_list_since(text, text, boolean, integer, integer, text, boolean, text, bigint, text[], text[], text) is
    'kv_changes, a line break, and kv_list.';

create function public.kv_query_since(p_cursor text, p_query jsonb) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker
    set search_path = ''
    set statement_timeout = '10s' -- kv_query's own, which PostgREST sets only for the function that it calls
as $$
begin
    return public.kv_changes(p_cursor)::text || E'\n' || public.kv_query(p_query);
end
$$;
comment on function public.kv_query_since(text, jsonb) is 'kv_changes, a line break, and kv_query.';

-- What a new instance loads before anybody asks. Values are JSON strings here, which keep every byte of their text.

create function public.kv_warm_get(p_keys text[], p_prefixes text[], p_entries integer, p_bytes bigint)
    returns public."application/vnd.kv+json"
    language plpgsql stable security invoker
    set search_path = ''
    set enable_seqscan = off
as $$
begin
    return public.kv_changes(null)::text || E'\n' || (
        with named as (
            select key collate "C" as key, n, 0::bigint as place from unnest(p_keys) with ordinality as k (key, n)
            union all
            select found.key, cardinality(p_keys) + p.n, found.place
            from unnest(p_prefixes) with ordinality as p (prefix, n)
            cross join lateral (
                select s.key, row_number() over (order by s.key) as place from public.kv_store as s
                where s.key >= p.prefix collate "C" and s.key < public.kv_prefix_end(p.prefix) collate "C"
                order by s.key limit p_entries) as found
        ), wanted as (
            select key, row_number() over (order by min(n), min(place)) as n from named group by key order by 2 limit p_entries
        ), sized as (
            select *, sum(bytes) over (order by n) as total from (
                select w.key, w.n, s.value, s.is_index,
                    coalesce(s.bytes + case when s.is_index then public.kv_member_bytes(s.key) else 0 end, 0) as bytes
                from wanted as w left join lateral (select * from public.kv_store as s where s.key = w.key offset 0) as s on true) as found
        )
        select coalesce(json_agg(json_build_array(key, coalesce(
            case when is_index then public.kv_index_value(key, value::text) else value::text end, '')) order by n), '[]')::text
        from sized where total <= p_bytes and bytes <= public.kv_answer_limit() -- what is larger is no answer of kv_get
    );
end
$$;
comment on function public.kv_warm_get(text[], text[], integer, bigint) is
    'kv_changes, a line break, and [[key, answer of kv_get],...] for the keys and those under the prefixes, up to so many entries and bytes.';

create function public.kv_warm_list(p_prefixes text[], p_bytes bigint) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_prefix  text;
    v_values  boolean;
    v_answer  text;
    v_bytes   bigint := 0;
    v_answers text[] := '{}'::text[];
begin
    foreach v_prefix in array p_prefixes loop
        foreach v_values in array array[false, true] loop
            begin
                v_answer := public.kv_list(v_prefix, v_values);
                v_bytes := v_bytes + octet_length(v_answer);
                if v_bytes <= p_bytes then
                    v_answers := v_answers || json_build_object('prefix', v_prefix, 'values', v_values, 'body', v_answer)::text;
                end if;
            exception when sqlstate 'PT413' then -- too large for any answer; nobody will get it later either
            end;
        end loop;
    end loop;
    return public.kv_changes(null)::text || E'\n[' || array_to_string(v_answers, ',') || ']';
end
$$;
comment on function public.kv_warm_list(text[], bigint) is
    'kv_changes, a line break, and [{"prefix","values","body"},...]: the answers of kv_list for each prefix, without and with values, up to so many bytes.';

revoke all on function public.kv_look(text), public.kv_get_since(text, text),
    public.kv_list_since(text, text, boolean, integer, integer, text, boolean, text, bigint, text[], text[], text),
    public.kv_query_since(text, jsonb), public.kv_warm_get(text[], text[], integer, bigint), public.kv_warm_list(text[], bigint)
    from public, anon, authenticated;
grant execute on function public.kv_look(text), public.kv_get_since(text, text),
    public.kv_list_since(text, text, boolean, integer, integer, text, boolean, text, bigint, text[], text[], text),
    public.kv_query_since(text, jsonb), public.kv_warm_get(text[], text[], integer, bigint), public.kv_warm_list(text[], bigint)
    to service_role;

notify pgrst, 'reload schema';
