-- Postgres' parser lowers letters by the database's LC_CTYPE, and where that is C only ASCII. Lowered here, "Ä" is found by
-- "ä" everywhere. Rows written before keep their words; on Supabase, whose LC_CTYPE knows all letters, they are the same.
create or replace function public.kv_words(p_text text) returns text
    language sql immutable strict parallel safe security invoker set search_path = ''
as $$
    select lower(translate(p_text, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32)))
$$;
