package sourcetest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/pkg/migrate/sources"
)

// Site is a Netlify site, as far as its blobs go: the stand-in for the hosted service.
type Site struct {
	t      testing.TB
	URL    string
	Access blobs.Access // through the API with signed URLs, as the program reaches it
	Edge   blobs.Access // as functions reach it
	Client *blobs.Client
}

// NewSite returns a site without blobs, which goes when the test ends.
func NewSite(t testing.TB) *Site {
	t.Helper()
	server, err := blobstest.Open(t.TempDir(), blobstest.Options{PageSize: 300})
	require.NoError(t, err)
	listening := httptest.NewServer(server)
	t.Cleanup(listening.Close)
	a := server.Access(listening.URL)
	s := &Site{
		t: t, URL: listening.URL, Access: blobs.Access{SiteID: a.SiteID, APIURL: a.APIURL, APIToken: a.APIToken},
		Edge: blobs.Access{SiteID: a.SiteID, EdgeURL: listening.URL, EdgeToken: a.EventToken},
	}
	s.Client = blobs.NewClient("kv").WithDefault(s.Access)
	return s
}

// Source reads its blobs, as fast as the service allows.
func (s *Site) Source() *sources.Blobs {
	return sources.NewBlobs(s.Access, "kv", 16, Unlimited())
}

// Unlimited asks as fast as the service allows.
func Unlimited() *blobs.Limiter { return blobs.NewBackgroundLimiter(0, time.Minute) }

// Store is the entries as the functions have them.
func (s *Site) Store() *blobs.Store {
	return blobs.NewStore(s.Client, blobs.NewClient("kv-indexes").WithDefault(s.Access))
}

// Set writes a blob as the JavaScript functions did, without metadata.
func (s *Site) Set(key, value string) {
	s.t.Helper()
	_, err := s.Client.Set(s.t.Context(), key, []byte(value), blobs.SetOptions{})
	require.NoError(s.t, err, key)
}

// Remove deletes a blob.
func (s *Site) Remove(key string) {
	s.t.Helper()
	require.NoError(s.t, s.Client.Delete(s.t.Context(), key))
}

// Faults switches faults on; nil switches them off. counts is how often each came.
func (s *Site) Faults(f *blobstest.Faults) (counts map[string]int) {
	s.t.Helper()
	method, body := http.MethodDelete, []byte(nil)
	if f != nil {
		var err error
		method = http.MethodPut
		body, err = json.Marshal(f)
		require.NoError(s.t, err)
	}
	request, err := http.NewRequest(method, s.URL+blobstest.FaultsPath, bytes.NewReader(body))
	require.NoError(s.t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(s.t, err)
	defer response.Body.Close()
	require.Equal(s.t, http.StatusOK, response.StatusCode)
	var state struct{ Counts map[string]int }
	require.NoError(s.t, json.NewDecoder(response.Body).Decode(&state))
	return state.Counts
}
