package kv

import (
	"slices"
)

// ListQuery selects entries. The zero value lists every key in byte order.
type ListQuery struct {
	// Prefix is literal: no character in it means anything else.
	Prefix string
	// Values asks for the values beside the keys.
	Values bool
	// Limit, 1 to [MaxLimit], Offset or After make the answer a page. Without Limit everything that fits is listed.
	Limit  *int
	Offset *int
	After  *Cursor
	// Sort is by one of [OwnFields], and by key where it is zero. Ties go by key in the same direction.
	Sort SortKey
	// Indexes are "<key>:<member>" texts, which match every pair that is written so; IndexKeys match any member.
	// An entry must match all of them.
	Indexes   []string
	IndexKeys []string
}

// ByKey reports whether the list is in the order of the keys.
func (q ListQuery) ByKey() bool { return q.Sort.order() == byKey }

// Question is the digest of what is asked, wherever the page begins and whatever is shown of it: the [Cursor.Question] of its
// cursors, which no [Query] takes. Filters that are named twice or in another order are the same.
func (q ListQuery) Question() string { return digest([]string{"list", q.query().question()}) }

// query is the query that finds the entries. Its Limit is 0 where the list has none.
func (q ListQuery) query() Query {
	query := Query{Prefix: q.Prefix, Sort: []SortKey{q.Sort}, Offset: q.Offset, After: q.After}
	if q.Sort.Path == "" {
		query.Sort[0].Path = "key"
	}
	if q.Limit != nil {
		query.Limit = *q.Limit
	}
	if len(q.Indexes) > 0 {
		query.Indexes = &IndexFilter{}
		for _, pair := range slices.Compact(slices.Sorted(slices.Values(q.Indexes))) {
			query.Indexes.All = append(query.Indexes.All, IndexFilter{Pair: pair})
		}
	}
	if len(q.IndexKeys) > 0 {
		query.IndexKeys = &IndexFilter{}
		for _, key := range slices.Compact(slices.Sorted(slices.Values(q.IndexKeys))) {
			query.IndexKeys.All = append(query.IndexKeys.All, IndexFilter{Exact: Index{Key: key}})
		}
	}
	return query
}

// Validate checks a query against the limits, and that its cursor belongs to it.
func (q ListQuery) Validate() error {
	if err := validateText("prefix", q.Prefix); err != nil {
		return err
	}
	switch {
	case q.Limit != nil && (*q.Limit < 1 || *q.Limit > MaxLimit):
		return Invalid("limit must be 1 to %d, got %d", MaxLimit, *q.Limit)
	case q.Sort.Path != "" && !q.Sort.Path.isOwn():
		return Invalid("a list is sorted by one of %s, got %s", join(OwnFields), quote(string(q.Sort.Path)))
	case len(q.Indexes)+len(q.IndexKeys) > MaxFilters:
		return Invalid("index and indexKey may be given %d times together, got %d", MaxFilters, len(q.Indexes)+len(q.IndexKeys))
	}
	if err := validateOffset(q.Offset, q.After); err != nil {
		return err
	}
	for _, pair := range q.Indexes {
		if err := validatePair("index", pair); err != nil {
			return err
		}
	}
	for _, key := range q.IndexKeys {
		if err := validateFilter("indexKey", key); err != nil {
			return err
		}
	}
	if n := candidatePairs(q.Indexes); n > MaxCandidatePairs {
		return Invalid("index may be read as %d pairs of key and member together, got %d, one for each colon; kv-query takes exact pairs", MaxCandidatePairs, n)
	}
	if q.After == nil {
		return nil
	}
	return q.After.validate(q.Question(), q.Sort.order())
}
