package migrate

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

func indexOf(t *testing.T, key, value string) indexEntry {
	t.Helper()
	elements, ok := readElements(value)
	require.True(t, ok, value)
	return indexEntry{key, elements}
}

func TestAMemberNamesAnEntryByItsKeyOrByTheEndOfIt(t *testing.T) {
	for _, c := range []struct {
		name, member string
		keys         []string
		names        string // "" for none
		ambiguous    bool
	}{
		{"its key", "a", []string{"a", "b"}, "a", false},
		{"after a colon", "a", []string{"s:a", "s:b"}, "s:a", false},
		{"after a slash", "a", []string{"s/a"}, "s/a", false},
		{"after the last of either", "a", []string{"s:t/a"}, "s:t/a", false},
		{"after the last colon, with a slash in it", "2026/01", []string{"day:2026/01"}, "day:2026/01", false},
		{"not a part in the middle", "t", []string{"s:t:a", "t/x"}, "", false},
		{"not a part of a segment", "a", []string{"s:ba"}, "", false},
		{"two ends", "a", []string{"s:a", "t:a"}, "", true},
		{"a key and an end", "a", []string{"a", "s:a"}, "", true},
		{"one entry by two names", "a:b", []string{"a:b"}, "a:b", false},
		{"not an index entry", "x", []string{"index:x"}, "", false},
		{"case counts", "A", []string{"s:a"}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			entries := []indexEntry{{"index:x", []element{{member: kv.TextMember(c.member)}}}}
			keys := append(slices.Clone(c.keys), "index:x")
			slices.Sort(keys)
			x := extract(keys, entries, nil, nil, nil)
			for _, key := range keys {
				want := [][2]string{}
				if key == c.names {
					want = [][2]string{{"index:x", c.member}}
				}
				require.Equal(t, want, x.Of(key), key)
			}
			require.Equal(t, c.ambiguous, len(x.Ambiguous) == 1, x.Ambiguous)
			require.Equal(t, !c.ambiguous && c.names == "", len(x.Unresolved) == 1, x.Unresolved)
		})
	}
}

func TestARuleSaysWhichEntryAMemberNames(t *testing.T) {
	rule, err := ParseIndexRule("index:s=session:{member}:v1")
	require.NoError(t, err)
	keys := []string{"index:s", "other:a", "session:a:v1"}
	x := extract(keys, []indexEntry{indexOf(t, "index:s", `["a","b","a"]`)}, []IndexRule{rule}, nil, nil)
	require.Equal(t, [][2]string{{"index:s", "a"}}, x.Of("session:a:v1"), "once, and not the other that ends in a")
	require.Equal(t, "b", x.Unresolved[0].Member)
	for _, bad := range []string{"", "a", "=x{member}", "index:s=session", "index:s={member}{member}"} {
		_, err := ParseIndexRule(bad)
		require.ErrorContains(t, err, "is like index:sessions=session:{member}", bad)
	}
}

func TestAnIndexThatNamesEntriesOfSeveralKindsIsShown(t *testing.T) {
	keys := []string{"a:4", "index:plain", "index:s", "old/3", "session:1", "session:2"}
	x := extract(keys, []indexEntry{indexOf(t, "index:plain", `["session:1","4"]`), indexOf(t, "index:s", `["1","2","3","gone"]`)}, nil, nil, nil)
	require.Equal(t, []Kind{
		{"index:plain", "a:{member}", 1}, {"index:plain", "{member}", 1},
		{"index:s", "session:{member}", 2}, {"index:s", "old/{member}", 1},
	}, x.Mixed())
	require.Empty(t, extract(keys, []indexEntry{indexOf(t, "index:s", `["1","2"]`)}, nil, nil, nil).Mixed())
}

func TestANumberNamesTheEntryThatEndsInItsSpelling(t *testing.T) {
	keys := []string{"index:teams", "team/1", "team/2", "team/3"}
	x := extract(keys, []indexEntry{indexOf(t, "index:teams", `[1,"2",2,1, 3.0 ,"1"]`)}, nil, nil, nil)
	require.Equal(t, [][2]string{{"index:teams", "\x011"}, {"index:teams", "1"}}, x.Of("team/1"), "1 and \"1\" are two members")
	require.Equal(t, [][2]string{{"index:teams", "2"}, {"index:teams", "\x012"}}, x.Of("team/2"))
	require.Equal(t, []Member{{Index: "index:teams", Member: "3.0", Reason: "no entry has that key or ends in it"}}, x.Unresolved)
	rule, err := ParseIndexRule("index:teams=team/{member}")
	require.NoError(t, err)
	x = extract(keys, []indexEntry{indexOf(t, "index:teams", `[1]`)}, []IndexRule{rule}, nil, nil)
	require.Equal(t, [][2]string{{"index:teams", "\x011"}}, x.Of("team/1"))
}

func TestWhatCanBeNoMemberIsReported(t *testing.T) {
	x := extract([]string{"a", "index:x", "true"}, []indexEntry{indexOf(t, "index:x", `["a",true,{"b":"\u0000"},"","\ud800","c\u0000",null]`)}, nil, nil, nil)
	require.Equal(t, [][2]string{{"index:x", "a"}}, x.Of("a"), "what else is in the array does not hide a member")
	require.Equal(t, []Member{
		{Index: "index:x", Member: "true", Reason: problemType}, {Index: "index:x", Member: `{"b":"\u0000"}`, Reason: problemType},
		{Index: "index:x", Reason: problemEmpty}, {Index: "index:x", Member: "\ufffd", Reason: problemCharacter},
		{Index: "index:x", Member: "c\x00", Reason: problemCharacter}, {Index: "index:x", Member: "null", Reason: problemType},
	}, x.Unresolved)
}

func TestArraysWithAStringOrANumberAreIndexes(t *testing.T) {
	for value, is := range map[string]bool{
		`[]`: true, ` ["a"] `: true, `["a",1]`: true, `[1,2]`: true, `["a",null]`: true, `[{},1]`: true,
		`[null]`: false, `[{"a":1}]`: false, `{"a":1}`: false, `"a"`: false, `null`: false, `[["a"]]`: false,
	} {
		_, ok := readElements(value)
		require.Equal(t, is, ok, value)
	}
}
