-- The change feed: which keys changed since a cursor, without gaps. Caches drop what it names.
--
-- A sequence or a timestamp would miss a row whose transaction began earlier and committed later. So the log keeps the
-- writing transaction, and a cursor is a whole snapshot: a change is new to a reader if its transaction was not visible in
-- that snapshot. After a crash transaction ids are used again, hence the epoch in every cursor.

create table kv.log (
    transaction_id xid8 not null default pg_current_xact_id(),
    key            text collate "C",
    request        uuid default nullif(current_setting('kv.request', true), '')::uuid,
    missed         boolean
);
comment on table kv.log is 'One row a change: upserts, deletes, both keys of a rename, members added to an index. Pruned; see kv_prune_log.';
comment on column kv.log.key is 'The key that changed; null after a truncate: every key.';
comment on column kv.log.request is 'The request that wrote, so that one sent again after its reply was lost is not applied twice.';
comment on column kv.log.missed is 'True of a delete that found no entry: nothing changed. A repetition of the request gets the same response.';
create index log_transaction_id on kv.log (transaction_id);
create index log_request on kv.log (request) where request is not null;
alter table kv.log enable row level security;

-- A restart, and a crash, which resets the statistics, change the boot. A promoted replica was started at another time than its primary.
-- Every write calls this, so it reads nothing but memory.
create function kv.boot_id() returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return left(md5(concat_ws('/', extract(epoch from pg_postmaster_start_time()), extract(epoch from pg_stat_get_bgwriter_stat_reset_time()))), 8);
end
$$;
comment on function kv.boot_id() is 'Changes whenever transaction ids may have been used again: another cluster, a restart, a crash.';

-- Restores change the epoch as well. A restore that creates the tables
-- loads rows before the triggers exist, and one with --disable-triggers switches them off; either writes the triggers' catalog
-- rows anew. A copy of the database has another oid, and a rewritten table another file. While a trigger is not as it was made,
-- every call returns another epoch, so that no cursor is valid.
create function kv.epoch() returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (
        select kv.boot_id() || left(md5(concat_ws('/', (select oid from pg_database where datname = current_database()), t.made,
            pg_relation_filenode('public.kv_store'), pg_relation_filenode('kv.member'), case when not t.logging then random() end)), 8)
        from (
            select sum(hashoidextended(oid, xmin::text::bigint)) as made, count(*) = 7 and bool_and(tgenabled = 'A') as logging
            from pg_trigger
            where tgrelid in ('public.kv_store'::regclass, 'kv.member'::regclass, 'kv.log'::regclass)
              and tgname in ('kv_store_log', 'kv_store_log_truncate', 'member_log_insert', 'member_log_delete', 'member_log_update',
                'member_log_truncate', 'log_truncate_log')) as t);
end
$$;
comment on function kv.epoch() is 'Changes whenever transaction ids may have been used again or changes gone unlogged: another cluster, a restart, a crash, a restore. See kv_enable_logging.';

-- Which transactions were over by when: what lets the log be pruned by time of commit although it records time of writing.
create table kv.log_mark (
    at      timestamptz not null default clock_timestamp(),
    horizon xid8 not null default pg_snapshot_xmin(pg_current_snapshot()),
    epoch   text not null default kv.epoch()
);
comment on table kv.log_mark is 'Every transaction before the horizon had ended at the time.';
comment on column kv.log_mark.epoch is 'The marks of another epoch, as a dump may bring them, say nothing here.';
alter table kv.log_mark enable row level security;

-- A publication for all tables, which change capture asks for, lets nothing be deleted from a table without a replica identity. A primary
-- key would be one, and an index that nothing reads, written with every change.
alter table kv.log replica identity full;
alter table kv.log_mark replica identity full;

create function kv.log_entry() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    if tg_op <> 'INSERT' then
        insert into kv.log (key) values (old.key);
    end if;
    if tg_op = 'INSERT' or (tg_op = 'UPDATE' and new.key <> old.key) then
        insert into kv.log (key) values (new.key);
    end if;
    return null;
end
$$;
create trigger kv_store_log after insert or update or delete on public.kv_store
    for each row execute function kv.log_entry();

create function kv.log_members_added() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    insert into kv.log (key) select distinct index_key from added;
    return null;
end
$$;
create trigger member_log_insert after insert on kv.member
    referencing new table as added for each statement execute function kv.log_members_added();

create function kv.log_members_removed() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    insert into kv.log (key) select distinct index_key from removed;
    return null;
end
$$;
create trigger member_log_delete after delete on kv.member
    referencing old table as removed for each statement execute function kv.log_members_removed();

create function kv.log_members_changed() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    insert into kv.log (key) select index_key from removed union select index_key from added;
    return null;
end
$$;
create trigger member_log_update after update on kv.member
    referencing old table as removed new table as added for each statement execute function kv.log_members_changed();

create function kv.log_truncate() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    insert into kv.log (key) values (null);
    return null;
end
$$;
create trigger kv_store_log_truncate after truncate on public.kv_store
    for each statement execute function kv.log_truncate();
create trigger member_log_truncate after truncate on kv.member
    for each statement execute function kv.log_truncate();

-- The log itself must not be emptied unnoticed. (Single rows of it are not to be deleted by hand.)
create trigger log_truncate_log after truncate on kv.log
    for each statement execute function kv.log_truncate();

-- A restore runs in replica mode, where ordinary triggers do not fire; its changes must not slip by the caches.
alter table public.kv_store enable always trigger kv_store_log;
alter table public.kv_store enable always trigger kv_store_log_truncate;
alter table kv.member enable always trigger member_log_insert;
alter table kv.member enable always trigger member_log_delete;
alter table kv.member enable always trigger member_log_update;
alter table kv.member enable always trigger member_log_truncate;
alter table kv.log enable always trigger log_truncate_log;

create function public.kv_enable_logging() returns void
    language plpgsql security invoker set search_path = ''
as $$
declare
    v_trigger record;
begin
    for v_trigger in
        select t.tgname, t.tgrelid::regclass as relation from pg_trigger as t
        where t.tgrelid in ('public.kv_store'::regclass, 'kv.member'::regclass, 'kv.log'::regclass)
          and t.tgname in ('kv_store_log', 'kv_store_log_truncate', 'member_log_insert', 'member_log_delete', 'member_log_update',
              'member_log_truncate', 'log_truncate_log')
          and t.tgenabled <> 'A'
    loop
        execute format('alter table %s enable always trigger %I', v_trigger.relation, v_trigger.tgname);
    end loop;
end
$$;
comment on function public.kv_enable_logging() is 'Switches the log''s triggers on in every mode, as they were made: "enable trigger all" does not. For the tables'' owner, after a restore that switched them off.';
revoke all on function public.kv_enable_logging() from public, anon, authenticated;
grant execute on function public.kv_enable_logging() to service_role;

create function kv.log_retention() returns interval
    language sql immutable parallel safe set search_path = '' as $$ select interval '1 hour' $$;
comment on function kv.log_retention() is 'How old a cursor of the change feed may be.';

create function public.kv_prune_log() returns bigint
    language plpgsql security invoker set search_path = ''
as $$
declare
    v_expired xid8;
    v_pruned  bigint;
begin
    delete from kv.log_mark where ctid = any (array(
        select ctid from kv.log_mark where epoch <> kv.epoch() for update skip locked));
    if not exists (select from kv.log_mark where at > clock_timestamp() - interval '1 minute') then
        insert into kv.log_mark default values;
    end if;
    select max(horizon) into v_expired from kv.log_mark
    where at < clock_timestamp() - kv.log_retention();
    with expired as (
        select ctid from kv.log where transaction_id < v_expired order by transaction_id limit 2000 for update skip locked
    )
    delete from kv.log where ctid = any (array(select ctid from expired));
    get diagnostics v_pruned = row_count;
    delete from kv.log_mark where ctid = any (array(
        select ctid from kv.log_mark where horizon < v_expired for update skip locked));
    return v_pruned;
exception
    when others then
        -- The write that called it goes on. The log grows until this is mended.
        raise warning 'kv_prune_log removed nothing: % (SQLSTATE %)', sqlerrm, sqlstate;
        return 0;
end
$$;
comment on function public.kv_prune_log() is 'Removes up to 2,000 changes that every cursor within the retention has seen; returns how many. Called now and then by writes, which do not fail where it does: then it warns and returns 0.';
revoke all on function public.kv_prune_log() from public, anon, authenticated;
grant execute on function public.kv_prune_log() to service_role;

create function kv.parse_snapshot(p_text text) returns pg_snapshot
    language plpgsql immutable strict security invoker set search_path = ''
as $$
begin
    return p_text::pg_snapshot;
exception when invalid_text_representation then
    return null;
end
$$;
comment on function kv.parse_snapshot(text) is 'The snapshot, or null where the text is none.';

-- STABLE, so that every statement in it sees the snapshot that the cursor handed out names; in plpgsql, which keeps the
-- plans. A transaction was not visible in a snapshot exactly if it was still running (xip) or had not begun (from xmax on):
-- each of those few, and then the end of the log. Going by the snapshot's xmin instead would read everything since the
-- oldest open transaction began. The cursor's time is that of this transaction's start, which is never after the snapshot.
create function public.kv_changes(p_since text default null, p_limit integer default 1000) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker
    set search_path = ''
    set enable_seqscan = off -- statistics from before a burst of changes would choose it
    set enable_bitmapscan = off
as $$
declare
    v_here      pg_snapshot := pg_current_snapshot();
    v_epoch     text := kv.epoch();
    v_snapshot  pg_snapshot;
    v_keys      json := '[]'::json;
    v_changes   bigint;
    v_truncated boolean;
    v_all       boolean;
begin
    if p_since ~ '^[0-9a-f]{16}/[0-9]{1,15}/[0-9]{1,19}:[0-9]{1,19}:[0-9,]*$' and starts_with(p_since, v_epoch)
        and to_timestamp(split_part(p_since, '/', 2)::bigint / 1000.0) > clock_timestamp() - kv.log_retention()
    then
        v_snapshot := kv.parse_snapshot(split_part(p_since, '/', 3));
    end if;
    v_all := (pg_snapshot_xmax(v_snapshot) <= pg_snapshot_xmax(v_here)) is not true; -- no cursor, or one from the future
    if not v_all then
        select count(*), bool_or(key is null), coalesce(json_agg(distinct key), '[]') into v_changes, v_truncated, v_keys
        from (
            select key from (
                select running.key
                from pg_snapshot_xip(v_snapshot) as x (transaction_id)
                cross join lateral (select l.key from kv.log as l where l.transaction_id = x.transaction_id order by l.transaction_id limit p_limit + 1) as running
                union all
                select later.key
                from (select l.key from kv.log as l
                      where l.transaction_id >= pg_snapshot_xmax(v_snapshot) and l.transaction_id < pg_snapshot_xmax(v_here)
                      order by l.transaction_id limit p_limit + 1) as later
            ) as changed
            limit p_limit + 1
        ) as bounded;
        v_all := v_changes > p_limit or coalesce(v_truncated, false);
    end if;
    return json_build_object(
        'cursor', concat_ws('/', v_epoch, floor(extract(epoch from now()) * 1000)::bigint, v_here),
        'all', v_all, 'keys', case when v_all then '[]' else v_keys end)::text;
end
$$;
comment on function public.kv_changes(text, integer) is 'What changed since p_since, the cursor of an earlier call: {"cursor","all","keys"}. "all" is true when everything may have changed: no cursor, one of another epoch, from the future or older than kv.log_retention(), a truncate, more than p_limit changes, or triggers that are switched off.';
revoke all on function public.kv_changes(text, integer) from public, anon, authenticated;
grant execute on function public.kv_changes(text, integer) to service_role;

-- The reads begin with it where a caller gives its cursor. They are STABLE, so that the changes and what is read are of one snapshot:
-- what is read is as new as the cursor that comes with it. Inlined, so that a read without a cursor pays nothing.
create function kv.changes_line(p_since text) returns text
    language sql stable security invoker
as $$
    select case when p_since is null then '' else public.kv_changes(p_since) || E'\n' end
$$;
comment on function kv.changes_line(text) is 'kv_changes and a line break; empty without a cursor.';
