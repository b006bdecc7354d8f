-- Postings are what index queries read: for each index of an entry one row with the member and one without (member ''), in
-- key order. A GIN index on kv_store.indexes cannot page by key: at a million entries it takes 10 to 1,000 ms, this 1 to 5.

create table kv.posting (
    index_key text collate "C" not null,
    member    text collate "C" not null,
    key       text collate "C" not null,
    expires_at timestamptz,
    constraint posting_pkey primary key (index_key, member, key) include (expires_at)
);
comment on table kv.posting is 'Which entries have an index. The triggers of kv_store keep it; do not write it by hand.';
comment on column kv.posting.expires_at is 'That of the entry, so that a read by an index need not visit the rows.';
comment on column kv.posting.member is 'The member, or '''' for "any member of this index".';
alter table kv.posting enable row level security;

-- Inlined, like kv.pairs.
create function kv.postings_of(p_pairs text[]) returns table (index_key text, member text)
    language sql immutable parallel safe security invoker
as $$
    select index_key, member from kv.pairs(p_pairs)
    union
    select index_key, '' from kv.pairs(p_pairs)
$$;
comment on function kv.postings_of(text[]) is 'The postings of an entry with these pairs.';

create function kv.update_postings() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
declare
    v_posting record;
begin
    if tg_op = 'INSERT' and new.index_pairs = '{}' or tg_op = 'DELETE' and old.index_pairs = '{}' or tg_op = 'UPDATE' and new.index_pairs = old.index_pairs
        and new.key = old.key and new.expires_at is not distinct from old.expires_at then
        return null;
    end if;
    if tg_op <> 'INSERT' then
        -- One by one: a join is planned for the thousand rows that Postgres expects of a function, and may read the whole table.
        for v_posting in
            select index_key, member from kv.postings_of(old.index_pairs)
            except
            select index_key, member from kv.postings_of(new.index_pairs) where tg_op = 'UPDATE' and new.key = old.key
            order by 1, 2
        loop
            delete from kv.posting where index_key = v_posting.index_key and member = v_posting.member and key = old.key;
        end loop;
    end if;
    if tg_op = 'UPDATE' and new.expires_at is distinct from old.expires_at then
        for v_posting in select index_key, member from kv.postings_of(new.index_pairs) order by 1, 2 loop
            update kv.posting set expires_at = new.expires_at
            where index_key = v_posting.index_key and member = v_posting.member and key = new.key;
        end loop;
    end if;
    if tg_op <> 'DELETE' then
        insert into kv.posting (index_key, member, key, expires_at) -- without kv.postings_of, which takes time to leave repetitions out
        select index_key, unnest(array[member, '']), new.key, new.expires_at from kv.pairs(new.index_pairs)
        on conflict do nothing;
    end if;
    return null;
end
$$;
create trigger kv_store_update_postings after insert or update or delete on public.kv_store
    for each row execute function kv.update_postings();

-- The members of index entries have a row each, and are only added. So 50 upserts that add a member to one index touch 50
-- different rows; one JSON array would be rewritten 50 times under one lock.
--
-- A call takes one value of the sequence and numbers its members from there: they keep their order, although kv_upsert inserts
-- them in another one. An upsert may bring 1,000 members, for which 1,024 leaves room.
create sequence kv.member_position increment by 1024;

create table kv.member (
    index_key text collate "C" not null,
    member    text collate "C" not null,
    position  bigint not null default nextval('kv.member_position'),
    constraint member_pkey primary key (index_key, member)
);
comment on table kv.member is 'The members of index entries (kv_store.is_index). They follow the array in kv_store.value.';
comment on column kv.member.position is 'The order of the members: that in which they were first added.';
alter table kv.member enable row level security;

-- An advisory lock on its key guards an index entry: those who add members share it, and whoever replaces or deletes the entry or
-- its members holds it alone. Row locks that many share would cost each of them a MultiXact, which is written to disk and kept
-- until the table is frozen. Whoever holds the row may wait for this lock; whoever adds members to an existing index does not touch
-- the row. (Requests use 0 in place of 1: kv.begin_request.)
create function kv.lock_members(p_key text) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(p_key, 1));
end
$$;
comment on function kv.lock_members(text) is 'Locks the members of an index entry until the transaction ends. The caller holds the entry''s row.';

create function kv.lock_members_of_row() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    perform kv.lock_members(old.key);
    return case when tg_op = 'DELETE' then old else new end;
end
$$;
create trigger kv_store_lock_members_delete before delete on public.kv_store
    for each row when (old.is_index) execute function kv.lock_members_of_row();
create trigger kv_store_lock_members_rename before update of key on public.kv_store
    for each row when (old.is_index and new.key <> old.key) execute function kv.lock_members_of_row();

-- A new value makes an index entry a plain one without members, whoever writes it. This runs before kv_store_derive, by name.
create function kv.clear_index() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    if old.is_index then
        perform kv.lock_members(old.key);
        delete from kv.member where index_key = old.key;
        new.is_index := false;
        new.auto_created := false;
    end if;
    return new;
end
$$;
create trigger kv_store_clear_index before update of value on public.kv_store
    for each row execute function kv.clear_index();

create function kv.delete_members() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    delete from kv.member where index_key = old.key;
    return null;
end
$$;
create trigger kv_store_delete_members after delete on public.kv_store
    for each row when (old.is_index) execute function kv.delete_members();

create function kv.rename_members() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    update kv.member set index_key = new.key where index_key = old.key;
    return null;
end
$$;
create trigger kv_store_rename_members after update of key on public.kv_store
    for each row when (old.is_index and new.key <> old.key) execute function kv.rename_members();

create function kv.truncate_store() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    -- A table that the same statement truncates is in use, and empty.
    if exists (select from kv.posting) then
        truncate kv.posting;
    end if;
    if exists (select from kv.member) then
        truncate kv.member;
    end if;
    return null;
end
$$;
create trigger kv_store_truncate after truncate on public.kv_store
    for each statement execute function kv.truncate_store();

create function kv.array_members(p_array json) returns setof text
    language plpgsql immutable strict security invoker set search_path = ''
as $$
begin
    if kv.to_document(p_array) is not null then
        return query select member from (select kv.member_from_json(e) as member from json_array_elements(p_array) as e) as m where member is not null;
    else -- it cannot hold one of the strings, but the others
        return query
            select member from (
                select case json_typeof(e) when 'string' then kv.member_from_text(kv.to_document(e) #>> '{}') else kv.member_from_json(e) end as member
                from json_array_elements(p_array) as e) as m
            where member is not null;
    end if;
end
$$;
comment on function kv.array_members(json) is 'The members among the elements of an array.';

create function kv.set_members(p_key text, p_members text[]) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
declare
    v_kept bigint;
    v_base bigint;
begin
    -- "not in (select …)" is hashed; "<> all (array)" compared each member with each, which took 5 s for 10,000.
    delete from kv.member where index_key = p_key and member not in (select unnest(p_members));
    -- Members that begin the new list keep their places; otherwise all are numbered anew.
    select count(*) into v_kept from kv.member where index_key = p_key;
    if p_members[1:v_kept] is distinct from
        coalesce((select array_agg(member order by position, member) from kv.member where index_key = p_key), '{}')
    then
        delete from kv.member where index_key = p_key;
        v_kept := 0;
    end if;
    for v_first in 0 .. (cardinality(p_members) - v_kept - 1) / 1000 loop -- a sequence value has room for 1,024
        v_base := nextval('kv.member_position');
        insert into kv.member (index_key, member, position)
        select p_key, member, v_base + n
        from unnest(p_members[v_kept + v_first * 1000 + 1 : v_kept + (v_first + 1) * 1000]) with ordinality as m (member, n)
        order by member
        on conflict do nothing;
    end loop;
end
$$;
comment on function kv.set_members(text, text[]) is 'Replaces the members of an index entry, in the given order. The caller holds the entry''s row.';

create function kv.add_members(p_key text, p_members text[]) returns void
    language plpgsql volatile security invoker set search_path = ''
as $$
begin
    -- Each takes a value of the sequence: a call adds few.
    insert into kv.member (index_key, member, position)
    select p_key, member, nextval('kv.member_position')
    from (
        select member, n from unnest(p_members) with ordinality as m (member, n)
        where member not in (
            select member from kv.member where index_key = p_key
            union all
            select kv.array_members(value) from public.kv_store where key = p_key)
        order by n
    ) as added
    on conflict do nothing;
end
$$;
comment on function kv.add_members(text, text[]) is 'Adds the members that an index entry lacks, in the given order. The caller holds the entry''s row.';

create function kv.parse_members(p_value text) returns text[]
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_document jsonb := kv.to_document(p_value::json);
    v_members  text[];
begin
    if jsonb_typeof(v_document) <> 'array' or v_document is null then
        return null;
    elsif p_value = '[]' then
        return '{}'::text[];
    end if;
    select array_agg(member order by n) into v_members
    from (select kv.member_from_json(e) as member, n from json_array_elements(p_value::json) with ordinality as a (e, n)) as elements
    having bool_and(octet_length(member) between 1 and 1024) and count(distinct member) = count(*)
       and '[' || string_agg(kv.member_to_json(member), ',' order by n) || ']' = p_value;
    return v_members;
end
$$;
comment on function kv.parse_members(text) is 'The members of an array that reads exactly as an index entry with them would; null for any other value.';
