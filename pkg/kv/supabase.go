package kv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/supabase-community/supabase-go"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/upstream"
)

// Supabase is a [Store] in a Supabase project, whose database has the functions of supabase/migrations.
type Supabase struct {
	client   *supabase.Client
	retry    upstream.Policy
	url, key string
}

// NewSupabase returns a store in the project at projectURL (as in SUPABASE_URL), used with a service_role or secret
// key. It makes no request; an address or a key that cannot be one is [CodeNotConfigured]. The key is never part of an
// error, and the address not of an error's Message. What pasting leaves around them does no harm (see [config.Clean]), and neither does
// /rest/v1 after the address, as Supabase shows it elsewhere.
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

// URL is the project's address, however it was given.
func (s *Supabase) URL() string { return s.url }

// ProjectAddress reads the address of a project as [NewSupabase] does, without /rest/v1 and slashes after it. It is not ok for what can
// be none: a path is where somebody runs Supabase himself, and the dashboard's address is nobody's project.
func ProjectAddress(text string) (u *url.URL, ok bool) {
	u, err := url.Parse(config.Clean(text))
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, false
	}
	u.Path, u.RawPath = strings.TrimRight(strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/rest/v1"), "/"), ""
	host := strings.ToLower(u.Hostname())
	return u, !(strings.HasSuffix(host, ".supabase.co") && u.Path != "") && host != "supabase.com" && !strings.HasSuffix(host, ".supabase.com")
}

// WithPatience returns a store for work that nobody waits for: it repeats what fails for a passing reason for so long, and leaves a
// call a minute.
func (s *Supabase) WithBackgroundRetries(total time.Duration) *Supabase {
	patient := *s
	patient.retry = upstream.Policy{FirstPause: 100 * time.Millisecond, MaxPause: 5 * time.Second, Attempt: time.Minute, Total: total}
	return &patient
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
	if entry.Indexes != nil {
		pairs = Pairs(entry.Indexes)
	}
	return s.write(ctx, "kv_upsert", struct {
		Key     string      `json:"p_key"`
		Value   string      `json:"p_value"`
		Indexes [][2]string `json:"p_indexes"`
		Request uuid.UUID   `json:"p_request"`
		Mirror  bool        `json:"p_mirror"`
	}{entry.Key, entry.Value, pairs, newRequest(), mirrored})
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
	}{key, newRequest(), mirrored})
}

// newRequest names a write. The database applies a request once, however often it arrives, which makes it safe to repeat.
func newRequest() uuid.UUID {
	return uuid.Must(uuid.NewV7()) // ordered by time, for the sake of the index that holds it
}

func (s *Supabase) write(ctx context.Context, function string, args any) (Written, []OutboxEntry, error) {
	type written struct {
		Version string
		Deleted bool
		Outbox  []OutboxEntry
	}
	var answer written
	_, err := s.callWith(ctx, s.retry, function, args, func(text string) error {
		answer = written{} // nothing of an earlier answer
		if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Version == "" {
			return &Error{Code: CodeDatabaseUnreachable, Message: messageMalformed, Op: function, Err: err}
		}
		return nil
	})
	if err != nil {
		return Written{}, nil, err
	}
	return Written{Version: answer.Version, Existed: answer.Deleted}, answer.Outbox, nil
}

// Get implements [Store].
func (s *Supabase) Get(ctx context.Context, key string) (string, error) {
	r, err := getRequest(key)
	if err != nil {
		return "", err
	}
	value, err := s.read(ctx, r)
	if err != nil {
		return "", err
	}
	return value, checkFound(value)
}

// List implements [Store].
func (s *Supabase) List(ctx context.Context, q ListQuery) (string, error) {
	r, err := listRequest(q)
	if err != nil {
		return "", err
	}
	return s.read(ctx, r)
}

// Query implements [Store]. It is not repeated after it ran into its time.
func (s *Supabase) Query(ctx context.Context, q Query) (string, error) {
	r, err := queryRequest(q)
	if err != nil {
		return "", err
	}
	return s.read(ctx, r)
}

// read asks for one answer.
func (s *Supabase) read(ctx context.Context, r readRequest) (string, error) {
	return s.send(ctx, r, r.args, r.check)
}

// readSince asks for one answer, and for what changed since the cursor: both from one snapshot, in one round trip.
func (s *Supabase) readSince(ctx context.Context, r readRequest, cursor string) (body string, c changes, err error) {
	args := `{"p_since":` + encodeArgs(cursor) + `,` + strings.TrimPrefix(r.args, "{") // "": there is none yet
	_, err = s.send(ctx, r, args, func(text string) error {
		var err error
		if body, c, err = cutChanges(r.function, text); err != nil {
			return err
		}
		return r.check(body)
	})
	if err != nil {
		return "", changes{}, err
	}
	return body, c, nil
}

// look asks what changed since the cursor.
func (s *Supabase) look(ctx context.Context, cursor string) (changes, error) {
	var c changes
	_, err := s.callWith(ctx, s.retry, "kv_changes", map[string]string{"p_since": cursor}, func(text string) (err error) {
		var ok bool
		if c, ok = parseChanges(text); !ok {
			return malformedResponse("kv_changes")
		}
		return nil
	})
	return c, err
}

// cutChanges takes an answer apart: the feed's, a line break, and the rest.
func cutChanges(op, text string) (rest string, c changes, err error) {
	feed, rest, found := strings.Cut(text, "\n")
	c, ok := parseChanges(feed)
	if !ok || !found {
		return "", changes{}, malformedResponse(op)
	}
	return rest, c, nil
}

func malformedResponse(op string) *Error {
	return &Error{Code: CodeDatabaseUnreachable, Message: messageMalformed, Op: op}
}

// send asks a function for a read, in the time and in the words that go with it.
func (s *Supabase) send(ctx context.Context, r readRequest, args string, accept func(string) error) (string, error) {
	retry := s.retry
	if r.within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.within)
		defer cancel()
		retry.Unlimited = true
	}
	text, err := s.callWith(ctx, retry, r.function, json.RawMessage(args), accept)
	r.rewordError(err)
	return text, err
}

// call asks one function of the database, again if need be.
//
// It goes through From(…).Insert(…) because the client's Rpc takes no context and keeps an error for every later call.
func (s *Supabase) call(ctx context.Context, function string, args any) (string, error) {
	return s.callWith(ctx, s.retry, function, args, func(string) error { return nil })
}

// callWith also asks again where an answer came that understand refuses: whatever gave it may have got well, and what is asked
// may be asked twice.
func (s *Supabase) callWith(ctx context.Context, retry upstream.Policy, function string, args any, accept func(string) error) (string, error) {
	text, err := upstream.Retry(ctx, retry, func(ctx context.Context) (string, error) {
		text, _, err := s.client.From("rpc/"+function).Insert(args, false, "", "representation", "").ExecuteStringWithContext(ctx)
		if err == nil {
			err = accept(text)
		}
		return text, markTransient(err)
	})
	if err != nil {
		return "", interpret(function, err)
	}
	return text, nil
}

// interpret makes the caller's error of what a call returned. It is the only place that does.
func interpret(function string, err error) *Error {
	e := &Error{Code: CodeDatabaseUnreachable, Message: messageUnreachable, Op: function, Err: err}
	var answer *postgrestError
	var refused *Error
	var timeout *upstream.TimeoutError
	switch {
	case errors.As(err, &refused): // the answer came, and was not understood
		e = refused
	case errors.As(err, &answer):
		failure := answer.failure()
		e.Code, e.Message, e.RetryAfter = failure.is, cmp.Or(failure.says, answer.Message), answer.RetryAfter
	case errors.As(err, &timeout):
		e.Code, e.Message = CodeDeadlineExceeded, messageDeadline
	}
	return e
}

const (
	messageUnreachable = "the database could not be reached; try again in a moment"
	messageFailed      = "the database failed to answer; its log says why"
	messageMalformed   = "the database gave an answer that cannot be understood; try again in a moment"
	messageRefused     = "Supabase refused the key: SUPABASE_SERVICE_ROLE_KEY must be the project's service_role or secret key"
	messageDeadline    = "the time allowed for the request was over before the database answered; ask for less, or try again"

	messageQueryValue    = "the database cannot compare with a value of the query: a number is too large, or it is nested too deeply"
	messageQueryDeadline = "the query took longer than it may: narrow it by prefix or by an index, ask for fewer entries, or make the path" +
		" that it compares or sorts by fast with kv_index_path"
)

// defaultRetry gives a restarting database the seconds it needs, and leaves callers a clear error after that. An attempt may
// take longer than Supabase lets a statement run (8 s), and another can begin after one that hung.
var defaultRetry = upstream.Policy{
	FirstPause: 40 * time.Millisecond, MaxPause: time.Second, Attempt: 10 * time.Second, Total: 15 * time.Second,
}
