package schema

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// planNode is a node of an executed plan.
type planNode struct {
	Type      string     `json:"Node Type"`
	Relation  string     `json:"Relation Name"`
	Index     string     `json:"Index Name"`
	Condition string     `json:"Index Cond"`
	Rows      float64    `json:"Actual Rows"`
	Loops     float64    `json:"Actual Loops"`
	Removed   float64    `json:"Rows Removed by Filter"`
	Rechecked float64    `json:"Rows Removed by Index Recheck"`
	Blocks    float64    `json:"Shared Hit Blocks"`
	BlocksIn  float64    `json:"Shared Read Blocks"`
	Plans     []planNode `json:"Plans"`
}

// plans are those of a call and of every statement inside it, also in triggers.
type plans struct {
	response string
	nodes    []planNode
	texts    []string
}

// plansOf calls a kv_* function and returns how Postgres executed everything in it. The session has called it before,
// with the same arguments and rolled back, often enough to have the plans of a warm session.
func (d *database) plansOf(t testing.TB, sql string, arguments ...any) plans {
	t.Helper()
	ctx := context.Background()
	var p plans
	conn := d.superuser(t, func(config *pgx.ConnConfig) {
		config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) {
			if _, text, found := strings.Cut(notice.Message, "plan:\n"); found {
				p.texts = append(p.texts, text)
			}
		}
	})
	defer func() { _ = conn.Close(ctx) }()
	exec(t, conn, "load 'auto_explain'")
	exec(t, conn, "set role service_role")
	for range 7 {
		tx, err := conn.Begin(ctx)
		require.NoError(t, err)
		one[string](t, tx, sql, arguments...)
		require.NoError(t, tx.Rollback(ctx))
	}
	exec(t, conn, "reset role")
	for _, setting := range []string{"log_min_duration = 0", "log_nested_statements = on", "log_analyze = on", "log_buffers = on",
		"log_format = json", "log_timing = off"} {
		exec(t, conn, "set auto_explain."+setting)
	}
	exec(t, conn, "set role service_role")
	exec(t, conn, "set client_min_messages = log")
	tx, err := conn.Begin(ctx)
	require.NoError(t, err)
	p.texts = nil
	p.response = one[string](t, tx, sql, arguments...)
	require.NoError(t, tx.Rollback(ctx))

	var walk func(n planNode)
	walk = func(n planNode) {
		p.nodes = append(p.nodes, n)
		for _, child := range n.Plans {
			walk(child)
		}
	}
	for _, text := range p.texts {
		var explained struct{ Plan planNode }
		require.NoError(t, json.Unmarshal([]byte(text), &explained), text)
		walk(explained.Plan)
	}
	require.NotEmpty(t, p.nodes, "auto_explain said nothing")
	return p
}

// requireReads requires that a table is read through an index, and not more than so many rows of it.
func (p plans) requireReads(t testing.TB, table string, most float64) {
	t.Helper()
	read, scans := 0.0, 0
	for _, n := range p.nodes {
		if (n.Relation != table && !strings.HasPrefix(n.Index, table+"_")) || !strings.Contains(n.Type, "Scan") {
			continue
		}
		scans++
		require.NotEqual(t, "Seq Scan", n.Type, "%s is read whole:\n%s", table, strings.Join(p.texts, "\n"))
		if n.Type == "Bitmap Index Scan" {
			continue // its rows are those of the Bitmap Heap Scan
		}
		read += (n.Rows + n.Removed + n.Rechecked) * n.Loops
		// A condition on another than the first column walks the whole index, which removed rows do not show.
		require.LessOrEqual(t, n.Blocks+n.BlocksIn, most*6+50, "blocks of %s:\n%s", table, strings.Join(p.texts, "\n"))
	}
	require.NotZero(t, scans, "%s is not read:\n%s", table, strings.Join(p.texts, "\n"))
	require.LessOrEqual(t, read, most, "rows of %s:\n%s", table, strings.Join(p.texts, "\n"))
}

// fillEntries writes n entries doc/0000001 … with two indexes each, and others around them.
func fillEntries(t testing.TB, d *database, n int) {
	t.Helper()
	owner := d.owner(t)
	exec(t, owner, "set synchronous_commit = off")
	exec(t, owner, `
		insert into public.kv_store (key, value, is_index)
		select key, '[]', true from (
			select 'type' union all select 'owner' union all select 'index/' || i from generate_series(1, 200) as i) as k(key)`)
	exec(t, owner, `
		insert into public.kv_store (key, value, index_pairs, created_at, updated_at)
		select 'doc/' || lpad(i::text, 7, '0'),
			json_build_object('n', i, 'title', 'Entry number ' || i, 'body', repeat(md5(i::text) || ' ', 8)),
			array[array['type', 't' || i % 10], array['owner', 'u' || i % 500]],
			timestamptz '2024-01-01Z' + i * interval '1 second', timestamptz '2025-01-01Z' + (i::bigint * 7919 % $1) * interval '1 second'
		from generate_series(1, $1::integer) as i`, n)
	exec(t, owner, `
		insert into kv.member (index_key, member) select 'owner', 'u' || i from generate_series(0, 499) as i
		union all select 'type', 't' || i from generate_series(0, 9) as i
		union all select 'index/' || i % 200 + 1, 'm' || i from generate_series(1, 20000) as i`)
	exec(t, owner, "vacuum analyze")
}

// fillLog writes $1 changes, each of a finished transaction: others run in other databases, and a cursor names them.
const fillLog = `
	insert into kv.log (transaction_id, key)
	select (3 + i * (oldest - 4) / n)::text::xid8, 'key/' || i % 1000
	from (select $1::bigint as n, pg_snapshot_xmin(pg_current_snapshot())::text::bigint as oldest) as x, generate_series(1, x.n) as i`

// A long array of pairs is stored out of line, and each subscript reads all of it. So an upsert must not use
// subscripts: it may bring a thousand pairs.
func TestAnUpsertReadsItsIndexesInOnePass(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	var indexes pairs
	for i := range 1000 {
		member := ""
		for part := range 28 { // 900 bytes that hardly compress
			sum := md5.Sum(fmt.Append(nil, i, part))
			member += hex.EncodeToString(sum[:])
		}
		indexes = append(indexes, []string{"i", member})
	}
	p := d.plansOf(t, "select public.kv_upsert('e', '{}', $1)", indexes.parameter())
	most := 0.0
	for _, n := range p.nodes {
		most = max(most, n.Blocks+n.BlocksIn)
	}
	require.Less(t, most, 100_000.0, "blocks of one statement")
}

// A verification comes right after a run, when there are no statistics: then Postgres looked up each posting's entry again.
func TestStrayPostingsAreCountedInOnePassWithoutStatistics(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	exec(t, d.connect(t), `insert into public.kv_store (key, value, index_pairs)
		select 'e/' || i, '1', (select array_agg(array['index:' || j, 'm' || i]) from generate_series(1, 20) as j) from generate_series(1, 500) as i`)
	most := 0.0
	for _, n := range d.plansOf(t, "select public.kv_stray_postings()").nodes {
		most = max(most, n.Blocks+n.BlocksIn)
	}
	require.Less(t, most, 20_000.0, "blocks of one statement that counts 20,000 postings") // 60,000 in a loop
}

// Some writes remove what expired or is too old. They must not read the rest, which may be everything.
func TestRemovingWhatIsOldReadsNothingElse(t *testing.T) {
	t.Parallel()
	for name, analyze := range map[string]bool{"without statistics": false, "with statistics": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			conn := d.connect(t)
			exec(t, conn, `insert into public.kv_store (key, value) select 'stays/' || i, '1' from generate_series(1, 3000) as i`)
			exec(t, conn, `insert into public.kv_store (key, value, expires_at) select 'later/' || i, '1', now() + interval '1 day' from generate_series(1, 3000) as i`)
			exec(t, conn, `insert into kv.response (request, response, at) select gen_random_uuid(), '1', now() from generate_series(1, 3000) as i`)
			read := func(found string) {
				t.Helper()
				t.Log(found)
				if analyze {
					exec(t, d.owner(t), "vacuum analyze")
				}
				p := d.plansOf(t, "select concat(kv.remove_expired(100), public.kv_prune_log())")
				p.requireReads(t, "kv_store", 60)
				p.requireReads(t, "response", 60)
			}
			read("nothing is old")
			exec(t, conn, `insert into public.kv_store (key, value, expires_at) select 'old/' || i, '1', now() - interval '1 second' from generate_series(1, 5) as i`)
			exec(t, conn, `insert into kv.response (request, response, at) select gen_random_uuid(), '1', now() - interval '2 hours' from generate_series(1, 5) as i`)
			read("five are old")
		})
	}
}

// Every call reads about as many rows as its response has, at any size of the tables.
func TestPlansReadNoMoreThanTheyAnswer(t *testing.T) {
	t.Parallel()
	n := number(t, "KV_SCHEMA_ENTRIES", 10_000)
	d := newDatabase(t)
	fillEntries(t, d, n)
	exec(t, d.connect(t), fillLog, n)
	exec(t, d.owner(t), "analyze kv.log")
	key := func(i int) string { return fmt.Sprintf("doc/%07d", i) }
	middle := key(n / 2)

	twoIndexes := 2500.0
	if n/500 >= 1000 { // neither list is rare: they are merged, with 50 postings of the one for each of the other
		twoIndexes = 2*1000 + 101*51
	}
	for _, c := range []struct {
		name      string
		sql       string
		arguments []any
		reads     map[string]float64
	}{
		{"Get", "select public.kv_get($1)", []any{middle}, map[string]float64{"kv_store": 1}},
		{"GetIndexEntry", "select public.kv_get($1)", []any{"type"}, map[string]float64{"kv_store": 1, "member": 20}},
		// The 100 entries of a page in key order are read twice: for their sizes, and for their values once all of them fit.
		{"FirstPage", askList, []any{aList(t, `"limit":100`), true}, map[string]float64{"kv_store": 201}},
		{"FirstPageOfPrefix", askList, []any{aList(t, `"prefix":"doc/","limit":100`), true}, map[string]float64{"kv_store": 201}},
		{"LastPage", askList, []any{aList(t, `"prefix":"doc/","limit":100,"sort":[{"path":"key","descending":true}]`), true}, map[string]float64{"kv_store": 101}},
		{"DeepPage", askList, []any{aList(t, `"prefix":"doc/","limit":100,"cursor":{"position":null,"key":"`+middle+`"}`), true}, map[string]float64{"kv_store": 201}},
		{"DeepPageDescending", askList, []any{aList(t, `"limit":100,"sort":[{"path":"key","descending":true}],"cursor":{"position":null,"key":"`+middle+`"}`), false}, map[string]float64{"kv_store": 101}},
		{"ByCreated", askList, []any{aList(t, `"limit":100,"sort":[{"path":"createdAt","descending":false}]`), true}, map[string]float64{"kv_store": 102}},
		{"DeepByCreated", askList, []any{aList(t, `"limit":100,"sort":[{"path":"createdAt","descending":true}],"cursor":{"position":`+fmt.Sprint(1704067200000000+int64(n)/2*1000000)+`,"key":"`+middle+`"}`), true}, map[string]float64{"kv_store": 102}},
		{"DeepByUpdated", askList, []any{aList(t, `"prefix":"doc/","limit":100,"sort":[{"path":"updatedAt","descending":false}],"cursor":{"position":`+fmt.Sprint(1735689600000000+int64(n)/2*1000000)+`,"key":"`+middle+`"}`), true}, map[string]float64{"kv_store": 102}},
		{"FewKeysByUpdated", askList, []any{aList(t, `"prefix":"doc/000012","limit":10,"sort":[{"path":"updatedAt","descending":false}]`), true}, map[string]float64{"kv_store": 1100}},
		{"OneIndex", askList, []any{aList(t, `"limit":100,`+byIndex([]string{"owner:u7"}, nil)), true}, map[string]float64{"kv_store": 250, "posting": 160}},
		{"OneIndexFirstPage", askList, []any{aList(t, `"limit":100,`+byIndex([]string{"type:t7"}, nil)), true}, map[string]float64{"kv_store": 250, "posting": 150}},
		{"OneIndexDeepPage", askList, []any{aList(t, `"limit":100,"cursor":{"position":null,"key":"`+middle+`"},`+byIndex([]string{"type:t7"}, nil)), true}, map[string]float64{"kv_store": 250, "posting": 150}},
		{"PrefixAndIndex", askList, []any{aList(t, `"prefix":"doc/00012","limit":100,`+byIndex([]string{"type:t7"}, nil)), true}, map[string]float64{"kv_store": 150, "posting": 150}},
		{"IndexKey", askList, []any{aList(t, `"limit":100,`+byIndex(nil, []string{"owner"})), true}, map[string]float64{"kv_store": 250, "posting": 150}},
		{"TwoIndexes", askList, []any{aList(t, `"limit":100,`+byIndex([]string{"type:t7", "owner:u7"}, nil)), true}, map[string]float64{"kv_store": 300, "posting": twoIndexes}},
		{"NoSuchIndex", askList, []any{aList(t, `"limit":100,`+byIndex([]string{"no:such"}, nil)), true}, nil},
		{"Upsert", "select public.kv_upsert($1, $2, $3)", []any{middle, `{"a":1}`, [][]string{{"type", "t1"}, {"owner", "u1"}}},
			map[string]float64{"kv_store": 10, "posting": 10}},
		{"UpsertNew", "select public.kv_upsert($1, $2, $3)", []any{"doc/new", `{"a":1}`, [][]string{{"type", "t0"}, {"owner", "u0"}}},
			map[string]float64{"kv_store": 10}},
		{"UpsertClearsIndexes", "select public.kv_upsert($1, $2, $3)", []any{middle, `{"a":1}`, [][]string{}},
			map[string]float64{"kv_store": 2, "posting": 10}},
		{"Delete", "select public.kv_delete($1)", []any{middle}, map[string]float64{"kv_store": 2, "posting": 10}},
		{"Entry", "select public.kv_entry($1)", []any{middle}, map[string]float64{"kv_store": 2}},
		{"EntryList", "select public.kv_entry_list($1, 'q')", []any{`{"prefix":"doc/","delimiter":"","metadata":false,"limit":100,"cursor":null}`}, map[string]float64{"kv_store": 101}},
		{"Directories", "select public.kv_entry_list($1, 'q')", []any{`{"prefix":"","delimiter":"/","metadata":false,"limit":100,"cursor":null}`}, map[string]float64{"kv_store": 10}},
		{"Stores", "select public.kv_stores('', 100)", nil, map[string]float64{"kv_store": 110}},
		{"Clear", "select public.kv_clear($1, 10, 1000, gen_random_uuid())", []any{middle[:len(middle)-1]}, map[string]float64{"kv_store": 60, "posting": 100}},
		{"Put", "select public.kv_batch($1)", []any{`[{"action":"put","key":"` + middle + `","value":"1"}]`}, map[string]float64{"kv_store": 5}},
		{"PutNew", "select public.kv_batch($1)", []any{`[{"action":"put","key":"new","value":"1","indexes":[["type","t0"]]}]`}, map[string]float64{"kv_store": 10, "member": 5}},
		{"Batch", "select public.kv_batch($1, true)", []any{`[{"action":"get","key":"` + middle + `"},{"action":"delete","key":"` + key(1) + `"},{"action":"increment","key":"count","delta":1},{"action":"check","key":"none"}]`},
			map[string]float64{"kv_store": 20, "posting": 10}},
		{"DeleteIndexEntry", "select public.kv_delete($1)", []any{"type"}, map[string]float64{"kv_store": 2, "member": 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := d.plansOf(t, c.sql, c.arguments...)
			for table, most := range c.reads {
				p.requireReads(t, table, most)
			}
			for _, n := range p.nodes {
				require.False(t, n.Type == "Seq Scan" && slices.Contains([]string{"kv_store", "posting", "member", "log"}, n.Relation),
					"%s is read whole:\n%s", n.Relation, strings.Join(p.texts, "\n"))
			}
		})
	}

	// A cursor with many changes before it and few after it.
	conn := d.connect(t)
	cursor := changes(t, conn, nil).Cursor
	for i := range 5 {
		upsert(t, conn, key(i+1), `{}`, pairs{{"type", "t0"}})
	}
	epoch, ms, snapshot := cursorParts(t, cursor)
	xmax := strings.Split(snapshot, ":")[1]
	// The same with a transaction that was open before the first change and until now.
	longOpen := fmt.Sprintf("%s/%d/3:%s:3", epoch, ms, xmax)
	exec(t, conn, "delete from kv.log where transaction_id = '3'") // their number depends on the number of transactions
	exec(t, conn, "insert into kv.log (transaction_id, key) select '3', 'key/' || i from generate_series(1, 100) as i")
	for name, cursor := range map[string]string{"Look": cursor, "LookWithALongTransactionOpen": longOpen} {
		for _, call := range []string{"kv_changes($1)", "kv_list('" + aList(t, `"prefix":"none/"`) + "', false, 'q', $1)"} { // which has settings of its own
			t.Run(name+"/"+call[:strings.Index(call, "(")], func(t *testing.T) {
				p := d.plansOf(t, "select public."+call, cursor)
				require.Contains(t, p.response, key(5))
				p.requireReads(t, "log", 200) // the long transaction alone has a hundred
				require.True(t, slices.ContainsFunc(p.nodes, func(n planNode) bool { return n.Index == "log_transaction_id" }))
			})
		}
	}
	t.Run("LookAtMoreChangesThanItTells", func(t *testing.T) {
		p := d.plansOf(t, "select public.kv_changes($1)", fmt.Sprintf("%s/%d/4:4:", epoch, ms))
		require.Contains(t, p.response, `"all" : true`)
		p.requireReads(t, "log", 1100)
	})
}
