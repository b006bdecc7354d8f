-- The migration of entries from elsewhere, beside live writes, of each store by itself. Everything that a run has to remember is here, written in the transaction
-- that imports: a run that was killed goes on from any machine.
--
-- kv_import never overwrites what anybody else wrote, and never brings back what a caller deleted while a migration is open. It knows its
-- own rows by their revision. A delete has no row to leave a version in, so it leaves a mark in kv.import, under the lock on the key's row
-- there that kv_import takes first. Order of locks: rows of kv.import, then those of kv_store, each in byte order. An entry that has
-- expired counts as absent, and as deleted by a caller if one wrote it while the migration was open.
--
-- Arguments have keys with the space of their store (kv.space_of), and responses without it. p_space says which store is meant.

create table kv.migration (
    space       text collate "C" not null,
    source      text not null,
    options     json not null,
    rules       text[] not null default '{}',
    session     uuid not null,
    holder      text not null,
    lease_until timestamptz not null,
    listed      bigint,
    run         json,
    opened_at   timestamptz not null default clock_timestamp(),
    closed_at   timestamptz,
    constraint migration_pkey primary key (space)
);
comment on table kv.migration is 'Of each store, the migration that is open, or the last one that was.';
comment on column kv.migration.space is 'The space of the store (kv.space_of); empty for the store kv.';
comment on column kv.migration.source is 'Where the entries come from; further runs must name the same.';
comment on column kv.migration.rules is 'The index rules of the last run.';
comment on column kv.migration.session is 'The pass of the run that is at work: what an earlier one sent and is late is refused.';
comment on column kv.migration.lease_until is 'Until then no other run may take over; renewed while one is at work.';
comment on column kv.migration.listed is 'How many entries the source listed last.';
comment on column kv.migration.run is 'The result of the last run.';
alter table kv.migration enable row level security;

create table kv.import (
    key             text collate "C" not null,
    revision        bigint,
    deleted         boolean not null default false,
    state           text,
    source_revision text,
    derived         text,
    problem         json,
    constraint import_pkey primary key (key),
    constraint import_state check (state in ('imported', 'removed', 'absent', 'foreign', 'deleted', 'failed', 'skipped'))
) with (fillfactor = 70); -- each row is inserted, and updated once
comment on table kv.import is 'What the migration of a key''s store has to know of it, while it is open.';
comment on column kv.import.revision is 'kv_store.revision as kv_import wrote it; a row with another one is foreign: somebody else''s.';
comment on column kv.import.deleted is 'A caller deleted the entry while the migration was open.';
comment on column kv.import.state is 'What became of the source''s entry; null where only a caller has touched the key.';
comment on column kv.import.source_revision is 'What the source''s entry was: its revision there.';
comment on column kv.import.derived is 'Digest of the indexes that rules gave the entry.';
comment on column kv.import.problem is 'Why it failed, or what is to be known of it.';
alter table kv.import enable row level security;

create table kv.verification (
    id     bigint generated always as identity,
    space  text collate "C" not null,
    at     timestamptz not null default clock_timestamp(),
    result json not null,
    constraint verification_pkey primary key (id)
);
comment on table kv.verification is 'The results of the last verifications of each store, without keys.';
alter table kv.verification enable row level security;

-- Compared reads (KV_COMPARE_READS).
create table kv.comparison (
    request       uuid not null,
    at            timestamptz not null default clock_timestamp(),
    primary_store text not null,
    matched       integer not null,
    differed      integer not null,
    unanswered    integer not null,
    constraint comparison_pkey primary key (request)
);
comment on table kv.comparison is 'How many reads an instance compared since it last told; unanswered by the other store.';
create index comparison_at on kv.comparison (at);
alter table kv.comparison enable row level security;

create table kv.difference (
    id             bigint generated always as identity,
    at             timestamptz not null default clock_timestamp(),
    primary_store  text not null,
    function       text not null,
    kind           text not null,
    key_hash       text not null,
    primary_digest text,
    other_digest   text,
    constraint difference_pkey primary key (id),
    constraint difference_kind check (kind in ('missing', 'extra', 'different', 'order'))
);
comment on table kv.difference is 'The last 10,000 differences that compared reads found: SHA-256 sums, never a key or a value.';
alter table kv.difference enable row level security;

create function kv.lock_import_key(p_key text) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if exists (select from kv.migration where space = kv.space_of(p_key) and closed_at is null) then -- a statement of its own: kv.migration is locked before kv.import
        insert into kv.import (key) values (p_key) on conflict (key) do update set key = excluded.key;
    end if;
end
$$;
comment on function kv.lock_import_key(text) is 'While a migration of its store is open: keeps kv_import away from the key until the transaction ends. Before any lock of kv_store.';

create function kv.mark_deleted(p_key text) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    if exists (select from kv.migration where space = kv.space_of(p_key) and closed_at is null) then -- as in kv.lock_import_key
        insert into kv.import (key, deleted) values (p_key, true) on conflict (key) do update set deleted = true;
    end if;
end
$$;
comment on function kv.mark_deleted(text) is 'While a migration of its store is open: kv_import will not bring the entry back. Before any lock of kv_store, or after kv.lock_import_key.';

-- Whoever deletes looks for an open migration, and holds the table until its transaction ends. So when this has its lock, every
-- later delete leaves a mark, and the earlier ones have ended.
create function public.kv_migration_open(
    p_source  text,
    p_options text,
    p_rules   text[],
    p_session uuid,
    p_holder  text,
    p_lease   double precision,
    p_own     uuid,
    p_anew    boolean,
    p_space   text default ''
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s'
as $$
declare
    v_open kv.migration;
begin
    lock table kv.migration in access exclusive mode;
    select * into v_open from kv.migration where space = p_space;
    if found and v_open.session is distinct from p_own and v_open.lease_until > clock_timestamp() then
        return json_build_object('holder', v_open.holder, 'held_for', extract(epoch from v_open.lease_until - clock_timestamp()))::text;
    elsif v_open.closed_at is not null and not p_anew then
        return json_build_object('closed_at', v_open.closed_at)::text;
    elsif v_open.closed_at is null and (v_open.source <> p_source or v_open.options::jsonb <> p_options::jsonb) then
        return json_build_object('source', v_open.source, 'options', v_open.options)::text;
    end if;
    if v_open.closed_at is not null then
        delete from kv.migration where space = p_space;
    end if;
    insert into kv.migration (space, source, options, rules, session, holder, lease_until)
    values (p_space, p_source, p_options::json, p_rules, p_session, p_holder, clock_timestamp() + p_lease * interval '1 second')
    on conflict (space) do update
    set rules = excluded.rules, session = excluded.session, holder = excluded.holder, lease_until = excluded.lease_until;
    return '{}';
end
$$;
comment on function public.kv_migration_open(text, text, text[], uuid, text, double precision, uuid, boolean, text) is
    'Opens the migration for a pass of a run, or goes on with it: the answer is {}. p_own is the run''s pass before. Else it says why not: {holder, held_for} where another run is at work, {closed_at} where it was closed and p_anew does not begin another one, {source, options} of an open one that is another.';
revoke all on function public.kv_migration_open(text, text, text[], uuid, text, double precision, uuid, boolean, text) from public, anon, authenticated;
grant execute on function public.kv_migration_open(text, text, text[], uuid, text, double precision, uuid, boolean, text) to service_role;

create function public.kv_migration_renew(p_session uuid, p_lease double precision, p_listed bigint, p_run text)
    returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_migration kv.migration;
begin
    update kv.migration
    set lease_until = clock_timestamp() + p_lease * interval '1 second', listed = coalesce(p_listed, listed), run = coalesce(p_run::json, run)
    where session = p_session and closed_at is null
    returning * into v_migration;
    if not found then
        raise exception using errcode = 'PT409', message = 'another run has taken over the migration, or it was closed';
    end if;
    return (select count(*) from kv.outbox
            where primary_store = 'supabase' and at < v_migration.opened_at and kv.space_of(key) = v_migration.space)::text;
end
$$;
comment on function public.kv_migration_renew(uuid, double precision, bigint, text) is
    'Keeps other runs away for so many seconds; 0 lets them in. The answer is how many writes from before the migration was opened may not have reached the source.';
revoke all on function public.kv_migration_renew(uuid, double precision, bigint, text) from public, anon, authenticated;
grant execute on function public.kv_migration_renew(uuid, double precision, bigint, text) to service_role;

create function public.kv_migration_close(p_space text default '') returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = '' set lock_timeout = '5s' set statement_timeout = '55s'
as $$
declare
    v_was boolean;
begin
    lock table kv.migration in access exclusive mode;
    if exists (select from kv.migration where space = p_space and lease_until > clock_timestamp()) then
        raise exception using errcode = 'PT409', message = 'a run of the migration is at work';
    end if;
    update kv.migration set closed_at = clock_timestamp(), session = gen_random_uuid() where space = p_space and closed_at is null;
    v_was := found;
    if exists (select from kv.migration where closed_at is null) then
        delete from kv.import where key >= p_space and key < kv.prefix_end(p_space);
    else
        truncate kv.import;
    end if;
    return v_was::text;
end
$$;
comment on function public.kv_migration_close(text) is 'Ends the migration of a store: what it knew of the keys is forgotten, and deletes leave no mark any more. Whether one was open.';
revoke all on function public.kv_migration_close(text) from public, anon, authenticated;
grant execute on function public.kv_migration_close(text) to service_role;

create function kv.import_state(i kv.import, p_key text, p_revision bigint) returns text
    language sql immutable parallel safe security invoker
as $$
    select case
        when i.state in ('failed', 'skipped') then i.state
        when p_key is null and i.deleted then 'deleted'
        when p_key is null and i.state in ('imported', 'foreign') then 'lost'
        when p_key is null then i.state
        when p_revision = i.revision then 'imported'
        else 'foreign' end
$$;
comment on function kv.import_state(kv.import, text, bigint) is 'What a key that was imported is now, beside its row in kv_store: kv.import.state, or lost, of a row that is gone and no caller deleted.';

create function public.kv_import_page(p_after text, p_limit integer, p_space text default '') returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return (
        select coalesce(json_agg(json_build_array(kv.bare_key(i.key), i.source_revision, i.derived, kv.import_state(i, s.key, s.revision)) order by i.key), '[]')::text
        from (select * from kv.import where key > p_after and key < kv.prefix_end(p_space) order by key limit p_limit) as i
            left join public.kv_store as s on s.key = i.key and kv.is_live(s.expires_at));
end
$$;
comment on function public.kv_import_page(text, integer, text) is 'What is known of imported keys, in order after one: [[key, revision, derived, state],...].';
revoke all on function public.kv_import_page(text, integer, text) from public, anon, authenticated;
grant execute on function public.kv_import_page(text, integer, text) to service_role;

create function public.kv_import_problems(p_after text, p_limit integer, p_failed boolean, p_space text default '') returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return (
        select coalesce(json_agg(problem order by key), '[]')::text
        from (select key, problem from kv.import
              where problem is not null and key > p_after and key < kv.prefix_end(p_space) and (state = 'failed') = p_failed order by key limit p_limit) as i);
end
$$;
comment on function public.kv_import_problems(text, integer, boolean, text) is 'The problems of keys after one: why they failed, or what is to be known of the others.';
revoke all on function public.kv_import_problems(text, integer, boolean, text) from public, anon, authenticated;
grant execute on function public.kv_import_problems(text, integer, boolean, text) to service_role;

create function kv.import_members(p_key text, p_members text[], p_new boolean) returns boolean
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_gone  bigint := 0;
    v_moved bigint;
begin
    if not p_new then
        delete from kv.member as m
        where m.index_key = p_key and m.position < 0 and m.member not in (select unnest(p_members));
        get diagnostics v_gone = row_count;
    end if;
    insert into kv.member (index_key, member, position)
    select p_key, member, n - (1::bigint << 40)
    from unnest(p_members) with ordinality as m (member, n)
    order by member collate "C"
    on conflict (index_key, member) do update set position = excluded.position
    where kv.member.position <> excluded.position;
    get diagnostics v_moved = row_count;
    return v_gone + v_moved > 0;
end
$$;
comment on function kv.import_members(text, text[], boolean) is
    'Makes these the imported members of an index entry, in this order. Their positions are negative: they come before those that were added live, which stay. The caller holds the entry''s row.';

create type kv.imported as (
    value        json,
    data         bytea, -- bytes that are not JSON; without value and data, the source has no such entry any more
    content_type text,
    metadata     json,
    pairs        text[],
    silent       boolean,
    is_index     boolean,
    created      timestamptz,
    updated      timestamptz
);
comment on type kv.imported is 'An entry of the source, as kv_import takes it.';

create function kv.import_entry(p_key text, p_entry kv.imported) returns text
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_gone    boolean := p_entry.value is null and p_entry.data is null;
    v_known   kv.import;
    v_members text[];
    v_row     public.kv_store;
    v_revision bigint;
    v_new     boolean := false;
    v_changed boolean := true;
begin
    select * into v_known from kv.import where key = p_key;
    if p_entry.is_index then
        v_members := kv.parse_members(p_entry.value::text);
    end if;
    loop
        select * into v_row from public.kv_store where key = p_key for update;
        exit when v_row.key is not null and (v_row.expires_at is null or v_row.expires_at > clock_timestamp());
        if v_row.key is not null then -- expired: as if a caller had deleted it then
            delete from public.kv_store where key = p_key;
            v_known.deleted := v_known.deleted or v_row.updated_at >= (select opened_at from kv.migration where space = kv.space_of(p_key));
            update kv.import set deleted = v_known.deleted where key = p_key;
        end if;
        if v_known.deleted then
            return 'deleted';
        elsif v_gone then
            return 'absent';
        end if;
        insert into public.kv_store (key, value, data, content_type, metadata, index_pairs, is_index, created_at, updated_at)
        values (p_key, case when v_members is null then p_entry.value else '[]' end, p_entry.data, p_entry.content_type, p_entry.metadata,
            coalesce(p_entry.pairs, '{}'), v_members is not null,
            coalesce(p_entry.created, clock_timestamp()), coalesce(p_entry.updated, clock_timestamp()))
        on conflict do nothing;
        v_new := found;
        exit when found; -- else another call has made the entry meanwhile, perhaps by adding a member: look at that
    end loop;
    if v_new then
        -- It may have got another revision than it was inserted with: kv.renew_revision.
        select revision into v_revision from public.kv_store where key = p_key;
    elsif v_row.is_index then
        perform kv.lock_members(p_key);
    end if;
    if v_new then
        null;
    elsif v_row.revision is distinct from v_known.revision and (not v_row.auto_created or v_known.deleted) then
        -- Somebody else's. An upsert without indexes leaves an entry's as they are, so one that is the copy of this very blob, which
        -- says nothing of its indexes, gets those that rules give it.
        if p_entry.silent and p_entry.pairs <> '{}' and v_row.value::text = p_entry.value::text and v_row.updated_at = p_entry.updated then
            update public.kv_store
            set index_pairs = index_pairs || (
                select coalesce(array_agg(array[p.index_key, p.member] order by p.ordinal), '{}') from kv.pairs(p_entry.pairs) as p
                where not exists (select from kv.pairs(v_row.index_pairs) as q where q.index_key = p.index_key and q.member = p.member)),
                revision = 0 -- else it would get another updated_at: kv.derive_columns
            where key = p_key and exists (
                select from kv.pairs(p_entry.pairs) as p
                where not exists (select from kv.pairs(v_row.index_pairs) as q where q.index_key = p.index_key and q.member = p.member));
            if found then
                return 'indexed';
            end if;
        end if;
        return 'foreign';
    elsif v_members is null and v_row.is_index and exists (select from kv.member where index_key = p_key and position > 0) then
        return 'foreign';
    elsif v_gone then
        delete from public.kv_store where key = p_key;
        return 'removed';
    elsif v_members is not null and v_row.is_index then
        -- Without its value, which is [] already: writing that would end its members (kv.clear_index).
        update public.kv_store
        set auto_created = false, index_pairs = coalesce(p_entry.pairs, index_pairs), created_at = coalesce(p_entry.created, created_at),
            updated_at = coalesce(p_entry.updated, updated_at), revision = case when p_entry.updated is null then revision else 0 end
        where key = p_key and (auto_created or index_pairs <> p_entry.pairs or created_at <> p_entry.created or updated_at <> p_entry.updated)
        returning revision into v_revision;
        v_changed := found;
        v_revision := coalesce(v_revision, v_row.revision);
    elsif v_members is not null or v_row.is_index or v_row.value::text is distinct from p_entry.value::text or v_row.data is distinct from p_entry.data
        or v_row.content_type is distinct from p_entry.content_type or v_row.metadata::text is distinct from p_entry.metadata::text
        or p_entry.pairs <> v_row.index_pairs or p_entry.created <> v_row.created_at or p_entry.updated <> v_row.updated_at
    then
        update public.kv_store
        set value = case when v_members is null then p_entry.value else '[]' end, data = p_entry.data, content_type = p_entry.content_type,
            metadata = p_entry.metadata, is_index = v_members is not null,
            index_pairs = coalesce(p_entry.pairs, index_pairs), created_at = coalesce(p_entry.created, created_at),
            updated_at = coalesce(p_entry.updated, updated_at), revision = case when p_entry.updated is null then revision else 0 end
        where key = p_key
        returning revision into v_revision;
    else
        v_revision := v_row.revision;
        v_changed := false;
    end if;
    if v_members is not null and kv.import_members(p_key, v_members, v_new) then
        v_changed := true;
        -- Other members may be as many: the revision tells them apart.
        update public.kv_store set revision = case when p_entry.updated is null then revision else 0 end where key = p_key and revision = v_row.revision;
        select revision into v_revision from public.kv_store where key = p_key;
    end if;
    update kv.import set revision = v_revision where key = p_key and revision is distinct from v_revision;
    return case when v_changed then 'written' else 'same' end;
end
$$;
comment on function kv.import_entry(text, kv.imported) is
    'Imports one entry whose row of kv.import the caller holds; what it returns: see kv_import. indexed is a foreign one that got indexes.';

create function public.kv_import(
    p_session       uuid,
    p_keys          text[],
    p_values        text[],
    p_pairs         text[],
    p_derived       text[],
    p_silent        boolean[],
    p_is_index      boolean[],
    p_created       bigint[],
    p_updated       bigint[],
    p_states        text[],
    p_revisions     text[],
    p_problems      text[],
    p_data          text[] default '{}',
    p_content_types text[] default '{}',
    p_metadata      text[] default '{}'
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = '' set statement_timeout = '55s'
as $$
declare
    v_done    text[] := p_states;
    v_new     text[] := '{}'::text[];
    v_written text[];
    v_run     record;
    v_n       integer;
begin
    if not exists (select from kv.migration where session = p_session and closed_at is null) then
        raise exception using errcode = 'PT409', message = 'another run has taken over the migration, or it was closed';
    end if;
    insert into kv.import (key) select k from unnest(p_keys) as k order by k collate "C"
    on conflict (key) do update set key = excluded.key;
    -- Most are new and no index entries: those in a row in one statement. So locks stay in the order of keys.
    for v_run in
        select array_agg(n order by key) as places, coalesce(array_agg(n order by key) filter (where new), '{}') as news
        from (
            select key, n, new, count(*) filter (where not new) over (order by key rows between unbounded preceding and 1 preceding) as run
            from (
                select k collate "C" as key, n, (p_values[n] is not null or p_data[n] is not null) and not p_is_index[n]
                    and not (select deleted from kv.import where key = k)
                    and not exists (select from public.kv_store where key = k) as new
                from unnest(p_keys) with ordinality as t (k, n)
                where p_states[n] is null) as keys) as runs
        group by run order by run
    loop
        if v_run.news <> '{}' then
            begin
                with written as (
                    insert into public.kv_store (key, value, data, content_type, metadata, index_pairs, created_at, updated_at)
                    select p_keys[n], p_values[n]::json, decode(p_data[n], 'base64'), p_content_types[n], p_metadata[n]::json, coalesce(p_pairs[n]::text[], '{}'),
                        coalesce(to_timestamp(0) + p_created[n] * interval '1 microsecond', clock_timestamp()),
                        coalesce(to_timestamp(0) + p_updated[n] * interval '1 microsecond', clock_timestamp())
                    from unnest(v_run.news) as n
                    order by p_keys[n] collate "C"
                    on conflict do nothing
                    returning key)
                select array_agg(key) into v_written from written;
                if cardinality(v_written) is distinct from cardinality(v_run.news) then
                    raise exception using errcode = 'KV001'; -- undoes the insert, as in kv_batch
                end if;
                v_new := v_new || v_written;
            exception
                -- Another call has just created one of them, which would be locked below, after higher keys. So all are taken one by one.
                when sqlstate 'KV001' then
                    null;
            end;
        end if;
        foreach v_n in array v_run.places loop
            v_done[v_n] := case when p_keys[v_n] = any (v_new) then 'written'
                else kv.import_entry(p_keys[v_n], (p_values[v_n]::json, decode(p_data[v_n], 'base64'), p_content_types[v_n], p_metadata[v_n]::json,
                    p_pairs[v_n]::text[], p_silent[v_n], p_is_index[v_n],
                    to_timestamp(0) + p_created[v_n] * interval '1 microsecond',
                    to_timestamp(0) + p_updated[v_n] * interval '1 microsecond')::kv.imported) end;
        end loop;
    end loop;
    update kv.import as i
    set state = case t.done when 'written' then 'imported' when 'same' then 'imported' when 'indexed' then 'foreign' else t.done end,
        source_revision = t.revision, derived = t.derived, problem = t.problem::json,
        -- It may have got another revision than it was inserted with: kv.renew_revision.
        revision = case when t.key = any (v_new) then (select s.revision from public.kv_store as s where s.key = t.key) else i.revision end
    from unnest(p_keys, v_done, p_revisions, p_derived, p_problems) as t (key, done, revision, derived, problem)
    where i.key = t.key;
    if random() < 0.1 then
        perform public.kv_prune_log();
    end if;
    return to_json(v_done)::text;
end
$$;
comment on function public.kv_import(uuid, text[], text[], text[], text[], boolean[], boolean[], bigint[], bigint[], text[], text[], text[], text[], text[], text[]) is
    'Imports entries with distinct keys, all or none, and remembers what became of them. A value is JSON text, data the base64 of other bytes (both null: the source has no such entry any more), content types have the defaults of kv_store, pairs are {{key,member},...} as text (null: leave what the row has), derived is the digest of pairs that rules give, silent that the source does not say which it has, times are microseconds since 1970 (null: now). With a state, failed or skipped, nothing is imported. The answer says of each: written, same (nothing to do), removed, absent, foreign (somebody else wrote it: left alone), indexed (foreign, and got indexes), deleted (a caller deleted it: left so), or the state.';
revoke all on function public.kv_import(uuid, text[], text[], text[], text[], boolean[], boolean[], bigint[], bigint[], text[], text[], text[], text[], text[], text[]) from public, anon, authenticated;
grant execute on function public.kv_import(uuid, text[], text[], text[], text[], boolean[], boolean[], bigint[], bigint[], text[], text[], text[], text[], text[], text[]) to service_role;

create function public.kv_restore(
    p_keys     text[],
    p_expected text[],
    p_values   text[],
    p_pairs    text[],
    p_is_index boolean[],
    p_created  bigint[],
    p_updated  bigint[],
    p_data     text[],
    p_content_types text[],
    p_metadata text[],
    p_expires  bigint[]
) returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = '' set statement_timeout = '55s'
as $$
declare
    v_done boolean[] := array_fill(null::boolean, array[cardinality(p_keys)]);
    v_n    integer;
begin
    for v_n in select n from unnest(p_keys) with ordinality as t (k, n) order by k collate "C" loop
        v_done[v_n] := (public.kv_mirror_copy(p_keys[v_n], p_expected[v_n], p_values[v_n], p_pairs[v_n]::text[], p_is_index[v_n], false,
            p_created[v_n], p_updated[v_n], null, p_data[v_n], p_content_types[v_n], p_metadata[v_n], p_expires[v_n])::text::json ->> 'applied')::boolean;
    end loop;
    return to_json(v_done)::text;
end
$$;
comment on function public.kv_restore(text[], text[], text[], text[], boolean[], bigint[], bigint[], text[], text[], text[], bigint[]) is
    'kv_mirror_copy of entries with distinct keys, all or none. The answer says of each whether it was still what was expected.';
revoke all on function public.kv_restore(text[], text[], text[], text[], boolean[], bigint[], bigint[], text[], text[], text[], bigint[]) from public, anon, authenticated;
grant execute on function public.kv_restore(text[], text[], text[], text[], boolean[], bigint[], bigint[], text[], text[], text[], bigint[]) to service_role;

create function public.kv_migration_status(p_space text default '') returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
declare
    v_end text := kv.prefix_end(p_space);
begin
    return json_build_object(
        'open', exists (select from kv.migration where space = p_space and closed_at is null),
        'migration', (select json_build_object('source', source, 'options', options, 'rules', rules, 'holder', holder, 'listed', listed, 'run', run,
            'opened_at', opened_at, 'closed_at', closed_at, 'at_work', lease_until > clock_timestamp()) from kv.migration where space = p_space),
        'entries', (select count(*) from public.kv_store where key >= p_space and key < v_end and kv.is_live(expires_at)),
        'states', (select coalesce(json_object_agg(state, n), '{}') from (
            select kv.import_state(i, s.key, s.revision) as state, count(*) as n
            from kv.import as i left join public.kv_store as s on s.key = i.key and kv.is_live(s.expires_at)
            where i.state is not null and i.key >= p_space and i.key < v_end group by 1) as counted),
        'noted', (select count(*) from kv.import where problem is not null and state <> 'failed' and key >= p_space and key < v_end),
        'deleted', (select count(*) from kv.import where deleted and key >= p_space and key < v_end),
        'outbox', (select count(*) from kv.outbox where kv.space_of(key) = p_space),
        'verification', (select result from kv.verification where space = p_space order by id desc limit 1))::text;
end
$$;
comment on function public.kv_migration_status(text) is 'The migration of a store, with counts: entries, what became of the source''s, keys that callers deleted since it was opened, outbox entries; and the last verification.';
revoke all on function public.kv_migration_status(text) from public, anon, authenticated;
grant execute on function public.kv_migration_status(text) to service_role;

create function public.kv_migration_brief(p_space text default '') returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = ''
as $$
begin
    return coalesce((select json_build_object('source', source, 'options', options, 'rules', rules, 'closed_at', closed_at)::text from kv.migration where space = p_space), 'null');
end
$$;
comment on function public.kv_migration_brief(text) is 'Which migration of a store is open or was closed, without counting; null where there was none.';
revoke all on function public.kv_migration_brief(text) from public, anon, authenticated;
grant execute on function public.kv_migration_brief(text) to service_role;

create function public.kv_verification_add(p_result text, p_space text default '') returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    insert into kv.verification (space, result) values (p_space, p_result::json);
    delete from kv.verification where space = p_space and id <= (select id from kv.verification where space = p_space order by id desc offset 100 limit 1);
    return '';
end
$$;
comment on function public.kv_verification_add(text, text) is 'Keeps the result of a verification of a store, and its last hundred.';
revoke all on function public.kv_verification_add(text, text) from public, anon, authenticated;
grant execute on function public.kv_verification_add(text, text) to service_role;

create function public.kv_compared(p_request uuid, p_primary text, p_matched integer, p_differed integer, p_unanswered integer, p_differences json)
    returns public."application/vnd.kv+json"
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    insert into kv.comparison (request, primary_store, matched, differed, unanswered)
    values (p_request, p_primary, p_matched, p_differed, p_unanswered) on conflict do nothing;
    if not found then -- it came before, and its answer was lost
        return '';
    end if;
    if json_array_length(p_differences) > 0 then
        insert into kv.difference (at, primary_store, function, kind, key_hash, primary_digest, other_digest)
        select d.at, p_primary, d.function, d.kind, d.key_hash, d.primary_digest, d.other_digest
        from json_to_recordset(p_differences) as d (at timestamptz, function text, kind text, key_hash text, primary_digest text, other_digest text);
        delete from kv.difference where id <= (select max(id) - 10000 from kv.difference);
    end if;
    if random() < 0.01 then
        delete from kv.comparison where at < clock_timestamp() - interval '30 days';
    end if;
    return '';
end
$$;
comment on function public.kv_compared(uuid, text, integer, integer, integer, json) is 'Keeps what an instance''s compared reads found since it last told. A request is counted once.';
revoke all on function public.kv_compared(uuid, text, integer, integer, integer, json) from public, anon, authenticated;
grant execute on function public.kv_compared(uuid, text, integer, integer, integer, json) to service_role;

create function public.kv_readiness(p_hours double precision, p_space text default '') returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
declare
    v_since timestamptz := clock_timestamp() - p_hours * interval '1 hour';
begin
    return json_build_object(
        'now', clock_timestamp(),
        'primary', (select primary_store from kv.comparison order by at desc limit 1),
        'compared_since', (select min(at) from kv.comparison where primary_store = (select primary_store from kv.comparison order by at desc limit 1)),
        'hours', (select coalesce(json_agg(json_build_object('hour', hour, 'primary', primary_store, 'matched', matched, 'differed', differed,
                'unanswered', unanswered) order by hour, primary_store), '[]') from (
            select date_trunc('hour', at) as hour, primary_store, sum(matched) as matched, sum(differed) as differed, sum(unanswered) as unanswered
            from kv.comparison where at >= v_since group by 1, 2) as h),
        'kinds', (select coalesce(json_object_agg(function || ' ' || kind, n), '{}') from (
            select function, kind, count(*) as n from kv.difference where at >= v_since group by 1, 2) as k),
        'outbox', (select count(*) from kv.outbox),
        'outbox_waiting', (select count(*) from kv.outbox where at < clock_timestamp() - interval '1 minute'),
        'outbox_primaries', (select coalesce(json_object_agg(primary_store, n), '{}') from (select primary_store, count(*) as n from kv.outbox group by 1) as o),
        'at_work', exists (select from kv.migration where space = p_space and lease_until > clock_timestamp()),
        'run', (select run from kv.migration where space = p_space),
        'unmigratable', (select count(*) from kv.import where state = 'failed' and key >= p_space and key < kv.prefix_end(p_space)),
        'verification', (select result from kv.verification where space = p_space order by id desc limit 1),
        'verified_at', (select max(at) from kv.verification where space = p_space))::text;
end
$$;
comment on function public.kv_readiness(double precision, text) is 'The evidence for a switch, or for the way back, of the last so many hours. Reads and the outbox are those of the store kv, whichever store p_space is.';
revoke all on function public.kv_readiness(double precision, text) from public, anon, authenticated;
grant execute on function public.kv_readiness(double precision, text) to service_role;

create function kv.digest_pairs(p_pairs text[]) returns text
    language plpgsql immutable security invoker set search_path = ''
as $$
begin
    return encode(sha256(convert_to(coalesce((
        select string_agg(concat(octet_length(index_key), ':', index_key, octet_length(member), ':', member), ''
            order by index_key collate "C", member collate "C")
        from (select distinct index_key, member from kv.pairs(p_pairs)) as p), ''), 'UTF8')), 'hex');
end
$$;
comment on function kv.digest_pairs(text[]) is 'SHA-256 of the pairs in order, each as <bytes>:<key><bytes>:<member>.';

-- Of each key: what a reader of it gets, and whether queries find it.
create function public.kv_digests_of(p_keys text[]) returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return (
        select coalesce(json_agg(json_build_object(
            'key', kv.bare_key(s.key),
            'value', encode(sha256(coalesce(s.data, convert_to(case when s.is_index then kv.index_value(s.key, s.value::text) else s.value::text end, 'UTF8'))), 'hex'),
            'metadata', case when s.metadata::text <> '{}' then encode(sha256(convert_to(s.metadata::text, 'UTF8')), 'hex') else '' end,
            'indexes', kv.digest_pairs(s.index_pairs),
            'unposted', case when s.index_pairs = '{}' then 0 else (
                -- With limit, each is a look into the index: not exists would be planned as a join that reads the whole table.
                select count(*) from kv.postings_of(s.index_pairs) as p
                where (select true from kv.posting as q
                       where q.index_key = p.index_key and q.member = p.member and q.key = s.key limit 1) is null) end,
            'document', s.is_index or not s.replaced,
            'search', s.is_index or s.search is not null) order by s.key), '[]')::text
        from public.kv_store as s where s.key = any (p_keys) and kv.is_live(s.expires_at));
end
$$;
comment on function public.kv_digests_of(text[]) is 'SHA-256 of the bytes, of the metadata ({} counts as none) and of the indexes of the keys that exist, and how many postings lack.';
revoke all on function public.kv_digests_of(text[]) from public, anon, authenticated;
grant execute on function public.kv_digests_of(text[]) to service_role;

create function public.kv_digests(p_after text, p_limit integer, p_space text default '') returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
as $$
begin
    return public.kv_digests_of(array(
        select key from public.kv_store
        where key > p_after and key < kv.prefix_end(p_space) and kv.is_live(expires_at) order by key limit p_limit));
end
$$;
comment on function public.kv_digests(text, integer, text) is 'kv_digests_of the entries of a store after a key, in key order.';
revoke all on function public.kv_digests(text, integer, text) from public, anon, authenticated;
grant execute on function public.kv_digests(text, integer, text) to service_role;

create function public.kv_stray_postings(p_space text default '') returns public."application/vnd.kv+json"
    language plpgsql stable security invoker set search_path = '' set statement_timeout = '55s'
    set enable_nestloop = off -- after an import there are no statistics, and each posting would read its entry's indexes
as $$
begin
    return (
        select count(*) from kv.posting as p
        where p.key >= p_space and p.key < kv.prefix_end(p_space) and not exists (
            select from public.kv_store as s, kv.postings_of(s.index_pairs) as q
            where s.key = p.key and q.index_key = p.index_key and q.member = p.member))::text;
end
$$;
comment on function public.kv_stray_postings(text) is 'How many postings of a store there are that no entry''s indexes have.';
revoke all on function public.kv_stray_postings(text) from public, anon, authenticated;
grant execute on function public.kv_stray_postings(text) to service_role;
