package migrate

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/migrate/sources/sourcetest"
)

// TestWhatTheJavaScriptClientWroteIsMigrated has the real client write to the real server that comes with it, and migrates that.
func TestWhatTheJavaScriptClientWroteIsMigrated(t *testing.T) {
	t.Parallel()
	modules := findModules(t)
	cmd := exec.Command("node", filepath.Join("..", "blobs", "testdata", "interop.cjs"), modules, t.TempDir())
	cmd.Env = append(os.Environ(), "NODE_ENV=test", "NETLIFY_BLOBS_CONTEXT=")
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	require.NoError(t, err)
	output, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, input.Close())
		require.NoError(t, cmd.Wait())
	})
	lines := bufio.NewReader(output)
	answer := func(into any) {
		line, err := lines.ReadBytes('\n')
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(line, into))
	}
	var server struct{ Address, SiteID, Token string }
	answer(&server)

	values := map[string]string{
		"sessions/abc": `{"user":"ada","score":1.0}`, "sessions/x y": `{"b":1,"a":"ü"}`, "ünï/😀/日本": `[1,2.50]`, "a+b&c=d": `null`,
		"index:sessions": `["abc","x y","nobody"]`,
	}
	for key, value := range values {
		line, err := json.Marshal(map[string]any{"way": "api", "op": "set", "key": key, "value": value})
		require.NoError(t, err)
		_, err = input.Write(append(line, '\n'))
		require.NoError(t, err)
		answer(&struct{}{})
	}

	d := newDatabase(t)
	source := sources.NewBlobs(blobs.Access{SiteID: server.SiteID, APIURL: server.Address, APIToken: server.Token}, "kv", 4, sourcetest.Unlimited())
	source.DecodeKeys = true
	rules := rulesOf(t, "index:sessions=sessions/{member}")
	o := RunOptions{Options: defaults, Rules: rules, lease: testLease, Dir: t.TempDir(), BatchSize: DefaultBatchSize, Progress: sources.NoProgress{}}
	result, err := Run(t.Context(), source, d.target(), o)
	require.NoError(t, err)
	require.Equal(t, len(values), result.Written)
	require.Equal(t, 2, result.Named)
	v, err := Verify(t.Context(), source, d.target(), VerifyOptions{Options: defaults, Rules: rules, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.True(t, v.Same(), v.Found)
	for key, value := range values {
		states, err := d.Supabase.States(t.Context(), []string{key})
		require.NoError(t, err)
		require.Equal(t, value, states[0].Value, key)
	}
	_, err = Run(t.Context(), source, d.target(), o)
	require.NoError(t, err, "without etags on reads, a second run reads all and writes nothing")
}

// findModules is a node_modules directory that has @netlify/blobs.
func findModules(t *testing.T) string {
	t.Helper()
	modules := os.Getenv("BLOBS_JS_DIR")
	if modules == "" {
		root, err := filepath.Abs("../..")
		require.NoError(t, err)
		modules = filepath.Join(root, ".local", "npm", "platform", "node_modules")
	}
	if _, err := os.Stat(filepath.Join(modules, "@netlify", "blobs")); err != nil {
		t.Skip("@netlify/blobs is not installed: run make up, or set BLOBS_JS_DIR to a node_modules that has it")
	}
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed")
	}
	return modules
}
