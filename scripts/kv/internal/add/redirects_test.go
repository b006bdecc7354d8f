package add

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/kv/internal/redirects"
)

func TestRulesMeet(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		a, b string
		want bool
	}{
		{"/*", "/api/kv/get", true},
		{"/*", "/", true},
		{"/api/*", "/api/kv/get/*", true},
		{"/api/kv/get/*", "/api/kv/get", true},
		{"/api/kv/get/", "/api/kv/get", true},
		{"/api/:what/get", "/api/kv/get", true},
		{"/api/:what", "/api/kv/get", false},
		{"/api/kv/get/some", "/api/kv/get/*", true},
		{"/api/kv", "/api/kv/get", false},
		{"/other/*", "/api/kv/get", false},
		{"/api/kv/list", "/api/kv/get/*", false},
	} {
		require.Equal(t, row.want, meets(redirects.Rule{From: row.a}, redirects.Rule{From: row.b}), "%s, %s", row.a, row.b)
		require.Equal(t, row.want, meets(redirects.Rule{From: row.b}, redirects.Rule{From: row.a}), "%s, %s", row.b, row.a)
	}
}

// FuzzInsertionsAreTakenBack checks that an insertion into any netlify.toml has the intended meaning and is removed
// again byte for byte. A text for which that is impossible is refused.
func FuzzInsertionsAreTakenBack(f *testing.F) {
	for _, seed := range []string{
		"", "[build]\npublish = \"x\"", "[build.environment]", "[build.environment]\nA=\"1\"\n", "build.environment.A = '1'\n", "[build]\nenvironment = {}\n",
		"# c\n[[redirects]]\nfrom='/a'\nto='/b'\n[redirects.query]\nx='1'\n", "redirects = []\n", "[[redirects]]", "a = '''\n[[redirects]]\n'''\n",
		"[ build . environment ]\r\n", "[\"build\".environment] # x\n[[ redirects ]]\nfrom='/*'\n", "[[plugins]]\n[plugins.inputs]\na=1", "[build]\n[build]\n",
		"[build.environment]\nGO_VERSION = \"1.22\"\n", "[Build]\npublish='x'\n",
	} {
		f.Add(seed)
	}
	rules := []redirects.Rule{{From: "/api/kv/get/*", To: "/.netlify/functions/kv-get/:splat", Status: 200}}
	f.Fuzz(func(t *testing.T, content string) {
		before, err := parseTOML([]byte(content))
		if err != nil || strings.Contains(content, mark) {
			return
		}
		for name, insert := range map[string]func() (insertion, error){
			"rules": func() (insertion, error) { return insertRules(content, rules) },
			"Go":    func() (insertion, error) { return insertGoVersion(content, "1.26.10") },
		} {
			i, err := insert()
			if err != nil {
				require.ErrorIs(t, err, errOtherForm)
				continue
			}
			after := i.into(content)
			require.Equal(t, content, cut(after, []string{i.text}), name)
			config, err := parseTOML([]byte(after))
			require.NoError(t, err)
			if name == "Go" {
				require.Equal(t, "1.26.10", lookup(config, "build", "environment", "GO_VERSION"))
				continue
			}
			theirs, err := redirects.OfTOML("", before["redirects"])
			if err != nil {
				continue
			}
			all, err := redirects.OfTOML("", config["redirects"])
			require.NoError(t, err)
			want := append(rules[:1:1], theirs...)
			require.Len(t, all, len(want))
			for i := range all {
				all[i].Place = want[i].Place // theirs come later by one
			}
			require.Equal(t, want, all)
		}
	})
}
