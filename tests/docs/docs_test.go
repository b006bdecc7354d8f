// Package docs checks the documentation. Every command in a console block of README.md and docs/*.md must print the output
// below it, except for times and ETags.
package docs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// example is a command and its expected output.
type example struct{ command, output string }

// leftovers are the keys that the examples write. They are deleted before and after, since examples expect an empty store.
var leftovers = []string{"sessions/abc", "index:sessions", "docs/1", "index:docs", "status",
	"shop/tea", "shop/mug", "shop/pot", "shop/jam", "shop/note", "kind", "state", "notes/1", "notes/2", "tag"}

// leftoverStores are the other stores that the examples write.
var leftoverStores = []string{"files", "counts", "limits", "sessions", "jobs"}

func TestExamplesPrintTheDocumentedOutput(t *testing.T) {
	base := os.Getenv("KV_HOST_URL")
	if base == "" {
		t.Skip("KV_HOST_URL is not set: the examples need the local platform (make test, or make up)")
	}
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the examples need %s", tool)
		}
	}
	files, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	pages := 0
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		found := examples(string(text))
		if len(found) == 0 {
			continue
		}
		pages++
		t.Run(filepath.Base(file), func(t *testing.T) {
			tidy(t, base)
			t.Cleanup(func() { tidy(t, base) })
			for _, e := range found {
				require.Equal(t, normal(e.output), normal(run(t, base, e.command)), "$ %s", e.command)
			}
		})
	}
	require.Greater(t, pages, 4, "pages with examples")
}

// tidy deletes what the examples write. Each store has fewer than 1,000 entries.
func tidy(t *testing.T, base string) {
	t.Helper()
	for _, key := range leftovers {
		require.Contains(t, request(t, http.MethodDelete, base+"/api/kv/delete?key="+url.QueryEscape(key)), `"ok":true`)
	}
	for _, store := range leftoverStores {
		address := base + "/api/kv/entries/" + store
		var list struct{ Count int }
		require.NoError(t, json.Unmarshal([]byte(request(t, http.MethodGet, address)), &list))
		if list.Count > 0 {
			require.Contains(t, request(t, http.MethodDelete, fmt.Sprintf("%s?confirm=%d", address, list.Count)), `"ok":true`)
		}
	}
}

// request returns the body of a response.
func request(t *testing.T, method, address string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, address, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(body)
}

var consoleBlock = regexp.MustCompile("(?ms)^ *```console\n(.*?)^ *```$")

func examples(markdown string) (found []example) {
	for _, block := range consoleBlock.FindAllStringSubmatch(markdown, -1) {
		for _, part := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			lines := strings.SplitAfter(part, "\n")
			end := 0
			for strings.HasSuffix(lines[end], "\\\n") || strings.Count(strings.Join(lines[:end+1], ""), "'")%2 == 1 {
				end++
			}
			found = append(found, example{strings.Join(lines[:end+1], ""), strings.Join(lines[end+1:], "")})
		}
	}
	return found
}

func run(t *testing.T, base, command string) string {
	t.Helper()
	command = strings.ReplaceAll(command, "http://localhost:8888", base)
	cmd := exec.Command("bash", "-c", "curl() { command curl -sS \"$@\"; }\n"+command)
	cmd.Env = append(os.Environ(), "KV="+base)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "$ %s\n%s", command, output)
	return string(output)
}

var (
	times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`)
	etags = regexp.MustCompile(`"etag":"[^"]*"`)
)

func normal(output string) string {
	output = etags.ReplaceAllString(times.ReplaceAllString(output, "<time>"), `"etag":"<etag>"`)
	return strings.TrimSpace(strings.ReplaceAll(output, "\r\n", "\n"))
}

var bodyInTable = regexp.MustCompile("`(\\{[^`]*\\})`")

// TestBodiesInTablesAreAccepted sends every query body in a table.
func TestBodiesInTablesAreAccepted(t *testing.T) {
	base := os.Getenv("KV_HOST_URL")
	if base == "" {
		t.Skip("KV_HOST_URL is not set: the examples need the local platform (make test, or make up)")
	}
	for _, file := range []string{"FROM-SQL.md", "FROM-JAVASCRIPT.md"} {
		text, err := os.ReadFile("../../docs/" + file)
		require.NoError(t, err)
		found := 0
		for line := range strings.Lines(string(text)) {
			for _, body := range bodyInTable.FindAllStringSubmatch(line, -1) {
				if !strings.HasPrefix(line, "|") {
					continue
				}
				found++
				response, err := http.Post(base+"/api/kv/query", "application/json", strings.NewReader(body[1]))
				require.NoError(t, err)
				text, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				require.NoError(t, response.Body.Close())
				require.Equal(t, http.StatusOK, response.StatusCode, "%s: %s\n%s", file, body[1], text)
			}
		}
		require.Greater(t, found, 15, "bodies in %s", file)
	}
}

func TestExamplesAreFound(t *testing.T) {
	got := examples("text\n```console\n$ one \\\n  two\nout\n\n$ three '{\n  4}'\nout\n```\n```sh\n$ no\n```\n")
	require.Equal(t, []example{{"one \\\n  two\n", "out\n"}, {"three '{\n  4}'\n", "out\n"}}, got, fmt.Sprintf("%q", got))
}
