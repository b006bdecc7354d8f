package migrate

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/migrate/sources/sourcetest"
)

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
	for i := range 51 {
		values[fmt.Sprintf("index:by:%03d", i)] = `["x"]`
	}
	source := sourcetest.NewMemory(values)
	source.Items = append(source.Items, sources.Item{Listed: blobs.Listed{Key: "~own"}, Blob: blobs.Blob{Value: []byte(`{}`)}, Indexes: [][2]string{{"index:sessions", "~own"}}})
	for i, item := range source.Items {
		if item.Key == "index:sessions" {
			source.Items[i].Blob.Value = []byte(`["1","2","2026/01","1","~own"]`)
		}
	}
	dir := filepath.Join(t.TempDir(), "migration")
	p, err := Plan(t.Context(), source, nil, PlanOptions{Options: defaults, Dir: dir, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, entries.RulesFile), p.RulesFile)
	rules, err := entries.ReadRules(p.RulesFile)
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
	again, err := Plan(t.Context(), source, nil, PlanOptions{Options: defaults, Dir: dir, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "index-rules.new.txt"), again.RulesFile)
	rules, from, err := entries.FindRules("", dir, nil)
	require.NoError(t, err)
	require.Equal(t, p.RulesFile, from)
	require.Len(t, rules, 4)
}

func TestRulesThatCannotBeALineAreNotActive(t *testing.T) {
	source := sourcetest.NewMemory(map[string]string{"index:a=b": `["1"]`, "index:\n": `["1"]`, "index:fine": `["1"]`, "s/1": `{}`})
	dir := t.TempDir()
	_, err := Plan(t.Context(), source, nil, PlanOptions{Options: defaults, Dir: dir, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	rules, err := entries.ReadRules(filepath.Join(dir, entries.RulesFile))
	require.NoError(t, err)
	require.Equal(t, []string{"index:fine=s/{member}"}, rules.Strings())
	require.False(t, strings.HasPrefix("index:\n", rules[0].Index))
}
