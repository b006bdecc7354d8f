-- What the planner did again in every call, kept or not done at all: a third of an upsert with two indexes, a sixth of a list.
--
-- A function in SQL with a setting of its own is not inlined, and planned whenever it is called. The members of an upsert were
-- added by a statement that also read the arrays stored at index keys; planned without knowing that there are none, as there
-- are hardly ever, it looked so dear that each call planned it anew, for 0.2 ms.

-- In plpgsql, which keeps the plan.
create or replace function public.kv_spell(p_pairs text[]) returns text[]
    language plpgsql immutable parallel safe security invoker set search_path = ''
as $$
begin
    return (
        select coalesce(array_agg(spelled order by first), '{}')
        from (
            select index_key || ':' || public.kv_member_spelling(member) as spelled, min(ordinal) as first
            from public.kv_pairs(p_pairs)
            group by 1
        ) as distinct_spellings);
end
$$;

create or replace function public.kv_path_index_name(p_path text[]) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return 'kv_path_' || left(md5(to_json(p_path)::text), 16);
end
$$;

create or replace function public.kv_answer_limit() returns integer
    language plpgsql immutable parallel safe set search_path = '' as $$ begin return 6 * 1024 * 1024; end $$;

create or replace function public.kv_page_limit() returns integer
    language plpgsql immutable parallel safe set search_path = '' as $$ begin return 4500000; end $$;

create or replace function public.kv_upsert(
    p_key     text,
    p_value   text,
    p_indexes text[] default null,
    p_request uuid default null,
    p_mirror  boolean default false
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    c_few    constant integer := 32; -- advisory locks that a call takes: the server has room for some thousand, for all calls together
    v_value  json := p_value::json;
    v_stamp  xid8 := public.kv_begin_request(p_request);
    v_rows   boolean := coalesce(array_length(p_indexes, 1), 0) > c_few;
    v_key    text;
    v_arrays text[] := '{}'::text[];
    v_pairs  text[] := p_indexes; -- without those that a stored array has
    v_grown  text[];
    v_base   bigint;
begin
    if v_stamp is null then
        if exists (select from public.kv_pairs(p_indexes) where index_key = p_key) then
            raise exception using errcode = 'PT400', message = 'an entry cannot be one of its own indexes';
        end if;

        for v_key in
            select distinct k collate "C" from (
                select p_key as k union all select index_key from public.kv_pairs(p_indexes)) as touched
            order by 1
        loop
            if v_key <> p_key then
                if public.kv_hold_index(v_key, v_rows) then
                    v_arrays := v_arrays || v_key;
                end if;
                continue;
            end if;
            -- Update first: insert … on conflict would derive the document twice.
            update public.kv_store
            set value = v_value, index_pairs = coalesce(p_indexes, index_pairs)
            where key = p_key;
            if not found then
                insert into public.kv_store (key, value, index_pairs) values (p_key, v_value, coalesce(p_indexes, '{}'))
                on conflict (key) do update
                set value = excluded.value, index_pairs = coalesce(p_indexes, public.kv_store.index_pairs);
            end if;
        end loop;

        if p_indexes <> '{}' then
            v_base := nextval('public.kv_member_position');
            if v_arrays <> '{}' then
                with stored as materialized ( -- each array is read once, however many members come
                    select s.key, member
                    from public.kv_store as s, public.kv_array_members(s.value) as member
                    where s.key = any (v_arrays)
                )
                select coalesce(array_agg(array[a.index_key, a.member] order by a.ordinal), '{}') into v_pairs
                from public.kv_pairs(p_indexes) as a
                -- Hashed once, where "not exists" may be planned as a loop over both.
                where (a.index_key, a.member) not in (select s.key, s.member from stored as s);
            end if;
            with added as (
                insert into public.kv_member (index_key, member, position)
                select index_key, member, v_base + min(ordinal)
                from public.kv_pairs(v_pairs)
                group by index_key, member
                order by index_key, member
                on conflict do nothing
                returning index_key
            )
            select array_agg(distinct index_key) into v_grown from added;
        end if;

        if p_mirror then
            insert into public.kv_outbox (key, first, request) select k, 'supabase', p_request from unnest(p_key || v_grown) as k;
        end if;
        v_stamp := pg_current_xact_id();
        if random() < 0.01 then
            perform public.kv_prune_log();
        end if;
    end if;
    return public.kv_written(v_stamp, null, p_request, p_mirror);
end
$$;

notify pgrst, 'reload schema';
