package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestListIsEmpty(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	list(t, "prefix", prefix).is(t, http.StatusOK, `{"keys":[],"count":0}`)
	list(t, "prefix", prefix, "includeValues", "true").is(t, http.StatusOK, `{"keys":[],"count":0,"data":{}}`)
	list(t, "prefix", prefix, "limit", "5").
		is(t, http.StatusOK, `{"keys":[],"count":0,"pagination":{"limit":5,"offset":0,"hasMore":false,"nextCursor":null}}`)
}

// TestListIncludeValues: only the exact string true includes values.
func TestListIncludeValues(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	upsert(t, prefix+"b", `{"b" : 1.0}`)
	upsert(t, prefix+"a", `null`)
	without := `{"keys":[` + quote(prefix+"a") + `,` + quote(prefix+"b") + `],"count":2`
	with := without + `,"data":{` + quote(prefix+"a") + `:null,` + quote(prefix+"b") + `:{"b" : 1.0}}`
	for query, want := range map[string]string{
		"":                       without + "}",
		"&includeValues=true":    with + "}",
		"&includeValues=True":    without + "}",
		"&includeValues=TRUE":    without + "}",
		"&includeValues=1":       without + "}",
		"&includeValues=yes":     without + "}",
		"&includeValues=false":   without + "}",
		"&includeValues=true%20": without + "}",
		"&includevalues=true":    without + "}",
		"&includeValues=false&includeValues=true": with + "}",
		"&includeValues=true&includeValues=false": without + "}",
		"&includeValues=true&limit=2":             with + `,"pagination":{"limit":2,"offset":0,"hasMore":false,"nextCursor":null}}`,
	} {
		t.Run(strings.TrimPrefix(query, "&"), func(t *testing.T) {
			t.Parallel()
			call(t, http.MethodGet, listPath+params("prefix", prefix)+query).is(t, http.StatusOK, want)
		})
	}
}

// TestPrefixIsLiteral: no character of a prefix has a special meaning.
func TestPrefixIsLiteral(t *testing.T) {
	t.Parallel()
	p := newPrefix()
	all := prefixed(p, "a%b", "a%%b", "a_b", "a__b", "axb", "axxb", `a\b`, `a\\b`, `a\%b`, "a'b", "a''b", `a"b`, "a*b", "a**b", "a?b", "a.b",
		"a😀b", "a😁b", "a b", "a  b", "a+b", "A b", "A%b", "aéb", "ae\u0301b", "a\nb", "a\tb", "a(b", "a[b]c", "a{b}c", "a,b", "a&b", "a#b",
		"a/b", "a|b", "a^b", "a$b", "a\uffff", "a\uffffb", "a\ufffd", "a\U0010ffff", "a\U0010ffff\U0010ffff", "a\U0010ffffb", "b",
		"a\ud7ffx", "a\ue000x", "\u007fx", "\u0080x", "\u07ffx", "\u0800x", "\U00010000x")
	require.NoError(t, inParallel(4, len(all), func(i int) error { return tryUpsert(all[i], fmt.Sprintf(`[%d]`, i)) }))
	for _, prefix := range []string{"", "a", "A", "b", "c", "a%", "a%%", "a%b", "%", "%b", "_", "a_", "a__", "a_b", "ax", `a\`, `a\\`, `a\%`, `\`, "a'", "a''", "'",
		`a"`, "a*", "a**", "*", "a?", "a.", "a😀", "a😁", "a ", "a  ", " ", "a+", "A ", "A%", "aé", "ae", "ae\u0301", "a\n", "a\t", "a(", "a[", "a{", "a,", "a&",
		"a#", "a/", "a|", "a^", "a$", "a\uffff", "a\ufffd", "a\U0010ffff", "a\U0010ffff\U0010ffff", "a\U0010ffff\U0010ffff\U0010ffff", "\U0010ffff",
		"a\ud7ff", "a\ue000", "\u007f", "\u0080", "\u07ff", "\u0800", "\U00010000", "a%b'--", ".*", "^a", "a|b", "%25", "a%25b", "eq.a"} {
		t.Run(fmt.Sprintf("%q", prefix), func(t *testing.T) {
			t.Parallel()
			want := []string{}
			for _, key := range all {
				if strings.HasPrefix(key, p+prefix) {
					want = append(want, key)
				}
			}
			require.Equal(t, want, keys(t, "prefix", p+prefix), "keys with the prefix %q, by their UTF-8 bytes", prefix)
			reverse := slices.Clone(want)
			slices.Reverse(reverse)
			require.Equal(t, reverse, keys(t, "prefix", p+prefix, "sortOrder", "desc"))
			require.Equal(t, want, walk(t, nil, "prefix", p+prefix, "limit", "7"), "page by page")
			require.Equal(t, reverse, walk(t, nil, "prefix", p+prefix, "limit", "7", "sortOrder", "desc"), "page by page, backwards")
		})
	}
	t.Run("LastWins", func(t *testing.T) {
		t.Parallel()
		got := call(t, http.MethodGet, listPath+params("prefix", p+"a", "prefix", p+"b")).page(t).Keys
		require.Equal(t, []string{p + "b"}, got)
	})
	t.Run("EndsInsideACharacter", func(t *testing.T) {
		t.Parallel()
		a := call(t, http.MethodGet, listPath+params("prefix", p+"a")+"%f0%9f")
		require.Contains(t, []int{http.StatusOK, http.StatusBadRequest}, a.status, "%v", a)
	})
	t.Run("VeryLong", func(t *testing.T) {
		t.Parallel()
		for _, n := range []int{1024, 1025, 4000} {
			list(t, "prefix", pad(p, "\U0010ffff", n)).is(t, http.StatusOK, `{"keys":[],"count":0}`)
		}
	})
}

// TestListWithoutPrefix: the whole store is listed.
func TestListWithoutPrefix(t *testing.T) {
	t.Parallel()
	key := newPrefix() + "k"
	upsert(t, key, `[1]`)
	a := list(t)
	if a.status == http.StatusRequestEntityTooLarge && site.databaseURL == "" {
		t.Skip("this site has too many keys to list them all in one response")
	}
	require.Contains(t, a.page(t).Keys, key)
	require.Contains(t, keys(t, "prefix", "", "index", ""), key, "an empty prefix matches every key")
}

func TestSort(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	// Created in the order c a e b d; last updated in the order e b d c a.
	for _, name := range []string{"c", "a", "e", "b", "d"} {
		upsert(t, prefix+name, `[1]`)
	}
	for _, name := range []string{"c", "a"} {
		upsert(t, prefix+name, `[2]`)
	}
	for _, row := range []struct{ name, sortBy, sortOrder, want string }{
		{"Default", "", "", "abcde"},
		{"Key", "key", "", "abcde"},
		{"KeyAscending", "key", "asc", "abcde"},
		{"KeyDescending", "key", "desc", "edcba"},
		{"Descending", "", "desc", "edcba"},
		{"Created", "created", "", "caebd"},
		{"CreatedAscending", "created", "asc", "caebd"},
		{"CreatedDescending", "created", "desc", "dbeac"},
		{"Updated", "updated", "", "ebdca"},
		{"UpdatedAscending", "updated", "asc", "ebdca"},
		{"UpdatedDescending", "updated", "desc", "acdbe"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			query := []string{"prefix", prefix, "sortBy", row.sortBy, "sortOrder", row.sortOrder}
			want := make([]string, len(row.want))
			for i := range want {
				want[i] = prefix + row.want[i:i+1]
			}
			require.Equal(t, want, keys(t, query...))
			for _, limit := range []string{"1", "2", "3", "5", "6"} {
				pages := 0
				require.Equal(t, want, walk(t, func(page) { pages++ }, append(query, "limit", limit)...), "by cursor, %s a page", limit)
				size := int(limit[0] - '0')
				require.Equal(t, (len(want)+size-1)/size, pages, "hasMore is true exactly when another entry follows, with %s a page", limit)
			}
			var byOffset []string
			for offset := range want {
				p := list(t, append(query, "limit", "1", "offset", fmt.Sprint(offset))...).page(t)
				require.Equal(t, offset < len(want)-1, p.Pagination.HasMore)
				byOffset = append(byOffset, p.Keys...)
			}
			require.Equal(t, want, byOffset, "by offset")
		})
	}
}

// TestSortTies: entries with the same time are ordered by key, in the same direction. One SQL statement gives them the
// same time.
func TestSortTies(t *testing.T) {
	db := database(t)
	t.Parallel()
	prefix := newPrefix()
	_, err := db.Exec(t.Context(), `insert into public.kv_store (key, value, created_at, updated_at)
		select $1 || chr(96 + i), '[]', '2026-01-02', '2026-01-02' from generate_series(1, 7) as i`, prefix)
	require.NoError(t, err)
	want := prefixed(prefix, "a", "b", "c", "d", "e", "f", "g")
	reverse := slices.Clone(want)
	slices.Reverse(reverse)
	for _, sortBy := range []string{"created", "updated"} {
		require.Equal(t, want, keys(t, "prefix", prefix, "sortBy", sortBy))
		require.Equal(t, reverse, keys(t, "prefix", prefix, "sortBy", sortBy, "sortOrder", "desc"))
		require.Equal(t, want, walk(t, nil, "prefix", prefix, "sortBy", sortBy, "limit", "2"))
		require.Equal(t, reverse, walk(t, nil, "prefix", prefix, "sortBy", sortBy, "sortOrder", "desc", "limit", "2"))
	}
}

// TestCursorSurvives: a cursor is a place in the order, not an entry or a number of entries.
func TestCursorSurvives(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	for _, name := range []string{"b", "d", "f", "h"} {
		upsert(t, prefix+name, `[1]`)
	}
	p := list(t, "prefix", prefix, "limit", "2").page(t)
	require.Equal(t, prefixed(prefix, "b", "d"), p.Keys)
	cursor := *p.Pagination.NextCursor

	upsert(t, prefix+"a", `[1]`) // before the cursor
	upsert(t, prefix+"e", `[1]`) // right after it
	remove(t, prefix+"d", true)  // the entry the page ended with
	for range 2 {
		p = list(t, "prefix", prefix, "limit", "2", "cursor", cursor).page(t)
		require.Equal(t, prefixed(prefix, "e", "f"), p.Keys)
		require.True(t, p.Pagination.HasMore)
	}
	p = list(t, "prefix", prefix, "limit", "2", "cursor", *p.Pagination.NextCursor).page(t)
	require.Equal(t, prefixed(prefix, "h"), p.Keys)
	require.False(t, p.Pagination.HasMore)

	backwards := list(t, "prefix", prefix, "sortOrder", "desc", "limit", "1").page(t)
	require.Equal(t, prefixed(prefix, "h"), backwards.Keys)
	p = list(t, "prefix", prefix, "sortOrder", "desc", "cursor", *backwards.Pagination.NextCursor, "includeValues", "true").page(t)
	require.Equal(t, []string{prefix + "f", prefix + "e", prefix + "b", prefix + "a"}, p.Keys)
	require.Len(t, p.Data, 4)
	require.Nil(t, p.Pagination.Limit)
}

// TestCursorAfterOddKeys: a page may end at any key.
func TestCursorAfterOddKeys(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	all := prefixed(prefix, "", "\x01", " ", `"`, "'", "%", "+", "\\", "a", "a\x01", "a\x01\x01", "a ", "ab", "é", "€", "\uffff", "😀", "\U0010ffff", "\U0010ffff\U0010ffff",
		pad("", "\U0010ffff", 1024-len(prefix)))
	for _, key := range all {
		upsert(t, key, `[1]`)
	}
	reverse := slices.Clone(all)
	slices.Reverse(reverse)
	for _, sortBy := range []string{"key", "created"} {
		require.ElementsMatch(t, all, walk(t, nil, "prefix", prefix, "limit", "1", "sortBy", sortBy))
	}
	require.Equal(t, all, walk(t, nil, "prefix", prefix, "limit", "1"))
	require.Equal(t, reverse, walk(t, nil, "prefix", prefix, "limit", "1", "sortOrder", "desc"))
}

// TestTwoThousandFiveHundredKeys: more keys than PostgREST returns rows.
func TestTwoThousandFiveHundredKeys(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	indexKey := newPrefix() + "parity" // not among the listed keys
	const n = 2500
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	if site.databaseURL != "" && !site.writesBlobs {
		_, err := database(t).Exec(t.Context(), `
			select public.kv_upsert(p_key => $1 || lpad(i::text, 4, '0'), p_value => format('{"n":%s}', i),
				p_indexes => array[array[$2, case i % 2 when 0 then 'even' else 'odd' end]])
			from generate_series(0, $3::int - 1) as i`, prefix, indexKey, n)
		require.NoError(t, err)
	} else {
		require.NoError(t, inParallel(16, n, func(i int) error {
			return tryUpsert(all[i], fmt.Sprintf(`{"n":%d}`, i), index{indexKey, []string{"even", "odd"}[i%2]})
		}))
	}

	t.Run("Unpaged", func(t *testing.T) { require.Equal(t, all, keys(t, "prefix", prefix)) })
	t.Run("UnpagedWithValues", func(t *testing.T) {
		p := list(t, "prefix", prefix, "includeValues", "true").page(t)
		require.Equal(t, all, p.Keys)
		require.Len(t, p.Data, n)
		for i, key := range all {
			require.Equal(t, fmt.Sprintf(`{"n":%d}`, i), string(p.Data[key]))
		}
	})
	t.Run("OnePage", func(t *testing.T) {
		for _, limit := range []int{n, n + 1} {
			p := list(t, "prefix", prefix, "limit", fmt.Sprint(limit)).page(t)
			require.Equal(t, all, p.Keys)
			require.False(t, p.Pagination.HasMore, "with a limit of %d nothing follows", limit)
		}
		p := list(t, "prefix", prefix, "limit", fmt.Sprint(n-1)).page(t)
		require.Equal(t, all[:n-1], p.Keys)
		require.True(t, p.Pagination.HasMore)
	})
	t.Run("ByCursor", func(t *testing.T) {
		for _, limit := range []string{"999", "1000", "1001"} {
			require.Equal(t, all, walk(t, nil, "prefix", prefix, "limit", limit), "%s a page", limit)
		}
	})
	t.Run("ByCursorWithValues", func(t *testing.T) {
		require.Equal(t, all, walk(t, func(p page) { require.Len(t, p.Data, p.Count) }, "prefix", prefix, "limit", "700", "includeValues", "true"))
	})
	t.Run("ByOffset", func(t *testing.T) {
		for _, offset := range []int{0, 1, 999, 1000, 1001, 2499, 2500} {
			p := list(t, "prefix", prefix, "limit", "100", "offset", fmt.Sprint(offset)).page(t)
			require.Equal(t, append([]string{}, all[offset:min(n, offset+100)]...), p.Keys, "offset %d", offset)
			require.Equal(t, offset+100 < n, p.Pagination.HasMore, "offset %d", offset)
		}
	})
	t.Run("ByIndex", func(t *testing.T) {
		start := time.Now()
		got := keys(t, "prefix", prefix, "index", indexKey+":odd")
		took := time.Since(start)
		require.Len(t, got, n/2)
		if t.Logf("%d keys by index in %s", len(got), took.Round(time.Millisecond)); site.hostURL != "" {
			require.Less(t, took, 5*time.Second, "each match costs the same, whatever the database's statistics say")
		}
		require.Equal(t, got, walk(t, nil, "prefix", prefix, "index", indexKey+":odd", "limit", "300"))
	})
	t.Run("WhileOthersInsert", func(t *testing.T) {
		stop, done := make(chan struct{}), make(chan error)
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				// Half of the new keys come before the current page, half after it.
				if err := tryUpsert(fmt.Sprintf("%s%04d-between", prefix, i*997%n), `[]`); err != nil {
					done <- err
					return
				}
			}
		}()
		got := slices.DeleteFunc(walk(t, nil, "prefix", prefix, "limit", "50"), func(key string) bool { return strings.HasSuffix(key, "-between") })
		close(stop)
		require.NoError(t, <-done)
		require.Equal(t, all, got, "every entry that exists throughout comes exactly once")
	})
}
