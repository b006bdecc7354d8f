package postgrest

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

func testKeys(t *testing.T) Keys {
	t.Helper()
	keys, err := NewKeys(strings.Repeat("s", 32), "random", time.Now())
	require.NoError(t, err)
	return keys
}

// newGateway returns a gateway in front of an upstream that replaces PostgREST.
func newGateway(t *testing.T, keys Keys, upstream http.HandlerFunc) *httptest.Server {
	t.Helper()
	back := httptest.NewServer(upstream)
	t.Cleanup(back.Close)
	gateway, err := NewGateway(back.URL, keys, slog.New(slog.NewTextHandler(io.Discard, nil)))
	require.NoError(t, err)
	front := httptest.NewServer(gateway)
	t.Cleanup(front.Close)
	return front
}

func send(t *testing.T, method, url, body string, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(content)
}

func TestKeysAreSignedForTheirRoles(t *testing.T) {
	t.Parallel()
	keys := testKeys(t)
	for role, key := range map[string]string{"anon": keys.Anon, "service_role": keys.ServiceRole} {
		claims := jwt.MapClaims{}
		_, err := jwt.ParseWithClaims(key, claims, func(*jwt.Token) (any, error) { return []byte(keys.JWTSecret), nil })
		require.NoError(t, err)
		require.Equal(t, role, claims["role"])
	}
}

func TestGatewayForwards(t *testing.T) {
	t.Parallel()
	keys := testKeys(t)
	front := newGateway(t, keys, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", r.Method+" "+r.RequestURI)
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
	})
	resp, body := send(t, http.MethodPost, front.URL+"/rest/v1/rpc/f%2Fg?a=b;c&d=%zz", "hello", map[string]string{"apikey": keys.Anon})
	require.Equal(t, http.StatusCreated, resp.StatusCode)
	require.Equal(t, "hello", body)
	require.Equal(t, "POST /rpc/f%2Fg?a=b;c&d=%zz", resp.Header.Get("X-Seen"))
	resp, _ = send(t, http.MethodGet, front.URL+"/rest/v1", "", map[string]string{"apikey": keys.Anon})
	require.Equal(t, "GET /", resp.Header.Get("X-Seen"))
}

func TestGatewayGivesPostgRESTTheRightToken(t *testing.T) {
	t.Parallel()
	keys := testKeys(t)
	front := newGateway(t, keys, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Authorization")+"|"+r.Header.Get("Apikey"))
	})
	for name, tt := range map[string]struct{ key, authorization, want string }{
		"KeyAlone":         {keys.Anon, "", keys.Anon},
		"CallersOwnToken":  {keys.Anon, "Bearer other", "other"},
		"SecretKeyAlone":   {keys.Secret, "", keys.ServiceRole},
		"SecretKeyInBoth":  {keys.Secret, "Bearer " + keys.Secret, keys.ServiceRole},
		"ServiceKeyInBoth": {keys.ServiceRole, "Bearer " + keys.ServiceRole, keys.ServiceRole},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header := map[string]string{"apikey": tt.key}
			if tt.authorization != "" {
				header["Authorization"] = tt.authorization
			}
			_, body := send(t, http.MethodGet, front.URL+"/rest/v1/x", "", header)
			require.Equal(t, "Bearer "+tt.want+"|", body)
		})
	}
}

func TestGatewayRefuses(t *testing.T) {
	t.Parallel()
	front := newGateway(t, testKeys(t), func(http.ResponseWriter, *http.Request) { t.Error("forwarded") })
	for name, tt := range map[string]struct {
		path, key, body string
		status          int
	}{
		"NoKey":      {"/rest/v1/x", "", `{"message":"No API key found in request"}` + "\n", 401},
		"StrangeKey": {"/rest/v1/x", "x", `{"message":"Invalid API key"}` + "\n", 401},
		"OtherPath":  {"/rest/v10", "x", `{"message":"no Route matched with those values"}` + "\n", 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, body := send(t, http.MethodGet, front.URL+tt.path, "", map[string]string{"apikey": tt.key})
			require.Equal(t, tt.status, resp.StatusCode)
			require.Equal(t, tt.body, body)
		})
	}
}

// The upstream responds before it has read the request, as PostgREST does for an unknown path. Half a second later,
// when a quarter of a megabyte has arrived, it closes the connection.
func TestGatewayDoesNotCutAnEarlyAnswerShort(t *testing.T) {
	t.Parallel()
	keys := testKeys(t)
	answer := strings.Repeat("a", 256<<10)
	front := newGateway(t, keys, func(w http.ResponseWriter, r *http.Request) {
		// PostgREST, too, responds first and reads the rest of the request afterwards.
		controller := http.NewResponseController(w)
		_ = controller.EnableFullDuplex() // HTTP/1 has it
		_, _ = io.WriteString(w, answer)
		_ = controller.Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	})
	for range 20 {
		resp, body := send(t, http.MethodPost, front.URL+"/rest/v1/x", strings.Repeat("b", 4<<20), map[string]string{"apikey": keys.Anon})
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Equal(t, len(answer), len(body))
	}
}

func TestGatewayWithoutPostgREST(t *testing.T) {
	t.Parallel()
	keys := testKeys(t)
	gone := httptest.NewServer(nil)
	gone.Close()
	gateway, err := NewGateway(gone.URL, keys, slog.New(slog.NewTextHandler(io.Discard, nil)))
	require.NoError(t, err)
	front := httptest.NewServer(gateway)
	defer front.Close()
	resp, body := send(t, http.MethodGet, front.URL+"/rest/v1/x", "", map[string]string{"apikey": keys.Anon})
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.JSONEq(t, `{"message":"PostgREST is not running; it is being restarted"}`, body)

	broken := newGateway(t, keys, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	resp, body = send(t, http.MethodPost, broken.URL+"/rest/v1/x", "{}", map[string]string{"apikey": keys.Anon})
	require.Equal(t, http.StatusBadGateway, resp.StatusCode)
	require.JSONEq(t, `{"message":"An invalid response was received from the upstream server"}`, body)
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the client broke off") }

func TestGatewayForwardsNothingOfABrokenRequest(t *testing.T) {
	t.Parallel()
	keys := testKeys(t)
	gateway, err := NewGateway("http://127.0.0.1:1", keys, slog.New(slog.NewTextHandler(io.Discard, nil)))
	require.NoError(t, err)
	for _, body := range []io.Reader{brokenReader{}, bytes.NewReader(make([]byte, maxBody+1))} {
		r := httptest.NewRequest(http.MethodPost, "/rest/v1/x", body)
		r.Header.Set("Apikey", keys.Anon)
		w := httptest.NewRecorder()
		gateway.ServeHTTP(w, r)
		require.NotContains(t, w.Body.String(), "not running")
	}
}
