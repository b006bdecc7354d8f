-- Copies of an index entry that grows all the time. A copy applied only if the entry was what it had been, to the last member, and
-- was done only once nobody had added another one meanwhile. Where several callers add to one index, one of them could be
-- overtaken fifty times, and give up: nothing was lost, but its trace stayed for repair.
--
-- Members are only ever added while the row stays as it is (kv_token). So a copy that adds members may come after others that did,
-- and one that is there is not undone by members that came later: whoever added those copies them.

create function public.kv_token_row(p_token text) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return regexp_replace(p_token, '[.][0-9]+$', '');
end
$$;
comment on function public.kv_token_row(text) is 'What a token says of the row, without the number of members.';
revoke all on function public.kv_token_row(text) from public, anon, authenticated;
grant execute on function public.kv_token_row(text) to service_role;

create or replace function public.kv_mirror_done(p_id bigint, p_key text, p_token text) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if public.kv_token_row(public.kv_token(p_key)) = public.kv_token_row(p_token) then
        delete from public.kv_outbox where id = p_id;
        return '';
    end if;
    return public.kv_mirror_state(p_key)::text;
end
$$;
comment on function public.kv_mirror_done(bigint, text, text) is
    'Removes the trace if the row is what the token says, and has that many members or more: then the answer is empty. Else it is kv_mirror_state.';

create or replace function public.kv_mirror_copy(
    p_key      text,
    p_expected text,
    p_value    text,
    p_indexes  text[],
    p_is_index boolean,
    p_add      boolean,
    p_created  bigint,
    p_updated  bigint,
    p_request  uuid
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_value   json := p_value::json;
    v_done    xid8 := public.kv_begin_request(p_request);
    v_members text[];
    v_created timestamptz := to_timestamp(0) + p_created * interval '1 microsecond';
    v_updated timestamptz := to_timestamp(0) + p_updated * interval '1 microsecond';
begin
    if v_done is null then
        if v_value is null then
            perform public.kv_hold_import(p_key);
        end if;
        perform from public.kv_store where key = p_key for update;
        if exists (select from public.kv_store where key = p_key and is_index) then
            perform public.kv_lock_members(p_key);
        end if;
        if public.kv_token(p_key) <> p_expected
            and not (p_add and public.kv_token_row(public.kv_token(p_key)) = public.kv_token_row(p_expected)
                and public.kv_members_of(p_value) is not null) then
            return json_build_object('applied', false, 'token', public.kv_token(p_key))::text;
        end if;
        if v_value is null then
            perform public.kv_mark_deleted(p_key);
            delete from public.kv_store where key = p_key;
        else
            if p_is_index or exists (select from public.kv_store where key = p_key and is_index)
                or exists (select from public.kv_posting where index_key = p_key) then
                v_members := public.kv_members_of(p_value);
            end if;
            if p_add and v_members is not null and exists (select from public.kv_store where key = p_key and is_index) then
                perform public.kv_add_members(p_key, v_members);
            -- Where another call creates the entry meanwhile, that one wins, and this one is told to look again.
            elsif p_expected = '' then
                insert into public.kv_store (key, value, index_pairs, is_index, created_at, updated_at)
                values (p_key, case when v_members is null then v_value else '[]' end, coalesce(p_indexes, '{}'), v_members is not null,
                    coalesce(v_created, clock_timestamp()), coalesce(v_updated, clock_timestamp()))
                on conflict do nothing;
                if not found then
                    return json_build_object('applied', false, 'token', public.kv_token(p_key))::text;
                end if;
            elsif v_members is null then
                update public.kv_store
                set value = v_value, index_pairs = coalesce(p_indexes, index_pairs), created_at = coalesce(v_created, created_at),
                    updated_at = coalesce(v_updated, updated_at)
                where key = p_key;
            else
                -- Two steps: writing the value of an index entry ends its members (kv_store_clear_index).
                update public.kv_store set value = '[]' where key = p_key and (not is_index or value::text <> '[]');
                update public.kv_store
                set is_index = true, implicit = false, index_pairs = coalesce(p_indexes, index_pairs),
                    created_at = coalesce(v_created, created_at), updated_at = coalesce(v_updated, updated_at)
                where key = p_key;
            end if;
            if v_members is not null and not p_add then
                perform public.kv_set_members(p_key, v_members);
            elsif v_members is not null then
                perform public.kv_add_members(p_key, v_members);
            end if;
        end if;
    end if;
    return json_build_object('applied', true, 'token', public.kv_token(p_key))::text;
end
$$;
comment on function public.kv_mirror_copy(text, text, text, text[], boolean, boolean, bigint, bigint, uuid) is
    'Makes an entry what the other store has (p_value null: no entry), if it is still what p_expected, a token, says. p_add: members were added there, and those that only are here stay; then, where p_value is an array of members, it may have got more of them since.';

notify pgrst, 'reload schema';
