-- The number or the text at a path of a document, and indexes of the numbers at a path, for queries that compare or sort by them:
-- select kv_index_path('score').

-- Postgres inlines the next two; that is why they have no search_path of their own.
create function kv.number_at(p_document jsonb, p_path text[]) returns numeric
    language sql immutable parallel safe security invoker
as $$
    select case when jsonb_typeof(p_document #> p_path) = 'number' then (p_document #> p_path)::numeric end
$$;
comment on function kv.number_at(jsonb, text[]) is 'The number at the path; null where it is something else, as "10" or true.';

create function kv.text_at(p_document jsonb, p_path text[]) returns text
    language sql immutable parallel safe security invoker
as $$
    select case when jsonb_typeof(p_document #> p_path) = 'string' then p_document #>> p_path end
$$;
comment on function kv.text_at(jsonb, text[]) is 'The string at the path; null where it is something else.';

create function kv.parse_path(p_path text) returns text[]
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
declare
    v_pointer boolean := p_path like '/%';
    v_names   text[] := string_to_array(p_path, case when v_pointer then '/' else '.' end);
begin
    if p_path = '' or not v_pointer and '' = any (v_names) or v_pointer and p_path ~ '~([^01]|$)' then
        raise invalid_parameter_value using message = format('%L is not a path like score, stops.0.title or /a~1b', p_path);
    elsif not v_pointer then
        return v_names;
    end if;
    return array(select replace(replace(name, '~1', '/'), '~0', '~') from unnest(v_names[2:]) with ordinality as names (name, n) order by n);
end
$$;
comment on function kv.parse_path(text) is 'A path (pkg/kv, Path), dotted or a JSON Pointer, for jsonb''s operators. Of a constant it is a constant, as the match with an index needs.';

create function kv.path_index_name(p_path text[]) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return 'kv_path_' || left(md5(to_json(p_path)::text), 16);
end
$$;
comment on function kv.path_index_name(text[]) is 'The name of the index that kv_index_path makes.';

create function kv.has_path_index(p_path text[]) returns boolean
    language plpgsql stable strict security invoker set search_path = ''
as $$
begin
    return exists (
        select from pg_index as i join pg_class as c on c.oid = i.indexrelid
        where i.indrelid = 'public.kv_store'::regclass and i.indisvalid and c.relname = kv.path_index_name(p_path));
end
$$;
comment on function kv.has_path_index(text[]) is 'Whether kv_index_path was called for the path.';

create function public.kv_index_path_statement(p_path text, p_concurrently boolean default true) returns text
    language sql immutable strict security invoker set search_path = ''
as $$
    select format('create index %1$s if not exists %2$I on public.kv_store (kv.number_at(document, %3$L::text[]), key)'
        ' where kv.number_at(document, %3$L::text[]) is not null',
        case when p_concurrently then 'concurrently' else '' end, kv.path_index_name(path), path)
    from kv.parse_path(p_path) as path
$$;
comment on function public.kv_index_path_statement(text, boolean) is 'The statement of kv_index_path, to be run outside of a transaction. With concurrently, writes do not wait.';
revoke all on function public.kv_index_path_statement(text, boolean) from public, anon, authenticated;
grant execute on function public.kv_index_path_statement(text, boolean) to service_role;

create function public.kv_index_path(p_path text) returns text
    language plpgsql security invoker set search_path = ''
as $$
begin
    execute public.kv_index_path_statement(p_path, false);
    return kv.path_index_name(kv.parse_path(p_path));
end
$$;
comment on function public.kv_index_path(text) is 'Makes comparing and sorting by the numbers at the path fast, and pageable with a cursor. Writes wait meanwhile: some seconds for a million entries. See kv_index_path_statement.';
revoke all on function public.kv_index_path(text) from public, anon, authenticated;
grant execute on function public.kv_index_path(text) to service_role;

create function public.kv_unindex_path(p_path text) returns void
    language plpgsql security invoker set search_path = ''
as $$
begin
    execute format('drop index if exists public.%I', kv.path_index_name(kv.parse_path(p_path)));
end
$$;
comment on function public.kv_unindex_path(text) is 'Undoes kv_index_path.';
revoke all on function public.kv_unindex_path(text) from public, anon, authenticated;
grant execute on function public.kv_unindex_path(text) to service_role;
