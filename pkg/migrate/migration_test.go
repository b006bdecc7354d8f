package migrate

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/migrate/sources/sourcetest"
)

// defaults are the options that the program has without flags.
var defaults = entries.Options{IndexPrefix: entries.DefaultIndexPrefix}

// seedRules say which entries the indexes of seed name.
var seedRules = entries.Rules{{Index: "index:by*", Entry: "sessions/{member}"}}

// migration is a site, an empty database, and a directory.
type migration struct {
	*sourcetest.Site
	*database
	t     *testing.T
	dir   string
	o     entries.Options
	rules entries.Rules
	anew  bool
}

// testLease is short: what a killed run keeps away waits for it.
const testLease = time.Second

func newMigration(t *testing.T) *migration {
	t.Helper()
	t.Parallel()
	return &migration{Site: sourcetest.NewSite(t), database: newDatabase(t), t: t, dir: t.TempDir(), o: defaults, rules: seedRules}
}

// seed writes sessions/0 … of about 200 bytes, each a member of two of five indexes.
func (m *migration) seed(n int) {
	m.t.Helper()
	indexes := make([][]string, 5)
	var group sync.WaitGroup
	keys := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range keys {
				m.Set(fmt.Sprintf("sessions/%05d", i), fmt.Sprintf(`{"n":%d, "score":1.0, "text":"%s"}`, i, strings.Repeat("some words ", 15)))
			}
		})
	}
	for i := range n {
		keys <- i
		for j := range 2 {
			indexes[(i+j)%5] = append(indexes[(i+j)%5], fmt.Sprintf("%05d", i))
		}
	}
	close(keys)
	group.Wait()
	for j, members := range indexes {
		if members != nil {
			text, err := json.Marshal(members)
			require.NoError(m.t, err)
			m.Set(fmt.Sprintf("index:by%d", j), string(text))
		}
	}
}

func (m *migration) run() Result {
	m.t.Helper()
	result, err := m.tryRun()
	require.NoError(m.t, err)
	require.True(m.t, result.Finished)
	return result
}

func (m *migration) tryRun() (Result, error) {
	return Run(m.t.Context(), m.Source(), m.target(), RunOptions{Options: m.o, Rules: m.rules, Anew: m.anew, lease: testLease, Dir: m.dir, BatchSize: DefaultBatchSize, Progress: sources.NoProgress{}})
}

func (m *migration) verify() Verification {
	m.t.Helper()
	v, err := Verify(m.t.Context(), m.Source(), m.target(), VerifyOptions{Options: m.o, Rules: m.rules, Progress: sources.NoProgress{}})
	require.NoError(m.t, err)
	return v
}

func (m *migration) requireIdentical() Verification {
	m.t.Helper()
	v := m.verify()
	require.True(m.t, v.Same(), "missing %d, extra %d, different %d, stray %d: %v %v", v.Missing, v.Extra, v.Different, v.Stray, v.Found, v.Problems)
	return v
}

func (m *migration) close() {
	m.t.Helper()
	_, err := m.Supabase.MigrationClose(m.t.Context())
	require.NoError(m.t, err)
}

// alter changes the schema.
func (m *migration) alter(sql string) {
	m.t.Helper()
	_, err := m.SQL.Exec(m.t.Context(), sql)
	require.NoError(m.t, err, sql)
}

// exec runs SQL that must change a row.
func (m *migration) exec(sql string, args ...any) {
	m.t.Helper()
	tag, err := m.SQL.Exec(m.t.Context(), sql, args...)
	require.NoError(m.t, err)
	require.NotZero(m.t, tag.RowsAffected(), sql)
}

// value is the text of an entry in the database; "" where there is none.
func (m *migration) value(key string) string {
	m.t.Helper()
	states, err := m.Supabase.States(m.t.Context(), []string{key})
	require.NoError(m.t, err)
	return states[0].Value
}

// indexesOf are an entry's in the database.
func (m *migration) indexesOf(key string) [][2]string {
	m.t.Helper()
	states, err := m.Supabase.States(m.t.Context(), []string{key})
	require.NoError(m.t, err)
	return states[0].Indexes
}

var discard = slog.New(slog.DiscardHandler)

// rulesOf are rules as they are written in a file.
func rulesOf(t testing.TB, lines ...string) entries.Rules {
	t.Helper()
	rules, err := entries.ParseRules(lines)
	require.NoError(t, err)
	return rules
}
