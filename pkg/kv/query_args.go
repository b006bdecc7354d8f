package kv

import (
	"encoding/json"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// queryArgs is a [Query] as the kv_query function takes it, with every default filled in.
type queryArgs struct {
	Prefix     string         `json:"prefix"`
	Terms      []termArg      `json:"terms"`
	Filter     any            `json:"filter"` // null, the position of a term from 1 on, or ["and" | "or" | "not", filter, ...]
	Search     *Search        `json:"search"`
	Where      []conditionArg `json:"where"`
	Sort       []sortArg      `json:"sort"`
	Question   string         `json:"question"`
	Select     []fieldArg     `json:"select"`
	Limit      int            `json:"limit"`
	Offset     int            `json:"offset"`
	PageBytes  int            `json:"page_bytes"`
	After      *afterArg      `json:"after"`
	Aggregates []aggregateArg `json:"aggregates"`
	Group      *groupArg      `json:"group"`
}

type (
	termArg struct {
		Pair   *string `json:"spelled,omitempty"`
		Key    *string `json:"key,omitempty"`
		Member *Member `json:"member,omitzero"`
	}
	byArg struct {
		By   string   `json:"by,omitempty"`
		Path []string `json:"path,omitempty"`
	}
	conditionArg struct {
		byArg
		Op    Op              `json:"op"`
		Value json.RawMessage `json:"value"`
	}
	fieldArg struct {
		Name Field    `json:"name"`
		Path []string `json:"path,omitempty"`
	}
	sortArg struct {
		byArg
		Descending bool `json:"desc"`
	}
	afterArg struct {
		Position jsontext.Value `json:"position"`
		Key      string         `json:"key"`
	}
	aggregateArg struct {
		Op string `json:"op"`
		byArg
		Name string `json:"name,omitempty"`
	}
	groupArg struct {
		byArg
		Index *string `json:"index,omitempty"`
	}
)

func segments(p Path) []string { return slices.Collect(jsontext.Pointer(p.Pointer()).Tokens()) }

func by(p Path, path string) byArg {
	if p.isOwn() || p == Relevance {
		return byArg{By: string(p)}
	}
	return byArg{By: path, Path: segments(p)}
}

// args expects a valid query.
func (q Query) args() queryArgs {
	a := queryArgs{Terms: []termArg{}, Question: q.question()}
	q = q.complete()
	a.Prefix, a.Limit, a.PageBytes = q.Prefix, q.Limit, q.PageBytes
	seen := map[string]int{}
	a.Filter = a.combine("and", slices.DeleteFunc([]any{a.filter(q.Indexes, seen), a.filter(q.IndexKeys, seen)}, func(f any) bool { return f == nil }))
	if q.Search != nil {
		a.Search = &q.Search
	}
	for _, c := range q.Where {
		a.Where = append(a.Where, conditionArg{by(c.Path, "path"), c.Op, json.RawMessage(c.Value)})
	}
	for _, key := range q.Sort {
		a.Sort = append(a.Sort, sortArg{by(key.Path, "path"), key.Descending})
	}
	for _, field := range q.Select {
		arg := fieldArg{Name: field}
		if path, ok := field.path(); ok {
			arg.Path = segments(path)
			if path.isOwn() {
				arg.Path = []string{string(path)}
			}
		}
		a.Select = append(a.Select, arg)
	}
	for _, aggregate := range q.Aggregates {
		arg := aggregateArg{Op: aggregate.Op, Name: string(aggregate.Path)}
		if aggregate.Path != "" {
			arg.byArg = by(aggregate.Path, "")
		}
		a.Aggregates = append(a.Aggregates, arg)
	}
	if q.Offset != nil {
		a.Offset = *q.Offset
	}
	if q.After != nil {
		a.After = &afterArg{jsontext.Value(q.After.position()), q.After.Key}
	}
	if index, ok := q.GroupBy.index(); ok {
		a.Group = &groupArg{Index: &index}
	} else if q.GroupBy != "" {
		a.Group = &groupArg{byArg: by(Path(q.GroupBy), "")}
	}
	return a
}

// filter writes a filter as simply as it can be said, and collects its terms.
func (a *queryArgs) filter(f *IndexFilter, seen map[string]int) any {
	if f == nil {
		return nil
	}
	if f.Pair != "" || f.Exact.Key != "" {
		term := termArg{Key: &f.Exact.Key, Member: &f.Exact.Member}
		if f.Pair != "" {
			term = termArg{Pair: &f.Pair}
		}
		if seen[encodeArgs(term)] == 0 {
			a.Terms = append(a.Terms, term)
			seen[encodeArgs(term)] = len(a.Terms)
		}
		return seen[encodeArgs(term)]
	}
	parts := func(filters []IndexFilter) (parts []any) {
		for _, part := range filters {
			parts = append(parts, a.filter(&part, seen))
		}
		return parts
	}
	all := parts(f.All)
	if f.Any != nil {
		all = append(all, a.combine("or", parts(f.Any)))
	}
	if len(f.None) > 0 {
		none := a.combine("or", parts(f.None))
		if inner, ok := none.([]any); ok && inner[0] == "not" {
			all = append(all, inner[1])
		} else {
			all = append(all, []any{"not", none})
		}
	}
	return a.combine("and", all)
}

func (a *queryArgs) combine(op string, filters []any) any {
	combined := []any{op}
	for _, f := range filters {
		parts := []any{f}
		if inner, ok := f.([]any); ok && inner[0] == op {
			parts = inner[1:]
		}
		for _, part := range parts {
			if number, ok := part.(int); !ok || !slices.Contains(combined, any(number)) {
				combined = append(combined, part)
			}
		}
	}
	switch len(combined) {
	case 1:
		return nil
	case 2:
		return combined[1]
	}
	return combined
}
