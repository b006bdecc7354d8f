package kv

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// watched is a transport like those with which monitoring libraries replace http.DefaultTransport.
type watched struct {
	http.RoundTripper
	seen int
}

func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	w.seen++
	return w.RoundTripper.RoundTrip(r)
}

const transportVariable = "KV_TEST_TRANSPORT"

// TestWrappedDefaultTransport runs each case in its own process, because the first store changes
// http.DefaultTransport.
func TestWrappedDefaultTransport(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"Never", "Before", "After", "Twice"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			child := exec.Command(os.Args[0], "-test.run=^TestTransportChild$", "-test.count=1")
			child.Env = append(os.Environ(), transportVariable+"="+when)
			output, err := child.CombinedOutput()
			require.NoError(t, err, string(output))
		})
	}
}

func TestTransportChild(t *testing.T) {
	when := os.Getenv(transportVariable)
	if when == "" {
		t.Skip("this is the child of TestWrappedDefaultTransport")
	}
	database := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", responseType)
		fmt.Fprint(w, `{"n":1}`)
	}))
	t.Cleanup(database.Close)
	others := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(others.Close)
	wrap := func() *watched {
		w := &watched{RoundTripper: http.DefaultTransport}
		http.DefaultTransport = w
		return w
	}
	var wrapper *watched
	if when == "Before" || when == "Twice" {
		wrapper = wrap()
	}
	store, err := NewSupabase(database.URL, "key")
	require.NoError(t, err)
	if when == "After" || when == "Twice" {
		wrapper = wrap()
	}
	_, err = NewSupabase(database.URL, "another") // does not register again
	require.NoError(t, err)
	value, err := store.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, `{"n":1}`, value)

	before := 0
	if wrapper != nil {
		before = wrapper.seen
	}
	response, err := http.Get(others.URL) // other requests are not affected
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusNotFound, response.StatusCode)
	if wrapper != nil {
		require.Equal(t, before+1, wrapper.seen)
	}
	http.DefaultClient.CloseIdleConnections()
}
