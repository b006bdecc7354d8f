-- The entries. The type json keeps a value as the exact text that was sent: key order, duplicate keys, 1.0, \u0000. jsonb loses
-- or refuses all of these, so a jsonb document stands beside the value for queries, and a tsvector for full text. One BEFORE
-- trigger derives all that follows from a value. So no text is parsed twice, and a row that is edited in the SQL editor is as
-- complete as one that kv_upsert wrote.

-- Nothing foreign is touched, and nothing is made twice.
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

-- The schema kv holds what nobody calls from outside; PostgREST does not expose it. The guard is the privilege usage, which only
-- service_role has: default privileges of one schema cannot take from PUBLIC the built-in right to execute functions.
create schema kv;
comment on schema kv is 'Internals of the functions public.kv_*. Do not expose it.';
revoke all on schema kv from public;
grant usage on schema kv to service_role;
alter default privileges in schema kv grant all on tables to service_role;
alter default privileges in schema kv grant all on sequences to service_role;
alter default privileges in schema kv grant execute on functions to service_role;

-- PostgREST passes the text of a domain that is named for a media type as it is. Its own wrapping of a result fails on \u0000.
create domain public."application/vnd.kv+json" as text;
comment on domain public."application/vnd.kv+json" is 'A finished response. Ask PostgREST for it with Accept: application/vnd.kv+json.';

-- A store other than kv is a subspace of the keys, and so is every store of a namespace: a prefix of its own that begins where no
-- key of kv can, with the last character of Unicode. So the log, caches, postings and cursors need not know of stores.
--
-- Postgres inlines the next two, which therefore have no search_path of their own and name the schema of all they use.
create function kv.bare_key(p_key text) returns text
    language sql immutable parallel safe security invoker
as $$
    select case when p_key collate "C" < U&'\+10FFFF' then p_key else pg_catalog.regexp_replace(p_key, '^[^/]*/[^/]*/', '') end
$$;
comment on function kv.bare_key(text) is 'The key as callers see it, without the space of its store.';

create function kv.space_of(p_key text) returns text
    language sql immutable parallel safe security invoker
as $$
    select case when p_key collate "C" < U&'\+10FFFF' then '' else pg_catalog.substring(p_key, '^[^/]*/[^/]*/') end
$$;
comment on function kv.space_of(text) is 'The space that the key is in: U+10FFFF, the namespace, a slash, the store and a slash (Space in pkg/kv). Empty for the store kv without a namespace.';

-- A condition on a row of kv_store or kv.posting. Inlined, and stable within a statement. Writes, which may wait for a lock before
-- they look, compare with clock_timestamp() instead.
create function kv.is_live(p_expires_at timestamptz) returns boolean
    language sql stable parallel safe security invoker
as $$
    select p_expires_at is null or p_expires_at > pg_catalog.statement_timestamp()
$$;
comment on function kv.is_live(timestamptz) is 'Whether an entry with this expiry is seen.';

create table public.kv_store (
    key          text collate "C" not null,
    value        json,
    data         bytea,
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
    content_type text,
    metadata     json,
    expires_at   timestamptz,
    constraint kv_store_pkey primary key (key) include (expires_at) -- so that a list of keys need not visit the rows
);
comment on table public.kv_store is 'The entries. Write value and indexes; the other columns follow from them.';
comment on column public.kv_store.key is 'The key. In another store than kv, or in a namespace, kv.space() comes before it.';
comment on column public.kv_store.value is 'The JSON text as it was written. In an index entry, the array that the members are appended to. Null where data has the bytes.';
comment on column public.kv_store.data is 'The bytes of an entry that is not JSON. In the store kv, only a migration brings such entries.';
comment on column public.kv_store.bytes is 'Length of value or data in bytes. It tells the size of a response before the values are read.';
comment on column public.kv_store.document is 'The value for queries, with what jsonb cannot hold replaced. Null for index entries.';
comment on column public.kv_store.search is 'The words of every string in value; see kv.search_vector. Null beyond 200 kB of value, and for index entries.';
comment on column public.kv_store.indexes is 'The entry''s indexes as "<key>:<member>", for people and tools. A string that is written here by hand is split at its last colon.';
comment on column public.kv_store.index_pairs is 'The exact form of indexes: {{key,member},...}. In indexes, the pairs (a:b, c) and (a, b:c) look the same.';
comment on column public.kv_store.is_index is 'True where kv.member may hold members of this entry.';
comment on column public.kv_store.auto_created is 'True of an index entry that nobody has written: it was created when a member was added.';
comment on column public.kv_store.replaced is 'True where document differs from value: \u0000 and half surrogate pairs became U+FFFD, numbers beyond numeric became text.';
comment on column public.kv_store.revision is 'Grows with every write of the key, also across a delete.';
comment on column public.kv_store.content_type is 'The content type. Null: application/json for a value, application/octet-stream for data.';
comment on column public.kv_store.metadata is 'A JSON object that belongs to the entry.';
comment on column public.kv_store.expires_at is 'From then on nobody sees the entry, and kv.remove_expired may remove it. Null: it stays.';

-- kv-list and kv-query page through these orders with a cursor.
create index kv_store_created_at on public.kv_store (created_at, key);
create index kv_store_updated_at on public.kv_store (updated_at, key);
create index kv_store_search on public.kv_store using gin (search) with (gin_pending_list_limit = 512); -- kB
-- What kv.remove_expired looks for.
create index kv_store_expires_at on public.kv_store (expires_at) where expires_at is not null;
-- Queries do not see everything of these few entries. A response says so.
create index kv_store_unseen on public.kv_store (key) where replaced or search is null and not is_index;

alter table public.kv_store enable row level security;
revoke all on table public.kv_store from anon, authenticated;
grant all on table public.kv_store to service_role;

-- A member of an index is a JSON string or a JSON number. Columns hold it as text: a string as it is, a number as chr(1) and its
-- digits. A string that begins with chr(1) gets one more in front (Member in pkg/kv). So 5, 5.0 and "5" are three members, and
-- nearly every member is its own text. Its JSON would take two more bytes in each of four places.
--
-- Postgres inlines the next functions; a call would take a hundred times as long. So they have no search_path of their own, and
-- name the schema of all they use. Their volatility is that of their bodies, and they are not strict.
create function kv.member_from_text(p_text text) returns text
    language sql immutable parallel safe security invoker
as $$
    select case when pg_catalog.starts_with(p_text, E'\x01') then E'\x01' || p_text else p_text end
$$;
comment on function kv.member_from_text(text) is 'The member for a string.';

create function kv.member_from_json(p_element json) returns text
    language sql immutable parallel safe security invoker
as $$
    select case pg_catalog.json_typeof(p_element) when 'string' then kv.member_from_text(p_element #>> '{}')
        when 'number' then E'\x01' || p_element::text end
$$;
comment on function kv.member_from_json(json) is 'The member for a JSON string or number; null for other elements. A string that Postgres cannot hold is an error.';

create function kv.member_to_text(p_member text) returns text
    language sql immutable parallel safe security invoker
as $$
    select case when pg_catalog.starts_with(p_member, E'\x01') then pg_catalog.substr(p_member, 2) else p_member end
$$;
comment on function kv.member_to_text(text) is 'The member as it appears in "<key>:<member>".';

create function kv.member_to_json(p_member text) returns text
    language sql stable parallel safe security invoker
as $$
    select case when pg_catalog.starts_with(p_member, E'\x01') and not pg_catalog.starts_with(p_member, E'\x01\x01') then pg_catalog.substr(p_member, 2)
        else pg_catalog.to_json(kv.member_to_text(p_member))::text end
$$;
comment on function kv.member_to_json(text) is 'The member as JSON.';

-- Inlined. Subscripts would go through all elements before theirs, and decompress the array each time: 2 s for 1,000 long indexes.
create function kv.pairs(p_pairs text[]) returns table (ordinal integer, index_key text, member text)
    language sql immutable parallel safe security invoker
as $$
    select ordinal::integer, index_key collate "C", member collate "C"
    from rows from (pg_catalog.unnest(p_pairs[:][1:1]), pg_catalog.unnest(p_pairs[:][2:2])) with ordinality as pairs (index_key, member, ordinal)
$$;
comment on function kv.pairs(text[]) is 'The pairs {{key,member},...} as rows.';

-- In plpgsql, which keeps plans: a function in SQL with settings of its own is planned in every call.
create function kv.format_pairs(p_pairs text[]) returns text[]
    language plpgsql immutable parallel safe security invoker set search_path = ''
as $$
begin
    return (
        select coalesce(array_agg(text order by ordinal), '{}')
        from (
            select kv.bare_key(index_key) || ':' || kv.member_to_text(member) as text, min(ordinal) as ordinal
            from kv.pairs(p_pairs)
            group by 1
        ) as formatted);
end
$$;
comment on function kv.format_pairs(text[]) is 'The pairs as "<key>:<member>" strings, in order, each once.';

create function kv.parse_pairs(p_indexes text[], p_known text[], p_space text) returns text[]
    language plpgsql immutable security invoker set search_path = ''
as $$
declare
    v_index text;
    v_found text[];
    v_pairs text[] := '{}'::text[];
begin
    foreach v_index in array p_indexes loop
        select array_agg(array[k.index_key, k.member] order by k.ordinal) into v_found
        from kv.pairs(p_known) as k
        where kv.bare_key(k.index_key) || ':' || kv.member_to_text(k.member) = v_index;
        if v_found is null then
            select array[array[p_space || parts[1], kv.member_from_text(parts[2])]] into v_found from regexp_match(v_index, '^(.+):(.+)$') as parts;
        end if;
        if v_found[1][1] is null then
            raise check_violation using message = format('indexes: %L is not "<key>:<member>"', v_index);
        end if;
        v_pairs := v_pairs || v_found;
    end loop;
    return v_pairs;
end
$$;
comment on function kv.parse_pairs(text[], text[], text) is 'The pairs of "<key>:<member>" strings of an entry in a space. A string that no known pair formats to is split at its last colon, and its member is a string.';

-- A row's revision orders the writes of one key. The transaction id does not: a transaction that began earlier may get the
-- row's lock later. The revision is taken while the lock is held.
create sequence kv.revision;

-- The triggers before an update run when the row's lock is held. An insert, and an update that renames a row, have no lock yet.
-- They may wait for another writer of the key, and meanwhile the entry may be written again and deleted. So the last bits of a
-- revision are the number of deletes when it was taken. If that number has grown once the row is in the table, the row takes a new
-- revision: nobody else can write the key until this transaction ends.
create sequence kv.delete_count;

-- Inlined. pg_sequence_last_value is null before the first delete.
create function kv.deletes() returns bigint
    language sql volatile security invoker
as $$
    select coalesce(pg_catalog.pg_sequence_last_value('kv.delete_count'::pg_catalog.regclass), 0) & 1048575
$$;
comment on function kv.deletes() is 'The number of statements that deleted or renamed entries, modulo 2^20.';

-- Postgres reads and plans the conditions of constraints and triggers anew in every statement, which took a tenth of an upsert. So this
-- checks what constraints would, in their names, and the triggers below look at what is to be done in their functions.
create function kv.derive_columns() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    if new.key = '' or octet_length(new.key) > 1024 + 134 or octet_length(kv.bare_key(new.key)) > 1024 then
        raise check_violation using constraint = 'kv_store_key_length', message = 'a key has 1 to 1,024 bytes';
    elsif (new.value is null) = (new.data is null) then
        raise check_violation using constraint = 'kv_store_bytes', message = 'an entry has a value or data, and not both';
    elsif least(new.created_at, new.updated_at, new.expires_at) < '0001-01-01 00:00+00' -- as answers show them
        or greatest(new.created_at, new.updated_at, new.expires_at) >= '10000-01-01 00:00+00' then
        raise check_violation using constraint = 'kv_store_times', message = 'times are in the years 1 to 9999';
    end if;

    if tg_op = 'INSERT' or new.is_index <> old.is_index or new.value::text is distinct from old.value::text or new.data is distinct from old.data then
        new.bytes := coalesce(octet_length(new.value::text), octet_length(new.data));
        new.document := case when not new.is_index then kv.to_document(new.value) end;
        new.replaced := new.document is null and new.value is not null and not new.is_index;
        if new.replaced then
            new.document := kv.to_readable_document(new.value);
        end if;
        new.search := kv.search_vector(new.document, new.bytes);
    end if;

    -- Before an insert, old is null.
    if new.index_pairs is not distinct from coalesce(old.index_pairs, '{}') and new.indexes is distinct from coalesce(old.indexes, '{}') then
        new.index_pairs := kv.parse_pairs(new.indexes, old.index_pairs, kv.space_of(new.key));
    end if;
    if new.index_pairs is distinct from coalesce(old.index_pairs, '{}') or new.indexes is distinct from coalesce(old.indexes, '{}') then
        if new.index_pairs <> '{}' and not (array_ndims(new.index_pairs) = 2 and array_length(new.index_pairs, 2) = 2 and ('' <> all (new.index_pairs)) is true) then
            raise check_violation using constraint = 'kv_store_index_pairs', message = 'index_pairs are {{key,member},...}, and neither is empty';
        end if;
        new.indexes := kv.format_pairs(new.index_pairs);
    end if;

    if tg_op = 'UPDATE' and new.updated_at = old.updated_at and new.revision = old.revision then -- not kv.renew_revision
        new.updated_at := clock_timestamp();
    end if;
    new.revision := kv.deletes(); -- before nextval: a delete in between counts as later
    new.revision := (nextval('kv.revision') << 20) + new.revision;
    return new;
end
$$;
create trigger kv_store_derive before insert or update on public.kv_store
    for each row execute function kv.derive_columns();

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
    if (tg_op = 'INSERT' or new.key <> old.key) and (new.revision & 1048575) <> kv.deletes() then
        update public.kv_store set revision = 0 where key = new.key; -- any other one; kv.derive_columns then keeps updated_at
    end if;
    return null;
end
$$;
create trigger kv_store_renew_revision after insert or update of key on public.kv_store
    for each row execute function kv.renew_revision();

-- For people: the entries of all stores, with the parts of their keys.
create view kv.entries with (security_invoker = true) as
    select parts[1] as namespace, parts[2] as store, kv.bare_key(s.key) as key, s.value, s.data, s.content_type, s.metadata, s.indexes,
        s.created_at, s.updated_at, s.expires_at
    from public.kv_store as s,
        lateral (select coalesce(regexp_match(kv.space_of(s.key), '^.([^/]*)/([^/]*)/'), '{"",kv}') as parts) as space
    where kv.is_live(s.expires_at);
comment on view kv.entries is 'The entries that are seen, by namespace and store. For people: select * from kv.entries.';
