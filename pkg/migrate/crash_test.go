package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/migratetest"
)

// crashChild is what the process that is killed has to know.
type crashChild struct {
	Access   blobs.Access
	URL, Key string
	Dir      string
}

const crashVariable = "KV_MIGRATE_CRASH_CHILD"

// TestMain is the process that is killed, where the environment says so.
func TestMain(m *testing.M) {
	text := os.Getenv(crashVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	var c crashChild
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(err)
	}
	supabase, err := kv.NewSupabase(c.URL, c.Key)
	if err != nil {
		panic(err)
	}
	fmt.Println("running")
	_, err = Run(context.Background(), NewBlobsSource(c.Access, "kv", "kv-indexes", 16, unlimited()), NewTarget("test", supabase),
		RunOptions{Options: defaults, Rules: seedRules, lease: testLease, Dir: c.Dir, BatchSize: 10, Progress: noProgress{}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestARunThatIsKilledAtAnyMomentGoesOn kills runs at random moments, changes blobs in between, and wants one last run to end
// identical. MIGRATE_TEST_KILLS is how often, MIGRATE_TEST_SEED repeats it.
func TestARunThatIsKilledAtAnyMomentGoesOn(t *testing.T) {
	m := newMigration(t)
	kills := migratetest.Share(t, "MIGRATE_TEST_KILLS", 4)
	random := rand.New(rand.NewPCG(migratetest.Seed(t, "MIGRATE_TEST_SEED"), 0))
	m.seed(300)
	killed, ended := 0, 0
	for killed < kills {
		for range 30 {
			m.change(random)
		}
		child, err := json.Marshal(crashChild{m.access, m.url(), m.key, t.TempDir()}) // as from another machine
		require.NoError(t, err)
		if m.killed(string(child), time.Duration(random.IntN(250))*time.Millisecond) {
			killed++
		} else {
			ended++
		}
	}
	t.Logf("%d runs were killed, %d were quicker", killed, ended)
	m.run()
	m.requireIdentical()
}

// url is that of the database; site has one of its own.
func (m *migration) url() string { return m.database.url }

// change writes, adds or removes a blob.
func (m *migration) change(random *rand.Rand) {
	key := fmt.Sprintf("sessions/%05d", random.IntN(400))
	switch random.IntN(10) {
	case 0:
		m.remove(key)
	case 1:
		m.set(fmt.Sprintf("index:by%d", random.IntN(5)), fmt.Sprintf(`["%05d","%05d","new %d"]`, random.IntN(200), 200+random.IntN(200), random.IntN(1000)))
	default:
		m.set(key, fmt.Sprintf(`{"changed":%d}`, random.Uint64()))
	}
}

// killed runs a child and kills it some time after it began. It is false where the child was quicker.
func (m *migration) killed(child string, after time.Duration) bool {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashVariable+"="+child)
	var failure bytes.Buffer
	cmd.Stderr = &failure
	output, err := cmd.StdoutPipe()
	require.NoError(m.t, err)
	require.NoError(m.t, cmd.Start())
	_, err = output.Read(make([]byte, 8))
	require.NoError(m.t, err, "the child did not begin")
	time.Sleep(after)
	require.NoError(m.t, ignoreDone(cmd.Process.Kill()))
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == -1 {
		return true
	}
	require.NoError(m.t, err, failure.String())
	return false
}

func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
