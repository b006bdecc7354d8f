package kv

import "time"

// Limits of what can be stored and asked for, in every store. Beyond them a [*Error] with [CodeInvalidInput] is
// returned that names the part, or [CodeUnstorableValue] for a value that is nested too deeply. The database has some
// of them too: tests/schema compares those (TestLimitsAreThoseOfGo).
const (
	// MaxKeyBytes bounds a key, and "<key>:<member>" of an index. Postgres keeps at most about 2,700 bytes in a row
	// of a btree, and a posting holds an index and a key.
	MaxKeyBytes = 1024
	// MaxIndexes bounds the indexes of one upsert. A value of the sequence kv.member_position has room for 1,024
	// members.
	MaxIndexes = 1000
	// MaxDepth bounds the levels of arrays and objects of a value. Go's decoder ends at 10,000, Postgres's at 20,000.
	MaxDepth = 2000
	// MaxLimit bounds [ListQuery.Limit], and [Query.Limit] of an export.
	MaxLimit = 10000
	// MaxFilters bounds the index filters of one list or query, each of which is a join.
	MaxFilters = 100
	// MaxCandidatePairs bounds the pairs that the "<key>:<member>" filters of one list or query may stand for. A colon in
	// the key or the member looks like the one between them, so each colon is one more pair to look up. No single
	// filter has more colons than that.
	MaxCandidatePairs = MaxKeyBytes

	// MaxQueryLimit bounds [Query.Limit] of an answer that is read as JSON.
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
	// MaxSortText is how many characters of a text entries are sorted by (kv.query_sort).
	MaxSortText = 200
	// MaxNumberDigits bounds the digits that a number may have before and after the point, when written without an
	// exponent. Postgres's numeric ends at 16,383 digits after the point.
	MaxNumberDigits = 16000
	// MaxQueryTime is where the database ends a query (statement_timeout of kv_query).
	MaxQueryTime = 10 * time.Second

	// MaxStoreBytes bounds the name of a store, and KV_NAMESPACE.
	MaxStoreBytes = 64
	// MaxMetadataBytes bounds an entry's metadata, as in Netlify Blobs.
	MaxMetadataBytes = 2048
	// MaxDataBytes bounds the bytes of an entry: as base64 they fit into a request, with its headers.
	MaxDataBytes = 4_500_000
	// MinTTL and MaxTTL bound [Operation.TTL]. MaxTTL is ten years.
	MinTTL = time.Second
	MaxTTL = 315_360_000 * time.Second
	// MaxContentTypeBytes bounds a content type.
	MaxContentTypeBytes = 255
	// MaxIncrementDigits bounds what an increment adds and what it makes, on each side of the point.
	MaxIncrementDigits = 500
	// MaxOperations bounds a [Batch].
	MaxOperations = 1000
	// IdempotencyTime is how long the result of a batch with a key is remembered.
	IdempotencyTime = time.Hour
	// MaxEntryLimit bounds [EntryQuery.Limit], and DefaultEntryLimit stands for 0.
	MaxEntryLimit     = 1000
	DefaultEntryLimit = 1000
	// MaxDelimiterBytes bounds [EntryQuery.Delimiter].
	MaxDelimiterBytes = 64
	// MaxClear bounds the entries that [Entries.Clear] removes.
	MaxClear = 100_000
	// MaxStoreCount is where [StoreCount.Count] stops.
	MaxStoreCount = 10_000

	// MaxResponseBytes is Lambda's limit for a response, and so Netlify's. It counts the JSON that carries the body.
	MaxResponseBytes = 6 << 20
	// MaxPageBytes is where a page ends early. As much fits into a response however it is encoded: base64 takes 4/3.
	MaxPageBytes = 4_500_000
)
