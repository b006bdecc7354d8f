-- The members of index entries, append-only, one row a member: 50 upserts that add 50 members to one index touch 50
-- different rows, where one growing JSON array would be rewritten 50 times under one lock.

-- A call takes one value and numbers its members from there, so that the members of one upsert keep their order although
-- they are inserted in another one (see kv_upsert). 1,024 leaves room for the 1,000 members an upsert may bring.
create sequence public.kv_member_position increment by 1024;
revoke all on sequence public.kv_member_position from anon, authenticated;
grant all on sequence public.kv_member_position to service_role;

create table public.kv_member (
    index_key text collate "C" not null,
    member    text collate "C" not null,
    position  bigint not null default nextval('public.kv_member_position'),
    constraint kv_member_pkey primary key (index_key, member)
);
comment on table public.kv_member is 'The members of index entries (kv_store.is_index), which follow the array stored there.';
comment on column public.kv_member.position is 'Members are listed by it: the order in which they were first added.';

alter table public.kv_member enable row level security;
revoke all on table public.kv_member from anon, authenticated;
grant all on table public.kv_member to service_role;

-- Whoever replaces or deletes an index entry, kv_upsert or a person, ends its members; the row's lock is held by then.
create function public.kv_store_drop_members() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    delete from public.kv_member where index_key = old.key;
    return null;
end
$$;
create trigger kv_store_drop_members_update after update of value on public.kv_store
    for each row when (old.is_index) execute function public.kv_store_drop_members();
create trigger kv_store_drop_members_delete after delete on public.kv_store
    for each row when (old.is_index) execute function public.kv_store_drop_members();

create function public.kv_store_move_members() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    update public.kv_member set index_key = new.key where index_key = old.key;
    return null;
end
$$;
create trigger kv_store_move_members after update of key on public.kv_store
    for each row when (old.is_index and new.key <> old.key) execute function public.kv_store_move_members();

create function public.kv_store_truncate() returns trigger
    language plpgsql security invoker set search_path = ''
as $$
begin
    -- A table that the same statement truncates is in use, and empty.
    if exists (select from public.kv_posting) then
        truncate public.kv_posting;
    end if;
    if exists (select from public.kv_member) then
        truncate public.kv_member;
    end if;
    return null;
end
$$;
create trigger kv_store_truncate after truncate on public.kv_store
    for each statement execute function public.kv_store_truncate();

revoke all on function public.kv_store_drop_members(), public.kv_store_move_members(), public.kv_store_truncate()
    from public, anon, authenticated;
grant execute on function public.kv_store_drop_members(), public.kv_store_move_members(), public.kv_store_truncate()
    to service_role;
