-- The change feed, for caches that live by it: nothing that empties or replaces the tables may slip by, and a look costs
-- the same whatever happened since the oldest open transaction began.

-- As before, and now a restore changes it too. One that drops and creates the tables loads rows before the triggers are
-- there; one with --disable-triggers switches them off meanwhile. Either writes the triggers' rows in the catalogue anew.
create or replace function public.kv_epoch() returns text
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (
        select left(md5(concat_ws('/', s.system_identifier, c.timeline_id,
            extract(epoch from pg_postmaster_start_time()), extract(epoch from b.stats_reset),
            (select string_agg(t.oid || ':' || t.xmin, ',' order by t.oid) from pg_trigger as t
             where t.tgrelid in ('public.kv_store'::regclass, 'public.kv_member'::regclass, 'public.kv_log'::regclass)
               and t.tgname ~ '_log'))), 16)
        from pg_control_system() as s, pg_control_checkpoint() as c, pg_stat_bgwriter as b);
end
$$;
comment on function public.kv_epoch() is 'Changes whenever transaction ids may have been used again or changes gone unlogged: another cluster, a restart, a crash, a restore.';

-- The log itself must not be emptied unnoticed. (Single rows of it are not to be deleted by hand.)
create trigger kv_log_truncate_log after truncate on public.kv_log
    for each statement execute function public.kv_log_truncate();
alter table public.kv_log enable always trigger kv_log_truncate_log;

create function public.kv_logging() returns boolean
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return (
        select count(*) = 7 and bool_and(t.tgenabled = 'A') from pg_trigger as t
        where t.tgrelid in ('public.kv_store'::regclass, 'public.kv_member'::regclass, 'public.kv_log'::regclass)
          and t.tgname ~ '_log');
end
$$;
comment on function public.kv_logging() is 'Whether every change is logged. False after "disable trigger all", and after "enable trigger all", which does not bring "enable always" back: see kv_enable_logging.';

create function public.kv_enable_logging() returns boolean
    language plpgsql security invoker set search_path = ''
as $$
declare
    v_trigger record;
begin
    for v_trigger in
        select t.tgname, t.tgrelid::regclass as relation from pg_trigger as t
        where t.tgrelid in ('public.kv_store'::regclass, 'public.kv_member'::regclass, 'public.kv_log'::regclass)
          and t.tgname ~ '_log' and t.tgenabled <> 'A'
    loop
        execute format('alter table %s enable always trigger %I', v_trigger.relation, v_trigger.tgname);
    end loop;
    return public.kv_logging();
end
$$;
comment on function public.kv_enable_logging() is 'Switches the log''s triggers on in every mode, as they were made. For the tables'' owner, after a restore that switched them off.';

create function public.kv_since(p_cursor text, p_epoch text, p_here pg_snapshot) returns pg_snapshot
    language plpgsql stable security invoker set search_path = ''
as $$
declare
    v_parts text[];
    v_since pg_snapshot;
begin
    if p_cursor ~ '^[0-9a-f]{16}/[0-9]{1,15}/[0-9]{1,19}:[0-9]{1,19}:[0-9,]*$' then
        v_parts := string_to_array(p_cursor, '/');
        if v_parts[1] = p_epoch
            and to_timestamp(v_parts[2]::bigint / 1000.0) > clock_timestamp() - public.kv_log_retention()
            and public.kv_logging()
        then
            v_since := public.kv_snapshot(v_parts[3]);
        end if;
    end if;
    return case when pg_snapshot_xmax(v_since) <= pg_snapshot_xmax(p_here) then v_since end;
end
$$;
comment on function public.kv_since(text, text, pg_snapshot) is 'The snapshot of a cursor; null where the cursor tells nothing about this database now.';

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
    v_since     pg_snapshot := public.kv_since(p_cursor, v_epoch, v_here);
    v_keys      json := '[]';
    v_changes   bigint;
    v_truncated boolean;
    v_all       boolean := v_since is null;
begin
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

revoke all on function public.kv_logging(), public.kv_enable_logging(), public.kv_since(text, text, pg_snapshot)
    from public, anon, authenticated;
grant execute on function public.kv_logging(), public.kv_enable_logging(), public.kv_since(text, text, pg_snapshot)
    to service_role;
