package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// Addresses of the functions. The rewrites in netlify.toml lead to the same functions.
const (
	upsertPath = "/.netlify/functions/kv-upsert"
	listPath   = "/.netlify/functions/kv-list"
	getPath    = "/.netlify/functions/kv-get"
	queryPath  = "/.netlify/functions/kv-query"
	deletePath = "/.netlify/functions/kv-delete"

	entriesPath = "/.netlify/functions/kv-entries"
	blobsPath   = "/.netlify/functions/kv-blobs-api"
	storagePath = "/.netlify/functions/kv-storage-api"
	batchPath   = "/.netlify/functions/kv-batch"
)

// client keeps enough idle connections for the most concurrent test.
var client = &http.Client{
	Timeout: time.Minute,
	Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConns:        128,
		MaxIdleConnsPerHost: 128,
		ForceAttemptHTTP2:   true,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// response is a response with its body.
type response struct {
	request string
	status  int
	header  http.Header
	body    []byte
}

func (a *response) String() string {
	body := a.body
	if len(body) > 1000 {
		body = append(slices.Clone(body[:1000]), "…"...)
	}
	return fmt.Sprintf("%.300s\nanswered %d %s", a.request, a.status, body)
}

type option func(*http.Request)

func body(text string) option {
	return func(r *http.Request) {
		r.Body = io.NopCloser(strings.NewReader(text))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
		r.ContentLength = int64(len(text))
	}
}

func header(name, value string) option {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// noToken sends a request without the environment's token.
func noToken(r *http.Request) { r.Header.Del("Authorization") }

// fresh bypasses the cache.
var fresh = header("Cache-Control", "no-cache")

// exchange is roundTrip for tests: once the run is stopped it refuses, so that the tests end.
func exchange(method, path string, options ...option) (*response, error) {
	if run.stop.reason() != "" {
		return nil, errStopped
	}
	return roundTrip(method, path, options...)
}

// roundTrip sends a request and reads the response. The path is sent exactly as given, including odd escapes.
func roundTrip(method, path string, options ...option) (*response, error) {
	req, err := http.NewRequest(method, site.baseURL, nil)
	if err != nil {
		return nil, err
	}
	req.URL.Opaque = req.URL.Path + path
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	if site.apiToken != "" {
		req.Header.Set("Authorization", "Bearer "+site.apiToken)
	}
	for _, o := range options {
		o(req)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %.300s: %w", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %.300s: the response ended early, after %d bytes: %w", method, path, len(text), err)
	}
	return &response{request: method + " " + path, status: res.StatusCode, header: res.Header, body: text}, nil
}

// send is exchange for goroutines: it also returns an error if the response breaks a promise that holds for all.
func send(method, path string, options ...option) (*response, error) {
	a, err := exchange(method, path, options...)
	if err != nil {
		return nil, err
	}
	return a, a.keepsPromises()
}

// call is send for the test itself, which fails if a promise is broken.
func call(t testing.TB, method, path string, options ...option) *response {
	t.Helper()
	skipIfStopped(t)
	a, err := send(method, path, options...)
	require.NoError(t, err)
	return a
}

var codes = map[int][]string{
	400: {"invalid_input"}, 401: {"unauthorized"}, 404: {"not_found"}, 405: {"method_not_allowed"}, 409: {"conflict"}, 412: {"condition_failed"},
	413: {"too_large"}, 415: {"not_json"}, 422: {"unstorable_value", "idempotency_reused"}, 424: {"not_applied"}, 500: {"internal"}, 502: {"database_unreachable"}, 503: {"not_configured", "unavailable", "rate_limited"},
	504: {"deadline_exceeded"},
}

var (
	timestampForm = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
	// variables matches names of variables, which only an error about a missing one may contain.
	variables = regexp.MustCompile(`SUPABASE_|KV_API_TOKEN|KV_READ_TOKEN|NETLIFY_`)
	// leaks matches what an error must never contain.
	leaks = regexp.MustCompile(`(?i)goroutine |panic|\.go:\d|PGRST|SQLSTATE|\bservice_role\b|127\.0\.0\.1|localhost|/rest/v1|\bselect .+ from\b|kv_store`)
)

// keepsPromises checks what must hold for every response of every function, including errors.
func (a *response) keepsPromises() error {
	var problems []string
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }

	if got := a.header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "*" {
		wrong("Access-Control-Allow-Origin must be *, got %q", got)
	}
	if got := a.header.Get("X-Content-Type-Options"); got != "nosniff" {
		wrong("X-Content-Type-Options must be nosniff, got %q", got)
	}
	preflight, head := strings.HasPrefix(a.request, http.MethodOptions), strings.HasPrefix(a.request, http.MethodHead)
	exposed := strings.ToLower(strings.Join(a.header.Values("Access-Control-Expose-Headers"), ","))
	for name := range a.header {
		own := name == "Etag" && !preflight || strings.HasPrefix(name, "X-Kv-") && name != "X-Kv-Instance" // the local host adds that one
		if own && !slices.Contains(regexp.MustCompile(`\s*,\s*`).Split(exposed, -1), strings.ToLower(name)) {
			wrong("Access-Control-Expose-Headers must name %s, got %q", name, exposed)
		}
	}
	switch {
	case preflight || head || a.status == http.StatusNotModified:
		if len(a.body) != 0 {
			wrong("the body must be empty")
		}
	case a.status == http.StatusOK && strings.HasPrefix(a.header.Get("Content-Disposition"), "attachment"): // an export is not JSON
	case a.status == http.StatusOK && strings.HasSuffix(a.header.Get("Cache-Control"), "no-transform"): // nor need an entry's bytes be
	case a.status == http.StatusOK && string(a.body) == "OK": // what unstorage's server says after a write
	default:
		if got, _, _ := strings.Cut(a.header.Get("Content-Type"), ";"); got != "application/json" {
			wrong("Content-Type must be application/json, got %q", got)
		}
		if !json.Valid(a.body) || !utf8.Valid(a.body) {
			wrong("the body must be valid JSON in UTF-8")
		}
		if a.status >= 400 {
			problems = append(problems, a.errorProblems()...)
		}
	}
	for _, name := range a.leakedSecrets() {
		wrong("a response must not contain the value of %s", name)
	}
	if problems == nil {
		return nil
	}
	return fmt.Errorf("%v\nwhich breaks a promise that holds for every response:\n- %s", a, strings.Join(problems, "\n- "))
}

// secrets returns the secrets of the functions and of their database by name. No response may contain one. Short ones,
// such as tokens of tests, are left out: they could be part of any text.
var secrets = func() map[string]string {
	found := map[string]string{}
	keep := func(name, text string) {
		if len(text) >= 12 {
			found[name] = text
		}
	}
	for _, name := range []string{"SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SERVICE_ROLE_JWT", "SUPABASE_ANON_KEY", "SUPABASE_JWT_SECRET", "NETLIFY_BLOBS_TOKEN"} {
		keep(name, os.Getenv(name))
	}
	for _, name := range []string{"KV_API_TOKEN", "KV_READ_TOKEN"} {
		for _, token := range strings.Split(os.Getenv(name), ",") {
			keep(name, strings.TrimSpace(token))
		}
	}
	for _, name := range []string{"SUPABASE_URL", "DATABASE_URL", "DATABASE_ADMIN_URL", "NETLIFY_BLOBS_API_URL"} {
		if u, err := url.Parse(os.Getenv(name)); err == nil {
			keep("the host of "+name, u.Host)
			password, _ := u.User.Password()
			keep("the password of "+name, password)
		}
	}
	return found
}()

// leakedSecrets returns the names of the secrets that a response contains.
func (a *response) leakedSecrets() (names []string) {
	var text bytes.Buffer
	_ = a.header.Write(&text) // a buffer never fails
	text.Write(a.body)
	for name, secret := range secrets {
		if bytes.Contains(text.Bytes(), []byte(secret)) {
			names = append(names, name)
		}
	}
	return names
}

func (a *response) errorProblems() (problems []string) {
	var e struct{ Error, Code, Timestamp string }
	if err := json.Unmarshal(a.body, &e); err != nil {
		return []string{"an error must be an object with error, code and timestamp: " + err.Error()}
	}
	if e.Error == "" {
		problems = append(problems, "an error must have a message in `error`")
	}
	if !slices.Contains(codes[a.status], e.Code) {
		problems = append(problems, fmt.Sprintf("the code of a %d must be one of %q, got %q", a.status, codes[a.status], e.Code))
	}
	if err := checkTimestamp(e.Timestamp); err != nil {
		problems = append(problems, err.Error())
	}
	if leak := leaks.FindString(e.Error); leak != "" {
		problems = append(problems, fmt.Sprintf("an error must not reveal internals: %q", leak))
	}
	if name := variables.FindString(e.Error); name != "" && a.status != http.StatusServiceUnavailable {
		problems = append(problems, fmt.Sprintf("an error must not name a variable: %q", name))
	}
	return problems
}

// checkTimestamp requires the form of toISOString and a time near this machine's clock.
func checkTimestamp(text string) error {
	if !timestampForm.MatchString(text) {
		return fmt.Errorf("a timestamp must look like 2026-11-23T07:00:00.000Z, got %q", text)
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return err
	}
	if off := time.Since(at).Abs(); off > 10*time.Minute {
		return fmt.Errorf("the timestamp %s is %s away from now", text, off)
	}
	return nil
}

// fields returns the fields of the response's object, each value with the bytes that were sent.
func (a *response) fields(t testing.TB) map[string]json.RawMessage {
	t.Helper()
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(a.body, &fields), "%v", a)
	return fields
}

// is requires the status, and a body with exactly the fields of want. It compares "value" and the values in "data" as
// bytes, everything else as JSON. "timestamp":"now" stands for a well-formed current time.
func (a *response) is(t testing.TB, status int, want string) {
	t.Helper()
	require.Equal(t, status, a.status, "%v", a)
	var wanted map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(want), &wanted), "the expectation of this test is not JSON: %.300s", want)
	got := a.fields(t)
	require.ElementsMatch(t, names(wanted), names(got), "fields of the response\n%v", a)
	for name, wantField := range wanted {
		switch gotField := got[name]; name {
		case "value":
			sameBytes(t, wantField, gotField, "value")
		case "data":
			var wantData, gotData map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(wantField, &wantData))
			require.NoError(t, json.Unmarshal(gotField, &gotData))
			require.ElementsMatch(t, names(wantData), names(gotData), "keys of data\n%v", a)
			for key := range wantData {
				sameBytes(t, wantData[key], gotData[key], "value of "+key)
			}
		case "timestamp":
			var text string
			require.NoError(t, json.Unmarshal(gotField, &text))
			require.NoError(t, checkTimestamp(text))
		default:
			sameJSON(t, string(wantField), string(gotField), "%s of\n%v", name, a)
		}
	}
}

// isError requires an error of this status whose message contains each of words.
func (a *response) isError(t testing.TB, status int, words ...string) {
	t.Helper()
	require.Equal(t, status, a.status, "%v", a)
	require.NoError(t, a.keepsPromises())
	for _, word := range words {
		require.Contains(t, a.errorText(t), word)
	}
}

// isExactError requires the exact message of an error that existing clients depend on.
func (a *response) isExactError(t testing.TB, status int, text string) {
	t.Helper()
	a.isError(t, status)
	require.Equal(t, text, a.errorText(t))
}

func (a *response) errorText(t testing.TB) string {
	t.Helper()
	var text string
	require.NoError(t, json.Unmarshal(a.fields(t)["error"], &text), "%v", a)
	return text
}

// names returns the keys of a map, never nil.
func names[V any](m map[string]V) []string {
	list := make([]string, 0, len(m))
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// sameBytes compares texts without printing megabytes.
func sameBytes(t testing.TB, want, got []byte, what string) {
	t.Helper()
	if bytes.Equal(want, got) {
		return
	}
	at := 0
	for at < len(want) && at < len(got) && want[at] == got[at] {
		at++
	}
	near := func(b []byte) string { return string(b[max(0, min(at, len(b))-40):min(len(b), at+40)]) }
	require.FailNow(t, "not the bytes that were written", "%s: %d bytes instead of %d, the first difference is at %d\nwant …%q…\ngot  …%q…",
		what, len(got), len(want), at, near(want), near(got))
}

// sameJSON compares JSON texts, and numbers as they are written.
func sameJSON(t testing.TB, want, got string, message string, args ...any) {
	t.Helper()
	decode := func(text string) (v any) {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		require.NoError(t, d.Decode(&v), "%.300s", text)
		return v
	}
	require.Equal(t, decode(want), decode(got), append([]any{message}, args...)...)
}

// quote writes a string as JSON with as few escapes as possible.
func quote(text string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func quoteAll(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = quote(text)
	}
	return "[" + strings.Join(quoted, ",") + "]"
}

// index is one element of an upsert's indexes. numeric makes a member that is a number.
type index struct{ key, member string }

// numeric makes a member that is a number: its text after a character that no member can contain.
func numeric(text string) string { return "\x00" + text }

func (x index) String() string { return x.key + ":" + strings.TrimPrefix(x.member, "\x00") }

// memberJSON returns a member as it is sent, and as its index entry has it.
func memberJSON(member string) string {
	if spelling, ok := strings.CutPrefix(member, "\x00"); ok {
		return spelling
	}
	return quote(member)
}

func upsertBody(key, value string, indexes ...index) string {
	b := `{"key":` + quote(key) + `,"value":` + value
	for i, ix := range indexes {
		b += []string{`,"indexes":[`, `,`}[min(i, 1)] + `{"key":` + quote(ix.key) + `,"member":` + memberJSON(ix.member) + `}`
	}
	if len(indexes) > 0 {
		b += "]"
	}
	return b + "}"
}

// tryUpsert is upsert for goroutines.
func tryUpsert(key, value string, indexes ...index) error {
	a, err := send(http.MethodPost, upsertPath, body(upsertBody(key, value, indexes...)))
	if err == nil && a.status != http.StatusOK {
		err = errors.New(a.String())
	}
	return err
}

// upsert writes an entry. Without indexes, the entry keeps those that it has.
func upsert(t testing.TB, key, value string, indexes ...index) *response {
	t.Helper()
	a := call(t, http.MethodPost, upsertPath, body(upsertBody(key, value, indexes...)))
	if !keepable(key) || slices.ContainsFunc(indexes, func(ix index) bool { return !keepable(ix.key) }) {
		a.isError(t, http.StatusBadRequest, "Netlify Blobs")
		t.Skip("Netlify Blobs refuses a key of this test")
	}
	a.is(t, http.StatusOK, `{"ok":true,"key":`+quote(key)+`,"timestamp":"now"}`)
	return a
}

// get reads a key from the database, not from the cache.
func get(t testing.TB, key string) *response {
	t.Helper()
	return call(t, http.MethodGet, getPath+"?key="+url.QueryEscape(key), fresh)
}

// holds requires that the key has exactly this value, as bytes.
func holds(t testing.TB, key, value string) {
	t.Helper()
	get(t, key).is(t, http.StatusOK, `{"key":`+quote(key)+`,"value":`+value+`,"exists":true,"timestamp":"now"}`)
}

// holdsJSON requires that the key has this value, whatever its spacing.
func holdsJSON(t testing.TB, key, value string) {
	t.Helper()
	a := get(t, key)
	require.Equal(t, http.StatusOK, a.status, "%v", a)
	sameJSON(t, value, string(a.fields(t)["value"]), "value of %q", key)
}

// absent requires that the key has no entry.
func absent(t testing.TB, key string) {
	t.Helper()
	a := get(t, key)
	a.isExactError(t, http.StatusNotFound, "Key not found")
	fields := a.fields(t)
	require.JSONEq(t, quote(key), string(fields["key"]), "%v", a)
	require.Equal(t, "false", string(fields["exists"]), "%v", a)
}

// remove deletes a key and requires that the response reports whether it existed.
func remove(t testing.TB, key string, wasThere bool) {
	t.Helper()
	call(t, http.MethodDelete, deletePath+"?key="+url.QueryEscape(key)).
		is(t, http.StatusOK, fmt.Sprintf(`{"ok":true,"key":%s,"deleted":%t,"timestamp":"now"}`, quote(key), wasThere))
}

// params encodes query parameters given as name, value, name, value, ….
func params(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(pairs[i] + "=" + url.QueryEscape(pairs[i+1]))
	}
	return b.String()
}

func list(t testing.TB, pairs ...string) *response {
	t.Helper()
	return call(t, http.MethodGet, listPath+params(pairs...))
}

// page is a list's response.
type page struct {
	Keys       []string
	Count      int
	Data       map[string]json.RawMessage
	Pagination *struct {
		Limit, Offset *int
		HasMore       bool
		NextCursor    *string
	}
}

// page requires a well-formed list: a correct count, a list of keys even if it is empty, and a cursor exactly if more
// keys follow.
func (a *response) page(t testing.TB) page {
	t.Helper()
	p, err := a.decodePage()
	require.NoError(t, err)
	require.NotNil(t, p.Keys, "keys must be an array even when it is empty: %v", a)
	require.Len(t, p.Keys, p.Count, "count must be the number of keys in the response")
	if p.Pagination != nil {
		require.Equal(t, p.Pagination.HasMore, p.Pagination.NextCursor != nil, "nextCursor must be null exactly when nothing follows: %v", a)
		require.NotNil(t, p.Pagination.Offset, "pagination must name the offset: %v", a)
	}
	return p
}

func (a *response) decodePage() (p page, err error) {
	if a.status != http.StatusOK {
		return p, errors.New(a.String())
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		return p, fmt.Errorf("%v: %w", a, err)
	}
	return p, nil
}

// keys lists everything under a prefix, without paging.
func keys(t testing.TB, pairs ...string) []string {
	t.Helper()
	return list(t, pairs...).page(t).Keys
}

// walk follows the cursor to the end and returns all keys in their order. It passes each page to visit, if that is
// given.
func walk(t testing.TB, visit func(page), pairs ...string) []string {
	t.Helper()
	all := []string{}
	cursor := ""
	for pages := 0; ; pages++ {
		require.Less(t, pages, 10_000, "the cursor never ends")
		p := list(t, append(slices.Clone(pairs), "cursor", cursor)...).page(t)
		all = append(all, p.Keys...)
		if visit != nil {
			visit(p)
		}
		require.NotNil(t, p.Pagination, "a paged response must have pagination")
		if !p.Pagination.HasMore {
			return all
		}
		require.NotEmpty(t, p.Keys, "only the last page may be empty, or callers never end")
		require.NotEqual(t, cursor, *p.Pagination.NextCursor, "the cursor does not move")
		cursor = *p.Pagination.NextCursor
	}
}

// prefixed adds the prefix to each of the keys that can be stored, and sorts them by their UTF-8 bytes.
func prefixed(prefix string, keys ...string) []string {
	all := make([]string, 0, len(keys))
	for _, key := range keys {
		if keepable(prefix + key) {
			all = append(all, prefix+key)
		}
	}
	slices.Sort(all)
	return all
}

func random() string {
	b := make([]byte, 6)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// inParallel runs do for 0 … n-1 in a number of goroutines and returns the first error.
func inParallel(workers, n int, do func(i int) error) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		next  int
		first error
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= n && first == nil
	}
	for range workers {
		wg.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				if err := do(i); err != nil {
					mu.Lock()
					first = cmp.Or(first, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}

// cleanupContext outlives the test's own context, which ends before the cleanups run.
func cleanupContext(t testing.TB) context.Context {
	return context.WithoutCancel(t.Context())
}
