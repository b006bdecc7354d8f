-- Where a condition that an index serves is not rare, kv_query reads in the order of the keys until the page is full: the index
-- would list all matches before the first. Five matches among the first 500 keys decided for that. It is right where there are
-- a million entries, but of 10,000 a page of 100 read every one, where the index leads to 100. So what is read either way is
-- estimated first: the entries until the page is full, and all matches. Where these are far fewer, they are counted after all.
create or replace function public.kv_query_count(p_query jsonb, p_plan public.kv_query_plan, p_condition text, p_limit integer) returns bigint
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
comment on function public.kv_query_count(jsonb, public.kv_query_plan, text, integer) is
    'How many entries meet a condition that an index serves, up to a limit: the limit, from a sample, where reading in order fills the page with less.';
