package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/internal/cli"
)

// exportSite stands in for kv-query. It has six entries, two on each page; while refuses is set, it refuses every page
// after the first.
func exportSite(t *testing.T) (address string, refuses *atomic.Bool) {
	refuses = new(atomic.Bool)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Cursor string }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			panic(err)
		}
		from := 0
		if q.Cursor != "" {
			_, _ = fmt.Sscan(q.Cursor, &from)
			if refuses.Load() {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"error":"no more"}`)
				return
			}
		}
		w.Header().Set("Content-Disposition", "attachment")
		w.Header().Set("X-KV-Count", "2")
		w.Header().Set("X-KV-Has-More", fmt.Sprint(from < 4))
		if from < 4 {
			w.Header().Set("X-KV-Next-Cursor", fmt.Sprint(from+2))
		}
		_, _ = fmt.Fprintf(w, "{\"n\":%d}\n{\"n\":%d}\n", from, from+1)
	}))
	t.Cleanup(server.Close)
	return server.URL, refuses
}

const wholeFile = "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n{\"n\":5}\n"

func runExport(t *testing.T, args ...string) error {
	c := command()
	c.SetArgs(append([]string{"export"}, args...))
	c.SetOut(io.Discard)
	c.SetErr(io.Discard)
	return c.ExecuteContext(t.Context())
}

func TestResumeContinuesAFailedExport(t *testing.T) {
	t.Parallel()
	address, refuses := exportSite(t)
	out := filepath.Join(t.TempDir(), "all.ndjson")
	refuses.Store(true)
	args := []string{"--url", address, "--out", out, "--page", "2", "--prefix", "<a&b>"}
	err := runExport(t, args...)
	var incomplete *cli.Incomplete
	require.ErrorAs(t, err, &incomplete)
	require.Contains(t, incomplete.Try, "--resume, which continues after the 2 entries")
	require.NoFileExists(t, out)

	// A crash may leave a part of a page after the last complete one. The part is written again.
	file, err := os.OpenFile(out+".partial", os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteString("{\"n\":2}\n{\"n")
	require.NoError(t, err)
	require.NoError(t, file.Close())
	require.ErrorAs(t, runExport(t, append(args, "--resume")...), &incomplete)
	require.Contains(t, incomplete.Try, "after the 2 entries", "a second failure loses nothing")

	refuses.Store(false)
	require.ErrorContains(t, runExport(t, "--url", address, "--out", out, "--page", "2", "--resume"), "is of another export")
	require.NoError(t, runExport(t, append(args, "--resume")...))
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, wholeFile, string(text))
	files, err := filepath.Glob(out + "?*")
	require.NoError(t, err)
	require.Empty(t, files)
}

func TestTwoExportsDoNotWriteOneFile(t *testing.T) {
	t.Parallel()
	address, _ := exportSite(t)
	out := filepath.Join(t.TempDir(), "all.ndjson")
	other := flock.New(out + ".partial")
	locked, err := other.TryLock()
	require.NoError(t, err)
	require.True(t, locked)
	require.NoError(t, os.WriteFile(out+".partial", []byte("of the other"), 0o600))
	for _, args := range [][]string{{"--force"}, {"--resume"}} {
		require.ErrorContains(t, runExport(t, append(args, "--url", address, "--out", out)...), ".partial is being written by another export")
	}
	text, err := os.ReadFile(out + ".partial")
	require.NoError(t, err)
	require.Equal(t, "of the other", string(text))

	require.NoError(t, other.Close()) // it was killed
	require.NoError(t, runExport(t, "--url", address, "--out", out))
	require.NoError(t, runExport(t, "--url", address, "--out", out, "--force"))
}

func TestExportStartsOverWithoutResume(t *testing.T) {
	t.Parallel()
	address, refuses := exportSite(t)
	out := filepath.Join(t.TempDir(), "all.ndjson")
	refuses.Store(true)
	require.Error(t, runExport(t, "--url", address, "--out", out, "--page", "2"))
	refuses.Store(false)
	require.NoError(t, runExport(t, "--url", address, "--out", out, "--page", "2"))
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, wholeFile, string(text))
	require.NoError(t, runExport(t, "--url", address, "--out", out, "--force", "--resume"), "there is nothing to continue")
	require.ErrorContains(t, runExport(t, "--url", address, "--resume"), "--resume needs --out")
	require.ErrorContains(t, runExport(t, "--url", address, "--stall", "0s"), "--stall must be a duration above 0")
}
