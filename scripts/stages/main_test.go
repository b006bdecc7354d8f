package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stagesIn runs shell commands as stages, and returns what was printed.
func stagesIn(t *testing.T, ctx context.Context, sideBySide int, commands map[string]string, groups ...[]string) (string, bool) {
	t.Helper()
	var out strings.Builder
	r := &runner{out: &out, logs: filepath.Join(t.TempDir(), "logs"), sideBySide: sideBySide,
		command: func(stage string) *exec.Cmd { return exec.Command("sh", "-c", commands[stage]) }}
	passed := r.run(ctx, groups)
	return out.String(), passed
}

func TestAFailedStageIsShownAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	out, passed := stagesIn(t, t.Context(), 1, map[string]string{"a": "echo quiet", "b": "echo why; exit 3", "c": "true"}, []string{"b", "a"}, []string{"c"})
	require.False(t, passed)
	require.Contains(t, out, "why")
	require.NotContains(t, out, "quiet", "the output of a stage that passed is not shown")
	require.Regexp(t, regexp.MustCompile(`b +\d+ s +\d+ s +FAILED`), out)
	require.True(t, strings.HasSuffix(out, "\n2 passed, 1 failed, 0 skipped\n"), out)
}

func TestStagesOfAGroupRunSideBySideAndGroupsOneAfterTheOther(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	waitFor := func(name string) string {
		return "for i in $(seq 3000); do test -e " + filepath.Join(dir, name) + " && exit 0; sleep 0.01; done; exit 1"
	}
	out, passed := stagesIn(t, t.Context(), 2, map[string]string{
		"a": "touch " + filepath.Join(dir, "a") + "; " + waitFor("b"),
		"b": "touch " + filepath.Join(dir, "b") + "; " + waitFor("a"),
		"c": "test -e " + filepath.Join(dir, "a"),
	}, []string{"a", "b"}, []string{"c"})
	require.True(t, passed, out)
}

func TestAnInterruptedRunEndsItsStages(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	go func() {
		for {
			if found, _ := filepath.Glob(filepath.Join(dir, "begun")); found != nil {
				cancel()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	out, passed := stagesIn(t, ctx, 1, map[string]string{"a": "touch " + filepath.Join(dir, "begun") + "; sleep 600", "b": "true"}, []string{"a", "b"})
	require.False(t, passed)
	require.True(t, strings.HasSuffix(out, "\n0 passed, 0 failed, 2 skipped\n"), out)
}
