package blobstest

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestJavaScriptClient drives the server with the client that everybody else uses, unchanged: testdata/client.cjs.
// What it wrote is read here, and the other way round.
func TestJavaScriptClient(t *testing.T) {
	t.Parallel()
	modules := os.Getenv("BLOBS_JS_DIR")
	if modules == "" {
		root, err := filepath.Abs("../../..")
		require.NoError(t, err)
		modules = filepath.Join(root, ".local", "npm", "platform", "node_modules")
	}
	if _, err := os.Stat(filepath.Join(modules, "@netlify", "blobs")); err != nil {
		t.Skip("@netlify/blobs is not installed: run make up, or set BLOBS_JS_DIR to a node_modules that has it")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}

	for _, way := range []string{"edge", "api"} {
		t.Run(way, func(t *testing.T) {
			c := newClient(t, t.TempDir(), Options{PageSize: 10})
			metadata := "b64;" + base64.StdEncoding.EncodeToString([]byte(`{"from":"go"}`))
			require.Equal(t, 200, c.edge("PUT", "go/"+url.PathEscape("spaced é😀"), "from go", "X-Amz-Meta-User", metadata).status)

			config, err := json.Marshal(map[string]string{
				"way": way, "event": c.Event, "apiURL": c.APIURL, "apiToken": c.APIToken, "siteID": c.SiteID, "faults": c.url + FaultsPath,
			})
			require.NoError(t, err)
			cmd := exec.Command(node, filepath.Join("testdata", "client.cjs"), modules)
			// In its tests the client does not wait 5 s before it tries again.
			cmd.Env = append(os.Environ(), "NODE_ENV=test", "CONFIG="+string(config), "NETLIFY_BLOBS_CONTEXT=")
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))

			res := c.edge("GET", "js/"+url.PathEscape("spaced é😀"), "")
			require.Equal(t, "from js", res.body)
			text, err := base64.StdEncoding.DecodeString(res.header.Get("Netlify-Blobs-Metadata")[len("b64;"):])
			require.NoError(t, err)
			require.JSONEq(t, `{"from":"js"}`, string(text))
		})
	}
}
