package kv

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Query selects entries by all of its filters, or aggregates them. The zero value selects the first entries by key.
//
// Its JSON is what the database's functions take, with every default filled in (complete).
type Query struct {
	// Store is a store of the namespace; "" stands for [DefaultStore].
	Store string `json:"store,omitzero"`
	// Prefix is literal: no character in it means anything else.
	Prefix string `json:"prefix"`
	// Indexes and IndexKeys are nil where nothing is asked of the indexes. They differ in what errors call them.
	Indexes   *IndexFilter `json:"indexes"`
	IndexKeys *IndexFilter `json:"indexKeys"`
	// Search is nil where no text is searched for.
	Search Search      `json:"search"`
	Where  []Condition `json:"where"`
	// Sort is by key where it is empty.
	Sort []SortKey `json:"sort"`

	// Select names what a result has, in order; nil: every one of [EntryFields].
	Select []Field `json:"select"`
	// Limit is 1 to [MaxLimit]; 0 stands for the default.
	Limit int `json:"limit"`
	// Offset cannot be combined with After.
	Offset *int    `json:"offset"`
	After  *Cursor `json:"cursor"`
	// PageBytes is where a page ends early: 1 to [MaxPageBytes]; 0 stands for the latter.
	PageBytes int `json:"pageBytes"`

	// Aggregates are asked for instead of entries where there are any; then Limit bounds the groups.
	Aggregates []Aggregate `json:"aggregate"`
	GroupBy    Grouping    `json:"groupBy"`
}

// Field is something that a result can have: one of [EntryFields], or "value." and a [Path] of the value.
type Field string

// EntryFields are the fields of an entry.
var EntryFields = []Field{"key", "value", "indexes", "createdAt", "updatedAt"}

// path is the path of a field of the value.
func (f Field) path() (p Path, ok bool) {
	path, ok := strings.CutPrefix(string(f), "value.")
	return Path(path), ok
}

// SortKey is something to sort by. Path may also be [Relevance].
type SortKey struct {
	Path       Path `json:"path"`
	Descending bool `json:"descending"`
}

// Relevance sorts by how well entries match a search, the best first. A value's own field of that name needs a pointer.
const Relevance Path = "relevance"

// Aggregate computes one value of many entries.
type Aggregate struct {
	// Op is one of [AggregateOps]. Only count needs no path.
	Op   string `json:"op"`
	Path Path   `json:"path,omitzero"`
}

// AggregateOps are the values that Aggregate.Op can have.
var AggregateOps = []string{"count", "sum", "avg", "min", "max", "distinct"}

// Grouping tells entries apart for aggregates: a [Path], or "index:" and the key of an index, by whose members it groups.
type Grouping string

func (g Grouping) index() (key string, ok bool) { return strings.CutPrefix(string(g), "index:") }

// question is the digest of what is asked, wherever the page begins and whatever is shown of it: the [Cursor.Question] of the
// query's cursors. It expects valid filters and a valid sort.
func (q Query) question() string {
	q = q.complete()
	return digest(Query{Store: q.Store, Prefix: q.Prefix, Indexes: q.Indexes, IndexKeys: q.IndexKeys, Search: q.Search, Where: q.Where, Sort: q.Sort})
}

// complete fills in every default of a valid query, and gives what it asks its one spelling.
func (q Query) complete() Query {
	if q.Store == DefaultStore {
		q.Store = ""
	}
	where := make([]Condition, len(q.Where))
	for i, c := range q.Where {
		where[i] = c.complete()
	}
	q.Where = where

	sort := []SortKey{}
	for _, key := range q.Sort {
		if key.Path != Relevance {
			key.Path = key.Path.Pointer()
		}
		sort = append(sort, key)
		if key.Path == "key" {
			break // no two entries have the same one: nothing is left to sort
		}
	}
	if len(sort) == 0 {
		sort = []SortKey{{Path: "key"}}
	}
	q.Sort = sort

	if q.Select == nil {
		q.Select = EntryFields
	}
	if len(q.Aggregates) > 0 {
		q.Limit = cmp.Or(q.Limit, MaxGroups)
	}
	q.Limit = cmp.Or(q.Limit, DefaultQueryLimit)
	q.PageBytes = cmp.Or(q.PageBytes, MaxPageBytes)
	return q
}

// order is the kind of the query's order.
func (q Query) order() order {
	switch {
	case len(q.Sort) == 0:
		return byKey
	case len(q.Sort) > 1 && q.Sort[0].Path != "key":
		return byNothing
	}
	return q.Sort[0].order()
}

// Validate checks a query against the limits, and that its parts go together.
func (q Query) Validate() error {
	for _, check := range []func() error{q.validateFilters, q.validateSort, q.validatePage, q.validateAggregates, q.validateCursor} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (q Query) validateFilters() error {
	if q.Store != "" {
		if err := ValidateStore(q.Store); err != nil {
			return err
		}
	}
	if err := validateText("prefix", q.Prefix); err != nil {
		return err
	}
	if len(q.Prefix) > MaxKeyBytes {
		return Invalid("prefix must be at most %d bytes, got %d: no key is longer", MaxKeyBytes, len(q.Prefix))
	}
	if err := validateIndexFilters(q.Indexes, q.IndexKeys); err != nil {
		return err
	}
	if err := q.Search.validate(); err != nil {
		return err
	}
	if len(q.Where) > MaxConditions {
		return Invalid("where must have at most %d conditions, got %d", MaxConditions, len(q.Where))
	}
	for i, c := range q.Where {
		if err := c.validate(); err != nil {
			return Invalid("where[%d].%v", i, err)
		}
	}
	return nil
}

func (q Query) validateSort() error {
	if len(q.Sort) > MaxSort {
		return Invalid("sort must have at most %d elements, got %d", MaxSort, len(q.Sort))
	}
	for i, key := range q.Sort {
		err := key.Path.Validate()
		switch {
		case err != nil:
			return Invalid("sort[%d]: %v", i, err)
		case key.Path == Relevance && len(q.Sort) > 1:
			return Invalid("sort[%d]: relevance cannot be combined with another order", i)
		case key.Path == Relevance && q.Search == nil:
			return Invalid("sort[%d]: relevance needs a search", i)
		}
	}
	return nil
}

func (q Query) validatePage() error {
	switch {
	case q.Limit < 0 || q.Limit > MaxLimit:
		return Invalid("limit must be 1 to %d, got %d", MaxLimit, q.Limit)
	case q.After != nil && q.order() == byNothing:
		return Invalid("cursor cannot be combined with this sort: go on with offset")
	case q.PageBytes < 0 || q.PageBytes > MaxPageBytes:
		return Invalid("a page must be 1 to %d bytes, got %d", MaxPageBytes, q.PageBytes)
	case len(q.Select) > MaxSelect:
		return Invalid("select must have at most %d fields, got %d", MaxSelect, len(q.Select))
	case q.Select != nil && len(q.Select) == 0:
		return Invalid("select must name at least one of %s, value.<path>", join(EntryFields))
	}
	if err := validateOffset(q.Offset, q.After); err != nil {
		return err
	}
	for i, field := range q.Select {
		if path, ok := field.path(); ok {
			if err := path.Validate(); err != nil {
				return Invalid("select[%d]: %v", i, err)
			}
		} else if !slices.Contains(EntryFields, field) {
			return Invalid("select[%d]: must be value.<path> or one of %s, got %s", i, join(EntryFields), quote(string(field)))
		}
	}
	return nil
}

// validateOffset checks where a page begins.
func validateOffset(offset *int, after *Cursor) error {
	switch {
	case offset != nil && *offset < 0:
		return Invalid("offset must be 0 or more, got %d", *offset)
	case offset != nil && after != nil:
		return Invalid("offset cannot be combined with cursor: a cursor says already where to go on")
	}
	return nil
}

// validateCursor comes last: what a cursor belongs to can be told of a valid query.
func (q Query) validateCursor() error {
	if q.After == nil {
		return nil
	}
	return q.After.validate(q.question(), q.order())
}

func (q Query) validateAggregates() error {
	switch {
	case len(q.Aggregates) > MaxAggregates:
		return Invalid("aggregate must have at most %d elements, got %d", MaxAggregates, len(q.Aggregates))
	case q.Aggregates != nil && len(q.Aggregates) == 0:
		return Invalid(`aggregate must have an element, as in [{"op":"count"}]`)
	case q.GroupBy != "" && len(q.Aggregates) == 0:
		return Invalid(`groupBy needs aggregate, as in [{"op":"count"}]`)
	case len(q.Aggregates) == 0:
		return nil
	case len(q.Sort) > 0 || q.Select != nil || q.After != nil || q.Offset != nil:
		return Invalid("sort, select, cursor and offset cannot be combined with aggregate")
	case q.Limit > 0 && q.GroupBy == "":
		return Invalid("limit bounds the groups of an aggregate: it needs groupBy")
	}
	if err := q.GroupBy.validate(); err != nil {
		return err
	}
	for i, a := range q.Aggregates {
		if err := a.validate(); err != nil {
			return Invalid("aggregate[%d].%v", i, err)
		}
	}
	return nil
}

func (g Grouping) validate() error {
	index, isIndex := g.index()
	switch {
	case g == "":
		return nil
	case isIndex && index == "":
		return Invalid("groupBy must name an index after index:")
	case isIndex:
		return validateFilter("groupBy", index)
	}
	if err := Path(g).Validate(); err != nil {
		return Invalid("groupBy: %v", err)
	}
	return nil
}

// validate returns an error that begins with the name of a field: the caller knows which of many aggregates it is about.
func (a Aggregate) validate() error {
	numeric := a.Op == "sum" || a.Op == "avg"
	switch {
	case !slices.Contains(AggregateOps, a.Op):
		return fmt.Errorf("op must be one of %s, got %s", join(AggregateOps), quote(a.Op))
	case a.Path == "" && a.Op == "count":
		return nil
	case a.Path == "":
		return fmt.Errorf("path is needed for %s", a.Op)
	case a.Path.isOwn() && numeric:
		return fmt.Errorf("path must lead to numbers for %s, and %s does not", a.Op, a.Path)
	}
	if err := a.Path.Validate(); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	return nil
}
