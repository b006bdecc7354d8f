package blobs_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/kv/kvtest"
)

// newStore returns an empty store on the stand-in for hosted Netlify Blobs, with the access of a function.
func newStore(t *testing.T) (*blobs.Store, *blobs.Client) {
	t.Helper()
	server, err := blobstest.Open(t.TempDir(), blobstest.Options{PageSize: 50})
	require.NoError(t, err)
	listening := httptest.NewServer(server)
	t.Cleanup(func() {
		listening.Close()
		require.NoError(t, server.Close())
	})
	way := server.Access(listening.URL)
	access, err := blobs.AccessFromEvent(way.Event, way.SiteID)
	require.NoError(t, err)
	// Values of megabytes take longer than a function waits, on a busy machine with the race detector.
	client := func(name string) *blobs.Client {
		return blobs.NewClient(name).WithDefault(access).WithBackgroundRetries(10 * time.Minute)
	}
	return blobs.NewStore(client("kv"), client("kv-indexes")), client("kv")
}

func TestStoreContract(t *testing.T) {
	store, _ := newStore(t)
	kvtest.Run(t, store, kvtest.Limits{CheckKey: blobs.CheckKey, MaxKeyBytes: blobs.MaxKeyBytes, NoQueries: true})
}

func TestBlobsOfTheJavaScriptFunctionsAreEntries(t *testing.T) {
	t.Parallel()
	store, client := newStore(t)
	ctx := t.Context()
	for key, text := range map[string]string{"index:s": `["a","b"]`, "s/a": `{"n":1}`, "s/b": `{"n":2}`} { // like setJSON
		_, err := client.Set(ctx, key, []byte(text), blobs.SetOptions{})
		require.NoError(t, err)
	}
	for _, order := range []kv.SortKey{{}, {Path: "createdAt"}, {Path: "updatedAt", Descending: true}} {
		answer, err := store.List(ctx, kv.ListQuery{Prefix: "s/", Values: true, Sort: order})
		require.NoError(t, err)
		require.Contains(t, answer, `"s/a":{"n":1}`)
	}
	_, err := store.Upsert(ctx, kv.Entry{Key: "s/c", Value: `{}`, Indexes: []kv.Index{{Key: "index:s", Member: "b"}, {Key: "index:s", Member: "c"}}})
	require.NoError(t, err)
	value, err := store.Get(ctx, "index:s")
	require.NoError(t, err)
	require.Equal(t, `["a","b","c"]`, value)
}

func TestBlobThatIsNotJSON(t *testing.T) {
	t.Parallel()
	store, client := newStore(t)
	_, err := client.Set(t.Context(), "odd", []byte("\x00\xff not json"), blobs.SetOptions{})
	require.NoError(t, err)
	_, err = store.Get(t.Context(), "odd")
	require.Equal(t, kv.CodeNotJSON, kv.CodeOf(err))
	require.ErrorContains(t, err, "not JSON")
	_, err = store.List(t.Context(), kv.ListQuery{Values: true})
	require.ErrorContains(t, err, `"odd" is not JSON`)
	answer, err := store.List(t.Context(), kv.ListQuery{})
	require.NoError(t, err)
	require.Equal(t, `{"keys":["odd"],"count":1}`, answer)

	_, err = client.Set(t.Context(), "odd", []byte("[\"caf\xe9\"]"), blobs.SetOptions{}) // encoding/json would accept it
	require.NoError(t, err)
	_, err = store.Get(t.Context(), "odd")
	require.ErrorContains(t, err, "not JSON", "JSON is UTF-8")
	_, err = store.List(t.Context(), kv.ListQuery{Values: true})
	require.ErrorContains(t, err, `"odd" is not JSON`)
	_, _, err = store.Read(t.Context(), "odd")
	require.ErrorContains(t, err, "not JSON")
}

// Other clients can write keys that this one cannot address, such as one that looks percent-encoded.
func TestListedKeyThatCannotBeRead(t *testing.T) {
	t.Parallel()
	server, err := blobstest.Open(t.TempDir(), blobstest.Options{})
	require.NoError(t, err)
	listening := httptest.NewServer(server)
	t.Cleanup(listening.Close)
	way := server.Access(listening.URL)
	request, err := http.NewRequest(http.MethodPut, listening.URL+"/"+way.SiteID+"/site:kv/a%2522b", strings.NewReader("{}"))
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+way.EventToken)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
	client := blobs.NewClient("kv").WithDefault(blobs.Access{SiteID: way.SiteID, EdgeURL: listening.URL, EdgeToken: way.EventToken})
	store := blobs.NewStore(client, client)
	answer, err := store.List(t.Context(), kv.ListQuery{})
	require.NoError(t, err)
	require.Equal(t, `{"keys":["a%22b"],"count":1}`, answer)
	for _, q := range []kv.ListQuery{{Values: true}, {Sort: kv.SortKey{Path: "updatedAt"}}} {
		_, err = store.List(t.Context(), q)
		require.ErrorContains(t, err, `the blob "a%22b" cannot be read here: the key must not contain a %`)
	}
}

// 2 kB of metadata hold some dozens of indexes. More are in another blob.
func TestIndexesThatDoNotFitIntoMetadata(t *testing.T) {
	t.Parallel()
	store, client := newStore(t)
	ctx := t.Context()
	var indexes []kv.Index
	for i := range 200 {
		indexes = append(indexes, kv.Index{Key: "index:all", Member: kv.TextMember(fmt.Sprint("member-", i))})
	}
	upsert := func(key string, indexes []kv.Index) {
		t.Helper()
		_, err := store.Upsert(ctx, kv.Entry{Key: key, Value: `{}`, Indexes: indexes})
		require.NoError(t, err)
	}
	requireKeys := func(want string, q kv.ListQuery) {
		t.Helper()
		answer, err := store.List(ctx, q)
		require.NoError(t, err)
		require.Equal(t, want, answer)
	}
	upsert("many", indexes)
	upsert("many too", indexes)
	upsert("few", indexes[:10])
	requireKeys(`{"keys":["few","many","many too"],"count":3}`, kv.ListQuery{Indexes: []string{"index:all:member-1"}})
	requireKeys(`{"keys":["many","many too"],"count":2}`, kv.ListQuery{Indexes: []string{"index:all:member-199"}})
	upsert("many", nil) // absent indexes stay
	requireKeys(`{"keys":["many","many too"],"count":2}`, kv.ListQuery{Indexes: []string{"index:all:member-199"}})
	upsert("many", indexes[:1])
	requireKeys(`{"keys":["many too"],"count":1}`, kv.ListQuery{Indexes: []string{"index:all:member-199"}})
	value, err := store.Get(ctx, "index:all")
	require.NoError(t, err)
	require.Equal(t, 200, strings.Count(value, "member-"))

	withoutSets := blobs.NewStore(client, client)
	_, err = withoutSets.List(ctx, kv.ListQuery{Indexes: []string{"index:all:member-199"}})
	require.Equal(t, kv.CodeDatabaseUnreachable, kv.CodeOf(err), "a list is never told that a key is not found")
	require.ErrorContains(t, err, "the blob with the indexes of an entry is gone")
}

func TestListsHaveTheLimitsOfSupabase(t *testing.T) {
	t.Parallel()
	store, _ := newStore(t)
	ctx := t.Context()
	for i := range 7 {
		_, err := store.Upsert(ctx, kv.Entry{Key: fmt.Sprint("k", i), Value: `["` + strings.Repeat("x", 1<<20) + `"]`})
		require.NoError(t, err)
	}
	_, err := store.List(ctx, kv.ListQuery{Values: true})
	require.Equal(t, kv.CodeTooLarge, kv.CodeOf(err))
	limit := 7
	answer, err := store.List(ctx, kv.ListQuery{Values: true, Limit: &limit})
	require.NoError(t, err)
	require.Contains(t, answer, `"keys":["k0","k1","k2","k3"],"count":4`)
	require.Contains(t, answer, `"hasMore":true`)
	_, err = store.Upsert(ctx, kv.Entry{Key: "a", Value: `["` + strings.Repeat("x", 7<<20) + `"]`})
	require.NoError(t, err)
	_, err = store.List(ctx, kv.ListQuery{Values: true, Limit: &limit})
	require.Equal(t, kv.CodeTooLarge, kv.CodeOf(err))
	require.ErrorContains(t, err, `the entry "a" alone`)
}

// The server of netlify dev returns no etags on reads. Entries can be written there, without a condition.
func TestBlobsWithoutETags(t *testing.T) {
	t.Parallel()
	server, err := blobstest.Open(t.TempDir(), blobstest.Options{})
	require.NoError(t, err)
	listening := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		server.ServeHTTP(answer, r)
		answer.Header().Del("Etag")
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}))
	t.Cleanup(listening.Close)
	way := server.Access(listening.URL)
	access, err := blobs.AccessFromEvent(way.Event, way.SiteID)
	require.NoError(t, err)
	client := blobs.NewClient("kv").WithDefault(access)
	store := blobs.NewStore(client, client)
	for n := range 3 {
		entry := kv.Entry{Key: "k", Value: fmt.Sprintf(`{"n":%d}`, n), Indexes: []kv.Index{{Key: "i", Member: kv.TextMember(fmt.Sprint(n))}}}
		_, err := store.Upsert(t.Context(), entry)
		require.NoError(t, err)
		value, err := store.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, entry.Value, value)
	}
	value, err := store.Get(t.Context(), "i")
	require.NoError(t, err)
	require.Equal(t, `["0","1","2"]`, value)
	written, err := store.Delete(t.Context(), "k")
	require.NoError(t, err)
	require.True(t, written.Existed)
}

func TestNoAccessSaysWhatToSet(t *testing.T) {
	t.Parallel()
	store := blobs.NewStore(blobs.NewClient("kv"), blobs.NewClient("kv-indexes"))
	_, err := store.Get(t.Context(), "k")
	require.Equal(t, kv.CodeNotConfigured, kv.CodeOf(err))
	require.ErrorContains(t, err, "NETLIFY_BLOBS_TOKEN")
	server, err := blobstest.Open(t.TempDir(), blobstest.Options{})
	require.NoError(t, err)
	listening := httptest.NewServer(server)
	t.Cleanup(listening.Close)
	way := server.Access(listening.URL)
	wrong := blobs.NewClient("kv").WithDefault(blobs.Access{SiteID: way.SiteID, APIURL: way.APIURL, APIToken: "wrong"})
	store = blobs.NewStore(wrong, wrong)
	_, err = store.Upsert(t.Context(), kv.Entry{Key: "k", Value: `{}`})
	require.Equal(t, kv.CodeNotConfigured, kv.CodeOf(err))
	require.ErrorContains(t, err, "refused the token")
}
