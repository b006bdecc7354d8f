package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/netlify"
)

// Way is a way to run an operation.
type Way string

const (
	WayFunction  Way = "function"         // the handler, in this process, without its cache
	WayPostgREST Way = "PostgREST"        // the function's call to PostgREST, from a plain HTTP client
	WaySQL       Way = "SQL"              // the same call, directly to Postgres
	WayCache     Way = "function, miss"   // the handler with its cache, for a result that is not in memory; it also reads the change feed
	WayHost      Way = "function, hosted" // a deployed binary, through the host over HTTP
	WayTable     Way = "table"            // the most similar plain request to a table
	WayBlobs     Way = "Blobs"            // the handler on Netlify Blobs
)

// Project is the measured platform.
type Project struct {
	URL, Key string // of Supabase
	Database string // connection string
	Site     string // address of the functions; "" if there are none
	client   *http.Client
	types    map[string]map[string]string // of the kv_* functions' arguments
	recorder *recorder
	store    *kv.Supabase
}

// Open prepares measurements.
func Open(ctx context.Context, p Project) (*Project, error) {
	p.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32, DisableCompression: true}}
	var err error
	if p.store, err = kv.NewSupabase(p.URL, p.Key); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, p.Database)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	if p.types, err = argumentTypes(ctx, conn); err != nil {
		return nil, err
	}
	p.recorder, err = newRecorder()
	return &p, err
}

// Close closes what Open opened.
func (p *Project) Close() { p.recorder.server.Close() }

// Connect opens another connection to the database.
func (p *Project) Connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, p.Database)
}

// Store returns the project's store.
func (p *Project) Store() *kv.Supabase { return p.store }

// argumentTypes reads the types of the kv_* functions' arguments.
func argumentTypes(ctx context.Context, conn *pgx.Conn) (map[string]map[string]string, error) {
	rows, err := conn.Query(ctx, `
		select p.proname, p.proargnames[n], format_type(t, null)
		from pg_proc as p, unnest(p.proargtypes) with ordinality as a (t, n)
		where p.pronamespace = 'public'::regnamespace and p.proname like 'kv\_%' and p.proargnames is not null`)
	if err != nil {
		return nil, err
	}
	types := map[string]map[string]string{}
	var function, argument, kind string
	_, err = pgx.ForEachRow(rows, []any{&function, &argument, &kind}, func() error {
		if types[function] == nil {
			types[function] = map[string]string{}
		}
		types[function][argument] = kind
		return nil
	})
	return types, err
}

// rpc is a call to a kv_* function.
type rpc struct {
	function string
	args     []byte // JSON
}

// recorder stands in for a Supabase project and records the call of a function, so that the same call can be made in
// other ways.
type recorder struct {
	server *httptest.Server
	calls  chan rpc
	store  *kv.Supabase
}

func newRecorder() (*recorder, error) {
	r := &recorder{calls: make(chan rpc, 1)}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		args, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		r.calls <- rpc{path.Base(request.URL.Path), args}
		w.Header().Set("Content-Type", responseType)
		_, _ = io.WriteString(w, `{"version":"0.0"}`)
	}))
	var err error
	r.store, err = kv.NewSupabase(r.server.URL, "recorder")
	return r, err
}

// call returns the function's call to the database for an event. The function's response is ignored.
func (r *recorder) call(ctx context.Context, function string, event []byte) (rpc, error) {
	if _, err := newInstance(endpoint(function, r.store, kv.Uncached(r.store))).handler.Invoke(ctx, event); err != nil {
		return rpc{}, err
	}
	select {
	case call := <-r.calls:
		return call, nil
	default:
		return rpc{}, fmt.Errorf("%s asked nothing of the database", function)
	}
}

// responseType is the media type of the kv_* functions' results.
const responseType = "application/vnd.kv+json"

// endpoint returns the endpoint of a function's binary.
func endpoint(function string, store kv.Store, reader kv.Reader) netlify.Endpoint {
	switch function {
	case "kv-upsert":
		return netlify.Upsert(store)
	case "kv-get":
		return netlify.Get(reader)
	case "kv-list":
		return netlify.List(reader)
	case "kv-query":
		return netlify.Query(reader, netlify.QueryTimeoutFromEnv())
	}
	panic("no function " + function)
}

// cachedReader returns the reader of a function with default settings.
func cachedReader(function string, store *kv.Supabase) kv.Reader {
	config := kv.DefaultCache
	config.MaxStale = map[string]netlify.CacheDefaults{"kv-get": netlify.GetCache, "kv-list": netlify.ListCache, "kv-query": netlify.QueryCache}[function].MaxStale
	return kv.NewCache(store, config)
}

// postgrest makes the call over HTTP.
func (p *Project) postgrest(ctx context.Context, call rpc) error {
	_, err := p.send(ctx, tableRequest{method: http.MethodPost, path: "rpc/" + call.function, body: json.RawMessage(call.args)}, responseType)
	return err
}

// send sends a request to PostgREST and reads the complete response.
func (p *Project) send(ctx context.Context, t tableRequest, accept string) (http.Header, error) {
	var body []byte
	switch b := t.body.(type) {
	case nil:
	case json.RawMessage:
		body = b
	default:
		return nil, errors.New("the body must be JSON already: making it is not to be measured")
	}
	request, err := http.NewRequestWithContext(ctx, t.method, p.URL+"/rest/v1/"+t.path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header = http.Header{"Apikey": {p.Key}, "Authorization": {"Bearer " + p.Key}, "Accept": {accept}, "Content-Type": {"application/json"}}
	if t.prefer != "" {
		request.Header.Set("Prefer", t.prefer)
	}
	return p.do(request)
}

func (p *Project) do(request *http.Request) (http.Header, error) {
	response, err := p.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusCreated {
		return nil, fmt.Errorf("%s returned %d %.200s", request.URL.Path, response.StatusCode, text)
	}
	return response.Header, nil
}

// hosted sends the request to a deployed function.
func (p *Project) hosted(ctx context.Context, function string, q request) error {
	address := strings.TrimSuffix(p.Site, "/") + "/.netlify/functions/" + function
	if query := q.query(); query != "" {
		address += "?" + query
	}
	request, err := http.NewRequestWithContext(ctx, q.method, address, bytes.NewReader(q.body))
	if err != nil {
		return err
	}
	request.Header = http.Header{"Content-Type": {"application/json"}}
	if q.bypass {
		request.Header.Set("X-KV-Cache", "bypass")
	}
	_, err = p.do(request)
	return err
}

// statement returns the call as SQL, which pgx prepares at the first use.
func (p *Project) statement(call rpc) (sql string, args []any, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(call.args, &fields); err != nil {
		return "", nil, err
	}
	var named []string
	for i, name := range slices.Sorted(maps.Keys(fields)) {
		kind := p.types[call.function][name]
		arg, err := argument(fields[name], kind)
		if err != nil {
			return "", nil, fmt.Errorf("%s of %s: %w", name, call.function, err)
		}
		named, args = append(named, fmt.Sprintf("%s => $%d::%s", name, i+1, kind)), append(args, arg)
	}
	return "select public." + call.function + "(" + strings.Join(named, ", ") + ")", args, nil
}

// argument converts a JSON text to a parameter of the type for pgx.
func argument(text json.RawMessage, kind string) (arg any, err error) {
	if string(text) == "null" {
		return nil, nil
	}
	switch kind {
	case "text", "uuid":
		return decode[string](text)
	case "boolean":
		return decode[bool](text)
	case "integer", "bigint":
		return decode[int64](text)
	case "jsonb":
		return string(text), nil
	case "text[]":
		if pairs, err := decode[[][]string](text); err == nil && len(pairs) > 0 {
			return pairs, nil
		}
		return decode[[]string](text)
	}
	return nil, fmt.Errorf("no way to pass a %q", kind)
}

func decode[T any](text []byte) (v T, err error) {
	err = json.Unmarshal(text, &v)
	return v, err
}
