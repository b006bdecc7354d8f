package kv

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// LiveStore returns a store in the running platform's Supabase.
func LiveStore(t testing.TB) *Supabase {
	t.Helper()
	return storeAt(t, variable(t, "SUPABASE_URL"))
}

func storeAt(t testing.TB, address string) *Supabase {
	t.Helper()
	store, err := NewSupabase(address, variable(t, "SUPABASE_SERVICE_ROLE_KEY"))
	require.NoError(t, err)
	return store
}

// Projects have two kinds of keys, which use different headers.
func TestBothKindsOfKeys(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SERVICE_ROLE_JWT"} {
		store, err := NewSupabase(variable(t, "SUPABASE_URL"), variable(t, name))
		require.NoError(t, err)
		_, err = store.List(t.Context(), ListQuery{Prefix: "no/such/prefix/"})
		require.NoError(t, err, name)
	}
	store, err := NewSupabase(variable(t, "SUPABASE_URL"), variable(t, "SUPABASE_ANON_KEY"))
	require.NoError(t, err)
	_, err = store.List(t.Context(), ListQuery{})
	require.Equal(t, CodeNotConfigured, CodeOf(err), "got %v", err)
}

func variable(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: this test needs a database: run `make test`, or `make up` and `set -a; . .local/env`", name)
	}
	return value
}

// liveSQL returns a connection to the database.
func liveSQL(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), variable(t, "DATABASE_URL"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// newPrefix returns a prefix for one test. Its entries are deleted at the end.
func newPrefix(t testing.TB) string {
	t.Helper()
	prefix := "cache/" + uuid.NewString() + "/"
	conn := liveSQL(t)
	t.Cleanup(func() {
		_, err := conn.Exec(context.WithoutCancel(t.Context()), "delete from public.kv_store where starts_with(key, $1)", prefix)
		require.NoError(t, err)
	})
	return prefix
}

// road is a proxy of the real Supabase. A test sees every request, and can delay it or respond itself.
type road struct {
	*httptest.Server
	mu    sync.Mutex
	calls []string
	meet  func(w http.ResponseWriter, function string, forward func()) // nil: forward
}

func newRoad(t testing.TB) *road {
	t.Helper()
	to := variable(t, "SUPABASE_URL")
	r := &road{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		body, err := io.ReadAll(in.Body)
		if err != nil {
			return
		}
		function := in.URL.Path[strings.LastIndex(in.URL.Path, "/")+1:]
		if strings.HasPrefix(string(body), `{"p_since":`) && function != "kv_changes" {
			function += " since"
		}
		r.mu.Lock()
		r.calls = append(r.calls, function)
		meet := r.meet
		r.mu.Unlock()
		forward := func() {
			out, err := http.NewRequest(in.Method, to+in.URL.RequestURI(), strings.NewReader(string(body)))
			if err != nil {
				return
			}
			out.Header = in.Header.Clone()
			response, err := http.DefaultClient.Do(out)
			if err != nil {
				return
			}
			defer response.Body.Close()
			for name, values := range response.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(response.StatusCode)
			_, _ = io.Copy(w, response.Body)
		}
		if meet == nil {
			forward()
			return
		}
		meet(w, function, forward)
	}))
	t.Cleanup(r.Close)
	return r
}

// taken returns the functions called since the last time, with " since" after those with a cache's cursor.
func (r *road) taken() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

func (r *road) block(meet func(w http.ResponseWriter, function string, forward func())) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meet = meet
}
