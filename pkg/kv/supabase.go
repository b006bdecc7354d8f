package kv

import (
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/supabase-community/supabase-go"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/upstream"
)

// Supabase is a [Store] in a Supabase project whose database has the functions of supabase/migrations.
type Supabase struct {
	client    *supabase.Client
	retry     upstream.Policy
	url, key  string
	namespace string
	store     string // of which migrations and backups are; "" stands for DefaultStore
}

// NewSupabase returns a store in the project at projectURL (SUPABASE_URL), with its service_role or secret key. It
// makes no request. An address or a key that cannot be valid is [CodeNotConfigured]. No error holds the key, and no
// Message the address. Both are cleaned of what pasting adds ([config.Clean]), and the address of a trailing
// /rest/v1, which Supabase also shows.
func NewSupabase(projectURL, key string) (*Supabase, error) {
	key = config.Clean(key)
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, &Error{Code: CodeNotConfigured, Message: "SUPABASE_SERVICE_ROLE_KEY holds characters that no key has: paste it again"}
	}
	u, ok := ProjectAddress(projectURL)
	if !ok {
		return nil, &Error{Code: CodeNotConfigured, Message: "SUPABASE_URL must be an address like https://<project>.supabase.co"}
	}
	client, err := supabase.NewClient(viaPostgREST(u), key, &supabase.ClientOptions{
		Headers: map[string]string{"Accept": responseType},
	})
	if err != nil {
		return nil, &Error{Code: CodeNotConfigured, Message: "SUPABASE_SERVICE_ROLE_KEY must be set", Err: err}
	}
	if u.Scheme == "https" {
		upstream.LoadRoots()
	}
	return &Supabase{client: client, retry: defaultRetry, url: u.String(), key: key}, nil
}

// WithNamespace returns a store whose entries, in all stores, are apart from those without the namespace and from those
// of others. The namespace must be valid ([ValidateNamespace]); "" is none.
func (s *Supabase) WithNamespace(namespace string) *Supabase {
	apart := *s
	apart.namespace = namespace
	return &apart
}

// WithStore returns a client with which a store without a namespace is migrated and backed up, instead of
// [DefaultStore]: the methods of migration.go, and States, Copy and CopyAll. Their keys are as callers see them, but index
// keys of pairs as the database has them. The name must be valid ([ValidateStore]).
func (s *Supabase) WithStore(store string) *Supabase {
	of := *s
	of.store = store
	return &of
}

// StoreName is the store of [Supabase.WithStore].
func (s *Supabase) StoreName() string { return cmp.Or(s.store, DefaultStore) }

// storeSpace is the space of that store.
func (s *Supabase) storeSpace() string { return space("", s.StoreName()) }

// space is the space of a store.
func (s *Supabase) space(store string) string { return space(s.namespace, store) }

// URL returns the project's address in the form of [ProjectAddress].
func (s *Supabase) URL() string { return s.url }

// ProjectAddress parses the address of a project, without /rest/v1 and slashes at its end. It is not ok for text that
// is no such address: *.supabase.co with a path, or the dashboard at supabase.com. A self-hosted Supabase may have a
// path.
func ProjectAddress(text string) (u *url.URL, ok bool) {
	u, err := url.Parse(config.Clean(text))
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, false
	}
	u.Path, u.RawPath = strings.TrimRight(strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/rest/v1"), "/"), ""
	host := strings.ToLower(u.Hostname())
	return u, !(strings.HasSuffix(host, ".supabase.co") && u.Path != "") && host != "supabase.com" && !strings.HasSuffix(host, ".supabase.com")
}

// WithBackgroundRetries returns a store for background work. It repeats transient failures for up to total, and an
// attempt may take a minute.
func (s *Supabase) WithBackgroundRetries(total time.Duration) *Supabase {
	background := *s
	background.retry = upstream.Policy{FirstPause: 100 * time.Millisecond, MaxPause: 5 * time.Second, Attempt: time.Minute, Total: total}
	return &background
}

// Upsert implements [Store].
func (s *Supabase) Upsert(ctx context.Context, entry Entry) (Written, error) {
	written, _, err := s.upsert(ctx, entry, false)
	return written, err
}

func (s *Supabase) upsert(ctx context.Context, entry Entry, mirrored bool) (Written, []OutboxEntry, error) {
	if err := entry.Validate(); err != nil {
		return Written{}, nil, err
	}
	var pairs [][2]string
	space := s.space(DefaultStore)
	if entry.Indexes != nil {
		pairs = spacePairs(space, entry.Indexes)
	}
	return s.write(ctx, "kv_upsert", struct {
		Key     string      `json:"p_key"`
		Value   string      `json:"p_value"`
		Indexes [][2]string `json:"p_indexes"`
		Request uuid.UUID   `json:"p_request"`
		Mirror  bool        `json:"p_mirror"`
	}{space + entry.Key, entry.Value, pairs, newRequest(), mirrored})
}

// Delete implements [Store].
func (s *Supabase) Delete(ctx context.Context, key string) (Written, error) {
	written, _, err := s.delete(ctx, key, false)
	return written, err
}

func (s *Supabase) delete(ctx context.Context, key string, mirrored bool) (Written, []OutboxEntry, error) {
	if err := ValidateKey(key); err != nil {
		return Written{}, nil, err
	}
	return s.write(ctx, "kv_delete", struct {
		Key     string    `json:"p_key"`
		Request uuid.UUID `json:"p_request"`
		Mirror  bool      `json:"p_mirror"`
	}{s.space(DefaultStore) + key, newRequest(), mirrored})
}

// newRequest returns an id for a write. The database applies each id once, so that a write can be repeated. Ids grow
// with time, which keeps the index over them compact.
func newRequest() uuid.UUID { return uuid.Must(uuid.NewV7()) }

func (s *Supabase) write(ctx context.Context, function string, args any) (Written, []OutboxEntry, error) {
	var response struct {
		Version string
		Deleted bool
		Outbox  []OutboxEntry
	}
	_, err := s.callWith(ctx, s.retry, function, args, func(text string) error {
		if err := decodeResponse(function, text, &response); err != nil {
			return err
		}
		if response.Version == "" {
			return malformedResponse(function)
		}
		return nil
	})
	if err != nil {
		return Written{}, nil, err
	}
	return Written{Version: response.Version, Existed: response.Deleted}, response.Outbox, nil
}

// Get implements [Store].
func (s *Supabase) Get(ctx context.Context, key string) (string, error) {
	r, err := getRequest(s.space(DefaultStore), key)
	if err != nil {
		return "", err
	}
	value, err := s.read(ctx, r)
	if err != nil {
		return "", err
	}
	return value.text, r.checkFound(value)
}

// List implements [Store].
func (s *Supabase) List(ctx context.Context, q ListQuery) (string, error) {
	r, err := listRequest(s.space(DefaultStore), q)
	if err != nil {
		return "", err
	}
	body, err := s.read(ctx, r)
	return body.text, err
}

// Query implements [Store]. A query that timed out is not repeated.
func (s *Supabase) Query(ctx context.Context, q Query) (string, error) {
	r, err := queryRequest(s.namespace, q)
	if err != nil {
		return "", err
	}
	body, err := s.read(ctx, r)
	return body.text, err
}

// read makes the request of a read.
func (s *Supabase) read(ctx context.Context, r readRequest) (body readBody, err error) {
	err = s.send(ctx, r, r.args, func(text string) error {
		body, err = r.readBody(text)
		return err
	})
	return body, err
}

// readSince makes the request of a read that also returns what changed since the cursor: one snapshot, one round
// trip. The cursor is "" the first time.
func (s *Supabase) readSince(ctx context.Context, r readRequest, cursor string) (body readBody, c changes, err error) {
	args := `{"p_since":` + encodeArgs(cursor) + `,` + strings.TrimPrefix(r.args, "{")
	err = s.send(ctx, r, args, func(text string) error {
		rest, err := cutChanges(r.function, text, &c)
		if err != nil {
			return err
		}
		body, err = r.readBody(rest)
		return err
	})
	if err != nil {
		return readBody{}, changes{}, err
	}
	return body, c, nil
}

// look returns what changed since the cursor.
func (s *Supabase) look(ctx context.Context, cursor string) (c changes, err error) {
	err = s.callJSON(ctx, "kv_changes", map[string]string{"p_since": cursor}, &c)
	return c, err
}

// send makes the request of a read with its time limit and its error messages.
func (s *Supabase) send(ctx context.Context, r readRequest, args string, accept func(string) error) error {
	retry := s.retry
	if r.within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.within)
		defer cancel()
		retry.Unlimited = true
	}
	_, err := s.callWith(ctx, retry, r.function, json.RawMessage(args), accept)
	r.rewordError(err)
	return err
}
