package kv

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/upstream"
)

// gateway stands in for a failing PostgREST and for what is in front of it. It sends its replies in turn, and then
// always the last.
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
	pause       time.Duration // before the reply
}

func value(text string) reply { return reply{status: 200, contentType: responseType, body: text} }

func failed(status int, code string) reply {
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

// asked counts the requests, including abandoned ones that are still being served.
func (g *gateway) asked() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.requests)
}

func (g *gateway) store(t *testing.T) *Supabase {
	store, err := NewSupabase(g.URL, "the-secret-key")
	require.NoError(t, err)
	store.retry = upstream.Policy{FirstPause: time.Millisecond, MaxPause: 5 * time.Millisecond, Attempt: time.Minute, Total: 300 * time.Millisecond}
	return store
}

// page is a gateway's own page.
func page(status int) reply {
	return reply{status: status, contentType: "text/html", body: "<html>nginx 127.0.0.1</html>"}
}

// gatewaySays is a JSON response of Supabase's gateway, Kong or its successor.
func gatewaySays(status int, body string) reply {
	return reply{status: status, contentType: "application/json", body: body}
}

const again = true

// badAnswers are examples of failures and their meanings.
var badAnswers = map[string]struct {
	reply
	again bool
	want  Code
	says  string // a part of the message
}{
	"TooManyRequests":        {page(429), again, CodeRateLimited, "rate"},
	"BadGateway":             {page(502), again, CodeDatabaseUnreachable, "could not be reached"},
	"Unavailable":            {reply{status: 503}, again, CodeDatabaseUnreachable, "could not be reached"},
	"GatewayTimeout":         {page(504), again, CodeDatabaseUnreachable, "could not be reached"},
	"CloudflareUnknown":      {page(520), again, CodeDatabaseUnreachable, "could not be reached"},
	"CloudflareDown":         {page(521), again, CodeDatabaseUnreachable, "could not be reached"},
	"CloudflareTimeout":      {page(522), again, CodeDatabaseUnreachable, "could not be reached"},
	"CloudflareNoRoute":      {page(523), again, CodeDatabaseUnreachable, "could not be reached"},
	"CloudflareSlow":         {page(524), again, CodeDatabaseUnreachable, "could not be reached"},
	"CloudflareHandshake":    {page(525), again, CodeDatabaseUnreachable, "could not be reached"},
	"CloudflareName":         {page(530), again, CodeDatabaseUnreachable, "could not be reached"},
	"SupabaseTimeout":        {gatewaySays(544, `{"message":"gateway timeout"}`), again, CodeDatabaseUnreachable, "could not be reached"},
	"GatewayCodeOfItsOwn":    {gatewaySays(503, `{"code":"SERVICE_UNAVAILABLE","message":"m"}`), again, CodeDatabaseUnreachable, "could not be reached"},
	"ConnectionLost":         {failed(400, ""), again, CodeDatabaseUnreachable, "could not be reached"},
	"ConnectionRefused":      {failed(503, "08001"), again, CodeDatabaseUnreachable, "could not be reached"},
	"ConnectionFailure":      {failed(503, "08006"), again, CodeDatabaseUnreachable, "could not be reached"},
	"ProtocolViolation":      {failed(503, "08P01"), again, CodeDatabaseUnreachable, "could not be reached"},
	"NoDatabase":             {failed(503, "PGRST000"), again, CodeDatabaseUnreachable, "could not be reached"},
	"NoConnection":           {failed(503, "PGRST001"), again, CodeDatabaseUnreachable, "could not be reached"},
	"NoSchemaCache":          {failed(503, "PGRST002"), again, CodeDatabaseUnreachable, "could not be reached"},
	"NoConnectionInPool":     {failed(504, "PGRST003"), again, CodeDatabaseUnreachable, "could not be reached"},
	"IssuedAtFuture":         {failed(401, "PGRST303"), again, CodeNotConfigured, "clocks"},
	"Deadlock":               {failed(500, "40P01"), again, CodeDatabaseUnreachable, "could not be reached"},
	"SerializationFailure":   {failed(500, "40001"), again, CodeDatabaseUnreachable, "could not be reached"},
	"LockNotAvailable":       {failed(500, "55P03"), again, CodeDatabaseUnreachable, "could not be reached"},
	"OutOfMemory":            {failed(503, "53200"), again, CodeDatabaseUnreachable, "could not be reached"},
	"TooManyConnections":     {failed(503, "53300"), again, CodeDatabaseUnreachable, "could not be reached"},
	"ShuttingDown":           {failed(500, "57P01"), again, CodeDatabaseUnreachable, "could not be reached"},
	"Crashed":                {failed(500, "57P02"), again, CodeDatabaseUnreachable, "could not be reached"},
	"StartingUp":             {failed(503, "57P03"), again, CodeDatabaseUnreachable, "could not be reached"},
	"APageInsteadOfJSON":     {page(200), again, CodeDatabaseUnreachable, "cannot be understood"},
	"AnAnswerOfAnother":      {gatewaySays(200, "{}"), again, CodeDatabaseUnreachable, "cannot be understood"},
	"NoContentButAnswers":    {reply{status: 204}, again, CodeDatabaseUnreachable, "cannot be understood"},
	"CutOff":                 {reply{status: 200, contentType: responseType, body: `{"a":`, cut: true}, again, CodeDatabaseUnreachable, "could not be reached"},
	"AnErrorCutOff":          {reply{status: 500, contentType: "application/json", body: `{"co`, cut: true}, again, CodeDatabaseUnreachable, "could not be reached"},
	"RefusedByTheFunction":   {failed(400, "PT400"), false, CodeInvalidInput, "m of PT400"},
	"Conflict":               {failed(409, "PT409"), false, CodeConflict, "m of PT409"},
	"IdempotencyReused":      {failed(422, "PT422"), false, CodeIdempotencyReused, "m of PT422"},
	"TooLarge":               {failed(413, "PT413"), false, CodeTooLarge, "m of PT413"},
	"NotJSON":                {failed(415, "PT415"), false, CodeNotJSON, "m of PT415"},
	"RefusedByTheTable":      {failed(400, "23514"), false, CodeInvalidInput, "too long"},
	"NotJSONForPostgres":     {failed(400, "22P02"), false, CodeUnstorableValue, "cannot store"},
	"NotTextForPostgres":     {failed(400, "22P05"), false, CodeUnstorableValue, "cannot store"},
	"NumberOutOfRange":       {failed(400, "22003"), false, CodeUnstorableValue, "cannot store"},
	"LimitOfPostgres":        {failed(500, "54000"), false, CodeUnstorableValue, "cannot store"},
	"TooDeepForPostgres":     {failed(500, "54001"), false, CodeUnstorableValue, "cannot store"},
	"StatementTimeout":       {failed(500, "57014"), false, CodeDeadlineExceeded, "time allowed"},
	"NoSuchFunction":         {failed(404, "PGRST202"), false, CodeNotConfigured, "supabase/migrations"},
	"NoSuchTable":            {failed(404, "PGRST205"), false, CodeNotConfigured, "supabase/migrations"},
	"NoSuchMediaType":        {failed(406, "PGRST107"), false, CodeNotConfigured, "supabase/migrations"},
	"NoFunctionForPostgres":  {failed(404, "42883"), false, CodeNotConfigured, "supabase/migrations"},
	"NoTableForPostgres":     {failed(404, "42P01"), false, CodeNotConfigured, "supabase/migrations"},
	"NotExposed":             {failed(406, "PGRST106"), false, CodeNotConfigured, "exposed schemas"},
	"NotAcceptable":          {page(406), false, CodeNotConfigured, "exposed schemas"},
	"WrongPath":              {failed(404, "PGRST125"), false, CodeNotConfigured, "SUPABASE_URL"},
	"WrongKey":               {failed(401, "PGRST301"), false, CodeNotConfigured, "SUPABASE_SERVICE_ROLE_KEY"},
	"NoKey":                  {failed(401, "PGRST302"), false, CodeNotConfigured, "SUPABASE_SERVICE_ROLE_KEY"},
	"NewCodeOfTokens":        {failed(401, "PGRST399"), false, CodeNotConfigured, "SUPABASE_SERVICE_ROLE_KEY"},
	"NoPrivilege":            {failed(403, "42501"), false, CodeNotConfigured, "SUPABASE_SERVICE_ROLE_KEY"},
	"GatewayRefusesTheKey":   {gatewaySays(401, `{"message":"Invalid API key"}`), false, CodeNotConfigured, "SUPABASE_SERVICE_ROLE_KEY"},
	"GatewayRefusesWithCode": {gatewaySays(401, `{"code":"UNAUTHORIZED_INVALID_JWT_FORMAT","message":"m"}`), false, CodeNotConfigured, "SUPABASE_SERVICE_ROLE_KEY"},
	"GatewayForbids":         {gatewaySays(403, `{"message":"m"}`), false, CodeNotConfigured, "SUPABASE_SERVICE_ROLE_KEY"},
	"BlockedAtTheEdge":       {page(403), false, CodeUnavailable, "before it reached"},
	"OverQuota":              {gatewaySays(402, `{"message":"exceed_egress_quota"}`), false, CodeUnavailable, "quota"},
	"OverQuotaAsAPage":       {page(402), false, CodeUnavailable, "quota"},
	"Paused":                 {page(540), false, CodeUnavailable, "paused"},
	"PausedWithACode":        {gatewaySays(540, `{"code":"PROJECT_PAUSED","message":"m"}`), false, CodeUnavailable, "paused"},
	"DiskFull":               {failed(503, "53100"), false, CodeUnavailable, "disk is full"},
	"ReadOnly":               {failed(405, "25006"), false, CodeUnavailable, "read-only"},
	"NothingThere":           {page(404), false, CodeDatabaseUnreachable, "cannot be understood"},
	"Redirect":               {reply{status: 302, header: map[string]string{"Location": "https://elsewhere.example/"}}, false, CodeDatabaseUnreachable, "cannot be understood"},
	"ServerError":            {reply{status: 500, contentType: "text/plain", body: "stack trace"}, false, CodeDatabaseUnreachable, "could not be reached"},
	"ABugOfOurs":             {failed(400, "21000"), false, CodeDatabaseUnreachable, "its log says why"},
	"AnotherBugOfOurs":       {failed(500, "XX000"), false, CodeDatabaseUnreachable, "its log says why"},
}

// TestEveryFailureHasAnExample finds rows of failures, and codes in them, that no example in badAnswers matches.
func TestEveryFailureHasAnExample(t *testing.T) {
	var examples []*postgrestError
	for _, c := range badAnswers {
		err := readPostgrestError(&http.Response{
			StatusCode: c.status, Header: http.Header{"Content-Type": {c.contentType}}, Body: io.NopCloser(strings.NewReader(c.body)),
		})
		var e *postgrestError
		require.ErrorAs(t, err, &e)
		examples = append(examples, e)
	}
	for _, f := range failures {
		codes := strings.Fields(f.codes)
		if len(codes) == 0 {
			codes = []string{""} // a row of statuses
		}
		for _, code := range codes {
			row := f
			row.codes = code
			require.True(t, slices.ContainsFunc(examples, func(e *postgrestError) bool { return e.failure() == f && e.matches(row) }),
				"no bad answer has code %q, status %d", code, f.from)
		}
	}
}

// TestBadResponses checks which responses are repeated, and that messages name the cause.
func TestBadResponses(t *testing.T) {
	for name, c := range badAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, c.reply)
			_, err := g.store(t).Get(t.Context(), "k")
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, c.want, e.Code, "got %v", err)
			require.Contains(t, e.Message, c.says)
			for _, hidden := range []string{"the-secret-key", "trace", "127.0.0.1", "PGRST", "kv_get"} {
				require.NotContains(t, e.Message, hidden)
			}
			if !c.again {
				require.Equal(t, 1, g.asked(), "it must not be repeated")
				return
			}
			require.Greater(t, g.asked(), 1, "it must be repeated")
			g = newGateway(t, c.reply, c.reply, value(`{"v":1}`))
			patient := g.store(t)
			patient.retry.Total = time.Minute
			got, err := patient.Get(t.Context(), "k")
			require.NoError(t, err, "it must be repeated until it is well")
			require.Equal(t, `{"v":1}`, got)
			require.Equal(t, 3, g.asked())
		})
	}
}

func TestBadResponseDoesNotPoisonTheStore(t *testing.T) {
	g := newGateway(t, failed(400, "22P02"), reply{status: 500, contentType: "text/html", body: "<html>"}, reply{status: 404}, value(`[]`))
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

func TestRepeatedWriteHasTheSameRequestID(t *testing.T) {
	g := newGateway(t, reply{status: 503}, failed(500, "40P01"), value(`{"version":"v","deleted":true}`))
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

func TestMalformedResponseIsRepeated(t *testing.T) {
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
				require.Equal(t, messageMalformed, e.Message)
			}
		})
	}
	_, err := newGateway(t, value(`{"ok":true}`)).store(t).Upsert(t.Context(), Entry{Key: "k", Value: `{}`})
	require.Equal(t, CodeDatabaseUnreachable, CodeOf(err), "a write without a version is not known to be one")
}

// What is no response of the function is neither a value nor kept.
func TestMalformedResponseForAKeyIsRepeated(t *testing.T) {
	for name, c := range map[string]struct {
		good string
		ask  func(ctx context.Context, s *Supabase) (string, error)
	}{
		"Get": {` {"a":1} `, func(ctx context.Context, s *Supabase) (string, error) { return s.Get(ctx, "k") }},
		"GetEntry": {`{"etag":"1","json":true}` + "\n{}", func(ctx context.Context, s *Supabase) (string, error) {
			e, err := s.GetEntry(ctx, "files", "k", Freshness{})
			return e.Body, err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, value("\xff\xfe\x00<%"), value("not json"), value(c.good))
			text, err := c.ask(t.Context(), g.store(t))
			require.NoError(t, err)
			require.Equal(t, c.good, text)
			require.Equal(t, 3, g.asked())
			_, err = c.ask(t.Context(), newGateway(t, value("")).store(t))
			require.Equal(t, CodeNotFound, CodeOf(err))
		})
	}
	for _, whole := range []string{`0`, `-1.5E+3`, `"a"`, `[]`, `true`, `false`, `null`, "\n{}\r\n"} {
		require.True(t, readRequest{function: "kv_get", scope: scope{one: true}}.isWhole(whole), whole)
	}
}

func TestRefusedConnectionIsUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gateway{Server: &httptest.Server{URL: "http://" + listener.Addr().String()}}
	require.NoError(t, listener.Close())
	_, err = g.store(t).Get(t.Context(), "k")
	require.Equal(t, CodeDatabaseUnreachable, CodeOf(err), "got %v", err)
	require.NotContains(t, err.Error(), "the-secret-key")
}

func TestRetryAfterIsHonored(t *testing.T) {
	wait := reply{status: 429, header: map[string]string{"Retry-After": "1"}}
	g := newGateway(t, wait, value(`[]`))
	store := g.store(t)
	store.retry.Total = 5 * time.Second
	start := time.Now()
	_, err := store.Get(t.Context(), "k")
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(start), time.Second)

	store = newGateway(t, wait).store(t)
	_, err = store.Get(t.Context(), "k")
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, CodeRateLimited, e.Code)
	require.Equal(t, time.Second, e.RetryAfter, "for the caller")
}

func TestHungAttemptLeavesTimeForAnother(t *testing.T) {
	for name, c := range map[string]struct {
		deadline time.Duration
		policy   upstream.Policy
	}{
		"OfAShortInvocation": {2 * time.Second, defaultRetry},
		"OfALongInvocation":  {time.Hour, upstream.Policy{FirstPause: defaultRetry.FirstPause, MaxPause: defaultRetry.MaxPause, Attempt: defaultRetry.Attempt / 5, Total: defaultRetry.Total / 5}},
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
	require.Less(t, defaultRetry.Attempt, defaultRetry.Total, "another attempt must be able to begin after one that hung")
}

func TestDeadlineExceeded(t *testing.T) {
	g := newGateway(t, reply{status: 200, pause: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	store := g.store(t)
	store.retry.Total = time.Minute
	_, err := store.Get(ctx, "k")
	require.Equal(t, CodeDeadlineExceeded, CodeOf(err), "got %v", err)
}

// The last attempts may hang or time out while a database refuses connections.
func TestCauseIsReportedRatherThanATimeout(t *testing.T) {
	hang := reply{status: 200, pause: time.Minute}
	for name, replies := range map[string][]reply{
		"ItRefusesAllTheTime":         {failed(503, "PGRST001")},
		"ItRefusesAndThenHangs":       {failed(503, "PGRST000"), failed(503, "PGRST002"), hang},
		"ItHangsThenRefusesThenHangs": {hang, failed(504, "PGRST003"), hang},
		"APageAndThenNothing":         {{status: 502, contentType: "text/html", body: "<html>"}, hang},
		"AnAnswerIsCutOff":            {{status: 200, contentType: responseType, body: `{"a":`, cut: true}, hang},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for what, ask := range map[string]func(context.Context, *Supabase) error{
				"Get": func(ctx context.Context, s *Supabase) error {
					_, err := s.Get(ctx, "k")
					return err
				},
				"Upsert": func(ctx context.Context, s *Supabase) error {
					_, err := s.Upsert(ctx, Entry{Key: "k", Value: `{}`})
					return err
				},
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				store := newGateway(t, replies...).store(t)
				store.retry.Total = time.Minute
				err := ask(ctx, store)
				cancel()
				require.Equal(t, CodeDatabaseUnreachable, CodeOf(err), "%s: got %v", what, err)
				require.NotContains(t, err.Error(), "deadline", what)
			}
		})
	}
}

func TestNoWaitBeyondTheDeadline(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g := newGateway(t, reply{status: 503, header: map[string]string{"Retry-After": "600"}})
	store := g.store(t)
	store.retry.Total = time.Hour
	_, err := store.Get(ctx, "k")
	require.Equal(t, CodeDatabaseUnreachable, CodeOf(err), "got %v", err)
	require.NoError(t, ctx.Err(), "the time is not slept through for an attempt that cannot come")
	require.Equal(t, 1, g.asked())
}

func TestLogOmitsMessagesThatQuoteValues(t *testing.T) {
	bad := failed(400, "22P02")
	bad.body = strings.Replace(bad.body, "m of", "quoted value", 1)
	_, err := newGateway(t, bad).store(t).Get(t.Context(), "k")
	require.NotContains(t, err.Error(), "quoted value")
	require.Contains(t, err.Error(), "22P02")
}

const someResults = `{"results":[],"count":0,"pagination":{"limit":100,"offset":0,"hasMore":false,"nextCursor":null}}`

func TestSlowQueryIsNotRepeated(t *testing.T) {
	for name, bad := range map[string]reply{
		"Unavailable":     {status: 503},
		"NoConnection":    failed(504, "PGRST003"),
		"ShuttingDown":    failed(500, "57P01"),
		"CutOff":          {status: 200, contentType: responseType, body: `{"a":`, cut: true},
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
		"StatementTimeout": {failed(500, "57014"), CodeDeadlineExceeded, messageQueryDeadline},
		"RanIntoItsTime":   {reply{status: 200, contentType: responseType, body: someResults, pause: time.Minute}, CodeDeadlineExceeded, messageQueryDeadline},
		"Refused":          {failed(400, "PT400"), CodeInvalidInput, "m of PT400"},
		"TooLarge":         {failed(413, "PT413"), CodeTooLarge, "m of PT413"},
		"NumberTooLarge":   {failed(400, "22003"), CodeInvalidInput, messageQueryValue},
		"NoSuchFunction":   {failed(404, "PGRST202"), CodeNotConfigured, messageNoSchema},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, c.reply)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			store := g.store(t)
			store.retry.Total = time.Minute
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

func TestQueryMayTakeAllTheTime(t *testing.T) {
	t.Parallel()
	g := newGateway(t, reply{status: 200, contentType: responseType, body: someResults, pause: 3 * time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := g.store(t).Query(ctx, Query{})
	require.NoError(t, err)
	require.Equal(t, 1, g.asked())
}

func TestInvalidQueryIsNotSent(t *testing.T) {
	t.Parallel()
	g := newGateway(t, value(someResults))
	_, err := g.store(t).Query(t.Context(), Query{Limit: -1})
	require.Equal(t, CodeInvalidInput, CodeOf(err))
	require.Zero(t, g.asked())
}

// Each header costs PostgREST time, and a key that is not a JWT is not a bearer token.
func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	for key, token := range map[string][]string{"eyJ.a.b": {"Bearer eyJ.a.b"}, "sb_secret_a": nil, "sb_publishable_a": nil} {
		var got http.Header
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r.Header.Clone()
			w.Header().Set("Content-Type", responseType)
			_, _ = io.WriteString(w, `"value"`)
		}))
		t.Cleanup(server.Close)
		s, err := NewSupabase(server.URL, key)
		require.NoError(t, err)
		_, err = s.Get(t.Context(), "a")
		require.NoError(t, err)
		want := http.Header{
			"Accept": {responseType}, "Content-Type": {"application/json"}, "Content-Profile": {"public"}, "Apikey": {key}, "Authorization": token,
			"Content-Length": {"13"}, "User-Agent": got["User-Agent"],
		}
		if token == nil {
			delete(want, "Authorization")
		}
		require.Equal(t, want, got)
	}
}
