-- What kv.derive_columns makes of a value: the jsonb document that queries read, and the words that full text finds.

-- Not parallel safe: before Postgres 17 a parallel worker cannot start the subtransaction that an exception block is.
create function kv.to_document(p_value json) returns jsonb
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
comment on function kv.to_document(json) is 'The value as jsonb, or null where jsonb cannot hold it.';

create function kv.replace_escapes(p_json text, p_escape text, p_backslash text) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
declare
    v_text text;
begin
    -- A JSON text has no control characters, so they can stand for what is to stay: an escaped backslash, which begins no other escape,
    v_text := replace(p_json, '\\', E'\x01');
    v_text := replace(v_text, '\u0000', regexp_replace('u0000', '(.*)', p_escape));
    if v_text ~ '\\u[Dd][89A-Fa-f]' then
        -- and whole surrogate pairs.
        v_text := regexp_replace(v_text, '\\u([Dd][89ABab][0-9A-Fa-f]{2})\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})', E'\x02\\1\x02\\2', 'g');
        v_text := regexp_replace(v_text, '\\(u[Dd][89A-Fa-f][0-9A-Fa-f]{2})', p_escape, 'g');
        v_text := replace(v_text, E'\x02', '\u');
    end if;
    return replace(v_text, E'\x01', p_backslash);
end
$$;
comment on function kv.replace_escapes(text, text, text) is 'A JSON text in which p_escape replaces \u0000 and half surrogate pairs (\1 is the old escape without its backslash), and p_backslash escaped backslashes.';

create function kv.huge_numbers_as_text(p_json text) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    -- Without escapes, quotation marks divide strings (the even parts) from the rest.
    return replace(replace((
        select string_agg(case when n % 2 = 0 or length(part) < 16000 and part !~ '[0-9][eE]' then part else (
            select string_agg(concat(t[1], case when number.huge then to_json(t[2])::text else t[2] end), '' order by i)
            from regexp_matches(part, '([^-0-9]*)(-?([0-9]+)(?:[.]([0-9]+))?(?:[eE]([-+]?[0-9]+))?)?', 'g') with ordinality as tokens (t, i)
            cross join lateral (
                -- what numeric holds: 131,072 digits before the point, 16,383 behind it
                select fraction - exponent > 16383 or abs(exponent) > 1 << 30 or digits <> '' and length(digits) - fraction + exponent > 131072 as huge
                from (select ltrim(t[3] || coalesce(t[4], ''), '0') as digits, coalesce(length(t[4]), 0) as fraction,
                    -- ten digits are too many in any case
                    coalesce(left(nullif(ltrim(t[5], '-+0'), ''), 10)::bigint * case when t[5] like '-%' then -1 else 1 end, 0) as exponent) as parts
            ) as number) end, '"' order by n)
        from string_to_table(replace(replace(p_json, '\\', E'\x01'), '\"', E'\x02'), '"') with ordinality as parts (part, n)),
        E'\x02', '\"'), E'\x01', '\\');
end
$$;
comment on function kv.huge_numbers_as_text(text) is 'A JSON text in which strings replace the numbers that numeric cannot hold.';

create function kv.to_readable_document(p_value json) returns jsonb
    language plpgsql immutable strict security invoker set search_path = ''
as $$
declare
    v_text text := kv.replace_escapes(p_value::text, '\\ufffd', '\\');
begin
    return coalesce(kv.to_document(v_text::json), kv.to_document(kv.huge_numbers_as_text(v_text)::json));
end
$$;
comment on function kv.to_readable_document(json) is 'A value that jsonb cannot hold, with the offending parts replaced, so that queries see the rest. Null where it is nested too deeply.';

-- json's operators read every escape of a value, and fail at those that Postgres' text cannot hold. So these get one more backslash,
-- which is removed from what was found.
create function kv.exact_part(p_value json, p_path text[]) returns text
    language plpgsql immutable strict security invoker set search_path = ''
as $$
begin
    return regexp_replace(
        (kv.replace_escapes(p_value::text, '\\\\\1', '\\\\')::json
            #> array(select replace(name, '\', '\\') from unnest(p_path) with ordinality as p (name, n) order by n))::text,
        '\\\\(?:\\(\\)|(?=u))', '\\\1', 'g');
end
$$;
comment on function kv.exact_part(json, text[]) is 'The exact JSON text at a path of any value.';

create function kv.is_replaced(p_value json, p_path text[]) returns boolean
    language plpgsql immutable strict security invoker set search_path = ''
as $$
begin
    perform kv.exact_part(p_value, p_path)::jsonb;
    return false;
exception when others then
    return true;
end
$$;
comment on function kv.is_replaced(json, text[]) is 'Whether jsonb cannot hold what is at the path.';

create function kv.normalize_search_text(p_text text) returns text[]
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
declare
    -- All but letters, marks, numbers and spaces of Unicode 15, in normalized text. U+001E stays.
    c_divides constant text := '[\u0001-\u001d\u001f\u0021-\u002f\u003a-\u0060'
        '\u007b-\u00d7\u00f7\u02c2-\u02c5\u02d2-\u02eb\u02ed\u02ef-\u02ff\u0375\u03f6\u0482\u055a-\u055f\u0589-\u058f\u05be\u05c0\u05c3\u05c6'
        '\u05f3-\u060f\u061b-\u061f\u066a-\u066d\u06d4\u06dd-\u06de\u06e9\u06fd-\u06fe\u0700-\u070f\u07f6-\u07f9\u07fe-\u07ff\u0830-\u083e'
        '\u085e\u0888\u0890-\u0891\u08e2\u0964-\u0965\u0970\u09f2-\u09f3\u09fa-\u09fb\u09fd\u0a76\u0af0-\u0af1\u0b70\u0bf3-\u0bfa\u0c77\u0c7f'
        '\u0c84\u0d4f\u0d79\u0df4\u0e3f\u0e4f\u0e5a-\u0e5b\u0f01-\u0f17\u0f1a-\u0f1f\u0f34\u0f36\u0f38\u0f3a-\u0f3d\u0f85\u0fbe-\u0fc5'
        '\u0fc7-\u0fda\u104a-\u104f\u109e-\u109f\u10fb\u1360-\u1368\u1390-\u1399\u1400\u166d-\u166e\u1680\u169b-\u169c\u16eb-\u16ed'
        '\u1735-\u1736\u17d4-\u17d6\u17d8-\u17db\u1800-\u180a\u1940-\u1945\u19de-\u19ff\u1a1e-\u1a1f\u1aa0-\u1aa6\u1aa8-\u1aad\u1b5a-\u1b6a'
        '\u1b74-\u1b7e\u1bfc-\u1bff\u1c3b-\u1c3f\u1c7e-\u1c7f\u1cc0-\u1cc7\u1cd3\u200b-\u20c0\u2104-\u214d\u214f\u218a-\u244a\u2500-\u2775'
        '\u2794-\u2bff\u2ce5-\u2cea\u2cf9-\u2cfc\u2cfe-\u2cff\u2d70\u2e00-\u2e2e\u2e30-\u3004\u3008-\u3020\u3030\u3037\u303d-\u303f\u30a0'
        '\u30fb\u3190-\u3191\u31c0-\u31e3\u327f\u4dc0-\u4dff\ua490-\ua4c6\ua4fe-\ua4ff\ua60d-\ua60f\ua673\ua67e\ua6f2-\ua716\ua720-\ua721'
        '\ua789-\ua78a\ua828-\ua82b\ua836-\ua839\ua874-\ua877\ua8ce-\ua8cf\ua8f8-\ua8fa\ua8fc\ua92e-\ua92f\ua95f\ua9c1-\ua9cd\ua9de-\ua9df'
        '\uaa5c-\uaa5f\uaa77-\uaa79\uaade-\uaadf\uaaf0-\uaaf1\uab5b\uab6a-\uab6b\uabeb\ue000-\uf8ff\ufbb2-\ufdff\ufe45-\ufe46\ufff9-\ufffd'
        '\U00010100-\U00010102\U00010137-\U0001013f\U00010179-\U00010189\U0001018c-\U000101fc\U0001039f\U000103d0\U0001056f\U00010857'
        '\U00010877-\U00010878\U0001091f\U0001093f\U00010a50-\U00010a58\U00010a7f\U00010ac8\U00010af0-\U00010af6\U00010b39-\U00010b3f'
        '\U00010b99-\U00010b9c\U00010ead\U00010f55-\U00010f59\U00010f86-\U00010f89\U00011047-\U0001104d\U000110bb-\U000110c1\U000110cd'
        '\U00011140-\U00011143\U00011174-\U00011175\U000111c5-\U000111c8\U000111cd\U000111db\U000111dd-\U000111df\U00011238-\U0001123d'
        '\U000112a9\U0001144b-\U0001144f\U0001145a-\U0001145d\U000114c6\U000115c1-\U000115d7\U00011641-\U00011643\U00011660-\U0001166c'
        '\U000116b9\U0001173c-\U0001173f\U0001183b\U00011944-\U00011946\U000119e2\U00011a3f-\U00011a46\U00011a9a-\U00011a9c'
        '\U00011a9e-\U00011aa2\U00011b00-\U00011b09\U00011c41-\U00011c45\U00011c70-\U00011c71\U00011ef7-\U00011ef8\U00011f43-\U00011f4f'
        '\U00011fd5-\U00011fff\U00012470-\U00012474\U00012ff1-\U00012ff2\U00013430-\U0001343f\U00016a6e-\U00016a6f\U00016af5'
        '\U00016b37-\U00016b3f\U00016b44-\U00016b45\U00016e97-\U00016e9a\U00016fe2\U0001bc9c\U0001bc9f\U0001cf50-\U0001d15d'
        '\U0001d16a-\U0001d16c\U0001d183-\U0001d184\U0001d18c-\U0001d1a9\U0001d1ae-\U0001d241\U0001d245\U0001d300-\U0001d356'
        '\U0001d800-\U0001d9ff\U0001da37-\U0001da3a\U0001da6d-\U0001da74\U0001da76-\U0001da83\U0001da85-\U0001da8b\U0001e14f\U0001e2ff'
        '\U0001e95e-\U0001e95f\U0001ecac\U0001ecb0\U0001ed2e\U0001eef0-\U0001f0f5\U0001f10d-\U0001fbca\U000f0000-\U0010fffd'
        ']+';
    -- Invisible characters: soft hyphens, joiners, directions, variants.
    c_ignored constant text := '['
        '\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0'
        '\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff'
        ']+';
    -- Letters of scripts without spaces between words (Thai, Lao, Burmese, Khmer, Han, Kana, Bopomofo), and of Hangul, whose endings
    -- belong to the words.
    c_letters constant text := '['
        '\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0edf\u1000-\u103f\u1050-\u109d\u1780-\u17d3\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c'
        '\u3041-\u318f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97c\uac00-\ud7fb\uf900-\ufaff\U0001b000-\U0001b16f'
        '\U00020000-\U0003ffff'
        ']';
    v_text text;
begin
    -- Nothing here may depend on the database's locale: the words of an entry and those of a query must be the same in each.
    if octet_length(p_text) = length(p_text) then
        v_text := regexp_replace(lower(p_text collate "C"), '[^a-z0-9 \u001e]+', ' ', 'g'); -- not spaces: each match takes time
    else
        v_text := lower(case when p_text is nfkc normalized then p_text else normalize(p_text, nfkc) end collate "und-x-icu");
        v_text := case when v_text is nfc normalized then v_text else normalize(v_text, nfc) end;
        -- final sigma and dotless i; sharp s; i with one dot more
        v_text := replace(replace(translate(v_text, U&'\03C2\0131', U&'\03C3i'), U&'\00DF', 'ss'), U&'i\0307', 'i');
        if v_text ~ c_ignored then
            v_text := regexp_replace(v_text, c_ignored, '', 'g');
        end if;
        v_text := regexp_replace(v_text, c_divides, ' ', 'g');
        if v_text ~ c_letters then
            v_text := regexp_replace(v_text, '(' || c_letters || ') +(?=' || c_letters || ')', E'\\1 \x1e ', 'g');
            v_text := regexp_replace(v_text, c_letters, ' \& ', 'g');
        end if;
    end if;
    return array_remove(string_to_array(replace(v_text, E'\x1e', E' \x1e '), ' '), '');
end
$$;
comment on function kv.normalize_search_text(text) is 'The words of a text in order, without case, compatible forms and compositions of letters. U+001E separates words that are not in a row: those of two texts, and letters that are words by themselves with something between them.';

create function kv.document_strings(p_document jsonb) returns text
    language plpgsql immutable strict parallel safe security invoker set search_path = ''
as $$
begin
    return (
        select coalesce(string_agg(s #>> '{}', E' \x1e '), '')
        from jsonb_path_query(p_document, 'strict $.** ? (@.type() == "string")') as s);
end
$$;
comment on function kv.document_strings(jsonb) is 'Every string in the document, at any depth, with U+001E between them: a phrase does not cross it.';

create function kv.search_vector(p_document jsonb, p_bytes integer) returns tsvector
    language plpgsql immutable security invoker set search_path = ''
as $$
declare
    v_words  text[];
    v_search tsvector;
begin
    if p_bytes > 200000 or p_document is null then
        return null; -- deriving words is the slowest part of a large upsert
    end if;
    v_words := kv.normalize_search_text(kv.document_strings(p_document));
    -- Postgres' own parsers divide words as the database's locale does.
    v_search := (
        select coalesce(string_agg(left(word, 500) || ':' || n, ' '), '')::tsvector -- a word has nothing that needs quotes
        from unnest(v_words) with ordinality as w (word, n) where word <> E'\x1e');
    -- A tsvector counts to 16,383, and keeps 256 positions of a word.
    if cardinality(v_words) >= 256 and (cardinality(v_words) > 16383
            or exists (select from unnest(v_search) as w where cardinality(w.positions) >= 256)) then
        v_search := v_search || '''*'''::tsvector;
    end if;
    return v_search;
exception
    when program_limit_exceeded then -- a tsvector holds 1 MB
        return null;
end
$$;
comment on function kv.search_vector(jsonb, integer) is 'The words of every string in the document, each by its first 500 letters. Null where there are too many. "*", which is not a word, tells that positions are missing: phrases must then be looked for in the document.';
