package kvtest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// RunModel applies the same random operations to every store and to a model in memory, and compares all of them after
// every step. A seed repeats a run.
func RunModel(t *testing.T, stores map[string]kv.Store, seed uint64, steps int) {
	random := rand.New(rand.NewPCG(seed, 3)) // #nosec G404 -- repeatable by its seed
	prefix := "model/" + uuid.NewString() + "/"
	m := model{prefix: prefix, values: map[string]string{}, indexes: map[string][]kv.Index{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with seed %d", seed)
		}
		for _, store := range stores {
			for _, key := range m.names {
				_, _ = store.Delete(context.WithoutCancel(t.Context()), key)
			}
		}
	})
	for range 12 {
		m.names = append(m.names, prefix+[]string{"a", "b/", "é", "x"}[random.IntN(4)]+fmt.Sprint(random.IntN(20)))
	}
	for step := range steps {
		op := m.randomOperation(random)
		want := m.apply(op)
		for name, store := range stores {
			require.Equal(t, want, op.run(t, store), "step %d, %s: %+v", step, name, op)
			m.compare(t, random, store, fmt.Sprintf("step %d, %s: %+v", step, name, op))
		}
	}
}

// operation is an upsert or a delete.
type operation struct {
	delete bool
	entry  kv.Entry
}

func (o operation) run(t *testing.T, store kv.Store) (existed bool) {
	t.Helper()
	if o.delete {
		written, err := store.Delete(t.Context(), o.entry.Key)
		require.NoError(t, err)
		return written.Existed
	}
	_, err := store.Upsert(t.Context(), o.entry)
	require.NoError(t, err)
	return false
}

// model is a store in memory. An index entry is an entry whose value may have grown.
type model struct {
	prefix  string
	names   []string
	values  map[string]string
	indexes map[string][]kv.Index
}

func (m *model) randomOperation(random *rand.Rand) operation {
	name := func() string { return m.names[random.IntN(len(m.names))] }
	op := operation{entry: kv.Entry{Key: name()}}
	if random.IntN(5) == 0 {
		op.delete = true
		return op
	}
	op.entry.Value = []string{`{"n":1.0}`, `[]`, `null`, `{"b":1,"a":"\u0000"}`, `["m1","z"]`, `["m1",1,5.0,"5"]`, `{"d":[1,{"e":"é"}]}`}[random.IntN(7)]
	switch random.IntN(4) {
	case 0: // absent
	case 1:
		op.entry.Indexes = []kv.Index{}
	default:
		for range 1 + random.IntN(3) {
			if index := name(); index != op.entry.Key {
				op.entry.Indexes = append(op.entry.Indexes, kv.Index{Key: index, Member: members[random.IntN(len(members))]})
			}
		}
	}
	return op
}

func (m *model) apply(op operation) (existed bool) {
	key := op.entry.Key
	if op.delete {
		_, existed = m.values[key]
		delete(m.values, key)
		delete(m.indexes, key)
		return existed
	}
	m.values[key] = op.entry.Value
	if op.entry.Indexes != nil {
		m.indexes[key] = op.entry.Indexes
	}
	for _, index := range op.entry.Indexes {
		m.values[index.Key] = withMember(m.values[index.Key], string(index.Member.AppendJSON(nil)))
	}
	return false
}

// members are the model's: numbers, strings with the same text, and one that begins with the mark of a number.
var members = []kv.Member{"m1", "m2", "5", "5.0", kv.NumberMember("5"), kv.NumberMember("5.0"), kv.NumberMember("1e2"), kv.TextMember("\x015")}

// withMember returns the JSON value of an index entry after a member was added. Any other value becomes an array.
func withMember(value, member string) string {
	var elements []json.RawMessage
	if json.Unmarshal([]byte(value), &elements) != nil {
		elements = nil
	}
	if !slices.ContainsFunc(elements, func(element json.RawMessage) bool { return string(element) == member }) {
		elements = append(elements, json.RawMessage(member))
	}
	texts := make([]string, len(elements))
	for i, element := range elements {
		texts[i] = string(element)
	}
	return "[" + strings.Join(texts, ",") + "]"
}

// compare compares everything that a store returns with the model.
func (m *model) compare(t *testing.T, random *rand.Rand, store kv.Store, when string) {
	t.Helper()
	for _, key := range m.names {
		value, err := store.Get(t.Context(), key)
		want, there := m.values[key]
		if !there {
			require.Equal(t, kv.CodeNotFound, kv.CodeOf(err), "%s: get %q", when, key)
			continue
		}
		require.NoError(t, err, "%s: get %q", when, key)
		require.Equal(t, want, value, "%s: get %q", when, key)
	}
	q := kv.ListQuery{Prefix: m.prefix, Values: random.IntN(2) == 0}
	switch random.IntN(4) {
	case 0:
		q.Prefix += "b"
	case 1:
		q.Indexes = []string{m.names[random.IntN(len(m.names))] + ":" + members[random.IntN(len(members))].Text()}
	case 2:
		q.IndexKeys = []string{m.names[random.IntN(len(m.names))]}
	}
	answer, err := store.List(t.Context(), q)
	require.NoError(t, err, when)
	require.Equal(t, m.list(q), answer, "%s: list %+v", when, q)
}

func (m *model) list(q kv.ListQuery) string {
	var keys, data []string
	for _, key := range slices.Sorted(maps.Keys(m.values)) {
		if strings.HasPrefix(key, q.Prefix) && m.matches(key, q) {
			quoted := string(kv.AppendString(nil, key))
			keys, data = append(keys, quoted), append(data, quoted+":"+m.values[key])
		}
	}
	text := fmt.Sprintf(`{"keys":[%s],"count":%d`, strings.Join(keys, ","), len(keys))
	if q.Values {
		text += `,"data":{` + strings.Join(data, ",") + `}`
	}
	return text + "}"
}

func (m *model) matches(key string, q kv.ListQuery) bool {
	for _, spelled := range q.Indexes {
		if !slices.ContainsFunc(m.indexes[key], func(index kv.Index) bool { return index.String() == spelled }) {
			return false
		}
	}
	for _, indexKey := range q.IndexKeys {
		if !slices.ContainsFunc(m.indexes[key], func(index kv.Index) bool { return index.Key == indexKey }) {
			return false
		}
	}
	return true
}
