package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pad returns text padded to n bytes.
func pad(text, with string, n int) string {
	for len(text)+len(with) <= n {
		text += with
	}
	return text + strings.Repeat("x", n-len(text))
}

func TestKeyLimit(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, unit string }{{"OneByte", "a"}, {"TwoBytes", "é"}, {"ThreeBytes", "€"}, {"FourBytes", "😀"}} {
		for _, bytes := range []int{1023, 1024} {
			t.Run(fmt.Sprintf("%s%d", row.name, bytes), func(t *testing.T) {
				t.Parallel()
				prefix := newPrefix()
				key := pad(prefix, row.unit, bytes)
				require.Len(t, key, bytes)
				upsert(t, key, `[1]`)
				holds(t, key, `[1]`)
				call(t, http.MethodGet, getPath+"/"+url.PathEscape(key), fresh).
					is(t, http.StatusOK, `{"key":`+quote(key)+`,"value":[1],"exists":true,"timestamp":"now"}`)
				require.Equal(t, []string{key}, keys(t, "prefix", key))
				require.Empty(t, keys(t, "prefix", key+row.unit), "a longer prefix matches nothing")
				remove(t, key, true)
			})
		}
		for _, bytes := range []int{1025, 2000, 5000} {
			t.Run(fmt.Sprintf("Err%s%d", row.name, bytes), func(t *testing.T) {
				t.Parallel()
				prefix := newPrefix()
				key := pad(prefix, row.unit, bytes)
				query := "?key=" + url.QueryEscape(key)
				post(t, upsertPath, upsertBody(key, `[1]`)).isError(t, http.StatusBadRequest, "key")
				call(t, http.MethodGet, getPath+query).isError(t, http.StatusBadRequest, "key")
				call(t, http.MethodGet, getPath+"/"+url.PathEscape(key)).isError(t, http.StatusBadRequest, "key")
				call(t, http.MethodDelete, deletePath+query).isError(t, http.StatusBadRequest, "key")
				post(t, deletePath, `{"key":`+quote(key)+`}`).isError(t, http.StatusBadRequest, "key")
				list(t, "prefix", key).is(t, http.StatusOK, `{"keys":[],"count":0}`)
				require.Empty(t, keys(t, "prefix", prefix))
			})
		}
	}
}

func TestMemberLimit(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"m", "é", "😀"} {
		for _, bytes := range []int{1023, 1024} {
			t.Run(fmt.Sprintf("%dOf%dByteCharacters", bytes, len(unit)), func(t *testing.T) {
				t.Parallel()
				prefix := newPrefix()
				member := pad("", unit, bytes-len(prefix+"i:"))
				upsert(t, prefix+"k", `[1]`, index{prefix + "i", member})
				holdsJSON(t, prefix+"i", quoteAll([]string{member}))
				require.Equal(t, []string{prefix + "k"}, keys(t, "index", prefix+"i:"+member))
			})
		}
		for _, bytes := range []int{1025, 3000} {
			t.Run(fmt.Sprintf("Err%dOf%dByteCharacters", bytes, len(unit)), func(t *testing.T) {
				t.Parallel()
				prefix := newPrefix()
				member := pad("", unit, bytes-len(prefix+"i:"))
				post(t, upsertPath, upsertBody(prefix+"k", `[1]`, index{prefix + "ok", "m"}, index{prefix + "i", member})).
					isError(t, http.StatusBadRequest)
				require.Empty(t, keys(t, "prefix", prefix), "nothing may be written")
			})
		}
	}
	t.Run("ErrLongIndexKey", func(t *testing.T) {
		t.Parallel()
		prefix := newPrefix()
		post(t, upsertPath, upsertBody(prefix+"k", `[1]`, index{pad(prefix, "i", 1024), "m"})).isError(t, http.StatusBadRequest)
		require.Empty(t, keys(t, "prefix", prefix), "nothing may be written")
	})
}

func TestIndexesLimit(t *testing.T) {
	t.Parallel()
	indexes := func(prefix string, n int) (all []index, members []string) {
		for i := range n {
			members = append(members, fmt.Sprintf("m%04d", i))
			all = append(all, index{prefix + "i", members[i]})
		}
		return all, members
	}
	for _, n := range []int{999, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			all, members := indexes(prefix, n)
			upsert(t, prefix+"k", `[1]`, all...)
			holdsJSON(t, prefix+"i", quoteAll(members))
			require.Equal(t, []string{prefix + "k"}, keys(t, "index", prefix+"i:"+members[n-1]))
		})
	}
	for _, n := range []int{1001, 5000} {
		t.Run(fmt.Sprintf("Err%d", n), func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			all, _ := indexes(prefix, n)
			post(t, upsertPath, upsertBody(prefix+"k", `[1]`, all...)).isError(t, http.StatusBadRequest, "index")
			require.Empty(t, keys(t, "prefix", prefix), "nothing may be written")
		})
	}
	t.Run("1000IndexKeys", func(t *testing.T) {
		t.Parallel()
		prefix := newPrefix()
		var all []index
		for i := range 1000 {
			all = append(all, index{fmt.Sprintf("%si%03d", prefix, 999-i), "m"})
		}
		upsert(t, prefix+"k", `[1]`, all...)
		require.Len(t, keys(t, "prefix", prefix), 1001)
		require.Equal(t, []string{prefix + "k"}, keys(t, "index", prefix+"i000:m", "index", prefix+"i999:m"))
		holdsJSON(t, prefix+"i500", `["m"]`)
	})
}

func TestListParameterLimits(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	upsert(t, prefix+"a", `[1]`)
	upsert(t, prefix+"b", `[2]`)
	cursor := list(t, "prefix", prefix, "limit", "1").page(t).Pagination.NextCursor
	require.NotNil(t, cursor)

	first, both := `{"keys":[`+quote(prefix+"a")+`],"count":1`, `{"keys":[`+quote(prefix+"a")+`,`+quote(prefix+"b")+`],"count":2`
	cut := first + `,"pagination":{"limit":1,"offset":0,"hasMore":true,"nextCursor":` + quote(*cursor) + `}}`
	for _, row := range []struct{ name, query, want string }{
		{"Limit1", "limit=1", cut},
		{"LimitLeadingZeros", "limit=0001", cut},
		{"LimitLastWins", "limit=ten&limit=2&limit=1", cut},
		{"LimitExactlyAll", "limit=2", both + `,"pagination":{"limit":2,"offset":0,"hasMore":false,"nextCursor":null}}`},
		{"Limit9999", "limit=9999", both + `,"pagination":{"limit":9999,"offset":0,"hasMore":false,"nextCursor":null}}`},
		{"Limit10000", "limit=10000", both + `,"pagination":{"limit":10000,"offset":0,"hasMore":false,"nextCursor":null}}`},
		{"LimitEmptyIsAbsent", "limit=", both + `}`},
		{"LimitInWrongCaseIsUnknown", "Limit=1", both + `}`},
		{"Offset0", "offset=0", both + `,"pagination":{"limit":null,"offset":0,"hasMore":false,"nextCursor":null}}`},
		{"Offset2147483647", "offset=2147483647", `{"keys":[],"count":0,"pagination":{"limit":null,"offset":2147483647,"hasMore":false,"nextCursor":null}}`},
		{"OffsetBehindTheEnd", "offset=2&limit=5", `{"keys":[],"count":0,"pagination":{"limit":5,"offset":2,"hasMore":false,"nextCursor":null}}`},
		{"OffsetAndLimit", "offset=1&limit=1", `{"keys":[` + quote(prefix+"b") + `],"count":1,"pagination":{"limit":1,"offset":1,"hasMore":false,"nextCursor":null}}`},
		{"OffsetWithoutLimit", "offset=1", `{"keys":[` + quote(prefix+"b") + `],"count":1,"pagination":{"limit":null,"offset":1,"hasMore":false,"nextCursor":null}}`},
		{"OffsetEmptyIsAbsent", "offset=", both + `}`},
		{"CursorWithoutLimit", "cursor=" + url.QueryEscape(*cursor), `{"keys":[` + quote(prefix+"b") + `],"count":1,"pagination":{"limit":null,"offset":0,"hasMore":false,"nextCursor":null}}`},
		{"CursorEmptyIsAbsent", "cursor=", both + `}`},
		{"CursorAndEmptyOffset", "limit=7&offset=&cursor=" + url.QueryEscape(*cursor), `{"keys":[` + quote(prefix+"b") + `],"count":1,"pagination":{"limit":7,"offset":0,"hasMore":false,"nextCursor":null}}`},
		{"SortEmptyIsAbsent", "sortBy=&sortOrder=", both + `}`},
		{"SortByKey", "sortBy=key&sortOrder=asc", both + `}`},
		{"IndexEmptyIsAbsent", "index=&indexKey=", both + `}`},
		{"IncludeValuesEmpty", "includeValues=", both + `}`},
		{"UnknownParameters", "sessionId=1&order=desc&prefix2=x&%00=1", both + `}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			call(t, http.MethodGet, listPath+params("prefix", prefix)+"&"+row.query).is(t, http.StatusOK, row.want)
		})
	}

	foreign := list(t, "prefix", prefix, "limit", "1", "sortBy", "created").page(t).Pagination.NextCursor
	require.NotNil(t, foreign)
	many := strings.Repeat("&index=a:b", 50) + strings.Repeat("&indexKey=a", 50)
	t.Run("100Filters", func(t *testing.T) {
		t.Parallel()
		call(t, http.MethodGet, listPath+params("prefix", prefix)+many).is(t, http.StatusOK, `{"keys":[],"count":0}`)
	})
	for _, row := range []struct{ name, query, word string }{
		{"ErrLimit0", "limit=0", "limit"},
		{"ErrLimit10001", "limit=10001", "limit"},
		{"ErrLimitNegative", "limit=-1", "limit"},
		{"ErrLimitNotANumber", "limit=ten", "limit"},
		{"ErrLimitFraction", "limit=1.5", "limit"},
		{"ErrLimitExponent", "limit=1e3", "limit"},
		{"ErrLimitHex", "limit=0x10", "limit"},
		{"ErrLimitPlusSign", "limit=%2B5", "limit"},
		{"ErrLimitSpace", "limit=+5", "limit"},
		{"ErrLimitSpaceBehind", "limit=5%20", "limit"},
		{"ErrLimitNewline", "limit=5%0A", "limit"},
		{"ErrLimitOtherDigits", "limit=%D9%A3", "limit"}, // the Arabic digit three
		{"ErrLimitNull", "limit=5%00", "limit"},
		{"ErrLimitHuge", "limit=99999999999999999999", "limit"},
		{"ErrLimitUnderscore", "limit=1_000", "limit"},
		{"ErrLimitLastWins", "limit=1&limit=0", "limit"},
		{"ErrOffsetNegative", "offset=-1", "offset"},
		{"ErrOffsetNotANumber", "offset=x", "offset"},
		{"ErrOffsetFraction", "offset=0.5", "offset"},
		{"ErrOffset2147483648", "offset=2147483648", "offset"},
		{"ErrOffsetHuge", "offset=99999999999999999999", "offset"},
		{"ErrOffsetPlusSign", "offset=%2B1", "offset"},
		{"ErrOffsetAndCursor", "offset=1&cursor=" + url.QueryEscape(*cursor), "cursor"},
		{"ErrOffset0AndCursor", "offset=0&cursor=" + url.QueryEscape(*cursor), "cursor"},
		{"ErrCursorGarbage", "cursor=garbage", "cursor"},
		{"ErrCursorNumber", "cursor=1", "cursor"},
		{"ErrCursorNull", "cursor=%00", "cursor"},
		{"ErrCursorNotBase64", "cursor=!!!", "cursor"},
		{"ErrCursorEmptyJSON", "cursor=W10", "cursor"},
		{"ErrCursorCut", "cursor=" + url.QueryEscape((*cursor)[:len(*cursor)/2]), "cursor"},
		{"ErrCursorLong", "cursor=" + strings.Repeat("A", 4000), "cursor"},
		{"ErrCursorOfOtherOrder", "sortOrder=desc&cursor=" + url.QueryEscape(*cursor), "cursor"},
		{"ErrCursorOfOtherSort", "sortBy=created&cursor=" + url.QueryEscape(*cursor), "cursor"},
		{"ErrCursorOfOtherTimestamp", "sortBy=updated&cursor=" + url.QueryEscape(*foreign), "cursor"},
		{"ErrCursorOfCreatedForKey", "cursor=" + url.QueryEscape(*foreign), "cursor"},
		{"ErrSortBy", "sortBy=value", "sortBy"},
		{"ErrSortByInWrongCase", "sortBy=Key", "sortBy"},
		{"ErrSortByInjection", "sortBy=key;drop", "sortBy"},
		{"ErrSortOrder", "sortOrder=up", "sortOrder"},
		{"ErrSortOrderInWrongCase", "sortOrder=DESC", "sortOrder"},
		{"ErrIndexWithoutColon", "index=a", "index"},
		{"ErrIndexNoKey", "index=:a", "index"},
		{"ErrIndexNoMember", "index=a:", "index"},
		{"ErrIndexColonOnly", "index=:", "index"},
		{"ErrIndexTwoColons", "index=::", "index"},
		{"ErrIndexNull", "index=a:b%00", "index"},
		{"ErrIndexKeyNull", "indexKey=a%00", "indexKey"},
		{"ErrOneBadIndexOfTwo", "index=a:b&index=c", "index"},
		{"Err101Filters", many[1:] + "&index=c:d", "index"},
		{"ErrPrefixNull", "prefix=a%00b", "prefix"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			call(t, http.MethodGet, listPath+params("prefix", prefix)+"&"+row.query).isError(t, http.StatusBadRequest, row.word)
		})
	}
	t.Run("CursorsThatWereTamperedWith", func(t *testing.T) {
		t.Parallel()
		for i := range *cursor {
			for _, c := range []string{"A", "z", "-", ""} {
				tampered := (*cursor)[:i] + c + (*cursor)[i+1:]
				a := call(t, http.MethodGet, listPath+params("prefix", prefix, "limit", "1", "cursor", tampered))
				require.Contains(t, []int{http.StatusOK, http.StatusBadRequest}, a.status, "the cursor %s made into %s\n%v", *cursor, tampered, a)
			}
			if i > 40 && site.hostURL == "" {
				return
			}
		}
	})
}

// TestFilterLimit: a filter may be as long as an index, but not longer.
func TestFilterLimit(t *testing.T) {
	t.Parallel()
	for _, parameter := range []string{"index", "indexKey"} {
		at := "e2e:" + strings.Repeat("x", 1020)
		require.Equal(t, http.StatusOK, call(t, http.MethodGet, listPath+params(parameter, at)).status)
		call(t, http.MethodGet, listPath+params(parameter, at+"x")).isError(t, http.StatusBadRequest, parameter, "1024")
	}
}
