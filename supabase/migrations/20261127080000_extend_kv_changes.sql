-- The change feed, for caches that live by it: nothing that empties or replaces the tables may slip by, and a look costs
-- the same whatever happened since the oldest open transaction began.

-- Another after a restart, a crash (which resets the statistics) and a promotion, and now after a restore: one that drops and
-- creates the tables loads rows before the triggers are there, one with --disable-triggers switches them off meanwhile, and
-- either writes the triggers' rows in the catalogue anew. A copy of the database is another one, and a rewritten table another
-- file. While a trigger is not as it was made, every look has an epoch
-- of its own, so that no cursor is good for anything. Every write and every look calls this: it reads as little as it can.
create or replace function public.kv_epoch() returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (
        select left(md5(concat_ws('/', extract(epoch from pg_postmaster_start_time()), extract(epoch from pg_stat_get_bgwriter_stat_reset_time()),
            c.timeline_id, (select oid from pg_database where datname = current_database()), t.made, pg_relation_filenode('public.kv_store'),
            pg_relation_filenode('public.kv_member'), case when not t.logging then random() end)), 16)
        from pg_control_checkpoint() as c, (
            select sum(hashoidextended(oid, xmin::text::bigint)) as made, count(*) = 7 and bool_and(tgenabled = 'A') as logging
            from pg_trigger
            where tgrelid in ('public.kv_store'::regclass, 'public.kv_member'::regclass, 'public.kv_log'::regclass)
              and tgname in ('kv_store_log', 'kv_store_log_truncate', 'kv_member_log_insert', 'kv_member_log_delete', 'kv_member_log_update',
                'kv_member_log_truncate', 'kv_log_truncate_log')) as t);
end
$$;
comment on function public.kv_epoch() is 'Changes whenever transaction ids may have been used again or changes gone unlogged: another cluster, a restart, a crash, a restore. See kv_enable_logging.';

-- The log itself must not be emptied unnoticed. (Single rows of it are not to be deleted by hand.)
create trigger kv_log_truncate_log after truncate on public.kv_log
    for each statement execute function public.kv_log_truncate();
alter table public.kv_log enable always trigger kv_log_truncate_log;

create function public.kv_enable_logging() returns void
    language plpgsql security invoker set search_path = ''
as $$
declare
    v_trigger record;
begin
    for v_trigger in
        select t.tgname, t.tgrelid::regclass as relation from pg_trigger as t
        where t.tgrelid in ('public.kv_store'::regclass, 'public.kv_member'::regclass, 'public.kv_log'::regclass)
          and t.tgname in ('kv_store_log', 'kv_store_log_truncate', 'kv_member_log_insert', 'kv_member_log_delete', 'kv_member_log_update',
              'kv_member_log_truncate', 'kv_log_truncate_log')
          and t.tgenabled <> 'A'
    loop
        execute format('alter table %s enable always trigger %I', v_trigger.relation, v_trigger.tgname);
    end loop;
end
$$;
comment on function public.kv_enable_logging() is 'Switches the log''s triggers on in every mode, as they were made: "enable trigger all" does not. For the tables'' owner, after a restore that switched them off.';

-- STABLE, so that every statement in it sees the snapshot that the cursor handed out names; in plpgsql, which keeps the
-- plans. A transaction was not visible in a snapshot exactly if it was still running (xip) or had not begun (from xmax on):
-- each of those few, and then the end of the log. Going by the snapshot's xmin instead would read everything since the
-- oldest open transaction began. The cursor's time is that of this transaction's start, which is never after the snapshot.
create or replace function public.kv_changes(p_cursor text default null, p_limit integer default 1000) returns json
    language plpgsql stable security invoker
    set search_path = ''
    set enable_seqscan = off -- statistics from before a burst of changes would choose it
    set enable_bitmapscan = off
as $$
declare
    v_here      pg_snapshot := pg_current_snapshot();
    v_epoch     text := public.kv_epoch();
    v_since     pg_snapshot;
    v_keys      json := '[]'::json;
    v_changes   bigint;
    v_truncated boolean;
    v_all       boolean;
begin
    if p_cursor ~ '^[0-9a-f]{16}/[0-9]{1,15}/[0-9]{1,19}:[0-9]{1,19}:[0-9,]*$' and starts_with(p_cursor, v_epoch)
        and to_timestamp(split_part(p_cursor, '/', 2)::bigint / 1000.0) > clock_timestamp() - public.kv_log_retention()
    then
        v_since := public.kv_snapshot(split_part(p_cursor, '/', 3));
    end if;
    v_all := (pg_snapshot_xmax(v_since) <= pg_snapshot_xmax(v_here)) is not true; -- no cursor, or one from the future
    if not v_all then
        select count(*), bool_or(key is null), coalesce(json_agg(distinct key), '[]') into v_changes, v_truncated, v_keys
        from (
            select key from (
                select running.key
                from pg_snapshot_xip(v_since) as x (stamp)
                cross join lateral (select l.key from public.kv_log as l where l.stamp = x.stamp order by l.stamp limit p_limit + 1) as running
                union all
                select later.key
                from (select l.key from public.kv_log as l
                      where l.stamp >= pg_snapshot_xmax(v_since) and l.stamp < pg_snapshot_xmax(v_here)
                      order by l.stamp limit p_limit + 1) as later
            ) as changed
            limit p_limit + 1
        ) as bounded;
        v_all := v_changes > p_limit or coalesce(v_truncated, false);
    end if;
    return json_build_object(
        'cursor', concat_ws('/', v_epoch, floor(extract(epoch from now()) * 1000)::bigint, v_here),
        'all', v_all, 'keys', case when v_all then '[]' else v_keys end);
end
$$;
comment on function public.kv_changes(text, integer) is 'What changed since the cursor: {"cursor","all","keys"}. "all" is true when everything may have changed: no cursor, one of another epoch, from the future or older than kv_log_retention(), a truncate, more than p_limit changes, or triggers that are switched off.';

revoke all on function public.kv_enable_logging() from public, anon, authenticated;
grant execute on function public.kv_enable_logging() to service_role;
