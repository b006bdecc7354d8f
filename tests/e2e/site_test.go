package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// discover finds out how the site is configured, so that the suite can run against any deploy.
func discover() error {
	var err error
	none := params("prefix", under(run.id), "limit", "1")
	if site.readsNeedToken, err = needsToken(http.MethodGet, listPath+none); err != nil {
		return err
	}
	if site.writesNeedToken, err = needsToken(http.MethodPost, upsertPath, body(`{}`)); err != nil {
		return err
	}
	a, err := ask(http.MethodGet, queryPath+none)
	switch {
	case err != nil:
		return err
	case a.status == http.StatusServiceUnavailable && strings.Contains(string(a.body), "kv-query needs Supabase"):
		site.blobs = true
	case a.status != http.StatusOK:
		return errors.New(a.String())
	}
	if a, err = ask(http.MethodGet, listPath+none); err != nil {
		return err
	}
	site.caches = a.header.Get("X-KV-Cache") != "off"
	return discoverKeys()
}

// discoverKeys finds out whether Netlify Blobs is written: then a key that its client would truncate is refused.
func discoverKeys() error {
	key := under(run.id) + "probe?"
	a, err := ask(http.MethodPost, upsertPath, body(upsertBody(key, `[]`)))
	switch {
	case err != nil:
		return err
	case a.status == http.StatusBadRequest && strings.Contains(string(a.body), "Netlify Blobs"):
		site.writesBlobs = true
		return nil
	case a.status != http.StatusOK:
		return errors.New(a.String())
	}
	_, err = deleteAll(key)
	return err
}

// needsToken reports whether a request without a token is refused. It fails if the environment's token is refused too.
func needsToken(method, path string, options ...option) (bool, error) {
	a, err := ask(method, path, append(options, noToken)...)
	if err != nil {
		return false, err
	}
	if a.status != http.StatusUnauthorized {
		return false, nil
	}
	if site.apiToken == "" {
		return true, errors.New("the site needs a token\nTry: KV_API_TOKEN=<a token for reads and writes> make e2e")
	}
	if a, err = ask(method, path, options...); err == nil && a.status == http.StatusUnauthorized {
		err = fmt.Errorf("the site refuses the token in KV_API_TOKEN:\n%v", a)
	}
	return true, err
}

// ask is roundTrip for a site that may still be starting, or may not be the right site.
func ask(method, path string, options ...option) (a *response, err error) {
	for attempt := range 4 {
		time.Sleep(time.Duration(attempt) * time.Second)
		a, err = roundTrip(method, path, options...)
		if err == nil && a.status != http.StatusBadGateway && a.status != http.StatusGatewayTimeout {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";"); kind != "application/json" {
		return nil, fmt.Errorf("the site does not have the functions:\n%v", a)
	}
	return a, nil
}

// describe returns in one line what discover found.
func describe() string {
	store := "Supabase answers"
	switch {
	case site.blobs:
		store = "Netlify Blobs answers"
	case site.writesBlobs:
		store += ", Netlify Blobs is written too"
	}
	if !site.caches {
		store += ", nothing is kept in memory"
	}
	return fmt.Sprintf("%s: %s; reads %s, writes %s", site.baseURL, store, needs(site.readsNeedToken), needs(site.writesNeedToken))
}

func needs(token bool) string {
	if token {
		return "need a token"
	}
	return "need no token"
}

// TestDiscoveryMatchesTheEnvironment: on the local platform, the functions' settings are in the environment and must
// match what discover finds.
func TestDiscoveryMatchesTheEnvironment(t *testing.T) {
	needsHost(t)
	t.Parallel()
	blobs, mirrored := os.Getenv("USE_SUPABASE_KV") == "false", os.Getenv("KV_MIRROR_WRITES") == "true"
	require.Equal(t, blobs, site.blobs, "Netlify Blobs is the primary")
	require.Equal(t, blobs || mirrored, site.writesBlobs, "Netlify Blobs is written")
	require.Equal(t, !blobs && os.Getenv("KV_CACHE") != "off", site.caches, "the functions cache")
	require.Equal(t, os.Getenv("KV_API_TOKEN")+os.Getenv("KV_READ_TOKEN") != "", site.readsNeedToken, "reads need a token")
	require.Equal(t, os.Getenv("KV_API_TOKEN")+os.Getenv("KV_READ_TOKEN") != "", site.writesNeedToken, "writes need a token")
}
