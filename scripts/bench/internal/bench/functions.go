package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/netlify"
)

// instance is one instance of a function, in this process.
type instance struct{ handler *netlify.Handler }

// newInstance creates an instance whose log is written and discarded.
func newInstance(endpoint netlify.Endpoint) instance {
	return instance{netlify.HandleWithLog(endpoint, slog.New(slog.NewJSONHandler(nowhere(), nil)))}
}

var nowhere = sync.OnceValue(func() io.Writer {
	file, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return io.Discard
	}
	return file
})

// reply has the fields of a response that benchmarks use.
type reply struct {
	took   time.Duration
	source kv.Source
	body   string
}

// invoke sends an event and times the response, whose status must be 200 or 201.
func (i instance) invoke(ctx context.Context, event []byte) (reply, error) {
	began := time.Now()
	raw, err := i.handler.Invoke(ctx, event)
	took := time.Since(began)
	if err != nil {
		return reply{}, err
	}
	var response struct {
		StatusCode int               `json:"statusCode"`
		Headers    map[string]string `json:"headers"`
		Body       string            `json:"body"`
	}
	// Not timed, but other calls wait meanwhile where ten are sent at a time: encoding/json takes four times as long.
	if err := jsonv2.Unmarshal(raw, &response); err != nil {
		return reply{}, fmt.Errorf("read the function's response: %w", err)
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusCreated {
		return reply{}, fmt.Errorf("the function returned %d %.200s", response.StatusCode, response.Body)
	}
	return reply{took, kv.Source(response.Headers["X-KV-Cache"]), response.Body}, nil
}

// request is one request to a function.
type request struct {
	method string
	params map[string]string
	body   []byte // JSON, or nil
	bypass bool   // bypass the cache
	path   string // "" for functions that do not read it
	kind   string // the body's content type; "" is JSON
}

// post returns a request with a JSON body.
func post(body any) request {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // the values come from this package
	}
	return request{method: http.MethodPost, body: text}
}

func get(params map[string]string) request {
	return request{method: http.MethodGet, params: params}
}

func (r request) fresh() request {
	r.bypass = true
	return r
}

func (r request) query() string {
	values := url.Values{}
	for name, value := range r.params {
		values.Set(name, value)
	}
	return values.Encode()
}

// event returns Netlify's event for a request, with the headers of a browser and of the platform, since parsing the
// event is part of a function's work.
func (r request) event() []byte {
	header := map[string]string{
		"host": "site.netlify.app", "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"accept": "application/json, text/plain, */*", "accept-language": "en-US,en;q=0.5", "accept-encoding": "gzip, br",
		"content-type": cmp.Or(r.kind, "application/json"), "origin": "https://site.netlify.app", "referer": "https://site.netlify.app/app",
		"x-forwarded-for": "203.0.113.7, 198.51.100.1", "x-forwarded-proto": "https", "x-language": "en", "x-country": "DE",
		"x-nf-client-connection-ip": "203.0.113.7", "x-nf-request-id": "01JD000000000000000000000A", "x-nf-deploy-id": "0", "x-nf-deploy-context": "production",
		"x-nf-account-id": "0", "x-nf-account-tier": "account_type_pro", "x-nf-site-id": os.Getenv("NETLIFY_SITE_ID"), "via": "https/2 Netlify",
	}
	if r.bypass {
		header["x-kv-cache"] = "bypass"
	}
	path := cmp.Or(r.path, "/.netlify/functions/kv")
	address := "https://site.netlify.app" + path
	if query := r.query(); query != "" {
		address += "?" + query
	}
	e := map[string]any{
		"httpMethod": r.method, "path": path, "rawUrl": address, "rawQuery": r.query(),
		"headers": header, "multiValueHeaders": several(header),
		"queryStringParameters": r.params, "multiValueQueryStringParameters": several(r.params),
		"body": nil, "isBase64Encoded": r.body == nil, "blobs": os.Getenv("NETLIFY_BLOBS_EVENT"),
	}
	if r.body != nil {
		e["body"] = string(r.body)
	}
	raw, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return raw
}

func several(single map[string]string) map[string][]string {
	several := make(map[string][]string, len(single))
	for name, value := range single {
		several[name] = []string{value}
	}
	return several
}
