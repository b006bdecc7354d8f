package blobstest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// client speaks to a server under test as little like a Netlify client as possible: it sends what it is told.
type client struct {
	t      *testing.T
	server *Server
	url    string
	Access
}

func newClient(t *testing.T, dir string, opt Options) *client {
	t.Helper()
	s, err := Open(dir, opt)
	require.NoError(t, err)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return &client{t: t, server: s, url: h.URL, Access: s.Access(h.URL)}
}

type reply struct {
	status int
	header http.Header
	body   string
}

func (c *client) try(method, address, token, body string, headers ...string) (reply, error) {
	req, err := http.NewRequest(method, address, strings.NewReader(body))
	require.NoError(c.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, string(text)}, err
}

func (c *client) do(method, address, token, body string, headers ...string) reply {
	c.t.Helper()
	res, err := c.try(method, address, token, body, headers...)
	require.NoError(c.t, err)
	return res
}

// edge sends to the store kv at the edge address; key is put into the path as it is.
func (c *client) edge(method, key, body string, headers ...string) reply {
	c.t.Helper()
	return c.do(method, c.url+"/"+c.SiteID+"/site:kv/"+key, c.EventToken, body, headers...)
}

// api sends to the store kv through the API.
func (c *client) api(method, key, body string, headers ...string) reply {
	c.t.Helper()
	return c.do(method, c.APIURL+"/api/v1/blobs/"+c.SiteID+"/site:kv/"+key, c.APIToken, body, headers...)
}

// signed asks the API for a signed address.
func (c *client) signed(method, key string) string {
	c.t.Helper()
	res := c.api(method, key, "", "Accept", "application/json;type=signed-url")
	require.Equal(c.t, 200, res.status, res.body)
	var out struct{ URL string }
	require.NoError(c.t, json.Unmarshal([]byte(res.body), &out))
	return out.URL
}

type listed struct {
	Blobs []struct {
		Key, Etag    string
		Size         int64
		LastModified string `json:"last_modified"`
	}
	Directories []string
	NextCursor  string `json:"next_cursor"`
}

func (l listed) keys() []string {
	keys := []string{}
	for _, b := range l.Blobs {
		keys = append(keys, b.Key)
	}
	return keys
}

func (c *client) page(query url.Values) listed {
	c.t.Helper()
	res := c.do("GET", c.url+"/"+c.SiteID+"/site:kv?"+query.Encode(), c.EventToken, "")
	require.Equal(c.t, 200, res.status, res.body)
	var l listed
	require.NoError(c.t, json.Unmarshal([]byte(res.body), &l))
	return l
}

func (c *client) list(prefix string, directories bool) (all listed) {
	c.t.Helper()
	q := url.Values{"prefix": {prefix}, "directories": {strconv.FormatBool(directories)}}
	for {
		l := c.page(q)
		all.Blobs, all.Directories = append(all.Blobs, l.Blobs...), append(all.Directories, l.Directories...)
		if l.NextCursor == "" {
			return all
		}
		q.Set("cursor", l.NextCursor)
	}
}

func TestEdge(t *testing.T) {
	t.Parallel()
	c := newClient(t, t.TempDir(), Options{})
	meta := "b64;" + base64.StdEncoding.EncodeToString([]byte(`{"v":1}`))

	put := c.edge("PUT", "a", "one", "X-Amz-Meta-User", meta)
	require.Equal(t, 200, put.status)
	require.Regexp(t, `^"[0-9a-f]+-[0-9a-f]+"$`, put.header.Get("Etag"))
	require.Empty(t, put.body)

	for _, where := range []string{"", "region:us-east-2/"} {
		res := c.do("GET", c.url+"/"+where+c.SiteID+"/site:kv/a", c.EventToken, "")
		require.Equal(t, 200, res.status)
		require.Equal(t, "one", res.body)
		require.Equal(t, put.header.Get("Etag"), res.header.Get("Etag"))
		require.Equal(t, meta, res.header.Get("Netlify-Blobs-Metadata"))
	}
	head := c.edge("HEAD", "a", "")
	require.Equal(t, 200, head.status)
	require.Equal(t, "3", head.header.Get("Content-Length"))
	require.Equal(t, meta, head.header.Get("Netlify-Blobs-Metadata"))

	same := c.edge("GET", "a", "", "If-None-Match", put.header.Get("Etag"))
	require.Equal(t, 304, same.status)
	require.Equal(t, put.header.Get("Etag"), same.header.Get("Etag"))
	require.Equal(t, 200, c.edge("GET", "a", "", "If-None-Match", `"another"`).status)

	require.Equal(t, 200, c.edge("PUT", "a", "two").status)
	require.NotContains(t, c.edge("HEAD", "a", "").header, "Netlify-Blobs-Metadata") // an overwrite replaces the metadata too

	require.Equal(t, 204, c.edge("DELETE", "a", "").status)
	require.Equal(t, 204, c.edge("DELETE", "a", "").status)
	require.Equal(t, 404, c.edge("GET", "a", "").status)
	require.Equal(t, 404, c.edge("HEAD", "a", "").status)
	require.Empty(t, c.list("", false).Blobs)

	require.Equal(t, 200, c.edge("PUT", "empty", "").status)
	empty := c.edge("GET", "empty", "")
	require.Equal(t, 200, empty.status)
	require.Empty(t, empty.body)
	require.Equal(t, 405, c.edge("POST", "a", "x").status)
	require.Equal(t, 405, c.edge("PUT", "", "x").status)
}

func TestAPI(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	c := newClient(t, t.TempDir(), Options{Now: func() time.Time { return time.Unix(0, now.Load()) }, SignedURLTTL: time.Minute})

	put := c.signed("PUT", "a%20b")
	require.Equal(t, 404, c.api("HEAD", "a%20b", "").status) // asking for the address wrote nothing
	require.Equal(t, 200, c.do("PUT", put, "", "one", "X-Amz-Meta-User", "b64;e30=").status)

	get := c.signed("GET", "a%20b")
	res := c.do("GET", get, "", "")
	require.Equal(t, "one", res.body)
	require.Equal(t, "b64;e30=", res.header.Get("X-Amz-Meta-User"))
	require.Equal(t, "one", c.api("GET", "a%20b", "").body)
	require.Equal(t, "b64;e30=", c.api("HEAD", "a%20b", "").header.Get("Netlify-Blobs-Metadata"))
	require.Equal(t, 404, c.do("GET", c.signed("GET", "missing"), "", "").status)

	res = c.api("PUT", "direct", "not stored") // whatever it accepts, a write gets an address
	require.Contains(t, res.body, `{"url":"`+c.url+"/")
	require.Equal(t, 404, c.api("HEAD", "direct", "").status)

	require.Equal(t, 403, c.do("PUT", get, "", "another method").status)
	require.Equal(t, 403, c.do("GET", strings.Replace(get, "a%20b", "b", 1), "", "").status)
	require.Equal(t, 403, c.do("GET", strings.Replace(get, "expires=", "expires=1", 1), "", "").status)
	require.Equal(t, 403, c.do("GET", strings.Split(get, "?")[0], c.APIToken, "").status)
	now.Add(int64(time.Minute))
	require.Equal(t, 403, c.do("GET", get, "", "").status)
	require.Equal(t, 403, c.do("PUT", put, "", "two").status)

	require.Equal(t, 204, c.api("DELETE", "a%20b", "").status)
	require.Equal(t, 404, c.api("HEAD", "a%20b", "").status)
}

func TestWhoMayEnter(t *testing.T) {
	t.Parallel()
	c := newClient(t, t.TempDir(), Options{})
	require.Equal(t, 200, c.edge("PUT", "a", "one").status)
	edge, api := c.url+"/"+c.SiteID+"/site:kv/a", c.url+"/api/v1/blobs/"+c.SiteID+"/site:kv/a"
	for name, tt := range map[string]struct {
		method, address, token string
		want                   int
	}{
		"Edge":                {"GET", edge, c.EventToken, 200},
		"ErrEdgeNoToken":      {"GET", edge, "", 401},
		"ErrEdgeWrongToken":   {"PUT", edge, "x", 401},
		"ErrEdgeAPIToken":     {"GET", edge, c.APIToken, 401},
		"API":                 {"HEAD", api, c.APIToken, 200},
		"ErrAPINoToken":       {"HEAD", api, "", 401},
		"ErrAPIWrongToken":    {"PUT", api, c.APIToken + "x", 401},
		"ErrAPIEventToken":    {"DELETE", api, c.EventToken, 401},
		"ErrListNoToken":      {"GET", c.url + "/" + c.SiteID + "/site:kv", "", 401},
		"ErrUnsigned":         {"GET", c.url + "/_signed/" + c.SiteID + "/site:kv/a", "", 403},
		"ErrOtherSite":        {"GET", c.url + "/other/site:kv/a", c.EventToken, 403},
		"ErrOtherSiteAPI":     {"HEAD", c.url + "/api/v1/blobs/other/site:kv/a", c.APIToken, 403},
		"ErrUnknownRegion":    {"GET", c.url + "/region:moon/" + c.SiteID + "/site:kv/a", c.EventToken, 400},
		"ErrUnknownRegionAPI": {"HEAD", api + "?region=moon", c.APIToken, 400},
		"ErrQuery":            {"HEAD", api + "?a=%zz", c.APIToken, 400},
		"ErrNoStore":          {"GET", c.url + "/" + c.SiteID, c.EventToken, 501},
		"ErrStoreName":        {"GET", c.url + "/" + c.SiteID + "/site:" + strings.Repeat("s", 65), c.EventToken, 400},
	} {
		t.Run(name, func(t *testing.T) {
			res := c.do(tt.method, tt.address, tt.token, "x")
			require.Equal(t, tt.want, res.status, res.body)
			require.Equal(t, tt.want >= 400, res.header.Get("X-Nf-Error") != "")
		})
	}
	require.Equal(t, "one", c.edge("GET", "a", "").body)

	var event map[string]string
	text, err := base64.StdEncoding.DecodeString(c.Event)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &event))
	require.Equal(t, map[string]string{
		"url": c.url, "url_uncached": c.url, "token": c.EventToken, "primary_region": "us-east-1",
	}, event)
}

func TestConditions(t *testing.T) {
	t.Parallel()
	c := newClient(t, t.TempDir(), Options{})
	require.Equal(t, 412, c.edge("PUT", "a", "0", "If-Match", `"none"`).status)
	first := c.edge("PUT", "a", "1", "If-None-Match", "*")
	require.Equal(t, 200, first.status)
	require.Equal(t, 412, c.edge("PUT", "a", "2", "If-None-Match", "*").status)
	second := c.edge("PUT", "a", "3", "If-Match", first.header.Get("Etag"))
	require.Equal(t, 200, second.status)
	require.Equal(t, 412, c.edge("PUT", "a", "4", "If-Match", first.header.Get("Etag")).status)
	require.Equal(t, 412, c.do("PUT", c.signed("PUT", "a"), "", "5", "If-None-Match", "*").status)
	require.Equal(t, 200, c.do("PUT", c.signed("PUT", "a"), "", "6", "If-Match", second.header.Get("Etag")).status)
	require.Equal(t, 400, c.edge("PUT", "a", "7", "If-None-Match", `"etag"`).status)
	require.Equal(t, 400, c.edge("DELETE", "a", "", "If-Match", `"etag"`).status)
	require.Equal(t, "6", c.edge("GET", "a", "").body)
	require.Equal(t, 204, c.edge("DELETE", "a", "").status)
	require.Equal(t, 200, c.edge("PUT", "a", "8", "If-None-Match", "*").status)
}

func TestFiftyCreateOnlyWritesHaveOneWinner(t *testing.T) {
	t.Parallel()
	c := newClient(t, t.TempDir(), Options{})
	for round := range 20 {
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				switch res := c.edge("PUT", fmt.Sprint("round", round), fmt.Sprint(i), "If-None-Match", "*"); res.status {
				case 200:
					won.Add(1)
				case 412:
				default:
					t.Errorf("status %d: %s", res.status, res.body)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, won.Load())
	}
}

func TestCompareAndSetLosesNothing(t *testing.T) {
	t.Parallel()
	c := newClient(t, t.TempDir(), Options{})
	require.Equal(t, 200, c.edge("PUT", "n", "0").status)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for done := 0; done < 10; {
				got := c.edge("GET", "n", "")
				n, err := strconv.Atoi(got.body)
				if err != nil {
					t.Error(err)
					return
				}
				if c.edge("PUT", "n", fmt.Sprint(n+1), "If-Match", got.header.Get("Etag")).status == 200 {
					done++
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, "100", c.edge("GET", "n", "").body)
}

func TestEtagsNeverRepeat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seen := map[string]bool{}
	for range 3 {
		c := newClient(t, dir, Options{})
		for range 20 {
			etag := c.edge("PUT", "a", "same").header.Get("Etag")
			require.False(t, seen[etag])
			seen[etag] = true
		}
		require.Equal(t, 204, c.edge("DELETE", "a", "").status)
		require.NoError(t, c.server.Close())
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	c := newClient(t, t.TempDir(), Options{})
	odd := []string{
		"a", "a/b", "a/", "a//b", "a b", "a+b", "a%b", "a%2Fb", "q?x", "h#y", `back\slash`, `"quoted"`, "it's", "<&>", "*", "new\nline", "nul\x00",
		"emoji 😀/é/e\u0301", "CON", ".hidden", "...", "COM1/aux.", "A", strings.Repeat("k", 600), strings.Repeat("é", 300), "site:x", "region:y/z",
	}
	for _, key := range odd {
		require.Equal(t, 200, c.edge("PUT", url.PathEscape(key), "value of "+key).status, key)
	}
	for _, key := range odd {
		require.Equal(t, "value of "+key, c.edge("GET", url.PathEscape(key), "").body)
		require.Equal(t, "value of "+key, c.do("GET", c.signed("GET", url.PathEscape(key)), "", "").body)
		require.Contains(t, c.list(key, false).keys(), key)
	}
	slices.Sort(odd)
	require.Equal(t, odd, c.list("", false).keys())

	for _, path := range []string{
		"/a", "%2Fa", "a/../b", "./a", "a/%2e%2e", "..", strings.Repeat("k", 601), strings.Repeat("%C3%A9", 301), "%ff", "a%C3",
	} {
		require.Equal(t, 400, c.edge("PUT", path, "x").status, path)
	}
	require.Equal(t, odd, c.list("", false).keys())

	// Stores do not see each other.
	require.Equal(t, 404, c.do("GET", c.url+"/"+c.SiteID+"/deploy:1:kv/a", c.EventToken, "").status)
}

func TestListPages(t *testing.T) {
	t.Parallel()
	c := newClient(t, t.TempDir(), Options{})
	var want []string
	for i := range 2500 {
		_, err := c.server.blobs.put("site:kv", fmt.Sprintf("p/%04d", i), []byte("12345"), "", condition{})
		require.NoError(t, err)
		want = append(want, fmt.Sprintf("p/%04d", i))
	}
	require.Equal(t, 200, c.edge("PUT", "o", "").status)
	require.Equal(t, 200, c.edge("PUT", "q", "").status)

	var got, sizes = []string{}, []int{}
	q := url.Values{"prefix": {"p/"}}
	for {
		l := c.page(q)
		got, sizes = append(got, l.keys()...), append(sizes, len(l.Blobs))
		if l.NextCursor == "" {
			break
		}
		q.Set("cursor", l.NextCursor)
		require.Equal(t, 200, c.edge("PUT", fmt.Sprintf("p/%s-new", l.Blobs[500].Key[2:]), "").status) // behind the cursor
	}
	require.Equal(t, want, got)
	require.Equal(t, []int{1000, 1000, 500}, sizes)

	l := c.page(url.Values{"prefix": {"q"}})
	require.Empty(t, l.NextCursor)
	l = c.page(url.Values{"prefix": {"p/0000"}})
	require.EqualValues(t, 5, l.Blobs[0].Size)
	require.Equal(t, c.edge("HEAD", "p/0000", "").header.Get("Etag"), l.Blobs[0].Etag)
	at, err := time.Parse(time.RFC3339, l.Blobs[0].LastModified)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), at, time.Minute)
	require.Equal(t, 400, c.do("GET", c.url+"/"+c.SiteID+"/site:kv?cursor=!", c.EventToken, "").status)

	var deleted struct {
		N       int  `json:"blobs_deleted"`
		HasMore bool `json:"has_more"`
	}
	require.NoError(t, json.Unmarshal([]byte(c.edge("DELETE", "", "").body), &deleted))
	require.Equal(t, 1000, deleted.N)
	require.True(t, deleted.HasMore)
}

// TestListsLikeAModel compares random lists with what a plain loop over all keys gives.
func TestListsLikeAModel(t *testing.T) {
	t.Parallel()
	c := newClient(t, t.TempDir(), Options{PageSize: 3})
	r := rand.New(rand.NewPCG(1, 2))
	word := func(n int) string {
		b := make([]byte, r.IntN(n))
		for i := range b {
			b[i] = "ab/0."[r.IntN(5)]
		}
		return string(b)
	}
	keys := []string{}
	for len(keys) < 200 {
		key := "k" + word(7) + "k"
		if strings.Contains(key, "/./") || strings.Contains(key, "/../") || slices.Contains(keys, key) {
			continue
		}
		require.Equal(t, 200, c.edge("PUT", key, "").status)
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for range 300 {
		prefix := ("k" + word(4))[r.IntN(2):]
		directories := r.IntN(2) == 1
		var blobs, dirs []string
		for _, key := range keys {
			rest, ok := strings.CutPrefix(key, prefix)
			if slash := strings.Index(rest, "/"); ok && directories && slash >= 0 {
				dirs = append(dirs, prefix+rest[:slash])
			} else if ok {
				blobs = append(blobs, key)
			}
		}
		got := c.list(prefix, directories)
		require.Equal(t, append([]string{}, blobs...), got.keys(), prefix)
		require.Equal(t, slices.Compact(dirs), got.Directories, prefix)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	before := newClient(t, dir, Options{})
	large := strings.Repeat("5 MB\n\x00", 1<<20)
	require.Equal(t, 200, before.edge("PUT", "large", large).status)
	require.Equal(t, 200, before.edge("PUT", "with", "metadata", "X-Amz-Meta-User", "b64;e30=").status)
	require.Equal(t, 200, before.edge("PUT", "gone", "").status)
	require.Equal(t, 204, before.edge("DELETE", "gone", "").status)
	for i := range 300 {
		require.Equal(t, 200, before.edge("PUT", fmt.Sprint("many/", i), fmt.Sprint(i)).status)
	}
	want, address := before.list("", false), before.signed("GET", "large")
	require.NoError(t, before.server.Close())
	require.Equal(t, 503, before.edge("PUT", "late", "").status)
	require.Equal(t, 503, before.edge("DELETE", "with", "").status)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "tmp", "123"), []byte(`{"key":"torn","si`), 0o600))
	after := newClient(t, dir, Options{})
	require.Equal(t, want, after.list("", false))
	require.Equal(t, large, after.edge("GET", "large", "").body)
	require.Equal(t, "b64;e30=", after.edge("HEAD", "with", "").header.Get("Netlify-Blobs-Metadata"))
	require.Equal(t, large, after.do("GET", strings.Replace(address, before.url, after.url, 1), "", "").body)
	after.Event, after.APIURL = before.Event, before.APIURL // these hold the port
	require.Equal(t, before.Access, after.Access)
	left, err := os.ReadDir(filepath.Join(dir, "tmp"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestOpenNamesADamagedFile(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func([]byte) []byte{
		"Cut":    func(b []byte) []byte { return b[:len(b)-1] },
		"Empty":  func([]byte) []byte { return nil },
		"NoJSON": func([]byte) []byte { return []byte("x\n") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := newClient(t, dir, Options{})
			require.Equal(t, 200, c.edge("PUT", "a", "one").status)
			require.NoError(t, c.server.Close())
			file, _ := c.server.blobs.place("site:kv", "a")
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, damage(content), 0o600))
			_, err = Open(dir, Options{})
			require.ErrorContains(t, err, file)
		})
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	c := newClient(t, t.TempDir(), Options{MaxValueBytes: 10})
	require.Equal(t, 200, c.edge("PUT", "a", strings.Repeat("x", 10)).status)
	require.Equal(t, 413, c.edge("PUT", "a", strings.Repeat("y", 11)).status)
	require.Equal(t, 200, c.edge("PUT", "m", "", "X-Amz-Meta-User", strings.Repeat("m", 2026)).status)
	require.Equal(t, 400, c.edge("PUT", "m", "", "X-Amz-Meta-User", strings.Repeat("m", 2027)).status)

	conn, err := net.Dial("tcp", strings.TrimPrefix(c.url, "http://"))
	require.NoError(t, err)
	fmt.Fprintf(conn, "PUT /%s/site:kv/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 9\r\n\r\nhalf", c.SiteID, c.EventToken)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(answer), "400 Bad Request")
	require.NoError(t, conn.Close())
	require.Equal(t, strings.Repeat("x", 10), c.edge("GET", "a", "").body)
}

// TestManyAtOnce is for the race detector: every kind of request at once, and the survivors are whole.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newClient(t, dir, Options{PageSize: 7})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 0))
			for range 100 {
				key := fmt.Sprint("k/", r.IntN(20))
				switch r.IntN(5) {
				case 0, 1:
					c.edge("PUT", key, strings.Repeat(key, 1+r.IntN(1000)))
				case 2:
					if res := c.edge("GET", key, ""); res.status == 200 && strings.ReplaceAll(res.body, key, "") != "" {
						t.Errorf("%s holds something else", key)
					}
				case 3:
					c.edge("DELETE", key, "")
				case 4:
					if l := c.page(url.Values{"prefix": {"k/"}}); !slices.IsSorted(l.keys()) {
						t.Errorf("not in order: %v", l.keys())
					}
				}
			}
		})
	}
	wg.Wait()
	want := c.list("", false)
	require.NoError(t, c.server.Close())
	require.Equal(t, want, newClient(t, dir, Options{}).list("", false))
}

func (c *client) setFaults(f Faults) {
	c.t.Helper()
	text, err := json.Marshal(f)
	require.NoError(c.t, err)
	res := c.do("PUT", c.url+FaultsPath, "", string(text))
	require.Equal(c.t, 200, res.status, res.body)
}

func TestFaults(t *testing.T) {
	t.Parallel()
	c := newClient(t, t.TempDir(), Options{})
	require.Equal(t, 200, c.edge("PUT", "a", "0123456789").status)

	c.setFaults(Faults{RateLimited: 1, RetryAfterSeconds: 2})
	res := c.edge("PUT", "a", "x")
	require.Equal(t, 429, res.status)
	require.Equal(t, "2", res.header.Get("Retry-After"))
	reset, err := strconv.ParseInt(res.header.Get("X-RateLimit-Reset"), 10, 64)
	require.NoError(t, err)
	require.InDelta(t, time.Now().Unix()+2, reset, 2)

	c.setFaults(Faults{ServerError: 1, Methods: []string{"put"}})
	require.GreaterOrEqual(t, c.edge("PUT", "a", "x").status, 500)
	require.Equal(t, "0123456789", c.edge("GET", "a", "").body)

	c.setFaults(Faults{CutOff: 1})
	res, err = c.try("GET", c.url+"/"+c.SiteID+"/site:kv/a", c.EventToken, "")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, "01234", res.body)

	c.setFaults(Faults{LostAnswer: 1, Methods: []string{"PUT"}})
	_, err = c.try("PUT", c.url+"/"+c.SiteID+"/site:kv/a", c.EventToken, "carried out")
	require.Error(t, err)
	require.Equal(t, "carried out", c.edge("GET", "a", "").body)

	c.setFaults(Faults{ExpiredURL: 1})
	require.Equal(t, 403, c.do("GET", c.signed("GET", "a"), "", "").status)

	// A write that its client gave up on still arrives.
	c.setFaults(Faults{Delayed: 1, DelayMS: 2000, Methods: []string{"PUT"}})
	hurried := &http.Client{Timeout: 500 * time.Millisecond}
	req, err := http.NewRequest("PUT", c.url+"/"+c.SiteID+"/site:kv/a", strings.NewReader("late"))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+c.EventToken)
	_, err = hurried.Do(req)
	require.True(t, os.IsTimeout(err), err)
	require.Equal(t, "carried out", c.edge("GET", "a", "").body)
	require.Eventually(t, func() bool { return c.edge("GET", "a", "").body == "late" }, time.Minute, 10*time.Millisecond)

	run := func() (statuses []int) {
		c.setFaults(Faults{Seed: 7, RateLimited: 0.2, ServerError: 0.2, Methods: []string{"HEAD"}})
		for range 200 {
			statuses = append(statuses, c.edge("HEAD", "a", "").status)
		}
		return statuses
	}
	first := run()
	require.Equal(t, first, run())
	var shown struct {
		Faults Faults
		Counts map[string]int
	}
	require.NoError(t, json.Unmarshal([]byte(c.do("GET", c.url+FaultsPath, "", "").body), &shown))
	require.EqualValues(t, 7, shown.Faults.Seed)
	require.InDelta(t, 40, shown.Counts["rate_limited"], 25)
	require.InDelta(t, 40, shown.Counts["server_error"], 25)

	for _, bad := range []string{`{"server_error":2}`, `{"delay_ms":-1}`, `{"unknown":1}`, `x`} {
		require.Equal(t, 400, c.do("PUT", c.url+FaultsPath, "", bad).status)
	}
	require.Equal(t, 405, c.do("POST", c.url+FaultsPath, "", "{}").status)
	require.Equal(t, 200, c.do("DELETE", c.url+FaultsPath, "", "").status)
	for range 50 {
		require.Equal(t, 200, c.edge("HEAD", "a", "").status)
	}
}

func TestFaultsAreForThisMachineOnly(t *testing.T) {
	t.Parallel()
	s, err := Open(t.TempDir(), Options{})
	require.NoError(t, err)
	r := httptest.NewRequest("PUT", FaultsPath, strings.NewReader(`{"server_error":1}`))
	r.RemoteAddr = "192.0.2.1:1234"
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	require.Equal(t, 403, w.Code)
}

func TestDiskTrouble(t *testing.T) {
	t.Parallel()
	c := newClient(t, t.TempDir(), Options{})
	require.Equal(t, 200, c.edge("PUT", "a", "one").status)
	require.NoError(t, os.RemoveAll(filepath.Join(c.server.blobs.dir, "tmp")))
	require.Equal(t, 500, c.edge("PUT", "a", "two").status)
	require.Equal(t, "one", c.edge("GET", "a", "").body)

	file, _ := c.server.blobs.place("site:kv", "a")
	require.NoError(t, os.Remove(file))
	require.Equal(t, 500, c.edge("GET", "a", "").status) // the index knows better than to say that it never was

	plain := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(plain, nil, 0o600))
	_, err := Open(plain, Options{})
	require.Error(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(c.server.blobs.dir, "access.json"), []byte("x"), 0o600))
	_, err = Open(c.server.blobs.dir, Options{})
	require.Error(t, err)
	require.False(t, errors.Is(err, os.ErrNotExist))
}

// BenchmarkPut writes 1 KB each from as many goroutines as there are processors.
func BenchmarkPut(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	require.NoError(b, err)
	value := bytes.Repeat([]byte("v"), 1024)
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.blobs.put("site:kv", fmt.Sprint("key/", n.Add(1)), value, "", condition{}); err != nil {
				b.Error(err)
			}
		}
	})
}
