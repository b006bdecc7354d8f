package postgrest

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ask sends a POST that may fail, and returns the complete response.
func ask(t *testing.T, url, key string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/rest/v1/rpc/f", strings.NewReader(`{"a":1}`))
	require.NoError(t, err)
	req.Header.Set("Apikey", key)
	req.Header.Set("Accept", "application/vnd.kv+json, application/json;q=0.5")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func TestFaults(t *testing.T) {
	t.Parallel()
	keys := testKeys(t)
	var reached atomic.Int32
	front := newGateway(t, keys, func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		w.Header().Set("Content-Type", "application/vnd.kv+json")
		_, _ = io.WriteString(w, `{"true":"answer"}`)
	})
	order := func(method, body string) string {
		t.Helper()
		resp, text := send(t, method, front.URL+controlPath, body, map[string]string{"apikey": keys.ServiceRole})
		require.Equal(t, http.StatusOK, resp.StatusCode, text)
		return strings.TrimSpace(text)
	}
	fine := func() {
		t.Helper()
		resp, body, err := ask(t, front.URL, keys.ServiceRole)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Equal(t, `{"true":"answer"}`, body)
	}

	order(http.MethodPut, `{"kind":"status","status":503,"share":1}`)
	before := reached.Load()
	resp, body, err := ask(t, front.URL, keys.ServiceRole)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Contains(t, body, "<html>")
	require.Equal(t, before, reached.Load(), "it is not forwarded")
	require.Equal(t, `{"hits":1,"on":true}`, order(http.MethodGet, ""))

	order(http.MethodPut, `{"kind":"status","status":401,"code":"PGRST303","after":2,"share":1}`)
	resp, body, err = ask(t, front.URL, keys.ServiceRole)
	require.NoError(t, err)
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	require.Equal(t, "2", resp.Header.Get("Retry-After"))
	require.JSONEq(t, `{"code":"PGRST303","message":"a fault of the platform","details":null,"hint":null}`, body)

	order(http.MethodPut, `{"kind":"reset","share":1}`)
	_, _, err = ask(t, front.URL, keys.ServiceRole)
	require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF), "%v", err)
	require.Equal(t, before, reached.Load(), "it is not forwarded")

	order(http.MethodPut, `{"kind":"drop","share":1}`)
	_, _, err = ask(t, front.URL, keys.ServiceRole)
	require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF), "%v", err)
	require.Equal(t, before+1, reached.Load(), "PostgREST has answered")

	order(http.MethodPut, `{"kind":"late","delay":50,"share":1}`)
	_, _, err = ask(t, front.URL, keys.ServiceRole)
	require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF), "%v", err)
	require.Eventually(t, func() bool { return reached.Load() == before+2 }, time.Minute, time.Millisecond, "it arrives all the same")

	order(http.MethodPut, `{"kind":"delay","delay":80,"share":1}`)
	began := time.Now()
	fine()
	require.GreaterOrEqual(t, time.Since(began), 80*time.Millisecond)

	order(http.MethodPut, `{"kind":"garbage","share":1}`)
	_, body, err = ask(t, front.URL, keys.ServiceRole)
	require.NoError(t, err)
	require.Contains(t, body, "<html>")
	_, body, err = ask(t, front.URL, keys.ServiceRole)
	require.NoError(t, err)
	require.Equal(t, `{"ok":true}`, body)
	_, body, err = ask(t, front.URL, keys.ServiceRole)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%q", body)
	resp, body, err = ask(t, front.URL, keys.ServiceRole)
	require.NoError(t, err)
	require.Equal(t, "application/vnd.kv+json", resp.Header.Get("Content-Type"))
	require.NotContains(t, body, "true")

	require.Equal(t, `{"hits":4,"on":false}`, order(http.MethodDelete, ""))
	fine()

	order(http.MethodPut, `{"kind":"status","status":500,"share":0.5,"seed":7}`)
	failed := 0
	for range 100 {
		resp, _, err := ask(t, front.URL, keys.ServiceRole)
		require.NoError(t, err)
		if resp.StatusCode == 500 {
			failed++
		}
	}
	require.Greater(t, failed, 25)
	require.Less(t, failed, 75)
}

func TestFaultsAreRefused(t *testing.T) {
	t.Parallel()
	keys := testKeys(t)
	front := newGateway(t, keys, func(http.ResponseWriter, *http.Request) {})
	for name, tt := range map[string]struct {
		method, key, body string
		status            int
	}{
		"NoKey":         {http.MethodPut, "", `{"kind":"reset","share":1}`, 401},
		"AnonKey":       {http.MethodPut, keys.Anon, `{"kind":"reset","share":1}`, 401},
		"UnknownKind":   {http.MethodPut, keys.ServiceRole, `{"kind":"fire","share":1}`, 400},
		"NoShare":       {http.MethodPut, keys.ServiceRole, `{"kind":"reset"}`, 400},
		"NeverLate":     {http.MethodPut, keys.ServiceRole, `{"kind":"late","share":1}`, 400},
		"NoDelay":       {http.MethodPut, keys.ServiceRole, `{"kind":"delay","share":1}`, 400},
		"NegativeAfter": {http.MethodPut, keys.ServiceRole, `{"kind":"status","status":429,"after":-1,"share":1}`, 400},
		"GoodStatus":    {http.MethodPut, keys.ServiceRole, `{"kind":"status","status":200,"share":1}`, 400},
		"NotJSON":       {http.MethodPut, keys.ServiceRole, `reset`, 400},
		"AnotherWay":    {http.MethodPost, keys.ServiceRole, `{"kind":"reset","share":1}`, 405},
		"TheSecretKey":  {http.MethodGet, keys.Secret, "", 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, _ := send(t, tt.method, front.URL+controlPath, tt.body, map[string]string{"apikey": tt.key})
			require.Equal(t, tt.status, resp.StatusCode)
		})
	}
}
