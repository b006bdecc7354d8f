package netlify

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/pkg/kv"
)

// blobsSite is a site on the stand-in for Netlify Blobs.
type blobsSite struct {
	blobstest.Access
	edge, api int // requests through each of them
}

func newBlobsSite(t *testing.T) *blobsSite {
	t.Helper()
	server, err := blobstest.Open(t.TempDir(), blobstest.Options{})
	require.NoError(t, err)
	site := &blobsSite{}
	listening := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/api/"):
			site.api++
		case !strings.HasPrefix(r.URL.Path, "/_"):
			site.edge++
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(listening.Close)
	site.Access = server.Access(listening.URL)
	t.Setenv("USE_SUPABASE_KV", "false")
	t.Setenv("NETLIFY_BLOBS_API_URL", site.APIURL)
	way := blobs.Access{SiteID: site.SiteID, APIURL: site.APIURL, APIToken: site.APIToken}
	_, err = blobs.NewClient("kv").WithDefault(way).Set(t.Context(), "k", []byte(`{"n":1}`), blobs.SetOptions{})
	require.NoError(t, err)
	site.edge, site.api = 0, 0
	return site
}

// withToken returns the blobs field of the site's event, with another token.
func (s *blobsSite) withToken(t *testing.T, token string) string {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(s.Event)
	require.NoError(t, err)
	var fields map[string]string
	require.NoError(t, json.Unmarshal(text, &fields))
	fields["token"] = token
	text, err = json.Marshal(fields)
	require.NoError(t, err)
	return base64.StdEncoding.EncodeToString(text)
}

func getBlobEvent(blobs, siteID string) string {
	return event("GET", fmt.Sprintf(`"path":"/api/kv/get/k","blobs":%q,"headers":{"x-nf-site-id":%q}`, blobs, siteID))
}

func TestBlobsAccessComesFromTheEventOrTheVariables(t *testing.T) {
	site := newBlobsSite(t)
	for name, tt := range map[string]struct {
		event, header string
		variables     map[string]string
		edge, api     int // requests
		says          string
	}{
		"Event":                  {site.Event, site.SiteID, nil, 1, 0, `"exists":true`},
		"EventBeforeVariables":   {site.Event, site.SiteID, map[string]string{"NETLIFY_BLOBS_TOKEN": "x", "NETLIFY_SITE_ID": "x"}, 1, 0, `"exists":true`},
		"Variables":              {"", "", map[string]string{"NETLIFY_BLOBS_TOKEN": site.APIToken, "NETLIFY_SITE_ID": site.SiteID}, 0, 1, `"exists":true`},
		"SiteOfTheDeploy":        {"", "", map[string]string{"NETLIFY_BLOBS_TOKEN": site.APIToken, "SITE_ID": site.SiteID}, 0, 1, `"exists":true`},
		"SiteByHandGoesFirst":    {"", "x", map[string]string{"NETLIFY_BLOBS_TOKEN": site.APIToken, "NETLIFY_SITE_ID": site.SiteID, "SITE_ID": "x"}, 0, 1, `"exists":true`},
		"SiteOfTheHeader":        {"", site.SiteID, map[string]string{"NETLIFY_BLOBS_TOKEN": site.APIToken}, 0, 1, `"exists":true`},
		"DeployBeforeHeader":     {"", "x", map[string]string{"NETLIFY_BLOBS_TOKEN": site.APIToken, "SITE_ID": site.SiteID}, 0, 1, `"exists":true`},
		"EventRefused":           {site.withToken(t, "x"), site.SiteID, map[string]string{"NETLIFY_BLOBS_TOKEN": site.APIToken, "NETLIFY_SITE_ID": site.SiteID}, 1, 1, `"exists":true`},
		"EventRefusedSiteHeader": {site.withToken(t, "x"), site.SiteID, map[string]string{"NETLIFY_BLOBS_TOKEN": site.APIToken}, 1, 1, `"exists":true`},
		"EventUnreadable":        {"x", site.SiteID, map[string]string{"NETLIFY_BLOBS_TOKEN": site.APIToken}, 0, 1, `"exists":true`},
		"EventRefusedAlone":      {site.withToken(t, "x"), site.SiteID, nil, 1, 0, "Netlify Blobs refused the token"},
		"BothRefused":            {site.withToken(t, "x"), site.SiteID, map[string]string{"NETLIFY_BLOBS_TOKEN": "x", "NETLIFY_SITE_ID": site.SiteID}, 1, 1, "Netlify Blobs refused the token"},
		"NoToken":                {"", site.SiteID, nil, 0, 0, "set NETLIFY_BLOBS_TOKEN and NETLIFY_SITE_ID"},
		"NoSite":                 {"", "", map[string]string{"NETLIFY_BLOBS_TOKEN": site.APIToken}, 0, 0, "set NETLIFY_BLOBS_TOKEN and NETLIFY_SITE_ID"},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range tt.variables {
				t.Setenv(variable, value)
			}
			site.edge, site.api = 0, 0
			r := invoke(t, Get(ReaderFromEnv(GetCache)), getBlobEvent(tt.event, tt.header))
			require.Contains(t, r.Body, tt.says)
			require.Equal(t, []int{tt.edge, tt.api}, []int{site.edge, site.api}, "requests to the edge, and to the API")
		})
	}
}

func TestRefusedTokenIsTriedOnce(t *testing.T) {
	site := newBlobsSite(t)
	t.Setenv("NETLIFY_BLOBS_TOKEN", site.APIToken)
	handler := Handle(Upsert(StoreFromEnv()))
	body := `{"key":"a","value":{},"indexes":[{"key":"i","member":"a"},{"key":"j","member":"a"}]}`
	for range 2 {
		site.edge = 0
		r := invokeHandler(t, handler, event("POST", fmt.Sprintf(`"body":%q,"blobs":%q,"headers":{"x-nf-site-id":%q}`, body, site.withToken(t, "x"), site.SiteID)))
		require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
		require.Equal(t, 1, site.edge)
	}
}

func TestRateLimitIs503WithRetryAfter(t *testing.T) {
	for name, tt := range map[string]struct {
		header   func(http.Header)
		from, to int // seconds
	}{
		"Reset":      {func(h http.Header) { h.Set("X-RateLimit-Reset", strconv.FormatInt(time.Now().Unix()+40, 10)) }, 30, 40},
		"RetryAfter": {func(h http.Header) { h.Set("Retry-After", "90") }, 80, 90},
	} {
		t.Run(name, func(t *testing.T) {
			service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				tt.header(w.Header())
				w.WriteHeader(http.StatusTooManyRequests)
			}))
			t.Cleanup(service.Close)
			t.Setenv("USE_SUPABASE_KV", "false")
			t.Setenv("NETLIFY_BLOBS_API_URL", service.URL)
			t.Setenv("NETLIFY_BLOBS_TOKEN", "token")
			t.Setenv("NETLIFY_SITE_ID", "site")
			store, reader := StoreFromEnv(), ReaderFromEnv(GetCache)
			for range 2 { // the second is not sent
				for _, r := range []response{
					invoke(t, Get(reader), getBlobEvent("", "")), invoke(t, List(reader), event("GET", "")),
					invoke(t, Upsert(store), post(`{"key":"k","value":{}}`)), invoke(t, Delete(store), post(`{"key":"k"}`)),
				} {
					require.Equal(t, http.StatusServiceUnavailable, r.StatusCode, r.Body)
					require.Contains(t, r.Body, `"code":"rate_limited"`)
					seconds, err := strconv.Atoi(r.Headers["Retry-After"])
					require.NoError(t, err)
					require.GreaterOrEqual(t, seconds, tt.from)
					require.LessOrEqual(t, seconds, tt.to)
					require.Contains(t, r.Headers["Access-Control-Expose-Headers"], "Retry-After")
				}
			}
		})
	}
}

// KV_BLOBS_RATE bounds one instance. Half of it may pass at once.
func TestBlobsRate(t *testing.T) {
	site := newBlobsSite(t)
	t.Setenv("NETLIFY_BLOBS_TOKEN", site.APIToken)
	t.Setenv("NETLIFY_SITE_ID", site.SiteID)
	t.Setenv("KV_BLOBS_RATE", "6")
	handler := Handle(Get(ReaderFromEnv(GetCache)))
	for range 3 {
		require.Equal(t, http.StatusOK, invokeHandler(t, handler, getBlobEvent("", "")).StatusCode)
	}
	r := invokeHandler(t, handler, getBlobEvent("", ""))
	require.Equal(t, http.StatusServiceUnavailable, r.StatusCode, r.Body)
	require.InDelta(t, 20, seconds(t, r), 10)
	require.Equal(t, 3, site.api)
}

func seconds(t *testing.T, r response) int {
	t.Helper()
	n, err := strconv.Atoi(r.Headers["Retry-After"])
	require.NoError(t, err)
	return n
}

func TestBlobBeyondTheResponseLimitIs413(t *testing.T) {
	site := newBlobsSite(t)
	way := blobs.Access{SiteID: site.SiteID, APIURL: site.APIURL, APIToken: site.APIToken}
	value := `["` + strings.Repeat("x", 50<<20) + `"]`
	patient := blobs.NewClient("kv").WithDefault(way).WithBackgroundRetries(10 * time.Minute) // for a busy machine
	_, err := patient.Set(t.Context(), "k", []byte(value), blobs.SetOptions{})
	require.NoError(t, err)
	r := invoke(t, Get(kv.Uncached(BlobsStoreFromEnv())), getBlobEvent(site.Event, site.SiteID))
	require.Equal(t, http.StatusRequestEntityTooLarge, r.StatusCode)
	require.Contains(t, r.Body, "too_large")
	r = invoke(t, List(kv.Uncached(BlobsStoreFromEnv())), event("GET", fmt.Sprintf(
		`"queryStringParameters":{"includeValues":"true"},"blobs":%q,"headers":{"x-nf-site-id":%q}`, site.Event, site.SiteID)))
	require.Equal(t, http.StatusRequestEntityTooLarge, r.StatusCode)
}
