-- The change feed: which keys changed since a cursor, without gaps. Caches drop what it names.
--
-- A sequence or a timestamp would miss a row whose transaction began earlier and committed later, so the log keeps the
-- writing transaction (stamp) and a cursor is a whole snapshot: a change is new to a reader exactly if its stamp was not
-- visible in that snapshot. After a crash transaction ids are used again, hence the epoch in every cursor.

create table public.kv_log (
    stamp   xid8 not null default pg_current_xact_id(),
    key     text collate "C",
    at      timestamptz not null default clock_timestamp(),
    request uuid default nullif(current_setting('kv.request', true), '')::uuid
);
comment on table public.kv_log is 'One row a change: upserts, deletes, both keys of a rename, members added to an index. Pruned; see kv_prune_log.';
comment on column public.kv_log.key is 'The key that changed; null after a truncate: every key.';
comment on column public.kv_log.request is 'The request that wrote, so that one sent again after its reply was lost is not applied twice.';
create index kv_log_stamp on public.kv_log (stamp);
create index kv_log_request on public.kv_log (request) where request is not null;

-- In plpgsql, which keeps the plan: as an SQL function it would be planned anew by every upsert.
create function public.kv_epoch() returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (
        select left(md5(concat_ws('/', s.system_identifier, c.timeline_id,
            extract(epoch from pg_postmaster_start_time()), extract(epoch from b.stats_reset))), 16)
        from pg_control_system() as s, pg_control_checkpoint() as c, pg_stat_bgwriter as b);
end
$$;
comment on function public.kv_epoch() is 'Changes whenever transaction ids may have been used again: another cluster, a restart, a crash.';

-- Which transactions were over by when: what lets the log be pruned by time of commit although it records time of writing.
create table public.kv_log_mark (
    at      timestamptz not null default clock_timestamp(),
    horizon xid8 not null default pg_snapshot_xmin(pg_current_snapshot()),
    epoch   text not null default public.kv_epoch()
);
comment on table public.kv_log_mark is 'Every transaction before the horizon had ended at the time.';
comment on column public.kv_log_mark.epoch is 'The marks of another epoch, as a dump may bring them, say nothing here.';

-- A publication for all tables, which change capture asks for, lets nothing be deleted from a table without a replica identity. A primary
-- key would be one, and an index that nothing reads, written with every change.
alter table public.kv_log replica identity full;
alter table public.kv_log_mark replica identity full;

alter table public.kv_log enable row level security;
alter table public.kv_log_mark enable row level security;
revoke all on table public.kv_log, public.kv_log_mark from anon, authenticated;
grant all on table public.kv_log, public.kv_log_mark to service_role;

create function public.kv_log_store() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    if tg_op <> 'INSERT' then
        insert into public.kv_log (key) values (old.key);
    end if;
    if tg_op = 'INSERT' or (tg_op = 'UPDATE' and new.key <> old.key) then
        insert into public.kv_log (key) values (new.key);
    end if;
    return null;
end
$$;
create trigger kv_store_log after insert or update or delete on public.kv_store
    for each row execute function public.kv_log_store();

create function public.kv_log_member_added() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    insert into public.kv_log (key) select distinct index_key from added;
    return null;
end
$$;
create trigger kv_member_log_insert after insert on public.kv_member
    referencing new table as added for each statement execute function public.kv_log_member_added();

create function public.kv_log_member_removed() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    insert into public.kv_log (key) select distinct index_key from removed;
    return null;
end
$$;
create trigger kv_member_log_delete after delete on public.kv_member
    referencing old table as removed for each statement execute function public.kv_log_member_removed();

create function public.kv_log_member_changed() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    insert into public.kv_log (key) select index_key from removed union select index_key from added;
    return null;
end
$$;
create trigger kv_member_log_update after update on public.kv_member
    referencing old table as removed new table as added for each statement execute function public.kv_log_member_changed();

create function public.kv_log_truncate() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    insert into public.kv_log (key) values (null);
    return null;
end
$$;
create trigger kv_store_log_truncate after truncate on public.kv_store
    for each statement execute function public.kv_log_truncate();
create trigger kv_member_log_truncate after truncate on public.kv_member
    for each statement execute function public.kv_log_truncate();

-- A restore runs in replica mode, where ordinary triggers do not fire; its changes must not slip by the caches.
alter table public.kv_store enable always trigger kv_store_log;
alter table public.kv_store enable always trigger kv_store_log_truncate;
alter table public.kv_member enable always trigger kv_member_log_insert;
alter table public.kv_member enable always trigger kv_member_log_delete;
alter table public.kv_member enable always trigger kv_member_log_update;
alter table public.kv_member enable always trigger kv_member_log_truncate;

create function public.kv_log_retention() returns interval
    language sql immutable parallel safe set search_path = '' as $$ select interval '1 hour' $$;
comment on function public.kv_log_retention() is 'How old a cursor of the change feed may be.';

create function public.kv_prune_log() returns bigint
    language plpgsql security invoker set search_path = ''
as $$
declare
    v_expired xid8;
    v_pruned  bigint;
begin
    delete from public.kv_log_mark where ctid = any (array(
        select ctid from public.kv_log_mark where epoch <> public.kv_epoch() for update skip locked));
    if not exists (select from public.kv_log_mark where at > clock_timestamp() - interval '1 minute') then
        insert into public.kv_log_mark default values;
    end if;
    select max(horizon) into v_expired from public.kv_log_mark
    where at < clock_timestamp() - public.kv_log_retention();
    with expired as (
        select ctid from public.kv_log where stamp < v_expired order by stamp limit 2000 for update skip locked
    )
    delete from public.kv_log where ctid = any (array(select ctid from expired));
    get diagnostics v_pruned = row_count;
    delete from public.kv_log_mark where ctid = any (array(
        select ctid from public.kv_log_mark where horizon < v_expired for update skip locked));
    return v_pruned;
exception
    when others then
        -- The write that called it goes on. The log grows until this is mended.
        raise warning 'kv_prune_log removed nothing: % (SQLSTATE %)', sqlerrm, sqlstate;
        return 0;
end
$$;
comment on function public.kv_prune_log() is 'Removes up to 2,000 changes that every cursor within the retention has seen; returns how many. Called now and then by writes, which do not fail where it does: then it warns and returns 0.';

create function public.kv_snapshot(p_text text) returns pg_snapshot
    language plpgsql immutable strict security invoker set search_path = ''
as $$
begin
    return p_text::pg_snapshot;
exception when invalid_text_representation then
    return null;
end
$$;
comment on function public.kv_snapshot(text) is 'The snapshot, or null where the text is none.';

-- STABLE and one statement: the cursor handed out and the rows looked at belong to one snapshot. The cursor's time is that
-- of the transaction's start, which is never after the snapshot.
create function public.kv_changes(p_cursor text default null, p_limit integer default 1000) returns json
    language sql stable security invoker set search_path = ''
as $$
    with here as (
        select public.kv_epoch() as epoch, pg_current_snapshot() as snapshot, clock_timestamp() as at
    ), given as (
        select case when p_cursor ~ '^[0-9a-f]{16}/[0-9]{1,15}/[0-9]{1,19}:[0-9]{1,19}:[0-9,]*$' then p_cursor end as cursor
    ), since as (
        -- No row: the cursor tells nothing about this database, and everything must be taken as changed.
        select public.kv_snapshot(split_part(g.cursor, '/', 3)) as snapshot
        from given as g, here as h
        where split_part(g.cursor, '/', 1) = h.epoch
          and to_timestamp(split_part(g.cursor, '/', 2)::bigint / 1000.0) > h.at - public.kv_log_retention()
          and pg_snapshot_xmax(public.kv_snapshot(split_part(g.cursor, '/', 3))) <= pg_snapshot_xmax(h.snapshot)
    ), changed as (
        select l.key
        from public.kv_log as l
        where l.stamp >= (select pg_snapshot_xmin(snapshot) from since)
          and l.stamp < (select pg_snapshot_xmax(snapshot) from here)
          and not pg_visible_in_snapshot(l.stamp, (select snapshot from since))
        order by l.stamp
        limit p_limit + 1
    ), keys as (
        select count(*) as changes, bool_or(key is null) as truncated, json_agg(distinct key) as list from changed
    )
    select json_build_object(
        'cursor', concat_ws('/', h.epoch, floor(extract(epoch from now()) * 1000)::bigint, h.snapshot),
        'all', unknown, 'keys', case when unknown then '[]' else coalesce(k.list, '[]') end)
    from here as h, keys as k,
         lateral (select not exists (select from since) or k.changes > p_limit or coalesce(k.truncated, false) as unknown) as u
$$;
comment on function public.kv_changes(text, integer) is 'What changed since the cursor: {"cursor","all","keys"}. "all" is true when everything may have changed: no cursor, one of another epoch, from the future or older than kv_log_retention(), a truncate, or more than p_limit changes.';

revoke all on function public.kv_log_store(), public.kv_log_member_added(), public.kv_log_member_removed(),
    public.kv_log_member_changed(), public.kv_log_truncate(), public.kv_log_retention(), public.kv_prune_log(),
    public.kv_epoch(), public.kv_snapshot(text), public.kv_changes(text, integer) from public, anon, authenticated;
grant execute on function public.kv_log_store(), public.kv_log_member_added(), public.kv_log_member_removed(),
    public.kv_log_member_changed(), public.kv_log_truncate(), public.kv_log_retention(), public.kv_prune_log(),
    public.kv_epoch(), public.kv_snapshot(text), public.kv_changes(text, integer) to service_role;
