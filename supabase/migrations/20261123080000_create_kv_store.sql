-- The entries. A value is kept as the exact text that was sent (json keeps it: key order, duplicate keys, 1.0, \u0000);
-- a jsonb document, which loses or refuses all of these, stands beside it for queries, and a tsvector for full text.
-- One BEFORE trigger derives everything that follows from the value, so that no text is parsed twice and a row
-- edited in the SQL editor is as complete as one written by kv_upsert.

create table public.kv_store (
    key         text collate "C" not null,
    value       json not null,
    bytes       integer not null,
    document    jsonb,
    search      tsvector,
    indexes     text[] not null default '{}',
    index_pairs text[] not null default '{}',
    is_index    boolean not null default false,
    created_at  timestamptz not null default clock_timestamp(),
    updated_at  timestamptz not null default clock_timestamp(),
    stamp       xid8 not null,
    constraint kv_store_pkey primary key (key),
    constraint kv_store_key_length check (octet_length(key) between 1 and 1024),
    constraint kv_store_index_pairs check (index_pairs = '{}'
        or array_ndims(index_pairs) = 2 and array_length(index_pairs, 2) = 2 and ('' <> all (index_pairs)) is true)
);
comment on table public.kv_store is 'One row an entry. Write value and indexes; the other columns follow from them.';
comment on column public.kv_store.value is 'The JSON text as it was written. Of an index entry: the array its members are appended to.';
comment on column public.kv_store.bytes is 'Length of value in bytes, so that an answer''s size is known without reading the values.';
comment on column public.kv_store.document is 'value for queries; null where jsonb cannot hold it (\u0000, lone surrogates, huge numbers), and for index entries.';
comment on column public.kv_store.search is 'The words of every string in value; null beyond 200 kB of value, and for index entries.';
comment on column public.kv_store.indexes is 'The entry''s indexes, "<key>:<member>" each, for people and tools. A string written here by hand is split at its last colon.';
comment on column public.kv_store.index_pairs is 'The exact form of indexes: {{key,member},...}. "a:b"+"c" and "a"+"b:c" are spelled alike, but are two pairs.';
comment on column public.kv_store.is_index is 'True where kv_member may hold members of this entry.';
comment on column public.kv_store.stamp is 'The transaction that wrote the row last; see kv_log.';

-- Orders that kv-list and kv-query page through with a cursor.
create index kv_store_created_at on public.kv_store (created_at, key);
create index kv_store_updated_at on public.kv_store (updated_at, key);
create index kv_store_search on public.kv_store using gin (search);

alter table public.kv_store enable row level security;
revoke all on table public.kv_store from anon, authenticated;
grant all on table public.kv_store to service_role;

-- Not parallel safe: before Postgres 17 a parallel worker cannot start the subtransaction that an exception block is.
create function public.kv_document(p_value json) returns jsonb
    language plpgsql immutable strict security invoker set search_path = ''
as $$
begin
    return p_value::jsonb;
exception
    when untranslatable_character      -- \u0000
      or invalid_text_representation   -- a lone surrogate
      or numeric_value_out_of_range    -- an exponent beyond numeric
      or program_limit_exceeded
      or statement_too_complex then
        return null;
end
$$;
comment on function public.kv_document(json) is 'The value as jsonb, or null where jsonb cannot hold it.';

create function public.kv_words(p_text text) returns text
    language sql immutable strict parallel safe security invoker set search_path = ''
as $$
    select translate(p_text, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32))
$$;
comment on function public.kv_words(text) is 'The text with ASCII punctuation blanked. Postgres'' parser looks for addresses, paths and tags around it, and takes seconds for 20 kB of "a_a_a".';

create function public.kv_search_text(p_document jsonb, p_bytes integer) returns tsvector
    language plpgsql immutable security invoker set search_path = ''
as $$
begin
    if p_bytes > 200000 then
        return null; -- deriving words is the slowest part of a large upsert
    end if;
    -- Each string on its own: a phrase does not reach from one into the next.
    return (
        select case when p_document is not null then
            coalesce(pg_catalog.jsonb_to_tsvector('pg_catalog.simple', jsonb_agg(public.kv_words(s #>> '{}')), '["string"]'), '') end
        from pg_catalog.jsonb_path_query(p_document, 'strict $.** ? (@.type() == "string")') as s);
exception
    when program_limit_exceeded then -- a tsvector holds 1 MB
        return null;
end
$$;
comment on function public.kv_search_text(jsonb, integer) is 'The words of every string in the document, or null where there are too many.';

-- Without a search_path of its own, which would keep it from being inlined; it names nothing that could be another's.
create function public.kv_pairs(p_pairs text[]) returns table (ordinal integer, index_key text, member text)
    language sql immutable parallel safe security invoker
as $$
    select i, p_pairs[i][1] collate "C", p_pairs[i][2] collate "C"
    from pg_catalog.generate_subscripts(p_pairs, 1) as i
$$;
comment on function public.kv_pairs(text[]) is 'The rows of {{key,member},...}.';

create function public.kv_spell(p_pairs text[]) returns text[]
    language sql immutable parallel safe security invoker set search_path = ''
as $$
    select coalesce(array_agg(spelled order by first), '{}')
    from (
        select index_key || ':' || member as spelled, min(ordinal) as first
        from public.kv_pairs(p_pairs)
        group by 1
    ) as distinct_spellings
$$;
comment on function public.kv_spell(text[]) is 'The "<key>:<member>" strings of the pairs, each once, in order.';

create function public.kv_unspell(p_indexes text[], p_known text[]) returns text[]
    language plpgsql immutable security invoker set search_path = ''
as $$
declare
    v_spelled text;
    v_pairs   text[] := '{}';
    v_known   text[];
begin
    foreach v_spelled in array p_indexes loop
        select array_agg(array[k.index_key, k.member] order by k.ordinal) into v_known
        from public.kv_pairs(p_known) as k
        where k.index_key || ':' || k.member = v_spelled;
        if v_known is null then
            v_known := array[regexp_match(v_spelled, '^(.+):(.+)$')];
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
comment on function public.kv_unspell(text[], text[]) is 'The pairs that the strings spell: as known before, else split at the last colon.';

-- Replacing an index entry's value by hand makes it a plain entry, as kv_upsert does. Runs before kv_store_derive (by name).
create function public.kv_store_clear_index() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    new.is_index := false;
    return new;
end
$$;
create trigger kv_store_clear_index before update of value on public.kv_store
    for each row when (old.is_index) execute function public.kv_store_clear_index();

create function public.kv_store_derive() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    if tg_op = 'INSERT' or new.is_index <> old.is_index or new.value::text <> old.value::text then
        new.bytes := octet_length(new.value::text);
        new.document := case when not new.is_index then public.kv_document(new.value) end;
        new.search := public.kv_search_text(new.document, new.bytes);
    end if;

    if tg_op = 'INSERT' then
        if new.index_pairs <> '{}' then
            new.indexes := public.kv_spell(new.index_pairs);
        elsif new.indexes <> '{}' then
            new.index_pairs := public.kv_unspell(new.indexes, '{}');
            new.indexes := public.kv_spell(new.index_pairs);
        end if;
    elsif new.index_pairs is distinct from old.index_pairs then
        new.indexes := public.kv_spell(new.index_pairs);
    elsif new.indexes is distinct from old.indexes then
        new.index_pairs := public.kv_unspell(new.indexes, old.index_pairs);
        new.indexes := public.kv_spell(new.index_pairs);
    end if;

    if tg_op = 'UPDATE' and new.updated_at = old.updated_at then
        new.updated_at := clock_timestamp();
    end if;
    new.stamp := pg_current_xact_id();
    return new;
end
$$;
create trigger kv_store_derive before insert or update on public.kv_store
    for each row execute function public.kv_store_derive();

revoke all on function public.kv_document(json), public.kv_words(text), public.kv_search_text(jsonb, integer), public.kv_pairs(text[]),
    public.kv_spell(text[]), public.kv_unspell(text[], text[]), public.kv_store_clear_index(), public.kv_store_derive()
    from public, anon, authenticated;
grant execute on function public.kv_document(json), public.kv_words(text), public.kv_search_text(jsonb, integer), public.kv_pairs(text[]),
    public.kv_spell(text[]), public.kv_unspell(text[], text[]), public.kv_store_clear_index(), public.kv_store_derive()
    to service_role;
