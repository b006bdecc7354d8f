package kv

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// secretOfTheOther stands in every key, value, member and metadata of the namespace that must stay hidden.
const secretOfTheOther = "hidden-7f3a"

// intruder makes random requests in one namespace with words from another one.
type intruder struct {
	rand    *rand.Rand
	words   []string
	cursors []*Cursor
}

func (i *intruder) word() string {
	word := i.words[i.rand.IntN(len(i.words))]
	if i.rand.IntN(3) == 0 {
		word += i.words[i.rand.IntN(len(i.words))]
	}
	if i.rand.IntN(4) == 0 {
		word = word[:i.rand.IntN(len(word)+1)]
	}
	return strings.ToValidUTF8(word, "")
}

func (i *intruder) after() *Cursor {
	if i.rand.IntN(2) == 0 {
		return nil
	}
	return i.cursors[i.rand.IntN(len(i.cursors))]
}

// query has no valid cursor but by chance: its question is the digest of what is asked.
func (i *intruder) query() Query {
	q := Query{Store: []string{"", "kv", "s", i.word()}[i.rand.IntN(4)], Prefix: i.word()}
	if i.rand.IntN(2) == 0 {
		q.Prefix = ""
	}
	switch i.rand.IntN(6) {
	case 0:
		q.Indexes = &IndexFilter{Any: []IndexFilter{{Pair: i.word() + ":" + i.word()}, {Exact: Index{Key: i.word(), Member: Member(i.word())}}}}
	case 1:
		q.IndexKeys = &IndexFilter{All: []IndexFilter{{Exact: Index{Key: i.word()}}}}
	case 2:
		text, _ := json.Marshal(i.word())
		q.Where = []Condition{{Path: "key", Op: []Op{OpGte, OpLte, OpContains, OpNe, OpEq}[i.rand.IntN(5)], Value: text}}
	case 3:
		q.Aggregates = []Aggregate{{Op: "count"}, {Op: "max", Path: "key"}, {Op: "min", Path: "name"}}
		q.GroupBy = []Grouping{"", Grouping("index:" + i.word()), "key", "name"}[i.rand.IntN(4)]
		return q
	}
	q.Sort = [][]SortKey{nil, {{Path: "key", Descending: true}}, {{Path: "updatedAt"}}, {{Path: "name"}}}[i.rand.IntN(4)]
	if after := i.after(); after != nil {
		moved := *after
		moved.Question = q.question()
		if q.order() == moved.orderOf() {
			q.After = &moved
		}
	}
	return q
}

func (c Cursor) orderOf() order {
	if byKey.has(c.Position) {
		return byKey
	}
	return byTime
}

// request makes one request, and returns all that its response shows.
func (i *intruder) request(ctx context.Context, s *Supabase, c *Cache) (shown string) {
	show := func(all ...any) string { return fmt.Sprintf("%+v", all) }
	fresh := Freshness{MaxAge: new(time.Minute)}
	switch i.rand.IntN(10) {
	case 0:
		r, err := c.Get(ctx, i.word(), Freshness{})
		return show(r.Body, err)
	case 1:
		r, err := c.GetEntry(ctx, []string{"kv", "s", i.word()}[i.rand.IntN(3)], i.word(), fresh)
		return show(r.Body, string(r.Data), r.EntryInfo, CodeOf(err))
	case 2:
		q := ListQuery{Prefix: i.word(), Values: i.rand.IntN(2) == 0}
		if i.rand.IntN(2) == 0 {
			q.Prefix, q.Indexes = "", []string{i.word() + ":" + i.word()}
		}
		r, err := c.List(ctx, q, Freshness{})
		return show(r.Body, CodeOf(err))
	case 3, 4, 5:
		r, err := c.Query(ctx, i.query(), fresh)
		return show(r.Body, CodeOf(err))
	case 6:
		q := EntryQuery{Store: []string{"kv", "s", i.word()}[i.rand.IntN(3)], Prefix: i.word(), Delimiter: []string{"", "/", i.word()}[i.rand.IntN(3)], Metadata: true}
		if after := i.after(); after != nil {
			q.After = &Cursor{Question: q.Question(), Key: after.Key}
		}
		r, err := c.ListEntries(ctx, q, fresh)
		return show(r.Body, CodeOf(err))
	case 7:
		stores, err := c.ListStores(ctx)
		return show(stores, CodeOf(err))
	case 8:
		_, _, err := s.Clear(ctx, []string{"kv", "s"}[i.rand.IntN(2)], i.word(), i.rand.IntN(3))
		return show(CodeOf(err))
	}
	o := Operation{Action: Actions[i.rand.IntN(len(Actions))], Store: []string{"kv", "s"}[i.rand.IntN(2)], Key: i.word(), Data: []byte("{}")}
	if i.rand.IntN(2) == 0 {
		o.Indexes = []Index{{Key: "plain" + i.word(), Member: "m"}}
	}
	result, err := s.Apply(ctx, Batch{Operations: []Operation{o}, Atomic: i.rand.IntN(2) == 0})
	for _, r := range result.Results {
		shown += show(string(r.Data), r.Metadata)
	}
	return shown + show(CodeOf(err))
}

// TestANamespaceShowsNothingOfAnother makes requests in a namespace, with the words, cursors and subspaces of another.
func TestANamespaceShowsNothingOfAnother(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	conn := liveSQL(t)
	ours, theirs := "a"+uuid.NewString()[:8], "b"+uuid.NewString()[:8]
	t.Cleanup(func() {
		for _, namespace := range []string{ours, theirs} {
			_, err := conn.Exec(context.WithoutCancel(ctx), "delete from public.kv_store where starts_with(key, $1)", spaceMark+namespace+"/")
			require.NoError(t, err)
		}
	})
	hidden := LiveStore(t).WithNamespace(theirs)
	var operations []Operation
	for i := range 20 {
		for _, store := range []string{"kv", "s"} {
			operations = append(operations, Operation{Action: ActionPut, Store: store, Key: fmt.Sprint(secretOfTheOther, "/", i), Metadata: `{"m":"` + secretOfTheOther + `"}`,
				Data: []byte(`{"name":"` + secretOfTheOther + `"}`), Indexes: []Index{{Key: secretOfTheOther, Member: Member(secretOfTheOther)}}})
		}
	}
	_, err := hidden.Apply(ctx, Batch{Operations: operations})
	require.NoError(t, err)
	state := func() (digest string) {
		require.NoError(t, conn.QueryRow(ctx, "select md5(string_agg(s::text, ',' order by key)) from public.kv_store as s where starts_with(key, $1)", spaceMark+theirs+"/").Scan(&digest))
		return digest
	}
	before := state()

	store := LiveStore(t).WithNamespace(ours)
	cache := NewCache(store, DefaultCache)
	_, err = store.Apply(ctx, Batch{Operations: []Operation{{Action: ActionPut, Store: "kv", Key: "own", Data: []byte(`{"name":"own"}`)}, {Action: ActionPut, Store: "s", Key: "own", Data: []byte("1")}}})
	require.NoError(t, err)
	i := &intruder{rand: rand.New(rand.NewPCG(seedOf(t), 1)), words: []string{
		"hidden-", "hidden", "own", "/", ":", "..", "../", "a", spaceMark, spaceMark + theirs + "/", spaceMark + theirs + "/kv/", spaceMark + theirs + "/s/", theirs, theirs + "/kv/",
		"\U0010fffe", "%", "_", "\\", "'", `"`, "$1", "~", "\x01",
	}}
	for _, key := range []string{"hidden-", "\x01", spaceMark + theirs + "/", spaceMark + theirs + "/kv/hidden-", "zzz"} {
		i.cursors = append(i.cursors, &Cursor{Key: key}, &Cursor{Key: key, Position: []byte("0")})
	}
	for n := range setting(t, "NAMESPACE_TEST_REQUESTS", 500) {
		shown := i.request(ctx, store, cache)
		require.NotContains(t, shown, secretOfTheOther, "request %d shows an entry of another namespace", n)
		require.NotContains(t, shown, string(CodeInternal), "request %d", n)
	}
	require.Equal(t, before, state(), "a request changed another namespace")
	stores, err := LiveStore(t).ListStores(ctx)
	require.NoError(t, err)
	for _, s := range stores {
		require.NotContains(t, s.Store, ours, "the stores without a namespace")
	}
}
