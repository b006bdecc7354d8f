package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/internal/cli"
)

// run runs a command and returns its output and exit status.
func run(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	c := command()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&errs)
	err := c.ExecuteContext(t.Context())
	status = cli.ExitStatus("kv", err, false, &errs)
	return out.String(), errs.String(), status
}

// site makes the smallest site to which functions can be added.
func site(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "netlify.toml"), []byte("[build]\npublish = \"public\"\n"), 0o644))
	return dir
}

func TestAddShowsAndWritesAndRemoveRestores(t *testing.T) {
	t.Parallel()
	dir := site(t)
	out, _, status := run(t, "add", dir, "--dry-run")
	require.Equal(t, 0, status)
	require.Contains(t, out, "netlify.toml\n+ # kv add: begin")
	require.Contains(t, out, `+   GO_VERSION = "1.`)
	require.NotContains(t, out, "publish", "the site's own lines are not shown")
	require.Regexp(t, `(?m)^add +netlify/functions/kv-get/main.go +\d+ B$`, out)
	require.Contains(t, out, "--dry-run writes nothing")
	require.NoDirExists(t, filepath.Join(dir, "netlify"))

	out, _, status = run(t, "add", dir)
	require.Equal(t, 0, status)
	require.Regexp(t, `(?m)^added +netlify/functions/kv-get/main.go +\d+ B$`, out)
	require.Regexp(t, `(?m)^\d+ added, 1 changed, 0 removed$`, out)
	require.Contains(t, out, "\nBy hand:\n- Apply the schema")
	require.FileExists(t, filepath.Join(dir, "netlify", "functions", "kv-get", "main.go"))

	out, _, status = run(t, "add", dir)
	require.Equal(t, 0, status)
	require.Contains(t, out, "0 added, 0 changed, 0 removed\n")

	out, _, status = run(t, "remove", dir)
	require.Equal(t, 0, status)
	require.Regexp(t, `(?m)^0 added, 1 changed, \d+ removed$`, out)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestAddReportsConflicts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, _, status := run(t, "add", dir)
	require.Equal(t, cli.ExitProblems, status)
	require.Contains(t, out, "Found: netlify.toml names no publish folder")
	require.Contains(t, out, "Try:   set build.publish there")
	require.Contains(t, out, "\nNothing was written.\n")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestJSONIsOneDocument(t *testing.T) {
	t.Parallel()
	var document struct {
		Site, Functions string
		Written         bool
		Changes         []struct {
			File, Action string
			Bytes        int
		}
		Found  []struct{ Where, What, Do string }
		ByHand []string
	}
	read := func(out string) {
		d := json.NewDecoder(bytes.NewReader([]byte(out)))
		d.DisallowUnknownFields()
		require.NoError(t, d.Decode(&document))
		require.False(t, d.More())
	}
	dir := site(t)
	out, _, status := run(t, "add", dir, "--json")
	require.Equal(t, 0, status)
	read(out)
	require.True(t, document.Written)
	require.Equal(t, "netlify/functions", document.Functions)
	require.Greater(t, len(document.Changes), 50)
	require.Equal(t, "added", document.Changes[0].Action)
	out, _, status = run(t, "add", t.TempDir(), "--json")
	require.Equal(t, cli.ExitProblems, status)
	read(out)
	require.False(t, document.Written)
	require.Empty(t, document.Changes)
	require.Len(t, document.Found, 1)
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"add"}, "Error: kv add takes one argument, the site's folder; got 0\nTry:   kv add ../my-site\n"},
		{[]string{"add", "/none/such"}, "Error: /none/such is not a folder\n"},
		{[]string{"add", t.TempDir(), "--nothing"}, "Error: unknown flag: --nothing\nTry:   kv --help\n"},
		{[]string{"remove", "/none/such"}, "Error: /none/such is not a folder\n"},
		{[]string{"nothing"}, "Error: unknown command \"nothing\" for \"kv\"\n"},
		{[]string{"migrate", "verfy"}, "Error: unknown command \"verfy\" for \"kv migrate\"\n"},
		{[]string{"export", "--url", "http://127.0.0.1:1", "--prefix", "caf\xe9"}, `Error: --prefix must be UTF-8, got "caf\xe9"`},
		{[]string{"export", "--url", "http://127.0.0.1:1", "--query", "{\"prefix\":\"\xe9\"}"}, "Error: --query must be UTF-8"},
		{[]string{"export", "--url", "http://127.0.0.1:1", "--out", ""}, "Error: --out must name a file"},
		{[]string{"export", "--url", "http://127.0.0.1:1", "--out", os.DevNull, "--force"}, "Error: " + os.DevNull + " is not a regular file"},
		{[]string{"export", "--url", "http://127.0.0.1:1", "--out", os.TempDir(), "--force"}, "Error: " + os.TempDir() + " is not a regular file"},
	} {
		_, stderr, status := run(t, row.args...)
		require.Equal(t, cli.ExitFailed, status)
		require.Contains(t, stderr, row.want)
	}
}

func TestHelpHasExamples(t *testing.T) {
	t.Parallel()
	for _, c := range command().Commands() {
		require.NotEmpty(t, c.Example, "kv %s --help shows no example", c.Name())
		require.True(t, c.Flags().Lookup("json") != nil || c.PersistentFlags().Lookup("json") != nil, "kv %s has no --json", c.Name())
	}
	var out bytes.Buffer
	require.Equal(t, cli.ExitFailed, cli.ExitStatus("kv", errors.New("x"), true, &out))
	require.Contains(t, out.String(), "Interrupted")
}
