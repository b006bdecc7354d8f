package migrate

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/stream"
)

// memory is a source whose blobs are made up.
func memory(values map[string]string) *fake {
	f := &fake{}
	for _, key := range sortedKeysOf(values) {
		f.items = append(f.items, fakeItem(key, values[key]))
	}
	return f
}

// derived are the indexes that rules give the entries of a source, with what was counted.
func derived(t *testing.T, values map[string]string, lines ...string) (map[string][][2]string, IndexCounts) {
	t.Helper()
	source := memory(values)
	l, err := list(t.Context(), source, "", noProgress{})
	require.NoError(t, err)
	defer l.close()
	d, err := derive(t.Context(), source, l, defaults, rulesOf(t, lines...), "", noProgress{})
	require.NoError(t, err)
	defer d.close()
	of := map[string][][2]string{}
	for s, err := range walk(l.all(), d.all(), stream.None, stream.None, d.unnamed) {
		require.NoError(t, err)
		if s.pairs != nil {
			of[s.key] = s.pairs
		}
		d.counts.Named += len(s.pairs)
	}
	return of, d.counts
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
		require.Equal(t, is, defaults.isIndex("index:a", []byte(value)), value)
	}
	require.False(t, defaults.isIndex("other:a", []byte(`[]`)))
}

// TestAPlanFindsTheRules: a pattern that alone fits all members of its index is active; of every other one it says what speaks against it.
func TestAPlanFindsTheRules(t *testing.T) {
	values := map[string]string{
		"session:1": `{}`, "session:2": `{}`, "session:2026/01": `{}`, "profile/1": `{}`, "deep/er/x": `{}`, "plain": `{}`, "twin:t": `{}`, "twin/t": `{}`,
		"index:sessions": `["1","2","2026/01","1"]`, // profile/1 fits one of them
		"index:dead":     `["1","gone"]`,
		"index:keys":     `["plain","session:1"]`,
		"index:twins":    `["t"]`,
		"index:odd":      `[true,"1"]`,
		"index:empty":    `[]`,
	}
	for i := range maxSiblings + 1 {
		values[fmt.Sprintf("index:by:%03d", i)] = `["x"]`
	}
	source := memory(values)
	source.items = append(source.items, Item{Listed: blobs.Listed{Key: "~own"}, Blob: blobs.Blob{Value: []byte(`{}`)}, Indexes: [][2]string{{"index:sessions", "~own"}}})
	for i, item := range source.items {
		if item.Key == "index:sessions" {
			source.items[i].Blob.Value = []byte(`["1","2","2026/01","1","~own"]`)
		}
	}
	dir := filepath.Join(t.TempDir(), "migration")
	p, err := Plan(t.Context(), source, nil, PlanOptions{Options: defaults, Dir: dir, Progress: noProgress{}})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, RulesFile), p.RulesFile)
	rules, err := ReadRules(p.RulesFile)
	require.NoError(t, err)
	require.Equal(t, []string{"index:by:*=deep/er/{member}", "index:keys={member}", "index:sessions=session:{member}"}, rules.Strings())
	text, err := os.ReadFile(p.RulesFile)
	require.NoError(t, err)
	for _, line := range []string{
		"#index:dead=profile/{member}", "it names an entry for 1 of 2 members; 1 name nothing: their entries may have been deleted",
		"#index:sessions=profile/{member}", "it names an entry for 1 of 3 members", "#index:twins=twin/{member}", "other rules fit all members, too",
		"# index:by:*: 51 index entries with 51 members.", "1 are of entries that say so themselves",
	} {
		require.Contains(t, string(text), line)
	}

	// What somebody has changed is not written over.
	require.NoError(t, os.WriteFile(p.RulesFile, append(text, "index:twins=twin/{member}\n"...), 0o600))
	again, err := Plan(t.Context(), source, nil, PlanOptions{Options: defaults, Dir: dir, Progress: noProgress{}})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "index-rules.new.txt"), again.RulesFile)
	rules, from, err := FindRules("", dir, nil)
	require.NoError(t, err)
	require.Equal(t, p.RulesFile, from)
	require.Len(t, rules, 4)
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

func TestRulesThatCannotBeALineAreNotActive(t *testing.T) {
	source := memory(map[string]string{"index:a=b": `["1"]`, "index:\n": `["1"]`, "index:fine": `["1"]`, "s/1": `{}`})
	dir := t.TempDir()
	_, err := Plan(t.Context(), source, nil, PlanOptions{Options: defaults, Dir: dir, Progress: noProgress{}})
	require.NoError(t, err)
	rules, err := ReadRules(filepath.Join(dir, RulesFile))
	require.NoError(t, err)
	require.Equal(t, []string{"index:fine=s/{member}"}, rules.Strings())
	require.False(t, strings.HasPrefix("index:\n", rules[0].Index))
}
