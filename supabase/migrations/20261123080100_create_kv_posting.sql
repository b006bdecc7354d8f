-- What index queries read: for each index of an entry one row with the member and one without (member ''), in key order.
-- A GIN index on kv_store.indexes cannot page by key: at a million entries, 10 to 1,000 ms where this takes 1 to 5.

create table public.kv_posting (
    index_key text collate "C" not null,
    member    text collate "C" not null,
    key       text collate "C" not null,
    constraint kv_posting_pkey primary key (index_key, member, key)
);
comment on table public.kv_posting is 'Which entries have an index. Kept by the triggers of kv_store; not to be written by hand.';
comment on column public.kv_posting.member is 'The member, or '''' for "any member of this index".';

alter table public.kv_posting enable row level security;
revoke all on table public.kv_posting from anon, authenticated;
grant all on table public.kv_posting to service_role;

-- Inlined, like kv_pairs.
create function public.kv_postings_of(p_pairs text[]) returns table (index_key text, member text)
    language sql immutable parallel safe security invoker
as $$
    select index_key, member from public.kv_pairs(p_pairs)
    union
    select index_key, '' from public.kv_pairs(p_pairs)
$$;
comment on function public.kv_postings_of(text[]) is 'The postings that an entry with these pairs has.';

create function public.kv_store_post() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
declare
    v_gone record;
begin
    if tg_op <> 'INSERT' then
        -- One by one: a join is planned for the thousand rows that Postgres expects of a function, and may read the whole table.
        for v_gone in
            select index_key, member from public.kv_postings_of(old.index_pairs)
            except
            select index_key, member from public.kv_postings_of(new.index_pairs) where tg_op = 'UPDATE' and new.key = old.key
        loop
            delete from public.kv_posting where index_key = v_gone.index_key and member = v_gone.member and key = old.key;
        end loop;
    end if;
    if tg_op <> 'DELETE' then
        insert into public.kv_posting (index_key, member, key)
        select index_key, member, new.key from public.kv_postings_of(new.index_pairs)
        on conflict do nothing;
    end if;
    return null;
end
$$;
create trigger kv_store_post_insert after insert on public.kv_store
    for each row when (new.index_pairs <> '{}') execute function public.kv_store_post();
create trigger kv_store_post_update after update on public.kv_store
    for each row when (new.index_pairs is distinct from old.index_pairs or new.key <> old.key)
    execute function public.kv_store_post();
create trigger kv_store_post_delete after delete on public.kv_store
    for each row when (old.index_pairs <> '{}') execute function public.kv_store_post();

revoke all on function public.kv_postings_of(text[]), public.kv_store_post() from public, anon, authenticated;
grant execute on function public.kv_postings_of(text[]), public.kv_store_post() to service_role;
