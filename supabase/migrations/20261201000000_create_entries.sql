-- The entries. A value is kept as the exact text that was sent (json keeps it: key order, duplicate keys, 1.0, \u0000).
-- Beside it stand a jsonb document, which loses or refuses all of these, for queries, and a tsvector for full text.
-- One BEFORE trigger derives everything that follows from the value, so that no text is parsed twice and a row
-- edited in the SQL editor is as complete as one written by kv_upsert.

-- Before anything else: nothing of somebody else's is touched, and nothing of ours is made twice.
do $$
begin
    if exists (select from pg_attribute where attrelid = to_regclass('public.kv_store') and attname = 'index_pairs') then
        raise exception using errcode = 'duplicate_table',
            message = 'These migrations were applied before, by other means than these. Nothing was changed.',
            hint = 'Apply only the files that are new in this release, and stay with one way of applying them: README.md, Deploying.';
    elsif to_regclass('public.kv_store') is not null then
        raise exception using errcode = 'duplicate_table',
            message = 'There is a table public.kv_store that is not of this project. Nothing was changed.',
            hint = 'Move it out of the way (create schema before; alter table public.kv_store set schema before), apply the migrations again, and bring its entries with migrate-kv-store run --from-table before.kv_store: docs/MIGRATION.md, From a table of your own.';
    elsif to_regnamespace('kv') is not null then
        raise exception using errcode = 'duplicate_schema',
            message = 'There is a schema kv that is not of this project. Nothing was changed.',
            hint = 'Rename it (alter schema kv rename to before_kv), or drop it if it is what was left of this project, and apply the migrations again.';
    end if;
end
$$;

-- Tables and functions that nobody calls from outside. PostgREST does not expose the schema, and only service_role may use it.
-- Default privileges of a schema cannot take from PUBLIC the right to execute functions: without usage, nobody else can name them.
create schema kv;
comment on schema kv is 'What the functions public.kv_* are made of. Not to be exposed.';
revoke all on schema kv from public;
grant usage on schema kv to service_role;
alter default privileges in schema kv grant all on tables to service_role;
alter default privileges in schema kv grant all on sequences to service_role;
alter default privileges in schema kv grant execute on functions to service_role;

-- PostgREST hands through untouched what a function returns as a domain named for a media type. Its own wrapping fails on \u0000.
create domain public."application/vnd.kv+json" as text;
comment on domain public."application/vnd.kv+json" is 'A finished response. Ask PostgREST for it with Accept: application/vnd.kv+json.';

create table public.kv_store (
    key          text collate "C" not null,
    value        json not null,
    bytes        integer not null,
    document     jsonb,
    search       tsvector,
    indexes      text[] not null default '{}',
    index_pairs  text[] not null default '{}',
    is_index     boolean not null default false,
    auto_created boolean not null default false,
    replaced     boolean not null default false,
    created_at   timestamptz not null default clock_timestamp(),
    updated_at   timestamptz not null default clock_timestamp(),
    revision     bigint not null,
    constraint kv_store_pkey primary key (key),
    constraint kv_store_key_length check (octet_length(key) between 1 and 1024),
    constraint kv_store_index_pairs check (index_pairs = '{}'
        or array_ndims(index_pairs) = 2 and array_length(index_pairs, 2) = 2 and ('' <> all (index_pairs)) is true)
);
comment on table public.kv_store is 'One row an entry. Write value and indexes; the other columns follow from them.';
comment on column public.kv_store.value is 'The JSON text as it was written. Of an index entry: the array its members are appended to.';
comment on column public.kv_store.bytes is 'Length of value in bytes, so that a response''s size is known without reading the values.';
comment on column public.kv_store.document is 'value for queries, with what jsonb cannot hold replaced; null for index entries.';
comment on column public.kv_store.search is 'The words of every string in value; null beyond 200 kB of value, and for index entries. See kv.search_vector.';
comment on column public.kv_store.indexes is 'The entry''s indexes, "<key>:<member>" each, for people and tools. A string written here by hand is split at its last colon.';
comment on column public.kv_store.index_pairs is 'The exact form of indexes: {{key,member},...}. "a:b"+"c" and "a"+"b:c" read alike in indexes, but are two pairs.';
comment on column public.kv_store.is_index is 'True where kv.member may hold members of this entry.';
comment on column public.kv_store.auto_created is 'True of an index entry that exists because members were added; nobody has written it itself.';
comment on column public.kv_store.replaced is 'True where document differs from value: \u0000 and half surrogate pairs are U+FFFD in it, numbers beyond numeric are text.';
comment on column public.kv_store.revision is 'Grows with every write of the row, also after the row was deleted and written anew.';

-- Orders that kv-list and kv-query page through with a cursor.
create index kv_store_created_at on public.kv_store (created_at, key);
create index kv_store_updated_at on public.kv_store (updated_at, key);
create index kv_store_search on public.kv_store using gin (search);
-- The few entries of which queries do not see everything, so that a response can say so.
create index kv_store_unseen on public.kv_store (key) where replaced or search is null and not is_index;

alter table public.kv_store enable row level security;
revoke all on table public.kv_store from anon, authenticated;
grant all on table public.kv_store to service_role;

-- A member of an index is a JSON string or a JSON number. As a text, in index_pairs, kv.member and kv.posting, a string is itself and a
-- number is chr(1) and its spelling; a string that begins with chr(1) gets one more in front (kv.Member in Go). So 5, 5.0 and "5" are
-- three members, and nearly every member is its own text: its JSON would take two bytes more in each of four places.
--
-- These are inlined, which a search_path of their own would prevent; they name nothing that could be another's. Nor may they be strict,
-- with a body that is not, or immutable, with one that is stable (to_json): a call would take a hundred times as long.
create function kv.member_from_text(p_text text) returns text
    language sql immutable parallel safe security invoker
as $$
    select case when pg_catalog.starts_with(p_text, E'\x01') then E'\x01' || p_text else p_text end
$$;
comment on function kv.member_from_text(text) is 'The member that is this string.';

create function kv.member_from_json(p_element json) returns text
    language sql immutable parallel safe security invoker
as $$
    select case pg_catalog.json_typeof(p_element) when 'string' then kv.member_from_text(p_element #>> '{}')
        when 'number' then E'\x01' || p_element::text end
$$;
comment on function kv.member_from_json(json) is 'The member that is this string or number; null for other elements. A string that Postgres cannot hold is an error.';

create function kv.member_to_text(p_member text) returns text
    language sql immutable parallel safe security invoker
as $$
    select case when pg_catalog.starts_with(p_member, E'\x01') then pg_catalog.substr(p_member, 2) else p_member end
$$;
comment on function kv.member_to_text(text) is 'What stands for the member in "<key>:<member>".';

create function kv.member_to_json(p_member text) returns text
    language sql stable parallel safe security invoker
as $$
    select case when pg_catalog.starts_with(p_member, E'\x01') and not pg_catalog.starts_with(p_member, E'\x01\x01') then pg_catalog.substr(p_member, 2)
        else pg_catalog.to_json(kv.member_to_text(p_member))::text end
$$;
comment on function kv.member_to_json(text) is 'The member as JSON.';

-- p_pairs[i] goes through all elements before it and reads a compressed array anew each time: 2 s for 1,000 long indexes.
create function kv.pairs(p_pairs text[]) returns table (ordinal integer, index_key text, member text)
    language sql immutable parallel safe security invoker
as $$
    select ordinal::integer, index_key collate "C", member collate "C"
    from rows from (pg_catalog.unnest(p_pairs[:][1:1]), pg_catalog.unnest(p_pairs[:][2:2])) with ordinality as pairs (index_key, member, ordinal)
$$;
comment on function kv.pairs(text[]) is 'The rows of {{key,member},...}.';

-- In plpgsql, which keeps the plan: a function in SQL with a setting of its own is planned in every call.
create function kv.format_pairs(p_pairs text[]) returns text[]
    language plpgsql immutable parallel safe security invoker set search_path = ''
as $$
begin
    return (
        select coalesce(array_agg(spelled order by ordinal), '{}')
        from (
            select index_key || ':' || kv.member_to_text(member) as spelled, min(ordinal) as ordinal
            from kv.pairs(p_pairs)
            group by 1
        ) as formatted);
end
$$;
comment on function kv.format_pairs(text[]) is 'The "<key>:<member>" strings of the pairs, each once, in order.';

create function kv.parse_pairs(p_indexes text[], p_known text[]) returns text[]
    language plpgsql immutable security invoker set search_path = ''
as $$
declare
    v_spelled text;
    v_pairs   text[] := '{}'::text[];
    v_known   text[];
begin
    foreach v_spelled in array p_indexes loop
        select array_agg(array[k.index_key, k.member] order by k.ordinal) into v_known
        from kv.pairs(p_known) as k
        where k.index_key || ':' || kv.member_to_text(k.member) = v_spelled;
        if v_known is null then
            select array[array[parts[1], kv.member_from_text(parts[2])]] into v_known from regexp_match(v_spelled, '^(.+):(.+)$') as parts;
        end if;
        if v_known[1][1] is null then
            raise check_violation using
                message = format('indexes: %L is not "<key>:<member>"', v_spelled);
        end if;
        v_pairs := v_pairs || v_known;
    end loop;
    return v_pairs;
end
$$;
comment on function kv.parse_pairs(text[], text[]) is 'The pairs that the strings spell: as known before, else split at the last colon, with a string for the member.';

create function kv.derive_columns() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    if tg_op = 'INSERT' or new.is_index <> old.is_index or new.value::text <> old.value::text then
        new.bytes := octet_length(new.value::text);
        new.document := case when not new.is_index then kv.to_document(new.value) end;
        new.replaced := new.document is null and not new.is_index;
        if new.replaced then
            new.document := kv.to_readable_document(new.value);
        end if;
        new.search := kv.search_vector(new.document, new.bytes);
    end if;

    if tg_op = 'INSERT' then
        if new.index_pairs <> '{}' then
            new.indexes := kv.format_pairs(new.index_pairs);
        elsif new.indexes <> '{}' then
            new.index_pairs := kv.parse_pairs(new.indexes, '{}');
            new.indexes := kv.format_pairs(new.index_pairs);
        end if;
    elsif new.index_pairs is distinct from old.index_pairs then
        new.indexes := kv.format_pairs(new.index_pairs);
    elsif new.indexes is distinct from old.indexes then
        new.index_pairs := kv.parse_pairs(new.indexes, old.index_pairs);
        new.indexes := kv.format_pairs(new.index_pairs);
    end if;

    if tg_op = 'UPDATE' and new.updated_at = old.updated_at and new.revision = old.revision then -- else see kv.renew_revision
        new.updated_at := clock_timestamp();
    end if;
    return new;
end
$$;
create trigger kv_store_derive before insert or update on public.kv_store
    for each row execute function kv.derive_columns();

-- A row's revision orders the writes of one key. The transaction id does not: a transaction that began earlier may get the
-- row's lock later. The revision is taken while the lock is held.
create sequence kv.revision;

-- The lock of a row that is there is held when the triggers before an update run. An insert, and an update that gives a row another
-- key, have no lock yet: either may wait for whoever else is writing the key, and meanwhile the entry that was there may be written
-- once more, and deleted. So a revision says, in its last bits, how many deletes there had been when it was taken. Where it is another
-- number once the row is in the table, the row takes a new revision: nobody else can write the key until this transaction ends.
create sequence kv.delete_count;

-- Inlined. pg_sequence_last_value is null before the first delete.
create function kv.deletes() returns bigint
    language sql volatile security invoker
as $$
    select coalesce(pg_catalog.pg_sequence_last_value('kv.delete_count'::pg_catalog.regclass), 0) & 1048575
$$;
comment on function kv.deletes() is 'How many statements have deleted entries, or given them other keys, modulo 2^20.';

create function kv.set_revision() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    new.revision := kv.deletes(); -- before the number: a delete in between counts as later
    new.revision := (nextval('kv.revision') << 20) + new.revision;
    return new;
end
$$;
create trigger kv_store_revision before insert or update on public.kv_store -- after kv.derive_columns, by name
    for each row execute function kv.set_revision();

create function kv.count_delete() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    perform nextval('kv.delete_count');
    return null;
end
$$;
create trigger kv_store_count_delete after delete on public.kv_store
    for each statement execute function kv.count_delete();
create trigger kv_store_count_rename after update of key on public.kv_store
    for each statement execute function kv.count_delete();

create function kv.renew_revision() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    update public.kv_store set revision = 0 where key = new.key; -- any other one, which also tells kv.derive_columns
    return null;
end
$$;
create trigger kv_store_count_inserted after insert on public.kv_store
    for each row when ((new.revision & 1048575) <> kv.deletes()) execute function kv.renew_revision();
create trigger kv_store_count_renamed after update of key on public.kv_store
    for each row when (new.key <> old.key and (new.revision & 1048575) <> kv.deletes()) execute function kv.renew_revision();
