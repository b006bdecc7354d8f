package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestIndexEntry: an index is an entry that a caller can see.
func TestIndexEntry(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	sessions := prefix + "index:sessions"
	upsert(t, prefix+"a", `{"n":1}`, index{sessions, "abc"})

	list(t, "prefix", prefix, "includeValues", "true").is(t, http.StatusOK,
		`{"keys":[`+quote(prefix+"a")+`,`+quote(sessions)+`],"count":2,"data":{`+quote(prefix+"a")+`:{"n":1},`+quote(sessions)+`:["abc"]}}`)
	holdsJSON(t, sessions, `["abc"]`)

	t.Run("OrderFirstAddedWithoutRepeats", func(t *testing.T) {
		for _, member := range []string{"zzz", "abc", "mmm", "zzz", "aaa", "abc", "ABC", "abc "} {
			upsert(t, prefix+"b", `[]`, index{sessions, member})
		}
		holdsJSON(t, sessions, `["abc","zzz","mmm","aaa","ABC","abc "]`)
	})
	t.Run("OrderWithinOneUpsert", func(t *testing.T) {
		upsert(t, prefix+"c", `[]`, index{prefix + "order", "z"}, index{prefix + "order", "a"}, index{prefix + "order", "z"}, index{prefix + "order", "m"})
		holdsJSON(t, prefix+"order", `["z","a","m"]`)
	})
	t.Run("MembersOutliveTheirEntries", func(t *testing.T) {
		before := string(get(t, sessions).fields(t)["value"])
		upsert(t, prefix+"b", `[]`, index{prefix + "other", "x"})
		remove(t, prefix+"a", true)
		require.Equal(t, before, string(get(t, sessions).fields(t)["value"]), "members are only ever added")
	})
	t.Run("OddMembers", func(t *testing.T) {
		members := []string{"a,b", `"`, `\`, `{}`, "{a,b}", "'", "a:b", ":", " ", "é", "e\u0301", "😀", "\x01", "\n", "\u2028", "<&>", "NULL", "null", "%", "_",
			`\u0041`, "__proto__", "\uffff", "\U0010ffff"}
		var all []index
		for _, member := range members {
			all = append(all, index{prefix + "odd", member})
		}
		upsert(t, prefix+"o", `[]`, all...)
		holdsJSON(t, prefix+"odd", quoteAll(members))
		for _, member := range members {
			require.Equal(t, []string{prefix + "o"}, keys(t, "prefix", prefix, "index", prefix+"odd:"+member), "member %q", member)
		}
	})
	t.Run("IndexesOfIndexEntries", func(t *testing.T) {
		// An index entry is an entry, and may itself have indexes.
		upsert(t, prefix+"meta", `["x"]`, index{prefix + "metameta", "m"})
		upsert(t, prefix+"d", `[]`, index{prefix + "meta", "y"})
		holdsJSON(t, prefix+"meta", `["x","y"]`)
		require.Equal(t, []string{prefix + "meta"}, keys(t, "prefix", prefix, "index", prefix+"metameta:m"))
	})
}

// TestNumbersAreMembers: as with the old function, a member may be a number, and the index entry lists it as a number.
func TestNumbersAreMembers(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	ri := quote(prefix + "ri")
	put := func(key, indexes string) *response {
		return call(t, http.MethodPost, upsertPath, body(`{"key":`+quote(prefix+key)+`,"value":{},"indexes":[`+indexes+`]}`))
	}
	require.Equal(t, http.StatusOK, put("a", `{"key":`+ri+`,"member":5}`).status)
	holds(t, prefix+"ri", `[5]`)
	require.Equal(t, http.StatusOK, put("b", `{"key":`+ri+`,"member":"5"},{"key":`+ri+`,"member":5.0},{"key":`+ri+`,"member":-1e400},{"key":`+ri+`,"member":0},{"key":`+ri+`,"member":"\u00015"}`).status)
	holds(t, prefix+"ri", `[5,"5",5.0,-1e400,"\u00015"]`)
	for filter, want := range map[string][]string{"ri:5": {"a", "b"}, "ri:5.0": {"b"}, "ri:-1e400": {"b"}, "ri:0": {}, "ri:\x015": {"b"}} {
		require.Equal(t, prefixed(prefix, want...), keys(t, "prefix", prefix, "index", prefix+filter), "%q", filter)
	}
	require.Equal(t, prefixed(prefix, "a", "b"), keys(t, "prefix", prefix, "indexKey", prefix+"ri"))

	for member, shown := range map[string]string{`true`: "true", `{"a":1}`: `{"a":1}`, `[5]`: "[5]"} {
		put("c", `{"key":`+ri+`,"member":1},{"key":`+ri+`,"member":`+member+`}`).isError(t, http.StatusBadRequest, "indexes[1].member", shown)
	}
	absent(t, prefix+"c")
	if os.Getenv("USE_SUPABASE_KV") == "false" {
		return // kv-query needs Supabase
	}
	for member, want := range map[string]string{`5`: "a", `"5"`: "b", `5.0`: "b"} {
		a := call(t, http.MethodPost, queryPath, body(`{"prefix":`+quote(prefix)+`,"select":["key"],"indexes":{"all":[{"key":`+ri+`,"member":`+member+`}]}}`), fresh)
		require.Equal(t, http.StatusOK, a.status, "%v", a)
		require.JSONEq(t, `[{"key":`+quote(prefix+want)+`}]`, string(a.fields(t)["results"]), member)
	}
	a := call(t, http.MethodPost, queryPath, body(`{"prefix":`+quote(prefix)+`,"aggregate":[{"op":"count"}],"groupBy":"index:`+prefix+`ri"}`), fresh)
	require.Contains(t, string(a.body), `{"group":5,"aggregates":[{"op":"count","value":1}]}`)
	require.Contains(t, string(a.body), `{"group":"5","aggregates":[{"op":"count","value":1}]}`)
}

// TestIndexKeyThatHoldsAnEntry adds a member to an index whose key has a plain entry.
func TestIndexKeyThatHoldsAnEntry(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, plain, want string }{
		{"EmptyArrayIsAppendedTo", `[]`, `["m"]`},
		{"BlankArrayIsAppendedTo", "[ \n ]", `["m"]`},
		{"ArrayIsAppendedTo", `["a","b"]`, `["a","b","m"]`},
		{"ArrayWithSpaceIsAppendedTo", "[ \"a\" , \"b\"\n]", `["a","b","m"]`},
		{"ArrayOfNumbersAndStrings", `[1,"1",2.0]`, `[1,"1",2.0,"m"]`},
		{"ArrayThatHasTheMember", `["m","a"]`, `["m","a"]`},
		{"ArrayThatHasTheMemberEscaped", `["\u006d"]`, `["\u006d"]`},
		{"ArrayThatHasTheMemberEscapedAmongOddText", `["\u0000","\u006d"]`, `["\u0000","\u006d"]`},
		{"ArrayOfOtherThings", `[1.0,{"m":1},["m"],null,"mm"]`, `[1.0,{"m":1},["m"],null,"mm","m"]`},
		{"ArrayOfHugeNumbers", `[1e400,12345678901234567890]`, `[1e400,12345678901234567890,"m"]`},
		{"ArrayWithNullCharacter", `["\u0000"]`, `["\u0000","m"]`},
		{"ArrayWithLoneSurrogate", `["\ud800"]`, `["\ud800","m"]`},
		{"ArrayWithRepeats", `["a","a"]`, `["a","a","m"]`},
		{"ObjectIsReplaced", `{"m":1}`, `["m"]`},
		{"EmptyObjectIsReplaced", `{}`, `["m"]`},
		{"NullIsReplaced", `null`, `["m"]`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			upsert(t, prefix+"i", row.plain)
			holds(t, prefix+"i", row.plain)
			upsert(t, prefix+"k", `[]`, index{prefix + "i", "m"})
			holdsJSON(t, prefix+"i", row.want)
			upsert(t, prefix+"k", `[]`, index{prefix + "i", "m"})
			holdsJSON(t, prefix+"i", row.want)
			upsert(t, prefix+"k2", `[]`, index{prefix + "i", "n"}, index{prefix + "i", "m"})
			holdsJSON(t, prefix+"i", strings.TrimSuffix(row.want, "]")+`,"n"]`)
			data := list(t, "prefix", prefix+"i", "includeValues", "true").page(t).Data
			sameJSON(t, strings.TrimSuffix(row.want, "]")+`,"n"]`, string(data[prefix+"i"]), "kv-list has the same value")
		})
	}
}

// TestReplaceIndexEntry: an upsert of an index key stores its value, and later members are added to that.
func TestReplaceIndexEntry(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, value, then string }{
		{"WithArray", `["x","m2"]`, `["x","m2","m1"]`},
		{"WithEmptyArray", `[]`, `["m1"]`},
		{"WithObject", `{"a":1.0}`, `["m1"]`},
		{"WithNull", `null`, `["m1"]`},
		{"WithWhatItIs", `["m1","m2"]`, `["m1","m2"]`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			upsert(t, prefix+"k", `[]`, index{prefix + "i", "m1"}, index{prefix + "i", "m2"})
			holdsJSON(t, prefix+"i", `["m1","m2"]`)
			upsert(t, prefix+"i", row.value)
			holds(t, prefix+"i", row.value)
			upsert(t, prefix+"k", `[]`, index{prefix + "i", "m1"})
			holdsJSON(t, prefix+"i", row.then)
		})
	}
}

func TestDeleteIndexEntry(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	upsert(t, prefix+"k", `[1]`, index{prefix + "i", "a"}, index{prefix + "i", "b"})
	remove(t, prefix+"i", true)
	absent(t, prefix+"i")
	require.Equal(t, []string{prefix + "k"}, keys(t, "prefix", prefix))
	remove(t, prefix+"i", false)

	upsert(t, prefix+"k2", `[1]`, index{prefix + "i", "c"})
	holdsJSON(t, prefix+"i", `["c"]`)
	holds(t, prefix+"k", `[1]`)
}

// TestIndexesOfAnEntry: an upsert without indexes keeps them; one with indexes replaces them.
func TestIndexesOfAnEntry(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, indexes string // I stands for the prefix of the index keys
		want          string // which of a b c find the entry afterwards; before, it has a and b
	}{
		{"AbsentStay", ``, "ab"},
		{"NullStay", `,"indexes":null`, "ab"},
		{"StringStay", `,"indexes":"I:c"`, "ab"},
		{"ObjectStay", `,"indexes":{"key":"I","member":"c"}`, "ab"},
		{"NumberStay", `,"indexes":0`, "ab"},
		{"TrueStay", `,"indexes":true`, "ab"},
		{"InWrongCaseStay", `,"Indexes":[]`, "ab"},
		{"EmptyClears", `,"indexes":[]`, ""},
		{"Replaced", `,"indexes":[{"key":"I","member":"c"}]`, "c"},
		{"PartlyReplaced", `,"indexes":[{"key":"I","member":"b"},{"key":"I","member":"c"}]`, "bc"},
		{"Same", `,"indexes":[{"key":"I","member":"b"},{"key":"I","member":"a"}]`, "ab"},
		{"Duplicates", `,"indexes":[{"key":"I","member":"c"},{"key":"I","member":"c"},{"member":"c","key":"I"},{"key":"I","member":"\u0063"}]`, "c"},
		{"NothingUsableClears", `,"indexes":[{"key":"I"},{"member":"c"},{"key":"","member":"c"},{"key":"I","member":""}]`, ""},
		{"UnusableIgnored", `,"indexes":[null,5,"I:a",[],{"key":"I","member":0},{"key":"I","member":"c","extra":{}},{"Key":"I","member":"a"}]`, "c"},
		{"LastWins", `,"indexes":[{"key":"I","member":"a"}],"indexes":[{"key":"I","member":"c"}]`, "c"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			key, ix := prefix+"k", prefix+"i"
			upsert(t, key, `[1]`, index{ix, "a"}, index{ix, "b"})
			indexes := strings.ReplaceAll(row.indexes, `I`, ix)
			post(t, upsertPath, `{"key":`+quote(key)+`,"value":[2]`+strings.ReplaceAll(indexes, ix+"ndexes", "Indexes")+`}`).
				is(t, http.StatusOK, `{"ok":true,"key":`+quote(key)+`,"timestamp":"now"}`)
			holds(t, key, `[2]`)
			found := ""
			for _, member := range []string{"a", "b", "c"} {
				if len(keys(t, "prefix", prefix, "index", ix+":"+member)) > 0 {
					found += member
				}
			}
			require.Equal(t, row.want, found, "members of %s that find the entry", ix)
			require.Equal(t, row.want != "", len(keys(t, "prefix", prefix, "indexKey", ix)) > 0, "found by indexKey")
			members := `["a","b"]`
			if strings.Contains(row.want, "c") {
				members = `["a","b","c"]`
			}
			holdsJSON(t, ix, members)
		})
	}
	t.Run("DeletedEntryIsNotFound", func(t *testing.T) {
		t.Parallel()
		prefix := newPrefix()
		upsert(t, prefix+"k", `[1]`, index{prefix + "i", "a"})
		remove(t, prefix+"k", true)
		require.Empty(t, keys(t, "index", prefix+"i:a"))
		require.Empty(t, keys(t, "indexKey", prefix+"i"))
		upsert(t, prefix+"k", `[1]`)
		require.Empty(t, keys(t, "index", prefix+"i:a"), "a new entry at the key does not inherit the indexes of the old one")
	})
}

// TestIndexesColumn: for people and tools, the table has each index once as "<key>:<member>".
func TestIndexesColumn(t *testing.T) {
	db := database(t)
	t.Parallel()
	prefix := newPrefix()
	column := func() (indexes []string) {
		require.NoError(t, db.QueryRow(t.Context(), `select indexes from public.kv_store where key = $1`, prefix+"k").Scan(&indexes))
		return indexes
	}
	upsert(t, prefix+"k", `[]`)
	require.Empty(t, column())
	upsert(t, prefix+"k", `[]`, index{prefix + "a:b", "c"}, index{prefix + "a", "b:c"}, index{prefix + "a", "x,\"{}\\"}, index{prefix + "a", "x,\"{}\\"})
	require.Equal(t, []string{prefix + "a:b:c", prefix + `a:x,"{}\`}, column())
	upsert(t, prefix+"k", `[1]`)
	require.Len(t, column(), 2, "an upsert without indexes leaves them")
	post(t, upsertPath, `{"key":`+quote(prefix+"k")+`,"value":[],"indexes":[]}`)
	require.Empty(t, column())
}

func TestListByIndex(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	p := prefix + "x/" // prefix of the entries; the index keys are p + ab, type, …
	upsert(t, p+"1", `[]`, index{prefix + "a:b", "c"}, index{prefix + "type", "doc"}, index{prefix + "state", "open"})
	upsert(t, p+"2", `[]`, index{prefix + "a", "b:c"}, index{prefix + "type", "doc"})
	upsert(t, p+"3", `[]`, index{prefix + "a", "b"}, index{prefix + "type", "note"}, index{prefix + "state", "open"})
	upsert(t, p+"4", `[]`, index{prefix + "type", `o'dd,"{\}:%_*`}, index{prefix + "état 😀", "öffen"})
	upsert(t, p+"5", `[]`, index{prefix + "type:", "doc"}, index{prefix + "type", ":doc"})
	upsert(t, p+"6", `[]`)
	for _, row := range []struct {
		name    string
		filters []string // index and indexKey; I/ stands for the prefix
		want    string
	}{
		{"None", nil, "123456"},
		{"OnePair", []string{"index", "I/type:doc"}, "12"},
		{"PairsThatSpellAlike", []string{"index", "I/a:b:c"}, "12"},
		{"PartOfAPair", []string{"index", "I/a:b"}, "3"},
		{"TwoPairs", []string{"index", "I/type:doc", "index", "I/state:open"}, "1"},
		{"SamePairTwice", []string{"index", "I/type:doc", "index", "I/type:doc"}, "12"},
		{"TwoMembersOfOneIndex", []string{"index", "I/type:doc", "index", "I/type:note"}, ""},
		{"UnknownMember", []string{"index", "I/type:none"}, ""},
		{"UnknownIndex", []string{"index", "I/none:doc"}, ""},
		{"KnownAndUnknown", []string{"index", "I/type:doc", "index", "I/none:x"}, ""},
		{"MemberIsLiteral", []string{"index", "I/type:%"}, ""},
		{"MemberIsNoPrefix", []string{"index", "I/type:do"}, ""},
		{"MemberInOtherCase", []string{"index", "I/type:Doc"}, ""},
		{"OddMember", []string{"index", `I/type:o'dd,"{\}:%_*`}, "4"},
		{"NotASCII", []string{"index", "I/état 😀:öffen"}, "4"},
		{"ColonsEverywhere", []string{"index", "I/type::doc"}, "5"},
		{"IndexKey", []string{"indexKey", "I/type"}, "12345"},
		{"TwoIndexKeys", []string{"indexKey", "I/type", "indexKey", "I/state"}, "13"},
		{"IndexKeyWithColon", []string{"indexKey", "I/a:b"}, "1"},
		{"IndexKeyIsNoPrefix", []string{"indexKey", "I/typ"}, ""},
		{"IndexKeyIsNoPair", []string{"indexKey", "I/type:doc"}, ""},
		{"IndexKeyUnknown", []string{"indexKey", "I/none"}, ""},
		{"IndexAndIndexKey", []string{"index", "I/type:doc", "indexKey", "I/a"}, "2"},
		{"ThreeSpelledAlike", []string{"index", "I/a:b:c", "index", "I/type:doc", "indexKey", "I/state"}, "1"},
		{"TwoAmbiguous", []string{"index", "I/a:b:c", "index", "I/type::doc"}, ""},
		{"EmptyIsAbsent", []string{"index", "", "index", "I/type:note", "indexKey", ""}, "3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			want := []string{}
			for _, name := range strings.Split(row.want, "") {
				want = append(want, p+name)
			}
			query := []string{"prefix", p}
			for i, text := range row.filters {
				if i%2 == 1 && text != "" {
					text = prefix + strings.TrimPrefix(text, "I/")
				}
				query = append(query, text)
			}
			require.Equal(t, want, keys(t, query...))
			require.Equal(t, len(want), len(list(t, append(query, "includeValues", "true")...).page(t).Data))
			for _, limit := range []string{"1", "2"} {
				require.Equal(t, want, append([]string{}, walk(t, nil, append(query, "limit", limit)...)...), "by cursor, %s a page", limit)
			}
			require.Equal(t, want, append([]string{}, walk(t, nil, append(query, "limit", "1", "sortBy", "created")...)...), "by creation time, which here gives the same order")
			slices.Reverse(want)
			require.Equal(t, want, append([]string{}, walk(t, nil, append(query, "limit", "2", "sortOrder", "desc")...)...), "backwards")
		})
	}
	t.Run("OutsideThePrefix", func(t *testing.T) {
		t.Parallel()
		upsert(t, prefix+"y", `[]`, index{prefix + "type2", "doc"})
		require.Empty(t, keys(t, "prefix", p, "index", prefix+"type2:doc"))
		require.Equal(t, []string{prefix + "y"}, keys(t, "index", prefix+"type2:doc"), "without a prefix")
	})
	t.Run("EverySpellingOfManyColons", func(t *testing.T) {
		t.Parallel()
		many := prefix + strings.Repeat(":", 30)
		for i := range 4 {
			upsert(t, fmt.Sprintf("%smany/%d", prefix, i), `[]`, index{many[:len(prefix)+7*i+1], many[len(prefix)+7*i+2:]})
		}
		require.Len(t, keys(t, "prefix", prefix+"many/", "index", many), 4)
		require.Len(t, keys(t, "prefix", prefix+"many/", "index", strings.Repeat(":", 1024)), 0)
	})
	t.Run("SpacesAndPlus", func(t *testing.T) {
		t.Parallel()
		upsert(t, prefix+"z", `[]`, index{prefix + "tag", "a b+c"})
		a := call(t, http.MethodGet, listPath+"?index="+url.QueryEscape(prefix)+"tag:a+b%2Bc")
		require.Equal(t, []string{prefix + "z"}, a.page(t).Keys)
	})
}
