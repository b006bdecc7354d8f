package migrate

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// journalText is a journal as a run writes it.
func journalText(t testing.TB, records ...Record) string {
	t.Helper()
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	require.NoError(t, encoder.Encode(Header{Version: journalVersion, Run: uuid.Nil, Source: "s", Target: "t", Lineage: "l", Options: Options{IndexPrefix: "index:"}}))
	for _, r := range records {
		require.NoError(t, encoder.Encode(r))
	}
	return out.String()
}

// FuzzReadJournal: a journal that a crash cut off anywhere has exactly the records of its whole lines, and whatever else is in the
// file is an error.
func FuzzReadJournal(f *testing.F) {
	f.Add(journalText(f, Record{Key: "a", Status: kv.ImportWritten, Revision: "e"}, Record{Key: "b", Status: statusFailed, Problem: &Problem{Key: "b", Code: CodeNotJSON}},
		Record{Key: "a", Status: kv.ImportSame}), 100)
	f.Add(journalText(f), 5)
	f.Add(journalText(f, Record{Key: "\u2028👍", Status: kv.ImportLive})+"{\"k\":", 1000)
	f.Add("", 0)
	f.Add("\n\n", 1)
	f.Add("{\"journal\":2}\n", 14)
	f.Add("{\"journal\":1}\nnull\n{}\n", 20)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		header, records, whole, err := readJournal(strings.NewReader(text))
		if err != nil {
			return
		}
		lines := strings.Count(text, "\n")
		require.Equal(t, int64(strings.LastIndex(text, "\n")+1), whole)
		require.Equal(t, lines > 0, header != nil)
		require.LessOrEqual(t, len(records), max(0, lines-1))
		requireJournal(t, text[:whole], records)

		prefix := text[:min(max(cut, 0), len(text))]
		gotHeader, got, gotWhole, err := readJournal(strings.NewReader(prefix))
		require.NoError(t, err, "a torn end is none of the journal")
		require.Equal(t, int64(strings.LastIndex(prefix, "\n")+1), gotWhole)
		if gotHeader != nil {
			require.Equal(t, header, gotHeader)
		}
		requireJournal(t, prefix[:gotWhole], got)
	})
}

// requireJournal reads whole lines in the plainest way.
func requireJournal(t *testing.T, whole string, got map[string]Record) {
	t.Helper()
	want := map[string]Record{}
	for n, line := range strings.SplitAfter(whole, "\n") {
		if n == 0 || line == "" {
			continue
		}
		var r Record
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		want[r.Key] = r
	}
	require.Equal(t, want, got)
}

// Every place where a crash could cut a journal off.
func TestATornJournal(t *testing.T) {
	t.Parallel()
	records := []Record{{Key: "a", Status: kv.ImportWritten}, {Key: "b", Status: kv.ImportSame, Indexes: "x"}, {Key: "a", Status: kv.ImportRemoved}}
	text := journalText(t, records...)
	for cut := range len(text) + 1 {
		header, got, whole, err := readJournal(strings.NewReader(text[:cut]))
		require.NoError(t, err)
		lines := strings.Count(text[:cut], "\n")
		require.Equal(t, lines > 0, header != nil)
		want := map[string]Record{}
		for _, r := range records[:max(0, lines-1)] {
			want[r.Key] = r
		}
		require.Equal(t, want, got, "cut off after %d bytes", cut)
		require.Equal(t, strings.LastIndex(text[:cut], "\n")+1, int(whole))
	}
}
