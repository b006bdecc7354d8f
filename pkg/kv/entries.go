package kv

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Entries is what kv-entries, kv-batch and the protocols of other clients ask of a store: entries of any bytes in any
// store of the namespace, with conditions, expiry and metadata. [Supabase] implements it, and [Cache] does with a
// memory in front.
//
// Every error is an [*Error], as those of [Store] are.
type Entries interface {
	// GetEntry returns an entry, or [CodeNotFound].
	GetEntry(ctx context.Context, store, key string, f Freshness) (EntryResult, error)
	// ListEntries returns the JSON text of the response to q: {"entries","prefixes","count","pagination"}.
	ListEntries(ctx context.Context, q EntryQuery, f Freshness) (ReadResult, error)
	// ListStores returns the stores of the namespace that have entries, in order. A count stops at
	// [MaxStoreCount], and then says that there are more.
	ListStores(ctx context.Context) ([]StoreCount, error)
	// Apply applies the operations of a batch, and returns a result for each in its place. The error is for the whole:
	// it is not about an operation, and nothing was applied.
	Apply(ctx context.Context, b Batch) (BatchResult, error)
	// Clear removes the entries of a store whose keys begin with the prefix, if there are exactly confirm of them, and
	// returns their number. [CodeConflict] says how many there are; a confirm of -1 never matches. More than [MaxClear]
	// are [CodeTooLarge].
	Clear(ctx context.Context, store, prefix string, confirm int) (removed int, version string, err error)
}

// DefaultStore is the store that kv-upsert, kv-list, kv-get, kv-delete and kv-query speak of. Its values are JSON.
const DefaultStore = "kv"

// EntryInfo describes an entry beside its bytes.
type EntryInfo struct {
	// ETag changes with every write, and never comes again for a key. It has no quotation marks.
	ETag string
	// Size is the length of the bytes.
	Size int64
	// ContentType is never empty.
	ContentType string
	// Metadata is the JSON text of an object; "" without one.
	Metadata string
	Updated  time.Time
	// Expires is zero for an entry that does not expire.
	Expires time.Time
}

// EntryResult is the result of [Entries.GetEntry].
type EntryResult struct {
	EntryInfo
	// Data are the bytes as they were written.
	Data []byte
	// ReadResult says where the result came from. Its Body and Tag are the database's.
	ReadResult
}

// EntryQuery selects entries of one store in the order of their keys.
type EntryQuery struct {
	Store string
	// Prefix is literal.
	Prefix string
	// Delimiter folds the keys that hold it after the prefix into "prefixes"; "" folds none.
	Delimiter string
	// Metadata asks for the entries' metadata.
	Metadata bool
	// Limit is 1 to [MaxEntryLimit]; 0 stands for [DefaultEntryLimit]. Folded prefixes count like entries.
	Limit int
	After *Cursor
}

// StoreCount is a store with the number of its entries.
type StoreCount struct {
	Store string `json:"store"`
	Count int    `json:"count"`
	// More means that there are more than Count.
	More bool `json:"more,omitzero"`
}

// Action names what an [Operation] does.
type Action string

const (
	ActionGet       Action = "get"
	ActionPut       Action = "put"
	ActionDelete    Action = "delete"
	ActionTake      Action = "take"      // get and delete
	ActionIncrement Action = "increment" // adds to a JSON number
	ActionCheck     Action = "check"     // only compares the condition
)

// Actions are the values of [Operation.Action].
var Actions = []Action{ActionGet, ActionPut, ActionDelete, ActionTake, ActionIncrement, ActionCheck}

// Precondition is what must hold of an entry before an operation; the zero value always holds.
type Precondition struct {
	// IfMatch holds if the entry exists and has one of the ETags, or any of them where one is "*". Nil asks for nothing.
	IfMatch []string
	// IfNoneMatch holds if the entry does not exist or has none of the ETags; with "*", if it does not exist.
	IfNoneMatch []string
}

// Operation is one operation of a [Batch], on one key.
type Operation struct {
	Action Action
	Store  string
	Key    string
	Precondition
	// Data are the bytes of a put.
	Data []byte
	// ContentType is that of a put; "" stands for application/octet-stream. In [DefaultStore], and where it is
	// application/json, Data must be JSON.
	ContentType string
	// Metadata is the JSON text of an object of at most [MaxMetadataBytes]; "" for none.
	Metadata string
	// TTL is the time until a put, or an increment that creates its entry, expires, by the database's clock. Expires is
	// the time instead. At most one of them is set; zero values mean never.
	TTL     time.Duration
	Expires time.Time
	// Indexes replace the entry's indexes; nil keeps them.
	Indexes []Index
	// By is the JSON number that an increment adds; "" stands for 1.
	By string
}

// Batch is a list of operations that are applied in one transaction.
type Batch struct {
	// Operations are 1 to [MaxOperations].
	Operations []Operation
	// Atomic applies everything or nothing, and allows one operation for each key.
	Atomic bool
	// Idempotency is the caller's key for the batch, if it has one: the same batch with the same key within
	// [IdempotencyTime] gets the first result, and another batch with it is [CodeIdempotencyReused]. Digest tells
	// batches apart.
	Idempotency uuid.UUID
	Digest      string
}

// BatchResult is the result of a batch.
type BatchResult struct {
	// Results are those of the operations, in their order.
	Results []OperationResult
	// Version is that of [Written]; "" where nothing was applied.
	Version string
	// Failed is the position of the first operation that failed in an atomic batch, of which nothing was applied. The
	// results of the others that did not fail are then [CodeNotApplied]. It is -1 otherwise.
	Failed int
}

// OperationResult is the result of one operation.
type OperationResult struct {
	// Err is nil if the operation was applied. [CodeConditionFailed]: the condition did not hold, and ETag is the
	// present one, "" without an entry. [CodeNotFound]: a get or a take found nothing. [CodeConflict]: an increment
	// found no number.
	Err *Error
	// Existed reports that there was an entry before.
	Existed bool
	// EntryInfo describes the entry that was read or written.
	EntryInfo
	// Data are the bytes that a get or a take found, and the number after an increment.
	Data []byte
	// IsJSON reports that Data is JSON that the database can query.
	IsJSON bool
}
