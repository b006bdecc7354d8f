package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// site stands in for kv-query. It pages n entries in the requested format, and refuses or breaks on demand.
type site struct {
	n        int
	cursors  bool                                                               // the order has cursors
	notice   string                                                             // in every response
	trouble  func(request int, limit int, w http.ResponseWriter) (handled bool) // plants a failure
	requests int
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests++
	var q struct {
		Limit, Offset int
		Cursor        string
		Format        string
		Aggregate     []any
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		panic(err)
	}
	if q.Aggregate != nil {
		fmt.Fprintf(w, `{"aggregates":[{"op":"count","value":%d}]}`, s.n)
		return
	}
	if s.trouble != nil && s.trouble(s.requests, q.Limit, w) {
		return
	}
	from := q.Offset
	if q.Cursor != "" {
		from, _ = strconv.Atoi(q.Cursor)
	}
	to := min(from+q.Limit, s.n)
	var body bytes.Buffer
	if q.Format == "csv" {
		body.WriteString("key,\"a\r\nb\"\r\n")
	}
	for i := from; i < to; i++ {
		if q.Format == "csv" {
			fmt.Fprintf(&body, "%d,x\r\n", i)
		} else {
			fmt.Fprintf(&body, "{\"key\":\"%d\"}\n", i)
		}
	}
	w.Header().Set("Content-Disposition", "attachment")
	w.Header().Set("X-KV-Count", strconv.Itoa(to-from))
	w.Header().Set("X-KV-Has-More", strconv.FormatBool(to < s.n))
	if s.notice != "" {
		w.Header().Set("X-KV-Notice", s.notice)
	}
	if s.cursors && to < s.n {
		w.Header().Set("X-KV-Next-Cursor", strconv.Itoa(to))
	}
	_, _ = w.Write(body.Bytes())
}

// whole returns the expected export of n entries.
func whole(n int, format string) string {
	var b strings.Builder
	for i := range n {
		switch {
		case format == "csv":
			fmt.Fprintf(&b, "%d,x\r\n", i)
		case format == "json" && i > 0:
			fmt.Fprintf(&b, ",\n{\"key\":\"%d\"}", i)
		case format == "json":
			fmt.Fprintf(&b, "[\n{\"key\":\"%d\"}", i)
		default:
			fmt.Fprintf(&b, "{\"key\":\"%d\"}\n", i)
		}
	}
	switch {
	case format == "csv":
		return "key,\"a\r\nb\"\r\n" + b.String()
	case format == "json" && n > 0:
		return b.String() + "\n]\n"
	case format == "json":
		return "[]\n"
	}
	return b.String()
}

func run(t *testing.T, s *site, format string, page int) (text string, warnings []string, err error) {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	var b bytes.Buffer
	n, err := Run(t.Context(), &b, Options{URL: server.URL + "/", Format: format, Page: page, Query: map[string]json.RawMessage{},
		Progress: func(int) {}, Warn: func(message string) { warnings = append(warnings, message) }})
	if err == nil {
		require.Equal(t, s.n, n)
	}
	return b.String(), warnings, err
}

func TestNoticesAreShownOnce(t *testing.T) {
	t.Parallel()
	_, warnings, err := run(t, &site{n: 30, cursors: true, notice: "not_searched, something_new, replaced"}, "csv", 7)
	require.NoError(t, err)
	require.Len(t, warnings, 2)
	require.Contains(t, warnings[0], "not searched")
}

func TestPagesAreJoined(t *testing.T) {
	t.Parallel()
	for _, format := range Formats {
		for _, n := range []int{0, 1, 6, 7, 20} {
			for _, cursors := range []bool{true, false} {
				text, warnings, err := run(t, &site{n: n, cursors: cursors}, format, 7)
				require.NoError(t, err)
				require.Equal(t, whole(n, format), text, "%d entries as %s", n, format)
				require.Equal(t, !cursors && n > 7, len(warnings) == 1, "one warning about offsets: %v", warnings)
			}
		}
	}
}

func TestByteOrderMarkIsOnlyForCSV(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(&site{n: 1})
	t.Cleanup(server.Close)
	for format, want := range map[string]string{"csv": "\ufeff" + whole(1, "csv"), "ndjson": whole(1, "ndjson")} {
		var b bytes.Buffer
		_, err := Run(t.Context(), &b, Options{URL: server.URL, Format: format, Page: 5, BOM: true, Progress: func(int) {}})
		require.NoError(t, err)
		require.Equal(t, want, b.String())
	}
}

func TestTransientFailuresAreRetriedAndPagesAreHalved(t *testing.T) {
	t.Parallel()
	fail := func(status int, headers ...string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			for i := 0; i+1 < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			fmt.Fprint(w, `{"error":"trouble"}`)
		}
	}
	for name, trouble := range map[string]func(http.ResponseWriter){
		"503": fail(503), "429 with Retry-After": fail(429, "Retry-After", "1"), "BrokenLine": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, warnings, err := run(t, &site{n: 20, cursors: true, trouble: func(request, _ int, w http.ResponseWriter) bool {
				if request == 2 {
					trouble(w)
				}
				return request == 2
			}}, "ndjson", 7)
			require.NoError(t, err)
			require.Equal(t, whole(20, "ndjson"), text)
			require.Len(t, warnings, 1, "nobody waits without knowing why")
			require.Contains(t, warnings[0], ": retrying")
		})
	}
	for _, status := range []int{413, 504} {
		text, _, err := run(t, &site{n: 20, cursors: true, trouble: func(_, limit int, w http.ResponseWriter) bool {
			if limit > 3 {
				fail(status)(w)
			}
			return limit > 3
		}}, "ndjson", 16)
		require.NoError(t, err)
		require.Equal(t, whole(20, "ndjson"), text)
	}
}

func TestCountMustMatchTheEntries(t *testing.T) {
	t.Parallel()
	for _, format := range Formats {
		s := &site{n: 3, trouble: func(_, _ int, w http.ResponseWriter) bool {
			w.Header().Set("Content-Disposition", "attachment")
			w.Header().Set("X-KV-Count", "4")
			if fmt.Fprint(w, map[string]string{"csv": "key,\"a\r\nb\"\r\n0,\"x\r\ny\"\r\n1,x\r\n2,x\r\n"}[format]); format != "csv" {
				fmt.Fprint(w, "{\"key\":\"0\"}\n{\"key\":\"1\"}\n{\"key\":\"2\"}\n")
			}
			return true
		}}
		_, _, err := run(t, s, format, 7)
		require.ErrorContains(t, err, "returned 3 entries but announced 4", format)
	}
}

// stuck is a server that sends the beginning of a response, or nothing, and then stalls.
func stuck(beginning string) func(*http.Request, http.ResponseWriter) {
	return func(r *http.Request, w http.ResponseWriter) {
		if beginning != "" {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, beginning)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	}
}

func TestAStalledRequestIsRetried(t *testing.T) {
	t.Parallel()
	for name, stall := range map[string]func(*http.Request, http.ResponseWriter){"AtOnce": stuck(""), "InTheMiddle": stuck("half")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &site{n: 20, cursors: true}
			var requests atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) == 2 {
					_, _ = io.Copy(io.Discard, r.Body) // the server notices a closed connection only after it has read the body
					stall(r, w)
					return
				}
				s.ServeHTTP(w, r)
			}))
			t.Cleanup(server.Close)
			var b bytes.Buffer
			var warnings []string
			_, err := Run(t.Context(), &b, Options{URL: server.URL, Format: "ndjson", Page: 7, Stall: 5 * time.Second, Progress: func(int) {},
				Warn: func(message string) { warnings = append(warnings, message) }})
			require.NoError(t, err)
			require.Equal(t, whole(20, "ndjson"), b.String())
			require.Len(t, warnings, 1)
			require.Contains(t, warnings[0], "sent nothing for 5s")
		})
	}
}

func TestAStallEndsTheExportAndEarlierPagesStay(t *testing.T) {
	t.Parallel()
	for _, format := range Formats {
		for _, cursors := range []bool{true, false} {
			t.Run(fmt.Sprint(format, cursors), func(t *testing.T) {
				t.Parallel()
				s, well := &site{n: 20, cursors: cursors}, atomic.Bool{}
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if s.requests == 2 && !well.Load() {
						_, _ = io.Copy(io.Discard, r.Body)
						stuck("half")(r, w)
						return
					}
					s.ServeHTTP(w, r)
				}))
				t.Cleanup(server.Close)
				var b bytes.Buffer
				var at Position
				o := Options{URL: server.URL, Format: format, Page: 7, Stall: time.Second, retryTime: time.Nanosecond, BOM: true, Progress: func(int) {}, Warn: func(string) {},
					Saved: func(p Position) error { at = p; return nil }}
				_, err := Run(t.Context(), &b, o)
				var stalled *Stalled
				require.ErrorAs(t, err, &stalled)
				require.EqualError(t, err, "kv-query sent nothing for 1s after 4 bytes of a response")
				require.Equal(t, 14, at.Entries)

				well.Store(true)
				o.From, o.Stall, o.retryTime = at, 0, 0
				written, err := Run(t.Context(), &b, o)
				require.NoError(t, err)
				require.Equal(t, 20, written)
				require.Equal(t, whole(20, format), strings.TrimPrefix(b.String(), "\ufeff"))
			})
		}
	}
}

func TestARefusalEndsTheExportWithItsMessage(t *testing.T) {
	t.Parallel()
	for status, body := range map[int]string{400: `{"error":"where[0] is wrong"}`, 401: `{"error":"missing token"}`, 404: "<html>", 413: `{"error":"too large"}`,
		503: `{"error":"USE_SUPABASE_KV is not true","code":"not_configured"}`} {
		s := &site{n: 5, trouble: func(_, _ int, w http.ResponseWriter) bool {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return true
		}}
		_, _, err := run(t, s, "csv", 1)
		var refused *Refused
		require.ErrorAs(t, err, &refused)
		require.Equal(t, status, refused.Status)
		require.Equal(t, 1, s.requests, "%d is not retried", status)
	}
}

func TestATimeToWaitThatIsTooLongEndsTheExportWithTheMessage(t *testing.T) {
	t.Parallel()
	s := &site{n: 5, trouble: func(_, _ int, w http.ResponseWriter) bool {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"error":"the project is over its quota","code":"unavailable"}`)
		return true
	}}
	_, _, err := run(t, s, "csv", 1)
	require.EqualError(t, err, "kv-query answered 503: the project is over its quota")
	require.Equal(t, 1, s.requests)
}

func TestPagingFieldsInTheQueryAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"limit", "cursor", "offset", "format", "aggregate"} {
		err := Options{Format: "csv", Page: 1, Query: map[string]json.RawMessage{name: json.RawMessage("1")}}.Validate()
		require.ErrorContains(t, err, name)
	}
	require.ErrorContains(t, Options{Format: "xml", Page: 1}.Validate(), "format")
	require.ErrorContains(t, Options{Format: "csv", Page: 10_001}.Validate(), "page")
}

// TestExportFromThePlatform is the only test here that needs the platform.
func TestExportFromThePlatform(t *testing.T) {
	base := os.Getenv("KV_HOST_URL")
	if base == "" {
		t.Skip("KV_HOST_URL is not set: this test is for the local platform (make test, or make up)")
	}
	prefix := "export/" + uuid.NewString() + "/"
	post := func(function, body string) {
		response, err := http.Post(base+"/.netlify/functions/"+function, "application/json", strings.NewReader(body))
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, http.StatusOK, response.StatusCode)
	}
	var keys []string
	for i := range 25 {
		keys = append(keys, fmt.Sprintf("%s%02d", prefix, i))
		post("kv-upsert", fmt.Sprintf(`{"key":%q,"value":{"n":%d.0}}`, keys[i], i))
	}
	t.Cleanup(func() {
		for _, key := range keys {
			post("kv-delete", fmt.Sprintf(`{"key":%q}`, key))
		}
	})
	o := Options{URL: base, Format: "json", Page: 4, Progress: func(int) {},
		Query: map[string]json.RawMessage{"prefix": json.RawMessage(strconv.Quote(prefix)), "select": json.RawMessage(`["key","value"]`)}}
	n, err := Count(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, 25, n)
	var b bytes.Buffer
	_, err = Run(t.Context(), &b, o)
	require.NoError(t, err)
	var entries []struct {
		Key   string
		Value json.RawMessage
	}
	require.NoError(t, json.Unmarshal(b.Bytes(), &entries))
	require.Len(t, entries, 25)
	for i, e := range entries {
		require.Equal(t, keys[i], e.Key)
		require.Equal(t, fmt.Sprintf(`{"n":%d.0}`, i), string(e.Value))
	}
}
