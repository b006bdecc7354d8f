package kv

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// spaceMark begins the keys of every store but [DefaultStore] without a namespace. It is the last character of Unicode,
// so these keys follow all others, and it stands for no text: callers lose nothing that cannot begin a key with it.
const spaceMark = "\U0010ffff"

// space is the prefix that the keys of a store have in the database, whose function kv.space_of finds it in a key. In
// answers the keys are without it. So nothing beside the edges of this package and of the SQL functions knows of stores:
// the change feed, caches, postings and cursors go by keys.
func space(namespace, store string) string {
	if namespace == "" && store == DefaultStore {
		return ""
	}
	return spaceMark + namespace + "/" + store + "/"
}

// ValidateStore checks a store's name: 1 to [MaxStoreBytes] bytes of UTF-8 without slashes and control characters.
// Otherwise it is [CodeInvalidInput].
func ValidateStore(name string) error {
	if name == "" {
		return Invalid("the store must have a name")
	}
	return validateSpaceName("the store's name", name)
}

// ValidateNamespace checks a namespace, which may be empty and else is like a store's name.
func ValidateNamespace(name string) error { return validateSpaceName("KV_NAMESPACE", name) }

func validateSpaceName(what, name string) error {
	switch {
	case len(name) > MaxStoreBytes:
		return Invalid("%s must be at most %d bytes, got %d", what, MaxStoreBytes, len(name))
	case !utf8.ValidString(name):
		return Invalid("%s must be valid UTF-8", what)
	case strings.ContainsRune(name, '/') || strings.ContainsFunc(name, unicode.IsControl) || strings.Contains(name, spaceMark):
		return Invalid("%s must not contain slashes or control characters", what)
	}
	return nil
}

// spacePrefix is the prefix of the keys in the space that have the prefix. No key of the default space begins with
// [spaceMark]: the prefix that stands for such a one has no keys.
func spacePrefix(space, prefix string) string {
	if space == "" && strings.HasPrefix(prefix, spaceMark) {
		return spaceMark
	}
	return space + prefix
}

// spacePairs puts index keys into the space.
func spacePairs(space string, indexes []Index) [][2]string {
	pairs := Pairs(indexes)
	for i := range pairs {
		pairs[i][0] = space + pairs[i][0]
	}
	return pairs
}

// in returns a complete query with all keys in the space.
func (q Query) in(space string) Query {
	q.Prefix = spacePrefix(space, q.Prefix)
	if space == "" {
		return q
	}
	if q.After != nil {
		after := *q.After
		after.Key = space + after.Key
		q.After = &after
	}
	q.Indexes, q.IndexKeys = q.Indexes.in(space), q.IndexKeys.in(space)
	if key, ok := q.GroupBy.index(); ok {
		q.GroupBy = Grouping("index:" + space + key)
	}
	q.Where = slices.Clone(q.Where)
	for i, c := range q.Where {
		q.Where[i] = c.in(space)
	}
	return q
}

func (f *IndexFilter) in(space string) *IndexFilter {
	if f == nil {
		return nil
	}
	moved := IndexFilter{Pair: f.Pair, Exact: f.Exact}
	for to, from := range map[*[]IndexFilter][]IndexFilter{&moved.All: f.All, &moved.Any: f.Any, &moved.None: f.None} {
		for i := range from {
			*to = append(*to, *from[i].in(space))
		}
	}
	if f.Pair != "" {
		moved.Pair = space + f.Pair
	}
	if f.Exact.Key != "" {
		moved.Exact.Key = space + f.Exact.Key
	}
	return &moved
}

// in returns a complete condition. One that looks for a part of the key looks at the key without the space.
func (c Condition) in(space string) Condition {
	if c.Path != "key" || c.Op == OpExists || c.Op == OpContains {
		return c
	}
	values, _ := c.values()
	moved := make([]string, len(values))
	for i, value := range values {
		text, _ := Unquote(value)
		moved[i] = space + text
	}
	if c.Op == OpIn {
		c.Value = jsontext.Value(encodeArgs(moved))
	} else {
		c.Value = jsontext.Value(encodeArgs(moved[0]))
	}
	return c
}
