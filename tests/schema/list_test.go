package schema

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// entry is a row of the model of kv_list.
type entry struct {
	key, value       string
	created, updated time.Time
	indexes          pairs
}

// listQuery has the arguments of kv_list.
type listQuery struct {
	prefix             string
	values             bool
	limit, offset      *int
	sort               string
	descending         bool
	afterKey           *string
	afterAt            *int64
	indexes, indexKeys []string
}

const askList = "select public.kv_list($1::jsonb, $2, 'what was asked')"

// aList is what Go sends, of no limit, with the fields given in place of the defaults.
func aList(t testing.TB, fields string) string {
	t.Helper()
	return aQuery(t, strings.TrimSuffix(`"limit":0,`+fields, ","))
}

func kvList(t testing.TB, q querier, values bool, fields string) string {
	t.Helper()
	return one[string](t, q, askList, aList(t, fields), values)
}

// byIndex are the fields of a query for entries that have all of the indexes.
func byIndex(spelled, keys []string) string {
	filters := []string{}
	for _, text := range spelled {
		filters = append(filters, `{"pair":`+pgJSON(text)+`}`)
	}
	for _, key := range keys {
		filters = append(filters, `{"exact":{"key":`+pgJSON(key)+`,"member":""}}`)
	}
	return `"indexes":{"all":[` + strings.Join(filters, ",") + `]}`
}

func (q listQuery) ask(t testing.TB, conn querier) string {
	t.Helper()
	path := map[string]string{"key": "key", "created": "createdAt", "updated": "updatedAt"}[q.sort]
	fields := fmt.Sprintf(`"prefix":%s,"sort":[{"path":"%s","descending":%t}],`, pgJSON(q.prefix), path, q.descending) + byIndex(q.indexes, q.indexKeys)
	if q.limit != nil {
		fields += fmt.Sprintf(`,"limit":%d`, *q.limit)
	}
	if q.offset != nil {
		fields += fmt.Sprintf(`,"offset":%d`, *q.offset)
	}
	if q.afterKey != nil {
		position := "null"
		if q.afterAt != nil {
			position = fmt.Sprint(*q.afterAt)
		}
		fields += fmt.Sprintf(`,"cursor":{"position":%s,"key":%s}`, position, pgJSON(*q.afterKey))
	}
	return kvList(t, conn, q.values, fields)
}

func (e entry) at(sort string) time.Time {
	switch sort {
	case "created":
		return e.created
	case "updated":
		return e.updated
	}
	return time.Time{}
}

// pgJSON writes a string as to_json of Postgres does.
func pgJSON(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch r {
		case '\b':
			b.WriteString(`\b`)
		case '\f':
			b.WriteString(`\f`)
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		case '"':
			b.WriteString(`\"`)
		case '\\':
			b.WriteString(`\\`)
		default:
			if r < ' ' {
				fmt.Fprintf(&b, `\u%04x`, r)
			} else {
				b.WriteRune(r)
			}
		}
	}
	b.WriteByte('"')
	return b.String()
}

// modelList returns what kv_list must, byte for byte.
func modelList(entries []entry, q listQuery) string {
	compare := func(a, b entry) int {
		c := a.at(q.sort).Compare(b.at(q.sort))
		if c == 0 {
			c = strings.Compare(a.key, b.key)
		}
		if q.descending {
			return -c
		}
		return c
	}
	var matching []entry
	for _, e := range entries {
		ok := strings.HasPrefix(e.key, q.prefix)
		for _, spelled := range q.indexes {
			ok = ok && slices.ContainsFunc(e.indexes, func(p []string) bool { return p[0]+":"+p[1] == spelled })
		}
		for _, key := range q.indexKeys {
			ok = ok && slices.ContainsFunc(e.indexes, func(p []string) bool { return p[0] == key })
		}
		if ok && q.afterKey != nil {
			after := entry{key: *q.afterKey}
			if q.afterAt != nil {
				after.created, after.updated = time.UnixMicro(*q.afterAt), time.UnixMicro(*q.afterAt)
			}
			ok = compare(e, after) > 0
		}
		if ok {
			matching = append(matching, e)
		}
	}
	slices.SortFunc(matching, compare)
	offset := 0
	if q.offset != nil {
		offset = min(*q.offset, len(matching))
	}
	matching = matching[offset:]
	more := q.limit != nil && len(matching) > *q.limit
	if more {
		matching = matching[:*q.limit]
	}

	keys, data := []string{}, []string{}
	for _, e := range matching {
		keys = append(keys, pgJSON(e.key))
		data = append(data, pgJSON(e.key)+":"+e.value)
	}
	answer := fmt.Sprintf(`{"keys":[%s],"count":%d`, strings.Join(keys, ","), len(keys))
	if q.values {
		answer += `,"data":{` + strings.Join(data, ",") + `}`
	}
	if q.limit != nil || q.offset != nil || q.afterKey != nil {
		limit, next := "null", "null"
		if q.limit != nil {
			limit = fmt.Sprint(*q.limit)
		}
		if more {
			next = `"` + modelCursor(q, matching[len(matching)-1]) + `"`
		}
		shown := 0
		if q.offset != nil {
			shown = *q.offset
		}
		answer += fmt.Sprintf(`,"pagination":{"limit":%s,"offset":%d,"hasMore":%t,"nextCursor":%s}`, limit, shown, more, next)
	}
	return answer + "}"
}

func modelCursor(q listQuery, last entry) string {
	at := "null"
	if q.sort != "key" {
		at = fmt.Sprint(last.at(q.sort).UnixMicro())
	}
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"question" : "what was asked", "position" : %s, "key" : %s}`, at, pgJSON(last.key)))
}

// keyParts are what random keys are made of: wildcards of like, quotes, edges of UTF-8 and of the C collation.
var keyParts = []string{"a", "A", "b", "ab", "%", "_", `\`, "'", `"`, "*", " ", ":", "::", "/", ",", "{", "}", "0", "9", "10", "-", ".", "~",
	"\u007f", "\u0080", "é", "e\u0301", "ß", "😀", "🏳️‍🌈", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010fffe", "\U0010ffff",
	"\u0001", "\t", "\n", "NULL", "__proto__", "$1", "?"}

func randomKey(r *rand.Rand, most int) string {
	var b strings.Builder
	for range 1 + r.IntN(most) {
		b.WriteString(keyParts[r.IntN(len(keyParts))])
	}
	if strings.HasPrefix(b.String(), string(utf8.MaxRune)) { // no key of the store kv begins so
		return "b" + b.String()
	}
	return b.String()
}

// fillModel writes random entries, some at the same time as others.
func fillModel(t *testing.T, conn querier, r *rand.Rand, n int) []entry {
	t.Helper()
	base := time.Date(2024, 2, 29, 23, 59, 59, 999_999_000, time.UTC)
	byKey := map[string]entry{}
	for len(byKey) < n {
		e := entry{key: randomKey(r, 5), value: []string{`{}`, `[1.0]`, `null`, `{"a":"\u0000"}`, ` [ ] `}[r.IntN(5)],
			created: base.Add(time.Duration(r.IntN(20)) * time.Microsecond), updated: base.Add(time.Duration(r.IntN(400)-200) * time.Hour)}
		for range r.IntN(5) {
			e.indexes = append(e.indexes, []string{[]string{"a", "a:b", "x", randomKey(r, 1)}[r.IntN(4)], []string{"b:c", "c", "b", randomKey(r, 1)}[r.IntN(4)]})
		}
		if _, known := byKey[e.key]; known {
			continue
		}
		byKey[e.key] = e
		list := pairs{}
		for _, p := range e.indexes {
			member := p[1]
			if strings.HasPrefix(member, "\x01") { // the member that is this text: kv.member_from_text
				member = "\x01" + member
			}
			list = append(list, []string{p[0], member})
		}
		exec(t, conn, `insert into public.kv_store (key, value, index_pairs, created_at, updated_at) values ($1, $2::text::json, $3, $4, $5)`,
			e.key, e.value, [][]string(list), e.created, e.updated)
	}
	entries := make([]entry, 0, n)
	for _, e := range byKey {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	return entries
}

func TestListEqualsItsModel(t *testing.T) {
	t.Parallel()
	r := random(t)
	conn := newDatabase(t).connect(t)
	entries := fillModel(t, conn, r, 400)
	pick := func() entry { return entries[r.IntN(len(entries))] }
	runes := func(text string, n int) string { all := []rune(text); return string(all[:min(n, len(all))]) }
	for n := range 1000 {
		q := listQuery{values: r.IntN(2) == 0, sort: []string{"key", "created", "updated"}[r.IntN(3)], descending: r.IntN(2) == 0,
			indexes: []string{}, indexKeys: []string{}}
		switch r.IntN(4) {
		case 0:
			q.prefix = runes(pick().key, 1)
		case 1:
			q.prefix = runes(pick().key, 1+r.IntN(4))
		case 2:
			q.prefix = randomKey(r, 2)
		}
		if r.IntN(2) == 0 {
			limit := []int{1, 2, 7, 100, 399, 400, 401, 10_000}[r.IntN(8)]
			q.limit = &limit
		}
		if r.IntN(4) == 0 {
			offset := []int{0, 1, 5, 399, 400, 1000}[r.IntN(6)]
			q.offset = &offset
		}
		if q.offset == nil && r.IntN(3) == 0 {
			after := pick()
			key := after.key
			if r.IntN(4) == 0 {
				key = randomKey(r, 3) // between the keys, or gone since
			}
			q.afterKey = &key
			if q.sort != "key" {
				at := after.at(q.sort).UnixMicro()
				q.afterAt = &at
			}
		}
		for r.IntN(3) == 0 {
			if e := pick(); len(e.indexes) > 0 && r.IntN(4) > 0 {
				p := e.indexes[r.IntN(len(e.indexes))]
				q.indexes = append(q.indexes, p[0]+":"+p[1])
			} else {
				q.indexes = append(q.indexes, []string{"a:b:c", "a:b", "no:such", "", ":", "a:", ":a", randomKey(r, 3)}[r.IntN(8)])
			}
		}
		for r.IntN(4) == 0 {
			q.indexKeys = append(q.indexKeys, []string{"a", "a:b", "x", "none", "", randomKey(r, 1)}[r.IntN(6)])
		}
		text, _ := json.Marshal(map[string]any{"prefix": q.prefix, "limit": q.limit, "offset": q.offset, "sort": q.sort, "desc": q.descending,
			"after": q.afterKey, "afterAt": q.afterAt, "indexes": q.indexes, "indexKeys": q.indexKeys})
		require.Equal(t, modelList(entries, q), q.ask(t, conn), "query %d: %s", n, text)
	}
}

// All pages together are the whole list, in every order, while others write.
func TestPagesPutTogetherAreTheWholeList(t *testing.T) {
	t.Parallel()
	r := random(t)
	d := newDatabase(t)
	conn := d.connect(t)
	entries := fillModel(t, conn, r, 300)
	for _, sort := range []string{"key", "created", "updated"} {
		for _, descending := range []bool{false, true} {
			for _, indexKeys := range [][]string{{}, {"a"}} {
				q := listQuery{sort: sort, descending: descending, indexes: []string{}, indexKeys: indexKeys}
				var whole, walked struct{ Keys []string }
				require.NoError(t, json.Unmarshal([]byte(q.ask(t, conn)), &whole))
				limit := 1 + r.IntN(40)
				q.limit = &limit
				pages := 0
				for {
					var page struct {
						Keys       []string
						Pagination struct {
							HasMore    bool
							NextCursor *string
						}
					}
					require.NoError(t, json.Unmarshal([]byte(q.ask(t, conn)), &page))
					walked.Keys = append(walked.Keys, page.Keys...)
					pages++
					if !page.Pagination.HasMore {
						require.Nil(t, page.Pagination.NextCursor)
						break
					}
					require.Len(t, page.Keys, limit)
					var after struct {
						Position *int64
						Key      string
					}
					require.NoError(t, json.Unmarshal([]byte(readCursor(t, *page.Pagination.NextCursor)), &after))
					q.afterKey, q.afterAt = &after.Key, after.Position

					// A write behind the cursor.
					if key, at := behind(pages, descending); sort != "key" || strings.Compare(key, *q.afterKey) > 0 == descending {
						exec(t, conn, `
							insert into public.kv_store (key, value, created_at, updated_at, index_pairs)
							values ($1, '{}', $2::text::timestamptz, $2::text::timestamptz, '{{a,b}}')`, key, at)
					}
				}
				exec(t, conn, "delete from public.kv_store where key like '%behind%'")
				require.Equal(t, whole.Keys, walked.Keys, "%s descending %t by %d: %d pages", sort, descending, limit, pages)
				require.NotEmpty(t, whole.Keys)
			}
		}
	}
	require.Len(t, entries, one[int](t, conn, "select count(*) from public.kv_store"))
}

// behind returns a new key and a time that an ascending (descending) walk has most likely passed.
func behind(n int, descending bool) (key, at string) {
	if descending {
		return strings.Repeat("\U0010fffe", 6) + fmt.Sprint("behind", n), "2999-01-01"
	}
	return strings.Repeat("\u0001", 6) + fmt.Sprint("behind", n), "1999-01-01"
}

// readCursor is the JSON that a cursor holds.
func readCursor(t *testing.T, cursor string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	require.NoError(t, err)
	return string(text)
}

func TestPrefixEnd(t *testing.T) {
	t.Parallel()
	r := random(t)
	conn := newDatabase(t).connect(t)
	reference := func(prefix string) string {
		for prefix != "" {
			last, size := utf8.DecodeLastRuneInString(prefix)
			prefix = prefix[:len(prefix)-size]
			switch last {
			case utf8.MaxRune:
				continue
			case 0xd7ff:
				return prefix + "\ue000"
			}
			return prefix + string(last+1)
		}
		return string(utf8.MaxRune) // where the keys of other stores begin
	}
	prefixes := []string{"", "a", "\ud7ff", "a\ud7ff", "\U0010ffff", "a\U0010ffff", strings.Repeat("\U0010ffff", 256), "\ud7ff\U0010ffff\U0010ffff",
		"\uffff", "\u007f", "\u07ff", "\U0000ffff", "\U0001ffff", "a\u0001"}
	for range 500 {
		prefixes = append(prefixes, randomKey(r, 4))
	}
	ends := all[string](t, conn, "select kv.prefix_end(p) from unnest($1::text[]) with ordinality as u(p, n) order by n", prefixes)
	for i, prefix := range prefixes {
		require.Equal(t, reference(prefix), ends[i], "%q", prefix)
		// The keys with the prefix are those in [prefix, end).
		for range 20 {
			key := prefix + randomKey(r, 2)
			if r.IntN(2) == 0 {
				key = randomKey(r, 4)
			}
			if len(key) > 1024 || strings.HasPrefix(key, string(utf8.MaxRune)) {
				continue // no key of the store kv
			}
			require.Equal(t, strings.HasPrefix(key, prefix), key >= prefix && key < ends[i], "%q with %q", prefix, key)
		}
	}
	// The largest possible key.
	largest := strings.Repeat("\U0010fffe", 256)
	upsert(t, conn, largest, `{}`, nil)
	require.Equal(t, `{"keys":["`+largest+`"],"count":1}`, kvList(t, conn, false, ``))
	require.Equal(t, `{"keys":["`+largest+`"],"count":1}`, kvList(t, conn, false, `"prefix":"`+largest+`"`))
}

func TestListRefusesBadArguments(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	upsert(t, conn, "a", `{}`, nil)
	for _, path := range []string{"KEY", "size", "key; drop table kv_store", "'; drop table public.kv_store; --", "key desc", "<key>", "$1"} {
		require.Equal(t, `{"keys":["a"],"count":1}`, kvList(t, conn, false, `"sort":[{"path":"`+path+`"}]`), "a path of the value, whatever it is")
	}
	for _, fields := range []string{
		`"limit":-2`, `"offset":-1`, `"sort":[{"path":""}]`, `"sort":[{"path":"createdAt"}],"cursor":{"position":9223372036854775807,"key":"a"}`,
		`"sort":[{"path":"createdAt"}],"cursor":{"position":-9223372036854775808,"key":"a"}`,
	} {
		_, err := conn.Exec(context.Background(), askList, aList(t, fields), false)
		require.Regexp(t, "^(PT400|22.*|2201[WX])$", code(err), "%s: %v", fields, err) // what PostgREST answers with 400
	}
	require.Equal(t, `{"keys":["a"],"count":1,"pagination":{"limit":2147483647,"offset":0,"hasMore":false,"nextCursor":null}}`,
		kvList(t, conn, false, `"limit":2147483647`))
	require.Equal(t, `{"keys":[],"count":0,"pagination":{"limit":null,"offset":2147483647,"hasMore":false,"nextCursor":null}}`,
		kvList(t, conn, false, `"offset":2147483647`))
}

// Pages of index entries with their members, and filters with many parts.
func TestListOfIndexEntriesAndManyFilters(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	var indexes pairs
	var spelled, keys []string
	for i := range 200 {
		indexes = append(indexes, []string{fmt.Sprintf("index%03d", i), "m"})
		spelled = append(spelled, fmt.Sprintf("index%03d:m", i))
		keys = append(keys, fmt.Sprintf("index%03d", i))
	}
	upsert(t, conn, "e", `{}`, indexes)
	var page struct{ Data map[string]json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(kvList(t, conn, true, `"prefix":"index","limit":150`)), &page))
	require.Len(t, page.Data, 150)
	require.Equal(t, `["m"]`, string(page.Data["index149"]))

	for _, n := range []int{5, 20, 200} {
		exec(t, conn, "set statement_timeout = '10s'")
		begin := time.Now()
		require.Equal(t, `{"keys":["e"],"count":1}`, kvList(t, conn, false, byIndex(spelled[:n], keys[:n])))
		took := time.Since(begin)
		t.Logf("%d indexes and %d index keys: %v", n, n, took.Round(time.Millisecond))
		require.Less(t, took, 5*time.Second)
	}
}

func TestTooLargeAnswers(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	const limit, page = 6 << 20, 4_500_000

	value := func(size int) string { return `"` + strings.Repeat("x", size-2) + `"` }
	upsert(t, conn, "one/a", value(limit), nil)
	require.Len(t, get(t, conn, "one/a"), limit)
	upsert(t, conn, "one/a", value(limit+1), nil)
	requireCode(t, "PT413", conn, "select public.kv_get('one/a')")
	requireCode(t, "PT413", conn, askList, aList(t, `"prefix":"one/"`), true)
	requireCode(t, "PT413", conn, askList, aList(t, `"prefix":"one/","limit":1`), true)
	require.Equal(t, `{"keys":["one/a"],"count":1}`, kvList(t, conn, false, `"prefix":"one/"`))

	// SQL counts keys and values. The little around them does not count here; pkg/netlify has the last word.
	for _, size := range []int{limit - 200, limit - 60, limit - 50, limit - 40, limit - 30, limit - 20, limit - 10, limit} {
		upsert(t, conn, "one/a", value(size), nil)
		var answer string
		err := conn.QueryRow(context.Background(), askList, aList(t, `"prefix":"one/"`), true).Scan(&answer)
		if err != nil {
			require.Equal(t, "PT413", code(err))
			require.Greater(t, size, limit-120)
		} else {
			require.LessOrEqual(t, len(answer), limit+64, "value of 6 MB - %d", limit-size)
		}
	}

	// Ten values of a megabyte: the whole is refused, pages end early, and no entry is skipped.
	for i := range 10 {
		upsert(t, conn, fmt.Sprint("ten/", i), value(1<<20), pairs{{"i", "m"}})
	}
	for _, sort := range []string{`"path":"key"`, `"path":"key","descending":true`, `"path":"createdAt"`, `"path":"updatedAt"`} {
		for _, filter := range []string{`"indexes":null`, byIndex([]string{"i:m"}, nil), byIndex(nil, []string{"i"})} {
			fields := `"prefix":"ten/","sort":[{` + sort + `}],` + filter
			requireCode(t, "PT413", conn, askList, aList(t, fields), true)
			var keys []string
			after := `,"limit":100`
			for pages := 0; after != ""; pages++ {
				answer := kvList(t, conn, true, fields+after)
				require.LessOrEqual(t, len(answer), page+2000)
				var parsed struct {
					Keys       []string
					Pagination struct {
						HasMore    bool
						NextCursor *string
					}
				}
				require.NoError(t, json.Unmarshal([]byte(answer), &parsed))
				require.NotEmpty(t, parsed.Keys)
				keys = append(keys, parsed.Keys...)
				after = ""
				if parsed.Pagination.HasMore {
					after = `,"cursor":` + readCursor(t, *parsed.Pagination.NextCursor) // now without a limit
				}
				require.Less(t, pages, 10)
			}
			require.Len(t, keys, 10, fields)
		}
	}

	// Keys alone can be too much, and so can members.
	exec(t, conn, "insert into public.kv_store (key, value) select 'long/' || lpad(i::text, 1000, 'k'), '0' from generate_series(1, 6300) as i")
	requireCode(t, "PT413", conn, askList, aList(t, `"prefix":"long/"`), false)
	require.Contains(t, kvList(t, conn, false, `"prefix":"long/","limit":10000`), `"hasMore":true`)
	upsert(t, conn, "e", `{}`, pairs{{"members", "first"}})
	exec(t, conn, "insert into kv.member (index_key, member) select 'members', lpad(i::text, 100, 'm') from generate_series(1, 62000) as i")
	requireCode(t, "PT413", conn, "select public.kv_get('members')")
	requireCode(t, "PT413", conn, askList, aList(t, `"prefix":"members"`), true)
	requireCode(t, "PT413", conn, askList, aList(t, `"prefix":"members","limit":10`), true)
	exec(t, conn, "delete from kv.member where right(member, 1) <> '0'")
	require.Len(t, members(t, conn, "members"), 6200)
}

// A list of KV_SCHEMA_MEGABYTES is refused at once: sizes are known without reading the values.
func TestManyMegabytesAreRefusedAtOnce(t *testing.T) {
	t.Parallel()
	n := number(t, "KV_SCHEMA_MEGABYTES", 60)
	d := newDatabase(t)
	d.tampered = true // without the triggers, which would take ten times as long, there are no documents
	conn, owner := d.connect(t), d.owner(t)
	exec(t, owner, "set session_replication_role = replica")
	exec(t, owner, `
		insert into public.kv_store (key, value, bytes, indexes, index_pairs, revision)
		select 'big/' || lpad(i::text, 4, '0'), value, octet_length(value::text), '{type:big}', '{{type,big}}', 1
		from (select to_json(repeat('x', 1048574)) as value) as v, generate_series(1, $1::integer) as i`, n)
	exec(t, owner, `
		insert into kv.posting (index_key, member, key)
		select 'type', m, key from public.kv_store, unnest('{big,""}'::text[]) as m`)
	require.Equal(t, n, one[int](t, conn, "select sum(bytes) / 1048576 from public.kv_store"))
	for _, fields := range []string{``, `"prefix":"big/"`, `"sort":[{"path":"key","descending":true}]`, `"sort":[{"path":"updatedAt"}]`,
		`"prefix":"big/","sort":[{"path":"createdAt","descending":true}]`, byIndex([]string{"type:big"}, nil), byIndex(nil, []string{"type"})} {
		begin := time.Now()
		requireCode(t, "PT413", conn, askList, aList(t, fields), true)
		took := time.Since(begin)
		t.Logf("%s: %v", fields, took.Round(100*time.Microsecond))
		require.Less(t, took, 5*time.Second)
	}
}
