-- The change feed names the keys that changed since a cursor, without gaps. Caches drop what it names.
--
-- A sequence or a timestamp would miss a row whose transaction began earlier and committed later. So the log keeps the
-- writing transaction, and a cursor is a whole snapshot: a change is new to a reader if its transaction was not visible in
-- that snapshot. Transaction ids are used again after a crash, so every cursor carries an epoch.

create table kv.log (
    transaction_id xid8 not null default pg_current_xact_id(),
    key            text collate "C",
    request        uuid default nullif(current_setting('kv.request', true), '')::uuid,
    missed         boolean
);
comment on table kv.log is 'One row for each change: upserts, deletes, both keys of a rename, members added to an index. kv_prune_log removes old rows.';
comment on column kv.log.key is 'The key that changed. Null after a truncate, which changes every key.';
comment on column kv.log.request is 'The request that wrote. One that is sent again after its reply was lost is not applied twice.';
comment on column kv.log.missed is 'True of a delete that found no entry: nothing changed. A repetition of the request gets the same response.';
create index log_transaction_id on kv.log (transaction_id);
create index log_request on kv.log (request) where request is not null;
alter table kv.log enable row level security;
-- A publication for all tables, which change capture needs, refuses deletes from a table without a replica identity. A primary key
-- would serve, but also be an index that nothing reads and every change writes.
alter table kv.log replica identity full;

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

create function kv.log_members() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    if tg_op = 'INSERT' then
        insert into kv.log (key) select distinct index_key from added;
    elsif tg_op = 'DELETE' then
        insert into kv.log (key) select distinct index_key from removed;
    else
        insert into kv.log (key) select index_key from removed union select index_key from added;
    end if;
    return null;
end
$$;
create trigger member_log_insert after insert on kv.member
    referencing new table as added for each statement execute function kv.log_members();
create trigger member_log_delete after delete on kv.member
    referencing old table as removed for each statement execute function kv.log_members();
create trigger member_log_update after update on kv.member
    referencing old table as removed new table as added for each statement execute function kv.log_members();

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

-- Emptying the log must show, too. (Single rows of it are not to be deleted by hand.)
create trigger log_truncate_log after truncate on kv.log
    for each statement execute function kv.log_truncate();

create function public.kv_enable_logging() returns void
    language plpgsql security invoker set search_path = ''
as $$
declare
    v_trigger record;
begin
    for v_trigger in
        select tgname, tgrelid::regclass as relation from pg_trigger
        where tgfoid in ('kv.log_entry'::regproc, 'kv.log_members'::regproc, 'kv.log_truncate'::regproc) and tgenabled <> 'A'
    loop
        execute format('alter table %s enable always trigger %I', v_trigger.relation, v_trigger.tgname);
    end loop;
end
$$;
comment on function public.kv_enable_logging() is 'Enables the triggers of the log in every mode, which "enable trigger all" does not. For the owner of the tables, after a restore that disabled them.';
revoke all on function public.kv_enable_logging() from public, anon, authenticated;
grant execute on function public.kv_enable_logging() to service_role;

-- A restore runs in replica mode, in which ordinary triggers do not fire. Caches must see its changes.
do $$ begin perform public.kv_enable_logging(); end $$;

-- A restart changes the boot, and so does a crash, which resets the statistics. A promoted replica has another start than its
-- primary had. Every write calls this, so it reads only memory.
create function kv.boot_id() returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return left(md5(concat_ws('/', extract(epoch from pg_postmaster_start_time()), extract(epoch from pg_stat_get_bgwriter_stat_reset_time()))), 8);
end
$$;
comment on function kv.boot_id() is 'Changes when transaction ids may have been used again: with another cluster, a restart or a crash.';

-- A restore changes the epoch, too. If it creates the tables, it loads rows before the triggers exist; with --disable-triggers it
-- switches them off. Either way the triggers' catalog rows are new. A copy of the database has another oid, and a rewritten table
-- another file. While a trigger is not as it was made, every call returns another epoch, so that no cursor is valid.
create function kv.epoch() returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (
        select kv.boot_id() || left(md5(concat_ws('/', (select oid from pg_database where datname = current_database()),
            sum(hashoidextended(oid, xmin::text::bigint)), pg_relation_filenode('public.kv_store'), pg_relation_filenode('kv.member'),
            case when count(*) <> 7 or bool_or(tgenabled <> 'A') then random() end)), 8)
        from pg_trigger
        where tgrelid in ('public.kv_store'::regclass, 'kv.member'::regclass, 'kv.log'::regclass)
          and tgfoid in ('kv.log_entry'::regproc, 'kv.log_members'::regproc, 'kv.log_truncate'::regproc)); -- seven triggers
end
$$;
comment on function kv.epoch() is 'Changes when transaction ids may have been used again or changes gone unlogged: with another cluster, a restart, a crash or a restore. See kv_enable_logging.';

-- The log records writes and is pruned by commits: a mark tells which transactions had ended at a time.
create table kv.log_mark (
    at      timestamptz not null default clock_timestamp(),
    horizon xid8 not null default pg_snapshot_xmin(pg_current_snapshot()),
    epoch   text not null default kv.epoch()
);
comment on table kv.log_mark is 'Every transaction before the horizon had ended at the time.';
comment on column kv.log_mark.epoch is 'A mark of another epoch, which a dump may bring, says nothing here.';
alter table kv.log_mark enable row level security;
alter table kv.log_mark replica identity full;

create function kv.log_retention() returns interval
    language sql immutable parallel safe set search_path = '' as $$ select interval '1 hour' $$;
comment on function kv.log_retention() is 'The largest age of a cursor of the change feed.';

create function public.kv_prune_log() returns bigint
    language plpgsql security invoker set search_path = ''
as $$
declare
    v_since   timestamptz := clock_timestamp() - kv.log_retention(); -- what is older goes; read once, so that an index can find it
    v_expired xid8;
    v_pruned  bigint;
begin
    delete from kv.log_mark where ctid = any (array(
        select ctid from kv.log_mark where epoch <> kv.epoch() for update skip locked));
    if not exists (select from kv.log_mark where at > clock_timestamp() - interval '1 minute') then
        insert into kv.log_mark default values;
    end if;
    select max(horizon) into v_expired from kv.log_mark
    where at < v_since;
    with expired as (
        select ctid from kv.log where transaction_id < v_expired order by transaction_id limit 2000 for update skip locked
    )
    delete from kv.log where ctid = any (array(select ctid from expired));
    get diagnostics v_pruned = row_count;
    delete from kv.log_mark where ctid = any (array(
        select ctid from kv.log_mark where horizon < v_expired for update skip locked));
    delete from kv.response where ctid = any (array(
        select ctid from kv.response where at < v_since order by at limit 2000 for update skip locked));
    return v_pruned;
exception
    when others then
        -- The write that called this goes on. The log grows until the cause is fixed.
        raise warning 'kv_prune_log removed nothing: % (SQLSTATE %)', sqlerrm, sqlstate;
        return 0;
end
$$;
comment on function public.kv_prune_log() is 'Removes up to 2,000 changes that every valid cursor has seen, and returns their number; and responses of kv.response that are too old to be asked for again. Some writes call it. Where it fails, it warns and returns 0, and the write goes on.';
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
comment on function kv.parse_snapshot(text) is 'The snapshot; null where the text is not one.';

-- STABLE, so that every statement in it sees the snapshot that its cursor names. A transaction was not visible in a snapshot if it
-- was running then (xip) or had not begun (from xmax on). So this reads the log of those few, and the end of the log. From the
-- snapshot's xmin on, it would read everything since the oldest open transaction began. The cursor's time is this transaction's
-- start, which is never after the snapshot.
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
comment on function public.kv_changes(text, integer) is 'What changed since p_since, the cursor of an earlier call: {"cursor","all","keys"}. "all" is true where everything may have changed: without a cursor, with one of another epoch, of the future or beyond kv.log_retention(), after a truncate or more than p_limit changes, and while triggers are disabled.';
revoke all on function public.kv_changes(text, integer) from public, anon, authenticated;
grant execute on function public.kv_changes(text, integer) to service_role;

-- Reads begin with this line where a caller gives its cursor. They are STABLE, so that the line and what follows come from one
-- snapshot: what is read is as new as the cursor that comes with it. Inlined, so that a read without a cursor pays nothing.
create function kv.changes_line(p_since text) returns text
    language sql stable security invoker
as $$
    select case when p_since is null then '' else public.kv_changes(p_since) || E'\n' end
$$;
comment on function kv.changes_line(text) is 'kv_changes and a line break; empty without a cursor.';
