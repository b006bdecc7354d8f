package e2e

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	upsertBlobPath = "/.netlify/functions/kv-upsert-blob"
	listBlobPath   = "/.netlify/functions/kv-list-blob"
)

// TestBlobFunctionsAlwaysUseBlobs: kv-list-blob and kv-upsert-blob use Blobs, whichever store is the primary.
func TestBlobFunctionsAlwaysUseBlobs(t *testing.T) {
	needsHost(t)
	t.Parallel()
	prefix := newPrefix()
	value := `{"b":1.0,"a":"\u0000"}`
	call(t, http.MethodPost, upsertBlobPath, body(upsertBody(prefix+"k", value, index{prefix + "i", "m"}))).
		is(t, http.StatusOK, `{"ok":true,"key":`+quote(prefix+"k")+`,"timestamp":"now"}`)
	want := `{"keys":[` + quote(prefix+"i") + `,` + quote(prefix+"k") + `],"count":2,"data":{` + quote(prefix+"i") + `:["m"],` + quote(prefix+"k") + `:` + value + `}}`
	call(t, http.MethodGet, listBlobPath+params("prefix", prefix, "includeValues", "true")).is(t, http.StatusOK, want)
	call(t, http.MethodPost, upsertBlobPath, body(`{"key":"a?b","value":{}}`)).isError(t, http.StatusBadRequest, "Netlify Blobs")
	if site.blobs {
		list(t, "prefix", prefix, "includeValues", "true").is(t, http.StatusOK, want)
	} else {
		require.Empty(t, keys(t, "prefix", prefix), "kv-list reads Supabase")
	}
}

// TestWritesAreMirrored: after a write's response, both stores have the entry.
func TestWritesAreMirrored(t *testing.T) {
	needsHost(t)
	if !site.writesBlobs {
		t.Skip("Netlify Blobs is not written")
	}
	t.Parallel()
	prefix := newPrefix()
	blobs := func() *response {
		return call(t, http.MethodGet, listBlobPath+params("prefix", prefix, "includeValues", "true"))
	}
	upsert(t, prefix+"k", `{"n":1}`, index{prefix + "i", "m"})
	blobs().is(t, http.StatusOK, string(list(t, "prefix", prefix, "includeValues", "true").body))
	upsert(t, prefix+"k", `{"n":2}`)
	blobs().is(t, http.StatusOK, string(list(t, "prefix", prefix, "includeValues", "true").body))
	for _, key := range []string{"k", "i"} {
		remove(t, prefix+key, true)
		blobs().is(t, http.StatusOK, string(list(t, "prefix", prefix, "includeValues", "true").body))
	}
	require.Contains(t, []string{"", "match", "skipped"}, get(t, prefix+"k").header.Get("X-KV-Compare"))
}

// TestQueriesNeedSupabase: with Netlify Blobs as the primary, the error says so.
func TestQueriesNeedSupabase(t *testing.T) {
	t.Parallel()
	if !site.blobs {
		t.Skip("Supabase answers")
	}
	call(t, http.MethodGet, queryPath).isError(t, http.StatusServiceUnavailable, "kv-query needs Supabase")
}
