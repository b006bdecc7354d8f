package entries

import (
	"cmp"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/migratetest"
	"netlify-supabase-kv/pkg/migrate/sources"
)

func TestMain(m *testing.M) { os.Exit(migratetest.Main(m)) }

// TestWhatQueriesDoNotSeeIsWhatPostgresSays holds the reasons in reports against the database.
func TestWhatQueriesDoNotSeeIsWhatPostgresSays(t *testing.T) {
	t.Parallel()
	d := migratetest.NewDatabase(t)
	for _, value := range []string{
		`{}`, `null`, `"text"`, `{"a":"\\u0000"}`, `{"a":"\u0000"}`, `{"\u0000":1}`, `["\ud83d\ude00"]`, `["\ud83d"]`, `["\ude00"]`, `{"a":"e1e400000"}`,
		`1e400`, `[1e131071]`, `[1e131072]`, `[9e131071]`, `[12e131071]`, `[0.1e131073]`, `[1e-16383]`, `[1e-16384]`, `[1.5e-16383]`, `[0e999999]`, `[-1e200000]`,
		`[1e99999999999999999999]`, `{"n":` + strings.Repeat("9", 131072) + `}`, `{"n":` + strings.Repeat("9", 131073) + `}`,
		`{"n":0.` + strings.Repeat("1", 16383) + `}`, `{"n":0.` + strings.Repeat("1", 16384) + `}`, `["` + strings.Repeat("e1", 20000) + `"]`,
		strings.Repeat("[", 1500) + strings.Repeat("]", 1500), `{"text":"` + strings.Repeat("word ", 50_000) + `"}`, `{"text":"` + strings.Repeat("word ", 39_000) + `"}`,
	} {
		_, err := d.SQL.Exec(t.Context(), `insert into public.kv_store (key, value) values ('a', $1::text::json) on conflict (key) do update set value = excluded.value`, value)
		require.NoError(t, err)
		digests, err := d.Supabase.DigestsOf(t.Context(), []string{"a"})
		require.NoError(t, err)
		code := ""
		if problem := note("a", value); problem != nil {
			code = problem.Code
		}
		short := value[:min(len(value), 60)]
		require.Equal(t, !digests[0].Document, code == CodeNoQueries, "%s: %s", short, code)
		require.Equal(t, !digests[0].Search, code == CodeNoFullText, "%s: %s", short, code)
	}
}

func TestKeysThatNobodyCanReadAreReported(t *testing.T) {
	for key, code := range map[string]string{"": CodeBadKey, "a\x00": CodeBadKey, "a?b": CodeBadKey, "\xff": CodeBadKey, "plain": CodeUnreadable} {
		item := sources.Item{Listed: blobs.Listed{Key: key}, Err: cmp.Or(blobs.ValidateKey(key), error(blobs.ErrConditionFailed))}
		_, problem := options.Transform(item, nil)
		require.NotNil(t, problem, key)
		require.Equal(t, code, problem.Code, key)
		require.NotEmpty(t, problem.Advice)
	}
}

func TestTheDigestOfPairsIsThatOfTheDatabase(t *testing.T) {
	t.Parallel()
	d := migratetest.NewDatabase(t)
	for _, pairs := range [][]kv.Index{
		{}, {{Key: "a", Member: "b"}}, {{Key: "b", Member: "é"}, {Key: "a:b", Member: "c"}, {Key: "a", Member: "b:c"}}, {{Key: "Z", Member: "1"}, {Key: "a", Member: "😀"}, {Key: "é", Member: "a"}, {Key: "Z", Member: "1"}},
	} {
		_, err := d.Supabase.Upsert(t.Context(), kv.Entry{Key: "entry", Value: "{}", Indexes: pairs})
		require.NoError(t, err)
		digests, err := d.Supabase.DigestsOf(t.Context(), []string{"entry"})
		require.NoError(t, err)
		var given [][2]string
		for _, p := range pairs {
			given = append(given, [2]string{p.Key, string(p.Member)})
		}
		require.Equal(t, digests[0].Indexes, kv.DigestPairs(given), pairs)
	}
}
