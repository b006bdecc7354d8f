package kv

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

var (
	_ Entries = (*Supabase)(nil)
	_ Entries = (*Cache)(nil)
)

// ContentTypeJSON and ContentTypeBytes are the content types of entries that were written without one, as JSON or as
// bytes.
const (
	ContentTypeJSON  = "application/json"
	ContentTypeBytes = "application/octet-stream"
)

// GetEntry implements [Entries]. It always reads from the database.
func (s *Supabase) GetEntry(ctx context.Context, store, key string, _ Freshness) (EntryResult, error) {
	r, err := s.entryRequest(store, key)
	if err != nil {
		return EntryResult{}, err
	}
	return entryResult(readUncached(func() (string, error) {
		body, err := s.read(ctx, r)
		if err != nil {
			return "", err
		}
		return body.text, r.checkFound(body)
	}))
}

// GetEntry implements [Entries].
func (c *Cache) GetEntry(ctx context.Context, store, key string, f Freshness) (EntryResult, error) {
	r, err := c.store.entryRequest(store, key)
	if err != nil {
		return EntryResult{}, err
	}
	return entryResult(c.readKey(ctx, r, f))
}

func (s *Supabase) entryRequest(store, key string) (readRequest, error) {
	if err := ValidateStore(store); err != nil {
		return readRequest{}, err
	}
	return entryRequest(s.space(store), key)
}

// entryJSON is what kv.entry_info writes.
type entryJSON struct {
	ETag        string         `json:"etag"`
	Size        int64          `json:"size"`
	ContentType string         `json:"contentType"`
	Metadata    jsontext.Value `json:"metadata"`
	Updated     time.Time      `json:"updatedAt"`
	Expires     time.Time      `json:"expiresAt"`
	IsJSON      bool           `json:"json"`
}

func (e entryJSON) info() EntryInfo {
	return EntryInfo{ETag: e.ETag, Size: e.Size, ContentType: e.ContentType, Metadata: string(e.Metadata), Updated: e.Updated, Expires: e.Expires}
}

// lenient decodes what callers wrote: metadata may hold duplicate names and half surrogate pairs.
var lenient = jsonv2.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

func entryResult(result ReadResult, err error) (EntryResult, error) {
	if err != nil {
		return EntryResult{ReadResult: result}, err
	}
	info, bytes, _ := strings.Cut(result.Body, "\n")
	var e entryJSON
	if jsonv2.Unmarshal([]byte(info), &e, lenient) != nil {
		return EntryResult{}, malformedResponse("kv_entry")
	}
	data, err := entryData(bytes, e.IsJSON)
	if err != nil {
		return EntryResult{}, malformedResponse("kv_entry")
	}
	return EntryResult{EntryInfo: e.info(), Data: data, ReadResult: result}, nil
}

// entryData reads what kv.entry_bytes writes.
func entryData(text string, isJSON bool) ([]byte, error) {
	if isJSON {
		return []byte(text), nil
	}
	return base64.StdEncoding.DecodeString(text)
}

// ListEntries implements [Entries].
func (s *Supabase) ListEntries(ctx context.Context, q EntryQuery, _ Freshness) (ReadResult, error) {
	r, err := s.entryListRequest(q)
	if err != nil {
		return ReadResult{}, err
	}
	return readUncached(func() (string, error) {
		body, err := s.read(ctx, r)
		return body.text, err
	})
}

// ListEntries implements [Entries].
func (c *Cache) ListEntries(ctx context.Context, q EntryQuery, f Freshness) (ReadResult, error) {
	r, err := c.store.entryListRequest(q)
	if err != nil {
		return ReadResult{}, err
	}
	return c.read(ctx, r, f)
}

// Validate checks a query against the limits, and that its cursor belongs to it.
func (q EntryQuery) Validate() error {
	if err := ValidateStore(q.Store); err != nil {
		return err
	}
	for _, check := range []error{validateText("prefix", q.Prefix), validateText("delimiter", q.Delimiter)} {
		if check != nil {
			return check
		}
	}
	switch {
	case len(q.Prefix) > MaxKeyBytes:
		return Invalid("prefix must be at most %d bytes, got %d: no key is longer", MaxKeyBytes, len(q.Prefix))
	case len(q.Delimiter) > MaxDelimiterBytes:
		return Invalid("delimiter must be at most %d bytes, got %d", MaxDelimiterBytes, len(q.Delimiter))
	case q.Limit < 0 || q.Limit > MaxEntryLimit:
		return Invalid("limit must be 1 to %d, got %d", MaxEntryLimit, q.Limit)
	case q.After != nil:
		return q.After.validate(q.Question(), byKey)
	}
	return nil
}

// Question is the [Cursor.Question] of the query's cursors.
func (q EntryQuery) Question() string {
	return digest([]string{"entries", q.Store, q.Prefix, q.Delimiter})
}

func (s *Supabase) entryListRequest(q EntryQuery) (readRequest, error) {
	if err := q.Validate(); err != nil {
		return readRequest{}, err
	}
	space := s.space(q.Store)
	prefix := spacePrefix(space, q.Prefix)
	after := q.After
	if after != nil {
		after = &Cursor{Question: after.Question, Position: after.Position, Key: space + after.Key}
	}
	args := encodeArgs(struct {
		Query    any    `json:"p_query"`
		Question string `json:"p_question"`
	}{struct {
		Prefix    string  `json:"prefix"`
		Delimiter string  `json:"delimiter"`
		Metadata  bool    `json:"metadata"`
		Limit     int     `json:"limit"`
		After     *Cursor `json:"cursor"`
	}{prefix, q.Delimiter, q.Metadata, cmp.Or(q.Limit, DefaultEntryLimit), after}, q.Question()})
	return readRequest{function: "kv_entry_list", args: args, scope: scope{text: prefix}}, nil
}

// ListStores implements [Entries].
func (s *Supabase) ListStores(ctx context.Context) (stores []StoreCount, err error) {
	err = s.callJSON(ctx, "kv_stores", map[string]any{"p_namespace": s.namespace, "p_most": MaxStoreCount}, &stores)
	return stores, err
}

// ListStores implements [Entries].
func (c *Cache) ListStores(ctx context.Context) ([]StoreCount, error) { return c.store.ListStores(ctx) }

// Clear implements [Entries].
func (s *Supabase) Clear(ctx context.Context, store, prefix string, confirm int) (removed int, version string, err error) {
	written, _, err := s.clear(ctx, store, prefix, confirm, false)
	if err != nil {
		return 0, "", err
	}
	return confirm, written.Version, nil
}

// Clear implements [Entries].
func (c *Cache) Clear(ctx context.Context, store, prefix string, confirm int) (removed int, version string, err error) {
	return c.store.Clear(ctx, store, prefix, confirm)
}

// ClearMirrored is [Supabase.Clear] that also adds an outbox entry for every key of [DefaultStore] that it removes.
func (s *Supabase) ClearMirrored(ctx context.Context, store, prefix string, confirm int) (Written, []OutboxEntry, error) {
	return s.clear(ctx, store, prefix, confirm, store == DefaultStore)
}

// clearTime is how long a clear may take: the database ends it before the platform ends the function.
const clearTime = 58 * time.Second

func (s *Supabase) clear(ctx context.Context, store, prefix string, confirm int, mirrored bool) (Written, []OutboxEntry, error) {
	for _, check := range []error{ValidateStore(store), validateText("prefix", prefix)} {
		if check != nil {
			return Written{}, nil, check
		}
	}
	background := *s
	background.retry.Attempt, background.retry.Total = clearTime, clearTime
	return background.write(ctx, "kv_clear", struct {
		Prefix  string    `json:"p_prefix"`
		Confirm int       `json:"p_confirm"`
		Most    int       `json:"p_most"`
		Request uuid.UUID `json:"p_request"`
		Mirror  bool      `json:"p_mirror"`
	}{spacePrefix(s.space(store), prefix), confirm, MaxClear, newRequest(), mirrored})
}

// Apply implements [Entries].
func (s *Supabase) Apply(ctx context.Context, b Batch) (BatchResult, error) {
	result, _, err := s.apply(ctx, b, Operation.Validate, false)
	return result, err
}

// Apply implements [Entries].
func (c *Cache) Apply(ctx context.Context, b Batch) (BatchResult, error) {
	return c.store.Apply(ctx, b)
}

// ApplyMirrored is [Supabase.Apply] that also adds an outbox entry for every key of [DefaultStore] that it changes.
// Operations of which refuse returns an error fail with that.
func (s *Supabase) ApplyMirrored(ctx context.Context, b Batch, refuse func(Operation) error) (BatchResult, []OutboxEntry, error) {
	return s.apply(ctx, b, func(o Operation) error {
		if err := o.Validate(); err != nil {
			return err
		}
		return refuse(o)
	}, true)
}

func (s *Supabase) apply(ctx context.Context, b Batch, check func(Operation) error, mirrored bool) (BatchResult, []OutboxEntry, error) {
	if err := b.validate(); err != nil {
		return BatchResult{}, nil, err
	}
	result := BatchResult{Results: make([]OperationResult, len(b.Operations)), Failed: -1}
	var operations []operationJSON // those that the database gets,
	var places []int               // and their places in the batch
	for i, o := range b.Operations {
		if err := check(o); err != nil {
			result.fail(i, asError(err))
			continue
		}
		operations, places = append(operations, o.encode(s.space(o.Store))), append(places, i)
	}
	if b.Atomic && len(places) < len(b.Operations) {
		result.failOthers()
		return result, nil, nil
	}
	result.Failed = -1
	if len(operations) == 0 {
		return result, nil, nil
	}
	outbox, err := s.batch(ctx, b, operations, places, mirrored, &result)
	if b.Atomic && result.Failed >= 0 {
		result.failOthers()
	}
	return result, outbox, err
}

// batch calls kv_batch, and puts the results of the operations in their places.
func (s *Supabase) batch(ctx context.Context, b Batch, operations []operationJSON, places []int, mirrored bool, result *BatchResult) ([]OutboxEntry, error) {
	var request *uuid.UUID // nothing is remembered of a batch that only reads
	var digest *string
	switch {
	case b.Idempotency != uuid.Nil:
		// In another namespace, the same key is of another batch.
		request, digest = new(uuid.NewSHA1(b.Idempotency, []byte(s.namespace))), &b.Digest
	case b.writes():
		request = new(newRequest())
	}
	var response struct {
		Results []outcomeJSON `json:"results"`
		Failed  *int          `json:"failed"`
		Version string        `json:"version"`
		Outbox  []OutboxEntry `json:"outbox"`
	}
	_, err := s.callWith(ctx, s.retry, "kv_batch", struct {
		Operations []operationJSON `json:"p_operations"`
		Atomic     bool            `json:"p_atomic"`
		Request    *uuid.UUID      `json:"p_request"`
		Digest     *string         `json:"p_digest"`
		Mirror     bool            `json:"p_mirror"`
	}{operations, b.Atomic, request, digest, mirrored && b.writes()}, func(text string) error {
		if jsonv2.Unmarshal([]byte(text), &response, lenient) != nil || len(response.Results) != len(operations) {
			return malformedResponse("kv_batch")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, o := range response.Results {
		if result.Results[places[i]], err = o.result(); err != nil {
			return nil, err
		}
	}
	if b.Atomic && response.Failed != nil {
		result.Failed = places[*response.Failed]
	}
	result.Version = response.Version
	return response.Outbox, nil
}

func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeInternal, Message: "internal error", Err: err}
}

// fail notes that an operation failed.
func (r *BatchResult) fail(i int, err *Error) {
	r.Results[i].Err = err
	if r.Failed < 0 {
		r.Failed = i
	}
}

// failOthers marks the operations of an atomic batch that did not fail themselves.
func (r *BatchResult) failOthers() {
	for i := range r.Results {
		if r.Results[i].Err == nil {
			r.Results[i] = OperationResult{Err: &Error{Code: CodeNotApplied, Message: "not applied, because another operation of the batch failed"}}
		}
	}
}

// operationJSON is kv.operation.
type operationJSON struct {
	Action      Action          `json:"action"`
	Key         string          `json:"key"`
	Value       *string         `json:"value,omitzero"`
	Data        *string         `json:"data,omitzero"`
	ContentType string          `json:"content_type,omitzero"`
	Metadata    string          `json:"metadata,omitzero"`
	TTL         json.RawMessage `json:"ttl,omitzero"`
	Expires     *time.Time      `json:"expires,omitzero"`
	Indexes     *[][2]string    `json:"indexes,omitzero"`
	IfMatch     []string        `json:"if_match,omitzero"`
	IfNoneMatch []string        `json:"if_none_match,omitzero"`
	Delta       string          `json:"delta,omitzero"`
}

// encode returns a valid operation as the database takes it.
func (o Operation) encode(space string) operationJSON {
	e := operationJSON{Action: o.Action, Key: space + o.Key, IfMatch: o.IfMatch, IfNoneMatch: o.IfNoneMatch}
	if o.TTL != 0 {
		e.TTL = json.RawMessage(strconv.FormatFloat(o.TTL.Seconds(), 'f', -1, 64))
	}
	if !o.Expires.IsZero() {
		e.Expires = new(o.Expires.UTC().Truncate(time.Millisecond)) // as answers show it; Postgres would round it up, to the year 10000
	}
	switch o.Action {
	case ActionIncrement:
		e.Delta = cmp.Or(o.By, "1")
	case ActionPut:
		e.Metadata = o.Metadata
		if o.Indexes != nil {
			e.Indexes = new(spacePairs(space, o.Indexes))
		}
		contentType := cmp.Or(o.ContentType, ContentTypeBytes)
		implied := ContentTypeBytes
		if isJSON(o.Data) {
			e.Value, implied = new(string(o.Data)), ContentTypeJSON
		} else {
			e.Data = new(base64.StdEncoding.EncodeToString(o.Data))
		}
		if contentType != implied {
			e.ContentType = contentType
		}
	}
	return e
}

// outcomeJSON is what kv.outcome_json writes.
type outcomeJSON struct {
	Existed bool   `json:"existed"`
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Bytes   string `json:"bytes"`
	entryJSON
}

// outcomeMessages are the messages of outcomes that are always the same.
var outcomeMessages = map[Code]string{
	CodeConditionFailed: "the condition does not hold of the present entry",
	CodeNotFound:        "Key not found",
	CodeUnstorableValue: messageUnstorable,
}

func (o outcomeJSON) result() (OperationResult, error) {
	data, err := entryData(o.Bytes, o.IsJSON)
	if err != nil {
		return OperationResult{}, malformedResponse("kv_batch")
	}
	result := OperationResult{Existed: o.Existed, EntryInfo: o.info(), Data: data, IsJSON: o.IsJSON}
	if o.Code != "" {
		result.Err = &Error{Code: o.Code, Message: cmp.Or(o.Message, outcomeMessages[o.Code]), Op: "kv_batch"}
	}
	return result, nil
}
