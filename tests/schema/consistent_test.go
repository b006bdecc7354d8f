package schema

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// inconsistencies finds violated invariants. It computes each from the entries, without the functions that maintain
// it.
const inconsistencies = `
with pairs as (
	select s.key, i as ordinal, s.index_pairs[i][1] collate "C" as index_key, s.index_pairs[i][2] collate "C" as member
	from public.kv_store as s, generate_subscripts(s.index_pairs, 1) as i
), postings as (
	select index_key, member, key from pairs union select index_key, '', key from pairs
), formatted as (
	select key, array_agg(text order by ordinal) as indexes
	from (select key, index_key || ':' || regexp_replace(member, '^' || chr(1), '') as text, min(ordinal) as ordinal from pairs group by 1, 2) as s
	group by key
)
select 'posting missing: ' || concat_ws(' | ', index_key, member, key)
from (table postings except select index_key, member, key from kv.posting) as x
union all
select 'posting too many: ' || concat_ws(' | ', index_key, member, key)
from (select index_key, member, key from kv.posting except table postings) as x
union all
select 'posting with another expiry: ' || concat_ws(' | ', p.index_key, p.member, p.key)
from kv.posting as p join public.kv_store as s using (key) where p.expires_at is distinct from s.expires_at
union all
select 'indexes do not follow from index_pairs: ' || s.key
from public.kv_store as s left join formatted as p using (key)
where s.indexes is distinct from coalesce(p.indexes, '{}')
union all
select 'index_pairs are not pairs: ' || key
from public.kv_store where index_pairs <> '{}' and (array_ndims(index_pairs) <> 2 or array_length(index_pairs, 2) <> 2)
union all
select 'members without an index entry: ' || m.index_key
from (select distinct index_key from kv.member) as m
left join public.kv_store as s on s.key = m.index_key
where s.is_index is not true
union all
select 'member also in the stored array: ' || concat_ws(' | ', m.index_key, m.member)
from kv.member as m join public.kv_store as s on s.key = m.index_key
where s.value::text <> '[]' and exists (
	select from json_array_elements(s.value) as e where e::text = case when m.member ~ ('^' || chr(1) || '[^' || chr(1) || ']') then substr(m.member, 2)
		else to_json(regexp_replace(m.member, '^' || chr(1), ''))::text end)
union all
select 'index entry that is not an array, or is indexed: ' || key
from public.kv_store where is_index and (json_typeof(value) <> 'array' or document is not null or search is not null)
union all
select 'bytes are not the length of value: ' || key
from public.kv_store where bytes <> coalesce(octet_length(value::text), octet_length(data))
union all
select 'document does not follow from value: ' || key
from public.kv_store where not is_index and document is distinct from coalesce(kv.to_document(value), kv.to_readable_document(value))
union all
select 'replaced does not follow from value: ' || key
from public.kv_store where replaced <> (not is_index and kv.to_document(value) is null)
union all
select 'search does not follow from value: ' || key
from public.kv_store where not is_index and search is distinct from kv.search_vector(document, bytes)
limit 20`

// requireConsistent checks everything that follows from the entries. Every test's database ends with it.
func requireConsistent(t testing.TB, q querier) {
	t.Helper()
	require.Empty(t, all[string](t, q, inconsistencies))
}
