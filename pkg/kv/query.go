package kv

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
	Search *Search
	Where  []Condition

	// Select names what a result has, in order; nil: every [EntryField].
	Select []Field
	// Sort is by key where it is empty.
	Sort []SortKey
	// Limit is 1 to [MaxLimit]; 0 stands for the default.
	Limit int
	// Offset cannot be combined with After.
	Offset int
	After  *QueryCursor
	// PageBytes bounds the answer's size, for callers who make something larger of it; 0: what fits into a response.
	PageBytes int

	// Aggregates are asked for instead of entries where there are any; then Limit bounds the groups.
	Aggregates []Aggregate
	GroupBy    *Grouping
}

// IndexFilter is a node of a boolean expression over indexes: either a leaf (All, Any, Not nil) or exactly one of them.
type IndexFilter struct {
	// All holds when each of its parts does, Any when one does, Not when its part does not.
	All []IndexFilter
	Any []IndexFilter
	Not *IndexFilter

	// Spelled is "<key>:<member>", matching whichever pair spells it.
	Spelled string
	// Exact matches one pair; an empty Member any member of the index.
	Exact Index
}

// Search finds entries that match one of its branches, and matches a branch when all of its terms do.
type Search [][]SearchTerm

// SearchTerm is a word, or several that must follow each other.
type SearchTerm struct {
	Text string `json:"text"`
	// Not excludes entries with the term.
	Not bool `json:"not,omitempty"`
	// Prefix lets the last word go on.
	Prefix bool `json:"prefix,omitempty"`
}

// Path leads to a part of a value: object names, or positions in arrays.
type Path []string

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

// Condition compares a part of the value.
type Condition struct {
	Path Path
	Op   Op
	// Value is JSON text that jsonb can hold: a number or a string for the orders, an array for in, a boolean for exists.
	Value string
}

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
	// By is "key", "createdAt", "updatedAt", "relevance", or "" for Path.
	By         string
	Path       Path
	Descending bool
}

// Aggregate computes one value of many entries.
type Aggregate struct {
	// Op is count, sum, avg, min, max or distinct. Only count needs no path.
	Op   string
	Path Path
	// Name is the path as it was written, for the answer.
	Name string
}

// Grouping tells entries apart for aggregates: by what is at a path, or by the members of an index.
type Grouping struct {
	Path  Path
	Index string
}
