-- p_pairs[i] finds its element by going through those before it, and where the array is compressed or out of line, by reading all of
-- it again: an upsert with 1,000 long indexes took 2 s of that, a group by such an index 1 s for each entry.
create or replace function public.kv_pairs(p_pairs text[]) returns table (ordinal integer, index_key text, member text)
    language sql immutable parallel safe security invoker
as $$
    select ordinal::integer, index_key collate "C", member collate "C"
    from rows from (pg_catalog.unnest(p_pairs[:][1:1]), pg_catalog.unnest(p_pairs[:][2:2])) with ordinality as pairs (index_key, member, ordinal)
$$;
