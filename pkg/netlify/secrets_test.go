package netlify

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// TestNoSecretInAResponse makes stores fail in every way. The server that stands in for Supabase and for Blobs quotes
// the request's key and address, as a gateway's error page may.
func TestNoSecretInAResponse(t *testing.T) {
	tells := func(r *http.Request) string {
		return fmt.Sprintf("key %s apikey %s at %s%s", r.Header.Get("Authorization"), r.Header.Get("Apikey"), r.Host, r.URL)
	}
	failures := map[string]http.HandlerFunc{
		"Hangs": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client has gone
			<-r.Context().Done()
		},
		"CutsTheLine": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"Page":        func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "<html>%s</html>", tells(r)) },
		"Nonsense": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.kv+json")
			fmt.Fprint(w, tells(r))
		},
		"Redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere?"+url.QueryEscape(tells(r)), http.StatusFound)
		},
	}
	for _, status := range []int{400, 401, 403, 404, 409, 413, 429, 500, 502, 503} {
		failures[fmt.Sprintf("Page%d", status)] = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Nf-Error", tells(r))
			w.WriteHeader(status)
			fmt.Fprint(w, tells(r))
		}
	}
	for _, code := range []string{"", "XX000", "22P02", "23514", "40P01", "42501", "42P01", "57014", "PGRST000", "PGRST202", "PGRST301", "PGRST999"} {
		failures["Code"+code] = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintf(w, `{"code":"%s","message":%s,"details":%[2]s,"hint":%[2]s}`, code, kv.AppendString(nil, tells(r)))
		}
	}
	for name, fail := range failures {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(fail)
			t.Cleanup(server.Close)
			requireNothingTold(t, server.URL)
		})
	}
	t.Run("NobodyThere", func(t *testing.T) {
		server := httptest.NewServer(http.NotFoundHandler())
		server.Close()
		requireNothingTold(t, server.URL)
	})
	t.Run("NoSuchHost", func(t *testing.T) { requireNothingTold(t, "https://host-of-nobody.invalid:8443") })
	t.Run("NoAddress", func(t *testing.T) { requireNothingTold(t, "secret-address-without-scheme") })
}

// requireNothingTold calls all functions with both stores.
func requireNothingTold(t *testing.T, address string) {
	secrets := map[string]string{
		"SUPABASE_URL": address, "SUPABASE_SERVICE_ROLE_KEY": "secret-key-of-the-project", "KV_API_TOKEN": "secret-token,secret-second", "KV_READ_TOKEN": "secret-reader",
		"NETLIFY_BLOBS_TOKEN": "secret-token-of-blobs", "NETLIFY_SITE_ID": "secret-site", "NETLIFY_BLOBS_API_URL": address,
	}
	for name, value := range secrets {
		t.Setenv(name, value)
	}
	for _, mode := range [][2]string{{"true", "false"}, {"false", "false"}, {"true", "true"}, {"false", "true"}} {
		t.Setenv("USE_SUPABASE_KV", mode[0])
		t.Setenv("KV_MIRROR_WRITES", mode[1])
		store, reader := StoreFromEnv(), ReaderFromEnv(GetCache)
		var (
			answers sync.Map
			all     sync.WaitGroup
			mu      sync.Mutex
			log     bytes.Buffer
		)
		for _, endpoint := range []Endpoint{Upsert(store), List(reader), Get(reader), Delete(store), Query(reader, time.Second), UpsertBlob(BlobsStoreFromEnv()), ListBlob(BlobsStoreFromEnv()),
			BlobsAPI(EntriesFromEnv()), StorageAPI(EntriesFromEnv())} {
			for _, token := range []string{"secret-token", "secret-wrong", ""} {
				handler := HandleWithLog(endpoint, slog.New(slog.NewJSONHandler(&locked{mu: &mu, to: &log}, nil)))
				for _, method := range endpoint.methods() {
					all.Go(func() {
						ctx, cancel := context.WithTimeout(context.Background(), responseReserve+80*time.Millisecond)
						defer cancel()
						body, path := `{"key":"k","value":{}}`, "/api/kv/get/k"
						switch endpoint.Name {
						case "kv-blobs-api":
							path = "/api/kv/blobs/site:s/k"
						case "kv-storage-api":
							path = "/api/kv/storage/s/k"
						case "kv-query":
							body = "{}"
						case "kv-delete":
							body = `{"key":"k"}`
						}
						fields := `"headers":{"authorization":"Bearer ` + token + `"},"path":"` + path + `"`
						if method == http.MethodPost {
							fields += `,"body":` + string(kv.AppendString(nil, body))
						} else if endpoint.Name == "kv-delete" {
							fields += `,"queryStringParameters":{"key":"k"}`
						}
						raw, _ := handler.Invoke(ctx, []byte(event(method, fields)))
						answers.Store(endpoint.Name+" "+method+" "+token, string(raw))
					})
				}
			}
		}
		all.Wait()
		hidden := []string{"secret-", address}
		if u, err := url.Parse(address); err == nil && u.Host != "" {
			hidden = append(hidden, u.Host, u.Hostname())
		}
		count := 0
		answers.Range(func(request, answer any) bool {
			count++
			for _, secret := range hidden {
				require.NotContains(t, answer, secret, "%s, supabase %s, mirrored %s", request, mode[0], mode[1])
			}
			require.NotContains(t, answer, `"code":"internal"`, "%s", request)
			return true
		})
		require.Equal(t, 3*15, count)
		for _, secret := range []string{"secret-token,", "secret-second", "secret-reader", "secret-wrong"} {
			require.NotContains(t, log.String(), secret, "the log")
		}
	}
}

// locked is a log for several handlers.
type locked struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (l *locked) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(text)
}
