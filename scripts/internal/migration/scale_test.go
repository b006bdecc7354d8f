//go:build unix

package migration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/migrate"
	"netlify-supabase-kv/pkg/migrate/migratetest"
	"netlify-supabase-kv/scripts/internal/cli"
)

const programVariable = "KV_MIGRATE_PROGRAM"

// TestMain runs the program itself if the environment asks for it: the program's memory is measured in a separate
// process.
func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		os.Args[0] = "migrate-kv-store"
		os.Exit(cli.Main(Command("migrate-kv-store")))
	}
	os.Exit(migratetest.Main(m))
}

// TestManyEntriesMigrateInBoundedMemory migrates MIGRATE_TEST_ENTRIES entries of 1 kB, each in MIGRATE_TEST_INDEXES of
// 20 indexes, and logs the time (`make migrate-scale`).
func TestManyEntriesMigrateInBoundedMemory(t *testing.T) {
	t.Parallel()
	entries, indexes := migratetest.Share(t, "MIGRATE_TEST_ENTRIES", 300), migratetest.Share(t, "MIGRATE_TEST_INDEXES", 2)
	p := newProgram(t)
	p.seed(entries, indexes)
	var run migrate.Result
	runKB := p.process(&run, "run", "--dir", p.dir, "--rules", p.rules("index:*=sessions/{member}"), "--json")
	require.True(t, run.Finished)
	require.Equal(t, entries*indexes, run.Named)
	var v migrate.Verification
	verifyKB := p.process(&v, "verify", "--dir", p.dir, "--json")
	require.True(t, v.Same())
	require.Equal(t, entries+20, v.Identical)
	t.Logf("%d entries, %d members: run %.1f s, %d MB; verify %.1f s, %d MB; together %.0f entries a second",
		v.Identical, v.Members, run.Seconds, runKB>>10, v.Seconds, verifyKB>>10, float64(v.Identical)/(run.Seconds+v.Seconds))
	if entries >= 100_000 { // not under the race detector, which needs several times the memory
		require.Less(t, max(runKB, verifyKB)>>10, int64(200), "MB at most")
	}
}

func (p *program) seed(entries, indexes int) {
	p.t.Helper()
	body := strings.Repeat("some words of text for a document ", 26)
	members := make([][]string, 20)
	var group errgroup.Group
	group.SetLimit(8)
	for i := range entries {
		id := fmt.Sprintf("%06d", i)
		for j := range indexes {
			members[(i+j)%20] = append(members[(i+j)%20], id)
		}
		group.Go(func() error {
			_, err := p.Client.Set(p.t.Context(), "sessions/"+id, fmt.Appendf(nil, `{"id":"%s","score":%d,"body":"%s"}`, id, i, body), blobs.SetOptions{})
			return err
		})
	}
	require.NoError(p.t, group.Wait())
	for i, m := range members {
		text, err := json.Marshal(m)
		require.NoError(p.t, err)
		p.Set(fmt.Sprintf("index:%02d", i), string(text))
	}
}

// process runs the program, decodes its output, and returns its peak memory in KiB.
func (p *program) process(into any, args ...string) (kib int64) {
	p.t.Helper()
	binary, err := filepath.Abs(os.Args[0])
	require.NoError(p.t, err)
	cmd := exec.CommandContext(p.t.Context(), binary, args...)
	cmd.Env = append(append(os.Environ(), programVariable+"=1"), p.environment()...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(p.t, err, stderr.String())
	require.NoError(p.t, json.Unmarshal(out, into))
	most := int64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	if runtime.GOOS == "darwin" { // Maxrss is in bytes there: getrusage(2)
		most >>= 10
	}
	return most
}
