package entries

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/migrate/sources/sourcetest"
)

// options are those that the program has without flags.
var options = Options{IndexPrefix: DefaultIndexPrefix}

// derived are the indexes that rules give the entries of a source, with what was counted.
func derived(t *testing.T, values map[string]string, lines ...string) (map[string][][2]string, IndexCounts) {
	t.Helper()
	source := sourcetest.NewMemory(values)
	l, err := sources.List(t.Context(), source, "", sources.NoProgress{})
	require.NoError(t, err)
	defer l.Close()
	rules, err := ParseRules(lines)
	require.NoError(t, err)
	d, err := Derive(t.Context(), source, l, options, rules, "", sources.NoProgress{})
	require.NoError(t, err)
	defer d.Close()
	there := map[string]bool{}
	for blob, err := range l.All() {
		require.NoError(t, err)
		there[blob.Key] = true
	}
	of := map[string][][2]string{}
	for p, err := range d.All() {
		require.NoError(t, err)
		if !there[p.Key] {
			d.Unnamed(p)
			continue
		}
		of[p.Key] = p.Pairs
		d.Counts.Named += len(p.Pairs)
	}
	return of, d.Counts
}

func TestARuleSaysWhichEntryAMemberNames(t *testing.T) {
	values := map[string]string{"index:s": `["a","b","a"]`, "other:a": `{}`, "session:a:v1": `{}`, "session:b": `{}`}
	of, counts := derived(t, values, "index:s=session:{member}:v1")
	require.Equal(t, map[string][][2]string{"session:a:v1": {{"index:s", "a"}}}, of, "once, and not the other that ends in a")
	require.Equal(t, []int{1, 2, 1, 1, 0}, []int{counts.Entries, counts.Members, counts.Named, counts.Unnamed, counts.WithoutRule})
	require.Equal(t, []Member{{"index:s", "b", `there is no entry "session:b:v1"`}}, counts.Unresolved)

	of, counts = derived(t, values)
	require.Empty(t, of, "without a rule no entry gets it")
	require.Equal(t, []string{"index:s"}, counts.Without)
	require.Equal(t, 2, counts.Unruled)
	for _, bad := range []string{"a", "=x{member}", "index:s=session", "index:s={member}{member}", "index:*:s={member}"} {
		_, err := ParseRules([]string{bad})
		require.ErrorContains(t, err, "is like index:sessions=session:{member}", bad)
	}
}

func TestTheNearestRuleCounts(t *testing.T) {
	values := map[string]string{"index:user:1": `["x"]`, "index:user:2": `["x"]`, "index:team": `["x"]`, "order/x": `{}`, "own/x": `{}`, "any/x": `{}`, "more/x": `{}`}
	of, _ := derived(t, values, "# a comment", "", "index:*=any/{member}", "index:user:*=order/{member}", "index:user:2=own/{member}", "index:user:2=more/{member}")
	require.Equal(t, map[string][][2]string{
		"order/x": {{"index:user:1", "x"}}, "own/x": {{"index:user:2", "x"}}, "more/x": {{"index:user:2", "x"}}, "any/x": {{"index:team", "x"}},
	}, of)
}

func TestANumberNamesTheEntryOfItsSpelling(t *testing.T) {
	of, counts := derived(t, map[string]string{"index:teams": `[1,"2",2,1, 3.0 ,"1"]`, "team/1": `{}`, "team/2": `{}`, "team/3": `{}`}, "index:teams=team/{member}")
	require.ElementsMatch(t, [][2]string{{"index:teams", "\x011"}, {"index:teams", "1"}}, of["team/1"], "1 and \"1\" are two members")
	require.ElementsMatch(t, [][2]string{{"index:teams", "2"}, {"index:teams", "\x012"}}, of["team/2"])
	require.Equal(t, []Member{{"index:teams", "3.0", `there is no entry "team/3.0"`}}, counts.Unresolved)
}

func TestWhatCanBeNoMemberIsReported(t *testing.T) {
	of, counts := derived(t, map[string]string{"a": `{}`, "true": `{}`, "index:x": `["a",true,{"b":"\u0000"},"","\ud800","c\u0000",null]`}, "index:x={member}")
	require.Equal(t, [][2]string{{"index:x", "a"}}, of["a"], "what else is in the array does not hide a member")
	require.Equal(t, []Member{
		{"index:x", "true", problemType}, {"index:x", `{"b":"\u0000"}`, problemType}, {"index:x", "", problemEmpty},
		{"index:x", "\ufffd", problemCharacter}, {"index:x", "c\x00", problemCharacter}, {"index:x", "null", problemType},
	}, counts.Unresolved)
	require.Equal(t, counts.Members, counts.Unusable+counts.Named)
}

func TestArraysWithAStringOrANumberAreIndexes(t *testing.T) {
	for value, is := range map[string]bool{
		`[]`: true, ` ["a"] `: true, `["a",1]`: true, `[1,2]`: true, `["a",null]`: true, `[{},1]`: true,
		`[null]`: false, `[{"a":1}]`: false, `{"a":1}`: false, `"a"`: false, `null`: false, `[["a"]]`: false,
	} {
		require.Equal(t, is, options.isIndex("index:a", []byte(value)), value)
	}
	require.False(t, options.isIndex("other:a", []byte(`[]`)))
}

func TestRulesAreThoseOfTheNearestFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mine.txt")
	m := &kv.Migration{Rules: []string{"index:a=a/{member}"}}
	rules, from, err := FindRules("", dir, m)
	require.NoError(t, err)
	require.Equal(t, m.Rules, rules.Strings(), "from another machine, what the last run had")
	require.Contains(t, from, "last run")
	_, _, err = FindRules(file, dir, m)
	require.ErrorContains(t, err, "read the rules")
	require.NoError(t, os.WriteFile(file, []byte("index:b=b/{member}\r\n"), 0o600))
	rules, _, err = FindRules(file, dir, m)
	require.NoError(t, err)
	require.Equal(t, []string{"index:b=b/{member}"}, rules.Strings())
	require.NoError(t, os.WriteFile(filepath.Join(dir, RulesFile), nil, 0o600))
	rules, _, err = FindRules("", dir, m)
	require.NoError(t, err)
	require.Empty(t, rules, "an empty file is no rules")
	require.NoError(t, os.WriteFile(file, []byte("nonsense"), 0o600))
	_, _, err = FindRules(file, dir, m)
	require.ErrorContains(t, err, "mine.txt: an index rule is like")
}
