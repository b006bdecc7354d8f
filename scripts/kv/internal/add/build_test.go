package add

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/tests/buildbot"
)

// TestSitesBuildOnNetlify adds the functions to each kind of site and builds it as Netlify's machines do: all functions are there, the
// site's and ours, every address of ours is routed to ours, and every address of the site's to where it was. One kind is enough for a
// short run; LONG builds all.
func TestSitesBuildOnNetlify(t *testing.T) {
	t.Parallel()
	for i, k := range kinds {
		if i > 0 && os.Getenv("LONG") == "" {
			break
		}
		t.Run(k.name, func(t *testing.T) {
			dir := k.ready(t)
			bring(t, dir, k.options)
			requireBuilt(t, k, dir)
		})
	}
}

func TestPrebuiltSiteBuildsWithoutGo(t *testing.T) {
	if os.Getenv("LONG") == "" {
		t.Skip("LONG is not set")
	}
	t.Parallel()
	r, err := thisRelease()
	require.NoError(t, err)
	prebuilt := *r
	require.NoError(t, prebuilt.prebuild(t.Context()))
	k := kinds[2]
	dir := k.ready(t)
	p, err := addRelease(t.Context(), &prebuilt, Options{Site: dir, Prebuilt: true})
	require.NoError(t, err)
	require.Empty(t, p.Found)
	require.NoError(t, p.Apply(t.Context()))
	program, err := elf.Open(filepath.Join(dir, p.Functions, "kv-get"))
	require.NoError(t, err)
	t.Cleanup(func() { program.Close() })
	require.Equal(t, elf.EM_X86_64, program.Machine)
	require.Nil(t, program.Section(".interp"), "it needs nothing of the machine that it runs on")
	requireBuilt(t, k, dir, withoutGo(t))
}

// withoutGo is a PATH on which Go fails.
func withoutGo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), []byte("#!/bin/sh\necho there is no Go here >&2\nexit 127\n"), 0o755))
	return "PATH=" + dir + string(os.PathListSeparator) + os.Getenv("PATH")
}

func requireBuilt(t *testing.T, k kind, dir string, env ...string) {
	t.Helper()
	r, err := thisRelease()
	require.NoError(t, err)
	var paths []string
	for _, rule := range r.rules {
		paths = append(paths, strings.Replace(rule.from, "*", "some/key", 1))
	}
	ours := len(paths)
	for path := range k.routes {
		paths = append(paths, path)
	}
	// Without the site's path in it, what is compiled for one site is in Go's cache for the next.
	built := buildbot.Build(t, buildbot.Site{Dir: dir, Env: append(env, "GOFLAGS=-trimpath"),
		Settings: buildbot.Settings{Publish: k.options.Publish, Functions: k.options.Functions}}, paths...)
	want := append(r.names(), k.functions...)
	slices.Sort(want)
	require.Equal(t, want, built.Names(), "the functions that Netlify would deploy\n%s", built.Log)
	for i, path := range paths[:ours] {
		require.NotNil(t, built.Routes[path], "no rule answers %s", path)
		require.Equal(t, r.rules[i].from, built.Routes[path].From, path)
		require.Equal(t, "/.netlify/functions/", built.Routes[path].To[:len("/.netlify/functions/")])
	}
	for path, from := range k.routes {
		require.NotNil(t, built.Routes[path], "no rule answers %s", path)
		require.Equal(t, from, built.Routes[path].From, path)
	}
}
