package kv

import (
	"slices"
)

// ListQuery selects entries. The zero value lists every key in byte order.
type ListQuery struct {
	// Prefix is literal: no character in it means anything else.
	Prefix string `json:"prefix"`
	// Values asks for the values beside the keys.
	Values bool `json:"values"`
	// Limit, 1 to [MaxLimit], Offset or After make the answer a page. Without Limit everything that fits is listed.
	Limit  *int    `json:"limit"`
	Offset *int    `json:"offset"`
	After  *Cursor `json:"cursor"`
	// Sort is by one of [OwnFields], and by key where it is zero. Ties go by key in the same direction.
	Sort SortKey `json:"sort"`
	// Indexes are "<key>:<member>" texts, which match every pair that is written so; IndexKeys match any member.
	// An entry must match all of them.
	Indexes   []string `json:"indexes"`
	IndexKeys []string `json:"indexKeys"`
}

// ByKey tells whether the list is in the order of the keys.
func (q ListQuery) ByKey() bool { return q.Sort.order() == byKey }

// Question is the digest of what is asked, wherever the page begins and whatever is shown of it: the [Cursor.Question] of its
// cursors.
func (q ListQuery) Question() string {
	q = q.complete()
	return digest(ListQuery{Prefix: q.Prefix, Sort: q.Sort, Indexes: q.Indexes, IndexKeys: q.IndexKeys})
}

// complete fills in the default order, and gives what is asked its one spelling: filters that are named twice or in another
// order are the same.
func (q ListQuery) complete() ListQuery {
	if q.Sort.Path == "" {
		q.Sort.Path = "key"
	}
	q.Indexes = slices.Compact(slices.Sorted(slices.Values(q.Indexes)))
	q.IndexKeys = slices.Compact(slices.Sorted(slices.Values(q.IndexKeys)))
	return q
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
