package kv

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits of a [Query]. Beyond them a [*Error] with [CodeInvalidInput] is returned that names the part of the query.
const (
	// MaxQueryLimit bounds [Query.Limit] of an answer that is read as JSON, MaxLimit that of an export.
	MaxQueryLimit = 1000
	// DefaultQueryLimit is the limit of a query that sets none.
	DefaultQueryLimit = 100
	// MaxGroups bounds the groups of an aggregate.
	MaxGroups = 10000
	// MaxConditions bounds [Query.Where].
	MaxConditions = 100
	// MaxGroupDepth bounds the nesting of index groups.
	MaxGroupDepth = 10
	// MaxSearchBytes and MaxSearchTerms bound [Query.Search].
	MaxSearchBytes = 2000
	MaxSearchTerms = 100
	// MaxInValues bounds the values of an [OpIn].
	MaxInValues = 1000
	// MaxSelect, MaxSort and MaxAggregates bound what is asked for.
	MaxSelect     = 100
	MaxSort       = 10
	MaxAggregates = 20
	// MaxPathBytes and MaxPathSegments bound a [Path].
	MaxPathBytes    = 1024
	MaxPathSegments = 100
	// MaxPageBytes is what fits into a response however it is encoded (kv.page_limit).
	MaxPageBytes = 4_500_000
	// MaxNumberDigits bounds the digits a number may have before and after the point, when written without an exponent.
	// Postgres's numeric ends at 16,383 digits after the point.
	MaxNumberDigits = 16000
)

// Query selects entries by all of its filters, or aggregates them. The zero value selects the first entries by key.
type Query struct {
	// Prefix is literal: no character in it means anything else.
	Prefix string
	// Indexes is nil where nothing is asked of the indexes.
	Indexes *IndexFilter
	// Search is nil where no text is searched for.
	Search Search
	Where  []Condition

	// Select names what a result has, in order; nil: every [EntryField].
	Select []Field
	// Sort is by key where it is empty.
	Sort []SortKey
	// Limit is 1 to [MaxLimit]; 0 stands for the default.
	Limit int
	// Offset cannot be combined with After.
	Offset int
	After  *Cursor
	// PageBytes is where a page ends early: 1 to [MaxPageBytes]; 0 stands for the latter.
	PageBytes int

	// Aggregates are asked for instead of entries where there are any; then Limit bounds the groups.
	Aggregates []Aggregate
	GroupBy    *Grouping
}

// IndexFilter is a node of a boolean expression over indexes: All, Any or Not, which have parts, else a leaf.
type IndexFilter struct {
	// All holds when each of its parts does, Any when one does, Not when its part does not.
	All []IndexFilter
	Any []IndexFilter
	Not *IndexFilter

	// Spelled is "<key>:<member>", matching whichever pair spells it. Without it, Exact matches one pair, or with an
	// empty Member any member of the index.
	Spelled string
	Exact   Index
}

// Op compares what is at a path with a value.
type Op string

// The comparisons of a [Condition].
const (
	OpEq       Op = "eq"
	OpNe       Op = "ne"
	OpGt       Op = "gt"
	OpGte      Op = "gte"
	OpLt       Op = "lt"
	OpLte      Op = "lte"
	OpIn       Op = "in"
	OpExists   Op = "exists"
	OpContains Op = "contains"
)

// Ops are all comparisons.
var Ops = []Op{OpEq, OpNe, OpGt, OpGte, OpLt, OpLte, OpIn, OpExists, OpContains}

// Condition compares a part of the value, or something of the entry's own.
type Condition struct {
	// By is one of [OwnFields], or "" for Path.
	By   string
	Path Path
	Op   Op
	// Value is JSON text that jsonb can hold: a number or a string for the orders, an array for in, a boolean for exists. For one
	// of [OwnFields] it is a string, or an array of strings for in; the times are compared in milliseconds, as answers show them.
	Value string
}

// OwnFields are what an entry can be found, sorted and aggregated by besides paths of its value.
var OwnFields = []string{"key", "createdAt", "updatedAt"}

// Field is something a result can have: a field of the entry, or what a path of its value leads to.
type Field struct {
	// Name is how the result calls it: one of [EntryFields], or "value." and the path as it was written.
	Name string
	// Path is nil for a field of the entry.
	Path Path
}

// EntryFields are the fields of an entry.
var EntryFields = []string{"key", "value", "indexes", "createdAt", "updatedAt"}

// SortKey is something to sort by.
type SortKey struct {
	// By is one of [SortFields], or "" for Path.
	By         string
	Path       Path
	Descending bool
}

// SortFields can be sorted by besides paths; relevance needs a search.
var SortFields = append(slices.Clip(OwnFields), "relevance")

// Aggregate computes one value of many entries.
type Aggregate struct {
	// Op is count, sum, avg, min, max or distinct. Only count needs no path.
	Op string
	// By is one of [OwnFields], or "" for Path.
	By   string
	Path Path
	// Name is the path as it was written, for the answer.
	Name string
}

// AggregateOps are the values that Aggregate.Op can have.
var AggregateOps = []string{"count", "sum", "avg", "min", "max", "distinct"}

// Grouping tells entries apart for aggregates: by one of [OwnFields], by what is at a path, or by the members of an index.
type Grouping struct {
	By    string
	Path  Path
	Index string
}

// orderedBy is the kind of the query's order.
func (q Query) orderedBy() orderedBy {
	switch {
	case len(q.Sort) == 0 || q.Sort[0].By == "key":
		return byKey
	case len(q.Sort) > 1 || q.Sort[0].By == "relevance":
		return byNothing
	case q.Sort[0].By == "":
		return byPath
	}
	return byTime
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
	if err := validateText("prefix", q.Prefix); err != nil {
		return err
	}
	if len(q.Prefix) > MaxKeyBytes {
		return Invalid("prefix must be at most %d bytes, got %d: no key is longer", MaxKeyBytes, len(q.Prefix))
	}
	if q.Indexes != nil {
		leaves := 0
		if err := q.Indexes.validate(0, &leaves); err != nil {
			return err
		}
		if leaves > MaxFilters {
			return Invalid("indexes and indexKeys may name %d indexes together, got %d", MaxFilters, leaves)
		}
		if n := readings(q.Indexes.spellings(nil)); n > MaxReadings {
			return Invalid(`indexes may be read as %d pairs of key and member together, got %d, one for each colon: name the pair as {"key":…,"member":…}`, MaxReadings, n)
		}
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

func (f *IndexFilter) validate(depth int, leaves *int) error {
	if depth > 2*MaxGroupDepth { // a group of callers is at most an Any or a Not within an All
		return Invalid("index groups must be nested at most %d levels deep", MaxGroupDepth)
	}
	kinds := 0
	for _, is := range []bool{len(f.All) > 0, len(f.Any) > 0, f.Not != nil, f.Spelled != "", f.Exact != Index{}} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return Invalid("an index filter must be exactly one of all, any, not or an index")
	}
	parts := slices.Concat(f.All, f.Any)
	if f.Not != nil {
		parts = append(parts, *f.Not)
	}
	for _, part := range parts {
		if err := part.validate(depth+1, leaves); err != nil {
			return err
		}
	}
	if len(parts) > 0 {
		return nil
	}
	*leaves++
	return f.ValidateLeaf("an index")
}

// spellings collects what is spelled "<key>:<member>" anywhere in the filter.
func (f *IndexFilter) spellings(found []string) []string {
	if f.Spelled != "" {
		found = append(found, f.Spelled)
	}
	for _, part := range slices.Concat(f.All, f.Any) {
		found = part.spellings(found)
	}
	if f.Not != nil {
		found = f.Not.spellings(found)
	}
	return found
}

// ValidateLeaf checks a filter without parts, which errors call position.
func (f *IndexFilter) ValidateLeaf(position string) error {
	switch {
	case f.Spelled != "":
		return validateSpelled(position, f.Spelled)
	case f.Exact.Key == "":
		return Invalid("%s must name an index", position)
	case f.Exact.Member != "":
		return validateFilter(position, f.Exact.String())
	}
	return validateFilter(position, f.Exact.Key)
}

// validate returns an error that begins with the name of a field: the caller knows which of many conditions it is about.
func (c Condition) validate() error {
	if c.By == "" {
		if err := c.Path.validate(); err != nil {
			return fmt.Errorf("path: %w", err)
		}
	} else if !slices.Contains(OwnFields, c.By) {
		return fmt.Errorf("path must be a path or one of %s, got %s", join(OwnFields), quote(c.By))
	}
	if !slices.Contains(Ops, c.Op) {
		return fmt.Errorf("op must be one of %s, got %s", join(Ops), quote(string(c.Op)))
	}
	if err := queryable(c.Value); err != nil {
		return fmt.Errorf("value %w", err)
	}
	kind := c.Value[0]
	isNumber, isString := kind == '-' || kind >= '0' && kind <= '9', kind == '"'
	switch c.Op {
	case OpGt, OpGte, OpLt, OpLte:
		if !isNumber && !isString {
			return fmt.Errorf("value must be a number or a string for %s", c.Op)
		}
	case OpIn:
		var values []json.RawMessage
		if kind != '[' || json.Unmarshal([]byte(c.Value), &values) != nil {
			return errors.New("value must be an array for in")
		}
		if len(values) > MaxInValues {
			return fmt.Errorf("value must have at most %d elements for in, got %d", MaxInValues, len(values))
		}
	case OpExists:
		if kind != 't' && kind != 'f' {
			return errors.New("value must be true or false for exists")
		}
		return nil
	}
	if c.By == "" {
		return nil
	}
	_, err := c.own()
	return err
}

func (q Query) validateSort() error {
	if len(q.Sort) > MaxSort {
		return Invalid("sort must have at most %d elements, got %d", MaxSort, len(q.Sort))
	}
	for i, key := range q.Sort {
		switch {
		case key.By == "":
			if err := key.Path.validate(); err != nil {
				return Invalid("sort[%d]: %v", i, err)
			}
		case !slices.Contains(SortFields, key.By):
			return Invalid("sort[%d]: must be by a path or one of %s, got %s", i, join(SortFields), quote(key.By))
		case key.By == "relevance" && len(q.Sort) > 1:
			return Invalid("sort[%d]: relevance cannot be combined with another order", i)
		case key.By == "relevance" && q.Search == nil:
			return Invalid("sort[%d]: relevance needs a search", i)
		}
	}
	return nil
}

func (q Query) validatePage() error {
	switch {
	case q.Limit < 0 || q.Limit > MaxLimit:
		return Invalid("limit must be 1 to %d, got %d", MaxLimit, q.Limit)
	case q.Offset < 0:
		return Invalid("offset must be 0 or more, got %d", q.Offset)
	case q.Offset > 0 && q.After != nil:
		return Invalid("offset cannot be combined with cursor: a cursor says already where to go on")
	case q.After != nil && q.orderedBy() == byNothing:
		return Invalid("cursor cannot be combined with this sort: go on with offset")
	case q.PageBytes < 0 || q.PageBytes > MaxPageBytes:
		return Invalid("a page must be 1 to %d bytes, got %d", MaxPageBytes, q.PageBytes)
	case len(q.Select) > MaxSelect:
		return Invalid("select must have at most %d fields, got %d", MaxSelect, len(q.Select))
	}
	for i, field := range q.Select {
		if field.Path == nil && !slices.Contains(EntryFields, field.Name) {
			return Invalid("select[%d]: must be value.<path> or one of %s, got %s", i, join(EntryFields), quote(field.Name))
		}
		if field.Path != nil {
			if err := field.Path.validate(); err != nil {
				return Invalid("select[%d]: %v", i, err)
			}
			if !isText(field.Name) {
				return Invalid("select[%d] must be valid UTF-8 without U+0000", i)
			}
		}
	}
	return nil
}

// validateCursor comes last: what a cursor belongs to can be told of a valid query.
func (q Query) validateCursor() error {
	if q.After == nil {
		return nil
	}
	return q.After.check(digest(q.question()), q.orderedBy())
}

func (q Query) validateAggregates() error {
	switch {
	case len(q.Aggregates) > MaxAggregates:
		return Invalid("aggregate must have at most %d elements, got %d", MaxAggregates, len(q.Aggregates))
	case q.GroupBy != nil && len(q.Aggregates) == 0:
		return Invalid("groupBy needs aggregate, as in [{\"op\":\"count\"}]")
	case len(q.Aggregates) == 0:
		return nil
	case len(q.Sort) > 0 || q.Select != nil || q.After != nil || q.Offset > 0:
		return Invalid("sort, select, cursor and offset cannot be combined with aggregate")
	case q.Limit > 0 && q.GroupBy == nil:
		return Invalid("limit bounds the groups of an aggregate: it needs groupBy")
	case q.GroupBy != nil && q.GroupBy.By != "":
		if !slices.Contains(OwnFields, q.GroupBy.By) {
			return Invalid("groupBy must be a path, index:<index key> or one of %s, got %s", join(OwnFields), quote(q.GroupBy.By))
		}
	case q.GroupBy != nil && q.GroupBy.Path != nil:
		if err := q.GroupBy.Path.validate(); err != nil {
			return Invalid("groupBy: %v", err)
		}
	case q.GroupBy != nil:
		if err := validateFilter("groupBy", q.GroupBy.Index); err != nil {
			return err
		}
	}
	for i, a := range q.Aggregates {
		if err := a.validate(); err != nil {
			return Invalid("aggregate[%d].%v", i, err)
		}
	}
	return nil
}

// validate returns an error that begins with the name of a field.
func (a Aggregate) validate() error {
	switch {
	case !slices.Contains(AggregateOps, a.Op):
		return fmt.Errorf("op must be one of %s, got %s", join(AggregateOps), quote(a.Op))
	case a.By != "" && !slices.Contains(OwnFields, a.By):
		return fmt.Errorf("path must be a path or one of %s, got %s", join(OwnFields), quote(a.By))
	case a.By != "" && (a.Op == "sum" || a.Op == "avg"):
		return fmt.Errorf("path must lead to numbers for %s: %s is none", a.Op, a.By)
	case a.By == "" && a.Path == nil && a.Op != "count":
		return fmt.Errorf("path is needed for %s", a.Op)
	case !isText(a.Name):
		return errors.New("path must be valid UTF-8 without U+0000")
	case a.Path == nil:
		return nil
	}
	if err := a.Path.validate(); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	return nil
}

// quote shows a text that was sent, as far as it helps: an error must not be as large as what it is about.
func quote(text string) string { return strconv.Quote(excerpt(text)) }

func excerpt(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

func join[T ~string](values []T) string {
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = string(value)
	}
	return strings.Join(texts, ", ")
}

// queryable checks that jsonb can hold a JSON text.
func queryable(text string) error {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	switch {
	case !json.Valid([]byte(text)) || !isText(text):
		return errors.New("must be JSON")
	case HasLoneSurrogate(text):
		return errors.New("must not hold half of a surrogate pair")
	case depth(text) > MaxDepth:
		return fmt.Errorf("must be nested at most %d levels deep", MaxDepth)
	}
	for {
		token, err := decoder.Token()
		if err != nil {
			return nil // the end: the text is valid
		}
		switch token := token.(type) {
		case string:
			if strings.ContainsRune(token, 0) {
				return errors.New("must not contain U+0000")
			}
		case json.Number:
			if !isNumeric(string(token)) {
				return fmt.Errorf("must not hold a number with more than %d digits before or after the point", MaxNumberDigits)
			}
		}
	}
}

// isNumeric tells whether a JSON number, written without an exponent, has at most MaxNumberDigits on each side of the point.
func isNumeric(number string) bool {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(number, "-")), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	shift := 0
	if exponent != "" {
		var err error
		if shift, err = strconv.Atoi(exponent); err != nil || shift > MaxNumberDigits || shift < -MaxNumberDigits {
			return false
		}
	}
	return len(whole)+shift <= MaxNumberDigits && len(fraction)-shift <= MaxNumberDigits
}
