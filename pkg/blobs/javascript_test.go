package blobs

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// javaScript is the client of @netlify/blobs on the server of the same package: testdata/interop.cjs.
type javaScript struct {
	t       *testing.T
	input   io.Writer
	output  *bufio.Reader
	errors  *bytes.Buffer
	address struct{ Address, SiteID, Token string }
}

func startJavaScript(t *testing.T) *javaScript {
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
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	js := &javaScript{t: t, errors: &bytes.Buffer{}}
	cmd := exec.Command(node, filepath.Join("testdata", "interop.cjs"), modules, t.TempDir())
	cmd.Env = append(os.Environ(), "NODE_ENV=test", "NETLIFY_BLOBS_CONTEXT=")
	cmd.Stderr = js.errors
	input, err := cmd.StdinPipe()
	require.NoError(t, err)
	output, err := cmd.StdoutPipe()
	require.NoError(t, err)
	js.input, js.output = input, bufio.NewReader(output)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, input.Close())
		require.NoError(t, cmd.Wait(), js.errors)
	})
	js.read(&js.address)
	return js
}

func (js *javaScript) read(into any) {
	js.t.Helper()
	line, err := js.output.ReadBytes('\n')
	require.NoError(js.t, err, js.errors)
	require.NoError(js.t, json.Unmarshal(line, into))
}

// do returns what the JavaScript client returned, as JSON.
func (js *javaScript) do(way, op, key, value string, metadata json.RawMessage) string {
	js.t.Helper()
	line, err := json.Marshal(map[string]any{"way": way, "op": op, "key": key, "value": value, "metadata": metadata})
	require.NoError(js.t, err)
	_, err = js.input.Write(append(line, '\n'))
	require.NoError(js.t, err)
	var answer struct{ Result json.RawMessage }
	js.read(&answer)
	return string(answer.Result)
}

func (js *javaScript) client(way string) *Client {
	js.t.Helper()
	if way == "api" {
		return clientOf(Access{SiteID: js.address.SiteID, APIURL: js.address.Address, APIToken: js.address.Token})
	}
	event, err := json.Marshal(map[string]string{"url": js.address.Address, "url_uncached": js.address.Address, "token": js.address.Token})
	require.NoError(js.t, err)
	a, err := AccessFromEvent(base64.StdEncoding.EncodeToString(event), js.address.SiteID)
	require.NoError(js.t, err)
	return clientOf(a)
}

// TestInteroperatesWithTheJavaScriptClient checks that each client reads what the other writes, on the server of
// @netlify/blobs. That takes addresses literally, so a key is the same blob only if both send the same bytes.
func TestInteroperatesWithTheJavaScriptClient(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"edge", "api"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			js := startJavaScript(t)
			c := js.client(way)
			interopBlobs(t, js, way, c)
			interopList(t, js, way, c)
			interopConditions(t, js, way, c)
		})
	}
}

// interopKeys omit | and ^, which the two encode differently and only this server distinguishes.
var interopKeys = []string{
	"plain", "deep/er/key", "spaced out key", "ünï/😀/日本", "e\u0301", `say "hi"`, "it's", "a+b&c=d;e,f", "[x]{y}`<z>", "(a)*!$~", "who@where:x",
	"100%", "trailing.", "CON", ".hidden", "x/...",
}

func interopBlobs(t *testing.T, js *javaScript, way string, c *Client) {
	for _, key := range interopKeys {
		// Written here, read there. JavaScript does not encode a lone %, so that is left out.
		key = "blobs/" + key
		metadata := `{"from":"go","é":["😀",1.5,null]}`
		_, err := c.Set(t.Context(), key, []byte("go: é\x00"+key), SetOptions{Metadata: metadata})
		require.NoError(t, err, key)
		got, err := c.Get(t.Context(), key)
		require.NoError(t, err, key)
		require.Equal(t, "go: é\x00"+key, string(got.Value))
		require.JSONEq(t, metadata, got.Metadata)
		if key == "blobs/100%" {
			require.NoError(t, c.Delete(t.Context(), key))
			continue
		}
		var read struct {
			Data     string
			Metadata json.RawMessage
		}
		require.NoError(t, json.Unmarshal([]byte(js.do(way, "get", key, "", nil)), &read))
		require.Equal(t, "go: é\x00"+key, read.Data)
		require.JSONEq(t, metadata, string(read.Metadata))

		// Written there, read here.
		js.do(way, "set", key, "js: é\x00"+key, json.RawMessage(`{"from":"js","é":"😀"}`))
		got, err = c.Get(t.Context(), key)
		require.NoError(t, err, key)
		require.Equal(t, "js: é\x00"+key, string(got.Value))
		require.JSONEq(t, `{"from":"js","é":"😀"}`, got.Metadata)
		head, err := c.Head(t.Context(), key)
		require.NoError(t, err, key)
		require.JSONEq(t, `{"from":"js","é":"😀"}`, head.Metadata)

		// Deleted by one, missing for the other.
		require.NoError(t, c.Delete(t.Context(), key))
		require.NoError(t, c.Delete(t.Context(), key))
		require.Equal(t, "null", js.do(way, "get", key, "", nil))
		require.Equal(t, "null", js.do(way, "head", key, "", nil))
		js.do(way, "set", key, "", nil)
		got, err = c.Get(t.Context(), key)
		require.NoError(t, err)
		require.Empty(t, got.Value)
		js.do(way, "delete", key, "", nil)
		_, err = c.Get(t.Context(), key)
		require.ErrorIs(t, err, ErrNotFound)
		_, err = c.Head(t.Context(), key)
		require.ErrorIs(t, err, ErrNotFound)
	}
}

// interopList decodes keys: unlike hosted Blobs, this server lists them percent-encoded. Through the API it lists
// nothing under a prefix, since it takes the query for a part of the store's name.
func interopList(t *testing.T, js *javaScript, way string, c *Client) {
	want := []string{}
	for i, key := range interopKeys {
		if key == "100%" { // see interopBlobs
			continue
		}
		key = "list/" + key
		want = append(want, key)
		if i%2 == 0 {
			js.do(way, "set", key, "value", nil)
			continue
		}
		_, err := c.Set(t.Context(), key, []byte("value"), SetOptions{})
		require.NoError(t, err)
	}
	decoded := func(listed []string) []string {
		for i := range listed {
			key, err := url.PathUnescape(listed[i])
			require.NoError(t, err)
			listed[i] = key
		}
		return listed
	}
	prefix := map[string]string{"edge": "list/"}[way]
	require.ElementsMatch(t, want, decoded(keys(t, c, prefix)))
	var theirs []string
	require.NoError(t, json.Unmarshal([]byte(js.do(way, "list", prefix, "", nil)), &theirs))
	require.ElementsMatch(t, want, decoded(theirs))
	for l, err := range c.List(t.Context(), prefix) {
		require.NoError(t, err)
		require.EqualValues(t, len("value"), l.Size)
		require.NotEmpty(t, l.ETag)
		require.False(t, l.LastModified.IsZero())
		key, err := url.PathUnescape(l.Key)
		require.NoError(t, err)
		require.NoError(t, c.Delete(t.Context(), key))
	}
	require.Equal(t, "[]", js.do(way, "list", prefix, "", nil))
}

// TestListsUnderNetlifyDevDecodeKeys lists like kv-list, on the server that netlify dev runs.
func TestListsUnderNetlifyDevDecodeKeys(t *testing.T) {
	t.Parallel()
	js := startJavaScript(t)
	bare := js.client("edge")
	given := withAccess(t.Context(), bare.fallback)
	client := NewClient("kv").WithLocalEvents().WithBackgroundRetries(5 * time.Minute) // that server takes seconds on a busy machine
	store := NewStore(client, NewClient("kv-indexes").WithBackgroundRetries(5*time.Minute))
	want := map[string]json.RawMessage{}
	for _, prefix := range []string{"list/", `li"<st/`, "ü/"} {
		for i, key := range interopKeys {
			key = prefix + key
			if i%2 == 0 && key != prefix+"100%" {
				js.do("edge", "set", key, `{"n":1}`, nil)
			} else {
				_, err := store.Upsert(given, kv.Entry{Key: key, Value: `{"n":1}`, Indexes: []kv.Index{{Key: "i", Member: kv.TextMember(key)}}})
				require.NoError(t, err)
			}
			want[key] = json.RawMessage(`{"n":1}`)
		}
	}
	js.do("edge", "set", "l", `{}`, nil) // the server lists it under every prefix that begins with it
	for _, prefix := range []string{"list/", `li"<`, "ü", "li"} {
		for _, order := range []kv.SortKey{{}, {Path: "updatedAt", Descending: true}} {
			answer, err := store.List(given, kv.ListQuery{Prefix: prefix, Values: true, Sort: order})
			require.NoError(t, err)
			var got struct{ Data map[string]json.RawMessage }
			require.NoError(t, json.Unmarshal([]byte(answer), &got))
			expected := map[string]json.RawMessage{}
			for key, value := range want {
				if strings.HasPrefix(key, prefix) {
					expected[key] = value
				}
			}
			require.Equal(t, expected, got.Data, "%s %v", prefix, order)
		}
	}
}

func interopConditions(t *testing.T, js *javaScript, way string, c *Client) {
	etag, err := c.Set(t.Context(), "once", []byte("1"), SetOptions{IfNew: true})
	require.NoError(t, err)
	_, err = c.Set(t.Context(), "once", []byte("2"), SetOptions{IfNew: true})
	require.Equal(t, ErrConditionFailed, err)
	_, err = c.Set(t.Context(), "once", []byte("3"), SetOptions{IfMatch: `"another"`})
	require.Equal(t, ErrConditionFailed, err)
	_, err = c.Set(t.Context(), "once", []byte("4"), SetOptions{IfMatch: etag})
	require.NoError(t, err)
	require.JSONEq(t, `{"metadata":{},"data":"4"}`, js.do(way, "get", "once", "", nil))
	js.do(way, "delete", "once", "", nil)
}
