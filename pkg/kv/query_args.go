package kv

import (
	"encoding/json"
	"slices"
)

// queryArgs is a [Query] as the kv_query function takes it, with every default filled in.
type queryArgs struct {
	question
	Question   string         `json:"question"` // for the cursor: the digest of the above
	Select     []fieldArg     `json:"select"`
	Limit      int            `json:"limit"`
	Offset     int            `json:"offset"`
	PageBytes  int            `json:"page_bytes"`
	After      *afterArg      `json:"after"`
	Aggregates []aggregateArg `json:"aggregates"`
	Group      *groupArg      `json:"group"`
}

// question is what a query asks, wherever its page begins and whatever is shown of it.
type question struct {
	Prefix string         `json:"prefix"`
	Terms  []termArg      `json:"terms"`
	Filter any            `json:"filter"` // null, the position of a term from 1 on, or ["and" | "or" | "not", filter, ...]
	Search Search         `json:"search"`
	Where  []conditionArg `json:"where"`
	Sort   []sortArg      `json:"sort"`
}

type (
	termArg struct {
		Spelled *string `json:"spelled,omitempty"`
		Key     *string `json:"key,omitempty"`
		Member  *Member `json:"member,omitempty"`
	}
	conditionArg struct {
		By    string          `json:"by"`
		Path  Path            `json:"path,omitempty"`
		Op    Op              `json:"op"`
		Value json.RawMessage `json:"value"`
	}
	fieldArg struct {
		Name string `json:"name"`
		Path Path   `json:"path,omitempty"`
	}
	sortArg struct {
		By         string `json:"by"`
		Path       Path   `json:"path,omitempty"`
		Descending bool   `json:"desc"`
	}
	afterArg struct {
		Position json.RawMessage `json:"position"`
		Key      string          `json:"key"`
	}
	aggregateArg struct {
		Op   string `json:"op"`
		By   string `json:"by,omitempty"`
		Path Path   `json:"path,omitempty"`
		Name string `json:"name,omitempty"`
	}
	groupArg struct {
		By    string  `json:"by,omitempty"`
		Path  Path    `json:"path,omitempty"`
		Index *string `json:"index,omitempty"`
	}
)

// question expects valid filters and a valid sort.
func (q Query) question() question {
	a := question{Prefix: q.Prefix, Terms: []termArg{}, Search: q.Search, Where: []conditionArg{}, Sort: sortArgs(q.Sort)}
	if q.Indexes != nil {
		a.Filter = a.filter(*q.Indexes, map[termKey]int{})
	}
	for _, c := range q.Where {
		a.Where = append(a.Where, c.arg())
	}
	return a
}

// args expects a valid query.
func (q Query) args() queryArgs {
	a := queryArgs{question: q.question(), Limit: q.Limit, Offset: q.Offset, PageBytes: q.PageBytes, Aggregates: []aggregateArg{}}
	a.Question = digest(a.question)
	for _, field := range q.Select {
		a.Select = append(a.Select, fieldArg(field))
	}
	if q.Select == nil {
		for _, name := range EntryFields {
			a.Select = append(a.Select, fieldArg{Name: name})
		}
	}
	for _, aggregate := range q.Aggregates {
		a.Aggregates = append(a.Aggregates, aggregateArg(aggregate))
	}
	switch {
	case a.Limit == 0 && len(q.Aggregates) > 0:
		a.Limit = MaxGroups
	case a.Limit == 0:
		a.Limit = DefaultQueryLimit
	}
	if a.PageBytes == 0 {
		a.PageBytes = MaxPageBytes
	}
	if q.After != nil {
		a.After = &afterArg{json.RawMessage(q.After.Position), q.After.Key}
	}
	switch {
	case q.GroupBy == nil:
	case q.GroupBy.By != "" || q.GroupBy.Path != nil:
		a.Group = &groupArg{By: q.GroupBy.By, Path: q.GroupBy.Path}
	default:
		a.Group = &groupArg{Index: &q.GroupBy.Index}
	}
	return a
}

// sortArgs ends with the first key: no two entries have the same one, so that nothing is left to sort.
func sortArgs(keys []SortKey) []sortArg {
	if len(keys) == 0 {
		return []sortArg{{By: "key"}}
	}
	var args []sortArg
	for _, key := range keys {
		arg := sortArg(key)
		if key.By == "" {
			arg.By = "path"
		}
		args = append(args, arg)
		if key.By == "key" {
			break
		}
	}
	return args
}

type termKey struct {
	spelled string
	exact   Index
}

// filter writes a filter as simply as it can be said, and collects its terms.
func (a *question) filter(f IndexFilter, seen map[termKey]int) any {
	switch {
	case f.Not != nil:
		part := a.filter(*f.Not, seen)
		if inner, ok := part.([]any); ok && inner[0] == "not" {
			return inner[1]
		}
		return []any{"not", part}
	case f.All != nil:
		return a.combine("and", f.All, seen)
	case f.Any != nil:
		return a.combine("or", f.Any, seen)
	}
	term := termKey{f.Spelled, f.Exact}
	if seen[term] == 0 {
		if f.Spelled != "" {
			a.Terms = append(a.Terms, termArg{Spelled: &f.Spelled})
		} else {
			a.Terms = append(a.Terms, termArg{Key: &f.Exact.Key, Member: &f.Exact.Member})
		}
		seen[term] = len(a.Terms)
	}
	return seen[term]
}

func (a *question) combine(op string, filters []IndexFilter, seen map[termKey]int) any {
	combined := []any{op}
	for _, f := range filters {
		parts := []any{a.filter(f, seen)}
		if inner, ok := parts[0].([]any); ok && inner[0] == op {
			parts = inner[1:]
		}
		for _, part := range parts {
			if number, ok := part.(int); !ok || !slices.Contains(combined, any(number)) {
				combined = append(combined, part)
			}
		}
	}
	if len(combined) == 2 {
		return combined[1]
	}
	return combined
}
