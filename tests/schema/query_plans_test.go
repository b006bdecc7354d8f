package schema

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// fillDocuments writes n entries of ten tenants, tenant0/doc/0000010 …, with a title, a score, and indexes unrelated
// to the order of the keys. For any n, each owner has some 100 entries and the tag has 1,000.
func fillDocuments(t testing.TB, d *database, n int) {
	t.Helper()
	owner := d.owner(t)
	exec(t, owner, "set synchronous_commit = off")
	exec(t, owner, `
		insert into public.kv_store (key, value, index_pairs, created_at)
		select 'tenant' || i % 10 || '/doc/' || lpad(i::text, 7, '0'),
			json_build_object(
				'title', 'common word' || h % 5003 || case when h % 5 = 2 then ' fifth' else '' end || case when h % 100 = 7 then ' percent' else '' end
					|| case when i in (11, 222, 3333) then ' rare' else '' end || case when i <= 4000 and i % 100 = 0 then ' early' else '' end,
				'score', case when h % 50 = 0 then to_json('none'::text) else to_json(i::bigint * 7919 % $1) end,
				'owner', json_build_object('name', 'user' || h % 1000, 'tags', json_build_array('x' || h % 7, 'y' || h % 11))),
			array[array['type', 't' || h % 2], array['status', 's' || h / 2 % 10], array['owner', 'o' || h % ($1 / 100)], array['half', 'h' || i * 2 / $1]]
				|| case when i <= 1000 then array[array['tag', 'few']] else '{}' end,
			timestamptz '2024-01-01Z' + i * interval '1 second'
		from generate_series(1, $1::integer) as i, lateral (select abs(hashint4(i)::bigint) as h) as hashed`, n)
	exec(t, owner, "vacuum analyze")
	exec(t, owner, "select public.kv_index_path('score')")
}

// aQuery is what Go sends (pkg/kv, Query) with the fields given in place of the defaults.
func aQuery(t testing.TB, fields string) string {
	t.Helper()
	query := map[string]json.RawMessage{}
	require.NoError(t, json.Unmarshal([]byte(`{"prefix":"","indexes":null,"indexKeys":null,"search":[],"where":[],"sort":[{"path":"key","descending":false}],
		"select":["key","value"],"limit":100,"offset":null,"cursor":null,"pageBytes":4500000,"aggregate":[],"groupBy":""}`), &query))
	given := map[string]json.RawMessage{}
	require.NoError(t, json.Unmarshal([]byte("{"+fields+"}"), &given), fields)
	maps.Copy(query, given)
	text, err := json.Marshal(query)
	require.NoError(t, err)
	return string(text)
}

const (
	askQuery    = "select public.kv_query($1::jsonb, 'what was asked')"
	byScore     = `"sort":[{"path":"/score","descending":true}]`
	byCreated   = `"sort":[{"path":"createdAt","descending":true}]`
	byRelevance = `"sort":[{"path":"relevance","descending":true}]`
	oneStatus   = `"indexes":{"all":[{"pair":"status:s4"}]}`
	count       = `"limit":10000,"aggregate":[{"op":"count"}]`
)

// A query reads about as many rows as its response has, however many there are; where it has to choose what to begin with, up
// to the bounds that it counts to.
func TestQueryPlansReadLittle(t *testing.T) {
	t.Parallel()
	n := number(t, "KV_SCHEMA_ENTRIES", 10_000)
	d := newDatabase(t)
	fillDocuments(t, d, n)
	deep := fmt.Sprintf("tenant7/doc/%07d", n/2+7)
	// The planner of queries may read 500 entries as a sample, 1,000 or 10,000 postings of an index, and 50,000
	// matches of a word.
	const sample, rare, few, many = 500, 1000, 10_000, 50_000

	for _, c := range []struct {
		name, fields string
		store        float64 // rows of kv_store that may be read; the response needs those of its page
		posting      float64
	}{
		{"FirstPage", ``, 205, 0},
		{"DeepPage", `"cursor":{"position":null,"key":"` + deep + `"}`, 205, 0},
		{"DeepPageDescending", `"sort":[{"path":"key","descending":true}],"cursor":{"position":null,"key":"` + deep + `"}`, 205, 0},
		{"ByCreated", byCreated, 205, 0},
		{"DeepByCreated", byCreated + fmt.Sprintf(`,"cursor":{"position":%d,"key":"%s"}`, 1704067200000000+int64(n)/2*1000000, deep), 205, 0},
		{"OneIndex", oneStatus, 105, 150},
		{"OneIndexDeepPage", oneStatus + `,"cursor":{"position":null,"key":"` + deep + `"}`, 105, 150},
		{"OneIndexOfAnOwner", `"indexes":{"all":[{"pair":"owner:o7"}]}`, 160, 160},
		{"TwoIndexes", `"indexes":{"all":[{"pair":"status:s4"},{"pair":"type:t1"}]}`, 105, 2*rare + 5000},
		{"TwoIndexesOneRare", `"indexes":{"all":[{"pair":"owner:o7"},{"pair":"type:t1"}]}`, 160, rare + 500},
		{"PrefixAndIndex", `"prefix":"tenant4/",` + oneStatus, 105, 150},
		{"AnyOfTwo", `"indexes":{"any":[{"pair":"status:s4"},{"pair":"status:s5"}]}`, 105, 300},
		{"NestedGroups", `"indexes":{"any":[{"all":[{"pair":"status:s4"},{"pair":"type:t1"}]},{"pair":"tag:few"}]}`, 105, 3 * few},
		{"None", `"indexes":{"none":[{"pair":"status:s4"}]}`, 400, 150},
		{"RangeOnAFastPath", `"where":[{"path":"/score","op":"gte","value":1000},{"path":"/score","op":"lt","value":1100}]`, sample + 400, 0},
		{"RangeOfAPercent", fmt.Sprintf(`"where":[{"path":"/score","op":"gte","value":0},{"path":"/score","op":"lt","value":%d}]`, n/100), sample + min(float64(n)/100*2+300, 13_000), 0},
		{"RangeSortedByTheFastPath", `"where":[{"path":"/score","op":"gte","value":1000}],` + byScore, 205, 0},
		{"FastPathDeepPage", byScore + fmt.Sprintf(`,"cursor":{"position":[0,%d],"key":"tenant5/"}`, n/2), 205, 0},
		{"BroadRange", `"where":[{"path":"/score","op":"gte","value":` + fmt.Sprint(n/2) + `}]`, sample + 600, 0},
		{"CreatedRange", `"where":[{"path":"createdAt","op":"gte","value":1704067300000},{"path":"createdAt","op":"lt","value":1704067400000}]`, sample + 300, 0},
		{"CreatedRangeSortedByCreated", `"where":[{"path":"createdAt","op":"gte","value":1704067300000}],` + byCreated, 205, 0},
		{"Keys", `"where":[{"path":"key","op":"in","value":["tenant1/doc/0000001","tenant2/doc/0000002","none"]}]`, 10, 0},
		{"KeysByCreated", `"where":[{"path":"key","op":"in","value":["tenant1/doc/0000001","tenant2/doc/0000002","none"]}],` + byCreated, 15, 0},
		{"KeyRange", `"where":[{"path":"key","op":"gt","value":"tenant7/doc/"}]`, 205, 0},
		{"IndexAndKeyRange", oneStatus + `,"where":[{"path":"key","op":"gt","value":"tenant7/doc/"}]`, 105, 150},
		{"CommonWord", `"search":[[{"text":"common"}]]`, sample + 205, 0},
		{"WordOfAFifth", `"search":[[{"text":"fifth"}]]`, sample + 1500, 0},
		{"WordOfAPercent", `"search":[[{"text":"percent"}]]`, sample + many + few, 0},
		{"RareWord", `"search":[[{"text":"rare"}]]`, sample + 10, 0},
		{"WordOfTheFirstKeys", `"search":[[{"text":"early"}]]`, sample + 2*101*sample/40 + 3*40, 0},
		{"RareWordByRelevance", `"search":[[{"text":"rare"}]],` + byRelevance, sample + 15, 0},
		{"CommonWordByRelevance", `"search":[[{"text":"common"}]],` + byRelevance, sample + 2*few + 205, 0},
		{"IndexByCreated", oneStatus + `,` + byCreated, few + 2500, few + 2500},
		{"OwnerByCreated", `"indexes":{"all":[{"pair":"owner:o7"}]},` + byCreated, 400, 400},
		{"CountOfAnIndex", oneStatus + `,` + count, 0, float64(n)/10*1.2 + few},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := d.plansOf(t, askQuery, aQuery(t, c.fields))
			require.NotContains(t, p.response, `"results":[]`, "the query finds something")
			for table, most := range map[string]float64{"kv_store": c.store, "posting": c.posting} {
				if most > 0 {
					p.requireReads(t, table, most)
					continue
				}
				require.False(t, slices.ContainsFunc(p.nodes, func(n planNode) bool { return n.Relation == table && n.Rows*n.Loops > 0 }), "%s is read:\n%s", table, strings.Join(p.texts, "\n"))
			}
		})
	}
}

// TestCostsDoNotGrow compares 10,000 entries with KV_SCHEMA_ENTRIES, and alternates the calls. It needs a quiet
// machine, so only `make scale` runs it.
func TestCostsDoNotGrow(t *testing.T) {
	if os.Getenv("KV_SCHEMA_GROWTH") == "" {
		t.Skip("KV_SCHEMA_GROWTH is not set: make scale does")
	}
	n := number(t, "KV_SCHEMA_ENTRIES", 1_000_000)
	sizes := []int{10_000, n}
	var conns []*pgx.Conn
	cursors := map[int]string{}
	for _, size := range sizes {
		d := newDatabase(t)
		fillDocuments(t, d, size)
		conn := d.connect(t)
		exec(t, conn, fillLog, size)
		exec(t, d.owner(t), "analyze kv.log")
		cursors[size] = changes(t, conn, nil).Cursor
		upsert(t, conn, "after the cursor", `{}`, nil)
		conns = append(conns, conn)
	}
	const rounds, most = 300, 1.5
	t.Logf("%-22s %12s %12s %6s", "p50 in Postgres", fmt.Sprint(sizes[0]), fmt.Sprint(sizes[1]), "ratio")
	for _, c := range []struct {
		name string
		sql  string
		of   func(size int) []any
	}{
		{"get", "select public.kv_get($1)", func(size int) []any { return []any{fmt.Sprintf("tenant%d/doc/%07d", size/2%10, size/2)} }},
		{"look at the feed", "select public.kv_changes($1)", func(size int) []any { return []any{cursors[size]} }},
		{"list, first page", askList, func(int) []any { return []any{aList(t, `"prefix":"tenant4/","limit":100`), true} }},
		{"list, deep page", askList, func(size int) []any {
			return []any{aList(t, fmt.Sprintf(`"prefix":"tenant4/","limit":100,"cursor":{"position":null,"key":"tenant4/doc/%07d"}`, size/2)), true}
		}},
		{"query, deep page", askQuery, func(size int) []any {
			return []any{aQuery(t, fmt.Sprintf(`"cursor":{"position":null,"key":"tenant4/doc/%07d"}`, size/2))}
		}},
		{"query by index", askQuery, func(int) []any { return []any{aQuery(t, oneStatus)} }},
		{"query by two indexes", askQuery, func(int) []any {
			return []any{aQuery(t, `"indexes":{"all":[{"pair":"status:s4"},{"pair":"type:t1"}]}`)}
		}},
		{"prefix + index", askQuery, func(int) []any { return []any{aQuery(t, `"prefix":"tenant4/","limit":50,`+oneStatus)} }},
		{"range on a fast path", askQuery, func(int) []any {
			return []any{aQuery(t, `"limit":90,"where":[{"path":"/score","op":"gte","value":1000},{"path":"/score","op":"lt","value":1100}]`)}
		}},
		{"sorted by a fast path", askQuery, func(int) []any { return []any{aQuery(t, byScore)} }},
	} {
		took := make([][]time.Duration, len(sizes))
		for round := range rounds + 20 {
			for i, conn := range conns {
				arguments := c.of(sizes[i])
				start := time.Now()
				_, err := conn.Exec(context.Background(), c.sql, arguments...)
				require.NoError(t, err)
				if round >= 20 {
					took[i] = append(took[i], time.Since(start))
				}
			}
		}
		var p50 []float64
		for i := range took {
			slices.Sort(took[i])
			p50 = append(p50, float64(took[i][rounds/2].Microseconds())/1000)
		}
		t.Logf("%-22s %9.2f ms %9.2f ms %6.2f", c.name, p50[0], p50[1], p50[1]/p50[0])
		if p50[1]/p50[0] > most {
			t.Errorf("%s grows by more than %v", c.name, most)
		}
	}
}
