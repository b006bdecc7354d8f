package kv

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// gateway stands in for PostgREST and what is in front of it on a bad day, which the real ones do not have on demand:
// it answers each request with the next of its replies, and the last one from then on.
type gateway struct {
	*httptest.Server
	mu       sync.Mutex
	replies  []reply
	requests []map[string]any
}

type reply struct {
	status      int
	contentType string
	body        string
	header      map[string]string
	cut         bool          // close the connection in the middle of the body
	pause       time.Duration // before anything
}

func value(text string) reply { return reply{status: 200, contentType: answerType, body: text} }

func failure(status int, code string) reply {
	return reply{status: status, contentType: "application/json", body: fmt.Sprintf(`{"code":%q,"message":"m of %s","details":null,"hint":null}`, code, code)}
}

func newGateway(t *testing.T, replies ...reply) *gateway {
	g := &gateway{replies: replies}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(g.Close)
	return g
}

func (g *gateway) serve(w http.ResponseWriter, r *http.Request) {
	var args map[string]any
	_ = json.NewDecoder(r.Body).Decode(&args)
	g.mu.Lock()
	g.requests = append(g.requests, args)
	next := g.replies[0]
	if len(g.replies) > 1 {
		g.replies = g.replies[1:]
	}
	g.mu.Unlock()
	select {
	case <-time.After(next.pause):
	case <-r.Context().Done():
	}
	w.Header().Set("Content-Type", next.contentType)
	for name, text := range next.header {
		w.Header().Set(name, text)
	}
	if next.cut {
		w.Header().Set("Content-Length", fmt.Sprint(len(next.body)+10))
	}
	w.WriteHeader(next.status)
	_, _ = w.Write([]byte(next.body))
	if next.cut {
		panic(http.ErrAbortHandler)
	}
}

// asked counts the requests so far, also where one that was given up is still being served.
func (g *gateway) asked() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.requests)
}

func (g *gateway) store(t *testing.T) *Supabase {
	store, err := NewSupabase(g.URL, "the-secret-key")
	require.NoError(t, err)
	store.retry = retryPolicy{first: time.Millisecond, longest: 5 * time.Millisecond, attempt: time.Minute, total: 300 * time.Millisecond}
	return store
}

func TestWhatIsTransientIsRepeated(t *testing.T) {
	for name, bad := range map[string]reply{
		"TooManyRequests":     {status: 429, contentType: "text/html", body: "<html>"},
		"BadGateway":          {status: 502, contentType: "text/html", body: "<html>"},
		"Unavailable":         {status: 503},
		"GatewayTimeout":      {status: 504, contentType: "text/html", body: "<html>"},
		"ConnectionLost":      failure(400, ""),
		"NoDatabase":          failure(503, "PGRST000"),
		"NoSchemaCache":       failure(503, "PGRST002"),
		"NoConnectionInPool":  failure(504, "PGRST003"),
		"Deadlock":            failure(500, "40P01"),
		"LockNotAvailable":    failure(500, "55P03"),
		"TooManyConnections":  failure(503, "53300"),
		"ShuttingDown":        failure(500, "57P01"),
		"Crashed":             failure(500, "57P02"),
		"StartingUp":          failure(503, "57P03"),
		"APageInsteadOfJSON":  {status: 200, contentType: "text/html", body: "<html>maintenance</html>"},
		"AnAnswerOfAnother":   {status: 200, contentType: "application/json", body: "{}"},
		"CutOff":              {status: 200, contentType: answerType, body: `{"a":`, cut: true},
		"AnErrorCutOff":       {status: 500, contentType: "application/json", body: `{"co`, cut: true},
		"NoContentButAnswers": {status: 204},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, bad, bad, value(`{"v":1}`))
			got, err := g.store(t).Get(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, `{"v":1}`, got)
			require.Len(t, g.requests, 3)
		})
	}
}

func TestWhatIsNotTransientIsToldAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		reply
		want Code
	}{
		"RefusedByTheFunction": {failure(400, "PT400"), CodeInvalidInput},
		"RefusedByTheTable":    {failure(400, "23514"), CodeInvalidInput},
		"TooLarge":             {failure(413, "PT413"), CodeTooLarge},
		"NotJSONForPostgres":   {failure(400, "22P02"), CodeUnstorableValue},
		"TooDeepForPostgres":   {failure(500, "54001"), CodeUnstorableValue},
		"StatementTimeout":     {failure(500, "57014"), CodeDeadlineExceeded},
		"NoSuchFunction":       {failure(404, "PGRST202"), CodeNotConfigured},
		"WrongKey":             {failure(401, "PGRST301"), CodeNotConfigured},
		"NoPrivilege":          {failure(403, "42501"), CodeNotConfigured},
		"GatewayRefusesTheKey": {reply{status: 401, contentType: "application/json", body: `{"message":"Invalid API key"}`}, CodeNotConfigured},
		"DiskFull":             {failure(500, "53100"), CodeDatabaseUnreachable},
		"NothingThere":         {reply{status: 404, contentType: "text/html", body: "<html>"}, CodeDatabaseUnreachable},
		"Redirect":             {reply{status: 302, header: map[string]string{"Location": "https://elsewhere.example/"}}, CodeDatabaseUnreachable},
		"ServerError":          {reply{status: 500, contentType: "text/plain", body: "stack trace"}, CodeDatabaseUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, c.reply)
			_, err := g.store(t).Get(t.Context(), "k")
			require.Equal(t, c.want, CodeOf(err), "got %v", err)
			require.Len(t, g.requests, 1, "it must not be repeated")
			var e *Error
			require.ErrorAs(t, err, &e)
			for _, hidden := range []string{"the-secret-key", "trace", "127.0.0.1", "PGRST", "kv_get"} {
				require.NotContains(t, e.Message, hidden)
			}
		})
	}
}

func TestOneBadAnswerDoesNotPoisonTheStore(t *testing.T) {
	g := newGateway(t, failure(400, "22P02"), reply{status: 500, contentType: "text/html", body: "<html>"}, reply{status: 404}, value(`[]`))
	store := g.store(t)
	for range 3 {
		_, err := store.Get(t.Context(), "k")
		require.Error(t, err)
	}
	_, err := store.Upsert(t.Context(), Entry{Key: "\x00", Value: `{}`})
	require.Error(t, err)
	for range 3 {
		got, err := store.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, `[]`, got)
	}
}

func TestAnAttemptThatRepeatsAWriteNamesTheSameRequest(t *testing.T) {
	g := newGateway(t, reply{status: 503}, failure(500, "40P01"), value(`{"version":"v","deleted":true}`))
	written, err := g.store(t).Upsert(t.Context(), Entry{Key: "k", Value: `{"a":"\u0000"}`, Indexes: []Index{{"i", "m"}, {"i", "m"}}})
	require.NoError(t, err)
	require.Equal(t, "v", written.Version)
	require.Len(t, g.requests, 3)
	for _, args := range g.requests {
		require.Equal(t, `{"a":"\u0000"}`, args["p_value"])
		require.Equal(t, []any{[]any{"i", "m"}}, args["p_indexes"])
		require.Equal(t, g.requests[0]["p_request"], args["p_request"])
	}
	_, err = g.store(t).Delete(t.Context(), "k")
	require.NoError(t, err)
	require.NotEqual(t, g.requests[0]["p_request"], g.requests[3]["p_request"], "another write is another request")
}

func TestAnAnswerThatIsNotUnderstoodIsAskedForAgain(t *testing.T) {
	const feed = `{"cursor":"e/1/1:2:","all":false,"keys":[]}`
	for name, c := range map[string]struct {
		good string
		ask  func(ctx context.Context, s *Supabase) error
	}{
		"Upsert": {`{"version":"v"}`, func(ctx context.Context, s *Supabase) error {
			_, err := s.Upsert(ctx, Entry{Key: "k", Value: `{}`})
			return err
		}},
		"Delete": {`{"version":"v","deleted":true}`, func(ctx context.Context, s *Supabase) error {
			_, err := s.Delete(ctx, "k")
			return err
		}},
		"List": {`{"keys":[],"count":0}`, func(ctx context.Context, s *Supabase) error {
			_, err := s.List(ctx, ListQuery{})
			return err
		}},
		"Look": {feed, func(ctx context.Context, s *Supabase) error {
			_, err := s.look(ctx, "")
			return err
		}},
		"Cached": {feed + "\n{}", func(ctx context.Context, s *Supabase) error {
			_, err := NewCache(s, DefaultCache).Get(ctx, "k", Freshness{})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, value("\xff\xfe\x00<%"), value(""), value(c.good))
			require.NoError(t, c.ask(t.Context(), g.store(t)))
			require.Equal(t, 3, g.asked())

			for _, bad := range []string{"not json", "", "\xff\xfe\x00<%"} {
				err := c.ask(t.Context(), newGateway(t, value(bad)).store(t))
				var e *Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, CodeDatabaseUnreachable, e.Code)
				require.Equal(t, messageNonsense, e.Message)
			}
		})
	}
	_, err := newGateway(t, value(`{"ok":true}`)).store(t).Upsert(t.Context(), Entry{Key: "k", Value: `{}`})
	require.Equal(t, CodeDatabaseUnreachable, CodeOf(err), "a write without a version is not known to be one")
}

func TestNobodyListeningEndsInDatabaseUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gateway{Server: &httptest.Server{URL: "http://" + listener.Addr().String()}}
	require.NoError(t, listener.Close())
	_, err = g.store(t).Get(t.Context(), "k")
	require.Equal(t, CodeDatabaseUnreachable, CodeOf(err), "got %v", err)
	require.NotContains(t, err.Error(), "the-secret-key")
}

func TestRetryAfterIsHonouredWithinTheTimeThereIs(t *testing.T) {
	wait := reply{status: 429, header: map[string]string{"Retry-After": "1"}}
	g := newGateway(t, wait, value(`[]`))
	store := g.store(t)
	store.retry.total = 5 * time.Second
	start := time.Now()
	_, err := store.Get(t.Context(), "k")
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(start), time.Second)

	store = newGateway(t, wait).store(t)
	_, err = store.Get(t.Context(), "k")
	require.Equal(t, CodeDatabaseUnreachable, CodeOf(err))
}

func TestAHangingAttemptLeavesTimeForAnother(t *testing.T) {
	for name, c := range map[string]struct {
		deadline time.Duration
		policy   retryPolicy
	}{
		"OfAShortInvocation": {2 * time.Second, defaultRetry},
		"OfALongInvocation":  {time.Hour, retryPolicy{first: defaultRetry.first, longest: defaultRetry.longest, attempt: defaultRetry.attempt / 5, total: defaultRetry.total / 5}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, reply{status: 200, pause: time.Minute}, value(`[]`))
			ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
			defer cancel()
			store := g.store(t)
			store.retry = c.policy
			got, err := store.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, `[]`, got)
		})
	}
	require.Less(t, defaultRetry.attempt, defaultRetry.total, "another attempt must be able to begin after one that hung")
}

func TestThePassedDeadlineIsToldAsSuch(t *testing.T) {
	g := newGateway(t, reply{status: 200, pause: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	store := g.store(t)
	store.retry.total = time.Minute
	_, err := store.Get(ctx, "k")
	require.Equal(t, CodeDeadlineExceeded, CodeOf(err), "got %v", err)
}

func TestAMessageThatMayQuoteAValueStaysOutOfTheLog(t *testing.T) {
	bad := failure(400, "22P02")
	bad.body = strings.Replace(bad.body, "m of", "quoted value", 1)
	_, err := newGateway(t, bad).store(t).Get(t.Context(), "k")
	require.NotContains(t, err.Error(), "quoted value")
	require.Contains(t, err.Error(), "22P02")
}

const someResults = `{"results":[],"count":0,"pagination":{"limit":100,"offset":0,"hasMore":false,"nextCursor":null}}`

func TestAQueryIsRepeatedOnlyWhereItFailedAtOnce(t *testing.T) {
	for name, bad := range map[string]reply{
		"Unavailable":     {status: 503},
		"NoConnection":    failure(504, "PGRST003"),
		"ShuttingDown":    failure(500, "57P01"),
		"CutOff":          {status: 200, contentType: answerType, body: `{"a":`, cut: true},
		"AnotherSitePage": {status: 200, contentType: "text/html", body: "<html>"},
		"EmptyAnswer":     value(""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, bad, bad, value(someResults))
			got, err := g.store(t).Query(t.Context(), Query{})
			require.NoError(t, err)
			require.Equal(t, someResults, got)
			require.Equal(t, 3, g.asked())
		})
	}
	for name, c := range map[string]struct {
		reply
		want    Code
		message string
	}{
		"StatementTimeout": {failure(500, "57014"), CodeDeadlineExceeded, messageQueryDeadline},
		"RanIntoItsTime":   {reply{status: 200, contentType: answerType, body: someResults, pause: time.Minute}, CodeDeadlineExceeded, messageQueryDeadline},
		"Refused":          {failure(400, "PT400"), CodeInvalidInput, "m of PT400"},
		"TooLarge":         {failure(413, "PT413"), CodeTooLarge, "m of PT413"},
		"NumberTooLarge":   {failure(400, "22003"), CodeInvalidInput, messageQueryValue},
		"NoSuchFunction":   {failure(404, "PGRST202"), CodeNotConfigured, "the database lacks the kv_* functions: apply supabase/migrations (supabase db push)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, c.reply)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			store := g.store(t)
			store.retry.total = time.Minute
			_, err := store.Query(ctx, Query{})
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, c.want, e.Code)
			require.Equal(t, c.message, e.Message)
			require.Equal(t, 1, g.asked(), "it must not be repeated")
		})
	}
	for _, word := range []string{"prefix", "index", "fewer", "kv_index_path"} {
		require.Contains(t, messageQueryDeadline, word, "the advice")
	}
}

func TestAQueryMayTakeMoreThanHalfOfTheTime(t *testing.T) {
	t.Parallel()
	g := newGateway(t, reply{status: 200, contentType: answerType, body: someResults, pause: 3 * time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := g.store(t).Query(ctx, Query{})
	require.NoError(t, err)
	require.Equal(t, 1, g.asked())
}

func TestAnInvalidQueryIsNotAsked(t *testing.T) {
	t.Parallel()
	g := newGateway(t, value(someResults))
	_, err := g.store(t).Query(t.Context(), Query{Limit: -1})
	require.Equal(t, CodeInvalidInput, CodeOf(err))
	require.Zero(t, g.asked())
}

// Each header takes PostgREST time.
func TestACallHasNoMoreHeadersThanItNeeds(t *testing.T) {
	t.Parallel()
	var got http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		w.Header().Set("Content-Type", answerType)
		_, _ = io.WriteString(w, `"value"`)
	}))
	t.Cleanup(server.Close)
	s, err := NewSupabase(server.URL, "key")
	require.NoError(t, err)
	_, err = s.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, http.Header{
		"Accept": {answerType}, "Content-Type": {"application/json"}, "Content-Profile": {"public"}, "Apikey": {"key"}, "Authorization": {"Bearer key"},
		"Content-Length": {"13"}, "User-Agent": got["User-Agent"],
	}, got)
}
