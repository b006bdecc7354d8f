-- Three corrections of the import beside live writes.
--
-- An index entry that a live upsert made between the look at it and the insert counted as somebody else's write, and its
-- imported members were left out for good.
--
-- kv_import_close could deadlock with deletes: they took kv_import before kv_migration, it takes them in the other order. And it
-- looked whether a run is at work before it had its lock, so one could begin in between.

create or replace function public.kv_hold_import(p_key text) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if exists (select from public.kv_migration) then -- a statement of its own: kv_migration is locked before kv_import
        insert into public.kv_import (key) values (p_key) on conflict (key) do update set key = excluded.key;
    end if;
end
$$;

create or replace function public.kv_mark_deleted(p_key text) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if exists (select from public.kv_migration) then -- as in kv_hold_import
        insert into public.kv_import (key, deleted) values (p_key, true) on conflict (key) do update set deleted = true;
    end if;
end
$$;

create or replace function public.kv_import_close() returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s'
as $$
begin
    lock table public.kv_migration in access exclusive mode;
    if exists (select from public.kv_migration where held_until > clock_timestamp()) then
        raise exception using errcode = 'PT409', message = 'a run of the migration is at work';
    end if;
    delete from public.kv_migration;
    truncate public.kv_import;
    return '';
end
$$;

create or replace function public.kv_import_entry(
    p_key      text,
    p_value    text,
    p_indexes  text[],
    p_is_index boolean,
    p_created  timestamptz,
    p_updated  timestamptz,
    p_known    public.kv_import
) returns text
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_value   json := p_value::json;
    v_members text[];
    v_row     public.kv_store;
    v_version bigint;
    v_changed boolean := true;
begin
    if p_is_index then
        v_members := public.kv_members_of(p_value);
    end if;
    loop
        select * into v_row from public.kv_store where key = p_key for update;
        exit when found;
        if p_known.deleted then
            return 'deleted';
        elsif v_value is null then
            return 'absent';
        end if;
        insert into public.kv_store (key, value, index_pairs, is_index, created_at, updated_at)
        values (p_key, case when v_members is null then v_value else '[]' end, coalesce(p_indexes, '{}'), v_members is not null,
            coalesce(p_created, clock_timestamp()), coalesce(p_updated, clock_timestamp()))
        on conflict do nothing returning version into v_version;
        exit when found; -- else another call has made the entry meanwhile, perhaps by adding a member: look at that
    end loop;
    if v_version is not null then
        null; -- it is new
    elsif v_row.version is distinct from p_known.version and (not v_row.implicit or p_known.deleted) then
        return 'live';
    elsif v_members is null and v_row.is_index and exists (select from public.kv_member where index_key = p_key and position > 0) then
        return 'live';
    elsif v_value is null then
        delete from public.kv_store where key = p_key;
        return 'removed';
    elsif v_members is not null and v_row.is_index then
        -- Without its value, which is [] already: writing that would end its members (kv_store_clear_index).
        update public.kv_store
        set implicit = false, index_pairs = coalesce(p_indexes, index_pairs), created_at = coalesce(p_created, created_at),
            updated_at = coalesce(p_updated, updated_at)
        where key = p_key and (implicit or index_pairs <> p_indexes or created_at <> p_created or updated_at <> p_updated)
        returning version into v_version;
        v_changed := found;
        v_version := coalesce(v_version, v_row.version);
    elsif v_members is not null or v_row.is_index or v_row.value::text <> p_value
        or p_indexes <> v_row.index_pairs or p_created <> v_row.created_at or p_updated <> v_row.updated_at
    then
        update public.kv_store
        set value = case when v_members is null then v_value else '[]' end, is_index = v_members is not null,
            index_pairs = coalesce(p_indexes, index_pairs), created_at = coalesce(p_created, created_at),
            updated_at = coalesce(p_updated, updated_at)
        where key = p_key
        returning version into v_version;
    else
        v_version := v_row.version;
        v_changed := false;
    end if;
    if v_members is not null then
        v_changed := public.kv_import_members(p_key, v_members) or v_changed;
    end if;
    update public.kv_import set version = v_version where key = p_key and version is distinct from v_version;
    return case when v_changed then 'written' else 'same' end;
end
$$;

notify pgrst, 'reload schema';
