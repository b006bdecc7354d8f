package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/netlify"
)

// instance is one instance of a function, as a process of its own would hold it.
type instance struct{ handler *netlify.Handler }

func newInstance(endpoint netlify.Endpoint) instance {
	return instance{netlify.HandleWithLog(endpoint, slog.New(slog.DiscardHandler))}
}

// reply is what a benchmark looks at of an answer.
type reply struct {
	took   time.Duration
	source kv.Source
}

// invoke sends an event and times the answer, which must be 200.
func (i instance) invoke(ctx context.Context, event []byte) (reply, error) {
	began := time.Now()
	raw, err := i.handler.Invoke(ctx, event)
	took := time.Since(began)
	if err != nil {
		return reply{}, err
	}
	var response struct {
		StatusCode int
		Headers    map[string]string
		Body       string
	}
	if err := json.Unmarshal(raw, &response); err != nil {
		return reply{}, fmt.Errorf("read the function's response: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return reply{}, fmt.Errorf("the function answered %d %.200s", response.StatusCode, response.Body)
	}
	return reply{took, kv.Source(response.Headers["X-KV-Cache"])}, nil
}

// event is what Netlify sends for a request.
func event(method string, params map[string]string, body any) []byte {
	e := map[string]any{"httpMethod": method, "queryStringParameters": params}
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			panic(err) // only for values that no benchmark makes
		}
		e["body"] = string(text)
	}
	raw, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return raw
}
