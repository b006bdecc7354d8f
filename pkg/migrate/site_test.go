package migrate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/blobs/blobstest"
)

// site is a Netlify site, as far as its blobs go: the stand-in for the hosted service.
type site struct {
	t      testing.TB
	url    string
	access blobs.Access // through the API with signed URLs, as the program reaches it
	edge   blobs.Access // as functions reach it
	client *blobs.Client
}

func newSite(t testing.TB) *site {
	t.Helper()
	server, err := blobstest.Open(t.TempDir(), blobstest.Options{PageSize: 300})
	require.NoError(t, err)
	listening := httptest.NewServer(server)
	t.Cleanup(listening.Close)
	a := server.Access(listening.URL)
	s := &site{
		t: t, url: listening.URL, access: blobs.Access{SiteID: a.SiteID, APIURL: a.APIURL, APIToken: a.APIToken},
		edge: blobs.Access{SiteID: a.SiteID, EdgeURL: listening.URL, EdgeToken: a.EventToken},
	}
	s.client = blobs.NewClient("kv").WithDefault(s.access)
	return s
}

func (s *site) source() *BlobsSource {
	return NewBlobsSource(s.access, "kv", "kv-indexes", 16, unlimited())
}

// unlimited asks as fast as the service allows.
func unlimited() *blobs.Limiter { return blobs.NewBackgroundLimiter(0, time.Minute) }

// store is the entries as the functions have them.
func (s *site) store() *blobs.Store {
	return blobs.NewStore(s.client, blobs.NewClient("kv-indexes").WithDefault(s.access))
}

// set writes a blob as the JavaScript functions did, without metadata.
func (s *site) set(key, value string) {
	s.t.Helper()
	_, err := s.client.Set(s.t.Context(), key, []byte(value), blobs.SetOptions{})
	require.NoError(s.t, err, key)
}

func (s *site) remove(key string) {
	s.t.Helper()
	require.NoError(s.t, s.client.Delete(s.t.Context(), key))
}

// seed writes sessions/0 … of about 200 bytes, each a member of two of five indexes.
func (s *site) seed(n int) {
	s.t.Helper()
	members := make([][]string, 5)
	var group sync.WaitGroup
	keys := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range keys {
				s.set(fmt.Sprintf("sessions/%05d", i), fmt.Sprintf(`{"n":%d, "score":1.0, "text":"%s"}`, i, strings.Repeat("some words ", 15)))
			}
		})
	}
	for i := range n {
		keys <- i
		for j := range 2 {
			members[(i+j)%5] = append(members[(i+j)%5], fmt.Sprintf("%05d", i))
		}
	}
	close(keys)
	group.Wait()
	for j, m := range members {
		if m != nil {
			text, err := json.Marshal(m)
			require.NoError(s.t, err)
			s.set(fmt.Sprintf("index:by%d", j), string(text))
		}
	}
}

// faults switches faults on; nil switches them off.
func (s *site) faults(f *blobstest.Faults) (counts map[string]int) {
	s.t.Helper()
	method, body := http.MethodDelete, []byte(nil)
	if f != nil {
		var err error
		method = http.MethodPut
		body, err = json.Marshal(f)
		require.NoError(s.t, err)
	}
	request, err := http.NewRequest(method, s.url+blobstest.FaultsPath, bytes.NewReader(body))
	require.NoError(s.t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(s.t, err)
	defer response.Body.Close()
	require.Equal(s.t, http.StatusOK, response.StatusCode)
	var state struct{ Counts map[string]int }
	require.NoError(s.t, json.NewDecoder(response.Body).Decode(&state))
	return state.Counts
}

// defaults are the options that the program has without flags.
var defaults = Options{IndexPrefix: DefaultIndexPrefix}

// seedRules say which entries the indexes of seed name.
var seedRules = Rules{{"index:by*", "sessions/{member}"}}

// rulesOf are rules as they are written in a file.
func rulesOf(t testing.TB, lines ...string) Rules {
	t.Helper()
	rules, err := ParseRules(lines)
	require.NoError(t, err)
	return rules
}

// migration is a site, an empty database, and a directory.
type migration struct {
	*site
	*database
	t     *testing.T
	dir   string
	o     Options
	rules Rules
	anew  bool
}

// testLease is short: what a killed run keeps away waits for it.
const testLease = time.Second

func newMigration(t *testing.T) *migration {
	t.Helper()
	t.Parallel()
	return &migration{site: newSite(t), database: newDatabase(t), t: t, dir: t.TempDir(), o: defaults, rules: seedRules}
}

func (m *migration) run() Result {
	m.t.Helper()
	result, err := m.tryRun()
	require.NoError(m.t, err)
	require.True(m.t, result.Finished)
	return result
}

func (m *migration) tryRun() (Result, error) {
	return Run(m.t.Context(), m.source(), m.target(), RunOptions{Options: m.o, Rules: m.rules, Anew: m.anew, lease: testLease, Dir: m.dir, BatchSize: DefaultBatchSize, Progress: noProgress{}})
}

func (m *migration) verify() Verification {
	m.t.Helper()
	v, err := Verify(m.t.Context(), m.source(), m.target(), VerifyOptions{Options: m.o, Rules: m.rules, Progress: noProgress{}})
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
	_, err := m.supabase.MigrationClose(m.t.Context())
	require.NoError(m.t, err)
}

// alter changes the schema.
func (m *migration) alter(sql string) {
	m.t.Helper()
	_, err := m.sql.Exec(m.t.Context(), sql)
	require.NoError(m.t, err, sql)
}

// exec runs SQL that must change a row.
func (m *migration) exec(sql string, args ...any) {
	m.t.Helper()
	tag, err := m.sql.Exec(m.t.Context(), sql, args...)
	require.NoError(m.t, err)
	require.NotZero(m.t, tag.RowsAffected(), sql)
}

// value is the text of an entry in the database; "" where there is none.
func (m *migration) value(key string) string {
	m.t.Helper()
	states, err := m.supabase.States(m.t.Context(), []string{key})
	require.NoError(m.t, err)
	return states[0].Value
}

// indexesOf are an entry's in the database.
func (m *migration) indexesOf(key string) [][2]string {
	m.t.Helper()
	states, err := m.supabase.States(m.t.Context(), []string{key})
	require.NoError(m.t, err)
	return states[0].Indexes
}

var discard = slog.New(slog.DiscardHandler)
