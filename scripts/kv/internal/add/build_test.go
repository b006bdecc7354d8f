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

// TestSitesBuildOnNetlify adds the functions to each kind of site and builds it as Netlify's machines do. The build
// has the site's functions and ours. Our addresses lead to our functions, and the site's lead where they did before.
// What a short run builds is a clone of this repository (tests/buildbot).
func TestSitesBuildOnNetlify(t *testing.T) {
	if os.Getenv("LONG") == "" {
		t.Skip("LONG is not set")
	}
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			dir := k.ready(t)
			addTo(t, dir, k.options)
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
	require.Nil(t, program.Section(".interp"), "a static program needs no library of the machine")
	requireBuilt(t, k, dir, withoutGo(t))
}

// withoutGo returns a PATH on which the go command fails.
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
		paths = append(paths, strings.Replace(rule.From, "*", "some/key", 1))
	}
	ours := len(paths)
	for path := range k.routes {
		paths = append(paths, path)
	}
	// Without the site's path in the result, Go's build cache serves the next site too.
	built := buildbot.Build(t, buildbot.Site{Dir: dir, Env: append(env, "GOFLAGS=-trimpath"),
		Settings: buildbot.Settings{Publish: k.options.Publish, Functions: k.options.Functions}}, paths...)
	want := append(r.names(), k.functions...)
	slices.Sort(want)
	require.Equal(t, want, built.Names(), "Netlify deploys these functions\n%s", built.Log)
	for i, path := range paths[:ours] {
		require.NotNil(t, built.Routes[path], "no rule answers %s", path)
		require.Equal(t, r.rules[i].From, built.Routes[path].From, path)
		require.Equal(t, "/.netlify/functions/", built.Routes[path].To[:len("/.netlify/functions/")])
	}
	for path, from := range k.routes {
		require.NotNil(t, built.Routes[path], "no rule answers %s", path)
		require.Equal(t, from, built.Routes[path].From, path)
	}
}
