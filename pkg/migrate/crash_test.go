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
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/migratetest"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/migrate/sources/sourcetest"
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
		os.Exit(migratetest.Main(m))
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
	_, err = Run(context.Background(), sources.NewBlobs(c.Access, "kv", 16, sourcetest.Unlimited()), entries.NewTarget("test", supabase),
		RunOptions{Options: defaults, Rules: seedRules, lease: testLease, Dir: c.Dir, BatchSize: 10, Progress: sources.NoProgress{}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestARunThatIsKilledAtAnyMomentGoesOn kills runs at random moments, each with a directory of its own, as from another machine; in every
// other one the database dies under it, too. Blobs change in between, and one last run must end identical. MIGRATE_TEST_KILLS is how
// often, MIGRATE_TEST_SEED repeats it.
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
		child, err := json.Marshal(crashChild{m.Access, m.url(), m.Key, t.TempDir()})
		require.NoError(t, err)
		revive := func() {}
		if killed%2 == 1 {
			revive = m.killDatabase(20 * time.Millisecond)
		}
		// A run waits for the lease of the one before first.
		if m.killed(string(child), time.Duration(random.IntN(250))*time.Millisecond+time.Duration(killed%2)*testLease) {
			killed++
		} else {
			ended++
		}
		revive()
	}
	t.Logf("%d runs were killed, %d were quicker", killed, ended)
	m.run()
	m.requireIdentical()
}

// TestARunOutlivesTheDatabase: whatever is under way when it dies is rolled back, or is done and nobody is told.
func TestARunOutlivesTheDatabase(t *testing.T) {
	m := newMigration(t)
	m.seed(300)
	revive := m.killDatabase(100 * time.Millisecond)
	time.AfterFunc(2*time.Second, revive)
	result := m.run()
	revive()
	require.Zero(t, result.Failed, result.Failures)
	m.requireIdentical()
}

// killDatabase ends all connections that PostgREST has to this test's database, again and again until it is revived. Its server is other
// tests', too.
func (m *migration) killDatabase(every time.Duration) (revive func()) {
	m.t.Helper()
	m.DropAfterwards()
	admin, err := pgx.Connect(m.t.Context(), os.Getenv("DATABASE_ADMIN_URL"))
	require.NoError(m.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var killing sync.WaitGroup
	killing.Go(func() {
		for sleep(ctx, every) == nil {
			_, _ = admin.Exec(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and usename <> $2", m.SQL.Config().Database, m.SQL.Config().User)
		}
	})
	return sync.OnceFunc(func() {
		cancel()
		killing.Wait()
		_ = admin.Close(context.Background())
	})
}

// url is that of the database; site has one of its own.
func (m *migration) url() string { return m.database.URL }

// change writes, adds or removes a blob.
func (m *migration) change(random *rand.Rand) {
	key := fmt.Sprintf("sessions/%05d", random.IntN(400))
	switch random.IntN(10) {
	case 0:
		m.Remove(key)
	case 1:
		m.Set(fmt.Sprintf("index:by%d", random.IntN(5)), fmt.Sprintf(`["%05d","%05d","new %d"]`, random.IntN(200), 200+random.IntN(200), random.IntN(1000)))
	default:
		m.Set(key, fmt.Sprintf(`{"changed":%d}`, random.Uint64()))
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
