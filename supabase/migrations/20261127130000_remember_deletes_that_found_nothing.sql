-- A delete that found no entry left nothing in the log, so the same request was applied again where it arrived once more, as
-- after a lost reply or late: it then removed an entry that had been written, and acknowledged, since. Now the log has such a
-- request too, with what came of it, so that a repetition gets the first answer.
--
-- And while a migration is open, a delete leaves the mark that kv_import looks for.

alter table public.kv_log add column missed boolean;
comment on column public.kv_log.missed is 'True: the request was a delete, and there was no entry. Nothing changed.';

create or replace function public.kv_delete(p_key text, p_request uuid default null, p_mirror boolean default false)
    returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_stamp   xid8 := public.kv_begin_request(p_request);
    v_deleted boolean;
begin
    if v_stamp is null then
        perform public.kv_mark_deleted(p_key);
        delete from public.kv_store where key = p_key;
        v_deleted := found;
        if not v_deleted and p_request is not null then
            insert into public.kv_log (key, missed) values (p_key, true);
        end if;
        if p_mirror then -- also where there was no entry: the other store may have one
            insert into public.kv_outbox (key, first, request) values (p_key, 'supabase', p_request);
        end if;
        v_stamp := pg_current_xact_id();
        if random() < 0.01 then
            perform public.kv_prune_log();
        end if;
    else
        v_deleted := not exists (select from public.kv_log where request = p_request and missed);
    end if;
    return public.kv_written(v_stamp, v_deleted, p_request, p_mirror);
end
$$;

notify pgrst, 'reload schema';
