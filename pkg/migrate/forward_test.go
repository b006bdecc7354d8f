package migrate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/mirror"
)

// javaScriptSite has functions in JavaScript in front of Blobs, which pass their writes on: testdata/forward.mjs.
type javaScriptSite struct {
	*migration
	modules string
	env     []string // beside the two variables of Supabase
}

type javaScriptWrite struct {
	N       int               `json:"n"`
	Op      string            `json:"op"`
	Key     string            `json:"key"`
	Value   string            `json:"value"`
	Indexes []javaScriptIndex `json:"indexes,omitempty"`
}

type javaScriptIndex struct {
	Key    string `json:"key"`
	Member any    `json:"member"`
}

func newJavaScriptSite(t *testing.T) *javaScriptSite {
	t.Helper()
	return &javaScriptSite{migration: newMigration(t), modules: findModules(t)}
}

// start begins the writes, and returns a function that waits for them: which were answered, what was logged, and whether the process ended
// by itself.
func (s *javaScriptSite) start(writes []javaScriptWrite) (wait func() (answered map[int]string, log string, err error)) {
	s.t.Helper()
	store, err := json.Marshal(map[string]string{
		"siteID": s.Edge.SiteID, "token": s.Edge.EdgeToken, "edgeURL": s.Edge.EdgeURL, "uncachedEdgeURL": s.Edge.EdgeURL,
	})
	require.NoError(s.t, err)
	var input, output, log bytes.Buffer
	for _, write := range writes {
		require.NoError(s.t, json.NewEncoder(&input).Encode(write))
	}
	cmd := exec.CommandContext(s.t.Context(), "node", filepath.Join("testdata", "forward.mjs"), s.modules)
	cmd.Env = append(os.Environ(), "NETLIFY_BLOBS_CONTEXT=", "STORE="+string(store), "SUPABASE_URL="+s.database.URL, "SUPABASE_SERVICE_ROLE_KEY="+s.Key)
	cmd.Env = append(cmd.Env, s.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &input, &output, &log
	require.NoError(s.t, cmd.Start())
	return func() (map[int]string, string, error) {
		err := cmd.Wait()
		answered := map[int]string{}
		for line := range strings.Lines(output.String()) {
			var answer struct {
				N     int
				Error string
			}
			require.NoError(s.t, json.Unmarshal([]byte(line), &answer), line)
			answered[answer.N] = answer.Error
		}
		return answered, log.String(), err
	}
}

func (s *javaScriptSite) requireAllDone(writes []javaScriptWrite, answered map[int]string) {
	s.t.Helper()
	require.Len(s.t, answered, len(writes))
	for n, err := range answered {
		require.Empty(s.t, err, "write %d", n)
	}
}

func (s *javaScriptSite) outbox() (n int) {
	s.t.Helper()
	require.NoError(s.t, s.SQL.QueryRow(s.t.Context(), "select count(*) from kv.outbox").Scan(&n))
	return n
}

func (s *javaScriptSite) repair() {
	s.t.Helper()
	pair := &mirror.Pair{Supabase: s.Supabase, Blobs: s.Store(), Log: discard}
	result, err := pair.Repair(s.t.Context(), mirror.PrimaryBlobs)
	require.NoError(s.t, err)
	require.Equal(s.t, result.Found, result.Repaired)
}

// verifyOnce does not look again at what differs.
func (s *javaScriptSite) verifyOnce() Verification {
	s.t.Helper()
	v, err := Verify(s.t.Context(), s.Source(), s.target(), VerifyOptions{Options: s.o, Rules: s.rules, Progress: sources.NoProgress{}, rechecks: usualRechecks[:1]})
	require.NoError(s.t, err)
	return v
}

// racingWrites are upserts and deletes of few keys, side by side.
func racingWrites(n int) (writes []javaScriptWrite) {
	for i := range n {
		write := javaScriptWrite{N: i, Op: "upsert", Key: fmt.Sprintf("sessions/%05d", rand.IntN(8)), Value: fmt.Sprintf(`{"n":%d, "exact":1.0}`, i)}
		switch rand.IntN(5) {
		case 0:
			write.Op = "delete"
		case 1, 2:
			write.Indexes = []javaScriptIndex{{Key: "index:live", Member: fmt.Sprint("m", i)}, {Key: fmt.Sprint("index:", i%3), Member: "shared"}, {Key: "index:numbers", Member: i%4 + 1}}
		}
		writes = append(writes, write)
	}
	return writes
}

// TestWritesOfJavaScriptFunctionsArePassedOn has a site's functions in JavaScript write while a migration runs.
func TestWritesOfJavaScriptFunctionsArePassedOn(t *testing.T) {
	s := newJavaScriptSite(t)
	s.seed(60)
	s.env = []string{"PATIENT=true", "SUPABASE_URL=" + s.database.URL + "/rest/v1/"} // as the Go functions take it too
	writes := racingWrites(120)
	wait := s.start(writes)
	for range 3 {
		s.run()
	}
	answered, log, err := wait()
	require.NoError(t, err, log)
	s.requireAllDone(writes, answered)
	require.Empty(t, log)
	require.Zero(t, s.outbox())
	s.run()
	s.requireIdentical()
	for i := range 8 {
		key := fmt.Sprintf("sessions/%05d", i)
		blob, err := s.Client.Get(t.Context(), key)
		if err != nil {
			require.ErrorIs(t, err, blobs.ErrNotFound)
		}
		require.Equal(t, string(blob.Value), s.value(key), "byte for byte")
	}
	s.exec("delete from kv.member where index_key = 'index:live' and member = (select min(member) from kv.member where index_key = 'index:live')")
	require.False(t, s.verifyOnce().Same(), "it would have been seen")
}

func TestAFunctionThatIsEndedInBetweenLeavesATrace(t *testing.T) {
	s := newJavaScriptSite(t)
	s.Set("sessions/00001", `{"n":0}`)
	s.env = []string{"PATIENT=true"}
	_, _, err := s.start([]javaScriptWrite{{Op: "killed", Key: "sessions/00001", Value: `{"n":1}`, Indexes: []javaScriptIndex{{Key: "index:live", Member: "m"}}}})()
	require.Error(t, err)
	require.Equal(t, 2, s.outbox())
	require.Empty(t, s.value("sessions/00001"))
	s.repair()
	require.Zero(t, s.outbox())
	require.Equal(t, `{"n":1}`, s.value("sessions/00001"))
	require.Equal(t, `["m"]`, s.value("index:live"))
	require.Equal(t, [][2]string{{"index:live", "m"}}, s.indexesOf("sessions/00001"))
	s.requireIdentical()
}

func TestWithoutSupabaseTheFunctionsAnswerAsBefore(t *testing.T) {
	for name, tt := range map[string]struct {
		env []string
		log string
	}{
		"Away":          {[]string{"SUPABASE_URL=http://127.0.0.1:1"}, "add outbox entries: kv_mirror_begin: "},
		"NotConfigured": {[]string{"SUPABASE_SERVICE_ROLE_KEY="}, "must be set"},
		"Refused":       {[]string{"SUPABASE_SERVICE_ROLE_KEY=sb_secret_nonsense", "PATIENT=true"}, "add outbox entries: kv_mirror_begin: status 401"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newJavaScriptSite(t)
			s.env = tt.env
			writes := []javaScriptWrite{{N: 1, Op: "upsert", Key: "sessions/the-secret-key", Value: `{"n":1}`, Indexes: []javaScriptIndex{{Key: "index:live", Member: "a"}}}}
			answered, log, err := s.start(writes)()
			require.NoError(t, err, log)
			s.requireAllDone(writes, answered)
			require.Contains(t, log, `"msg":"mirror failed"`)
			require.Contains(t, log, tt.log)
			require.NotContains(t, log, "the-secret-key")
			blob, err := s.Client.Get(t.Context(), "sessions/the-secret-key")
			require.NoError(t, err)
			require.Equal(t, `{"n":1}`, string(blob.Value))
			require.Zero(t, s.outbox())
			require.Equal(t, 2, s.verifyOnce().Missing, "verify finds what was not passed on")
			s.run()
			s.requireIdentical()
		})
	}
}
