package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/kv/kvtest"
	"netlify-supabase-kv/pkg/migrate/migratetest"
)

func TestMain(m *testing.M) { os.Exit(migratetest.Main(m)) }

// pairTest is a part of the real Supabase and the stand-in for hosted Blobs, with faults on demand.
type pairTest struct {
	*Pair
	t        testing.TB
	log      *log
	prefix   string
	faults   string // address for setting them
	way      blobs.Access
	database *migratetest.Database
	blobs    *counted
}

func newPair(t testing.TB) *pairTest {
	t.Helper()
	server, err := blobstest.Open(t.TempDir(), blobstest.Options{PageSize: 200})
	require.NoError(t, err)
	handler := &counted{Handler: server}
	listening := httptest.NewServer(handler)
	t.Cleanup(listening.Close)
	way := server.Access(listening.URL)
	access, err := blobs.AccessFromEvent(way.Event, way.SiteID)
	require.NoError(t, err)
	p := &pairTest{
		t: t, log: &log{}, prefix: "mirror/" + uuid.NewString() + "/", faults: listening.URL + blobstest.FaultsPath, way: access,
		database: migratetest.NewDatabase(t), blobs: handler,
	}
	p.Pair = p.instance()
	return p
}

// instance returns another instance of the functions: other clients on the same stores, with ample time.
func (p *pairTest) instance() *Pair {
	p.t.Helper()
	store, err := kv.NewSupabase(p.database.URL, p.database.Key)
	require.NoError(p.t, err)
	return &Pair{
		Supabase: store, Blobs: blobs.NewStore(blobs.NewClient("kv").WithDefault(p.way), blobs.NewClient("kv-indexes").WithDefault(p.way)),
		Log: slog.New(slog.NewJSONHandler(p.log, nil)), Timeout: time.Minute,
	}
}

// counted counts the requests in progress.
type counted struct {
	http.Handler
	underWay, begun atomic.Int64
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.begun.Add(1)
	c.underWay.Add(1)
	defer c.underWay.Add(-1)
	c.Handler.ServeHTTP(w, r)
}

// waitForLateWrites waits until abandoned requests have arrived or ended in both stores: until none is in progress and
// none arrives for a while.
func (p *pairTest) waitForLateWrites() {
	p.t.Helper()
	var begun int64
	quiet := 0
	require.Eventually(p.t, func() bool {
		var active int
		if err := p.database.SQL.QueryRow(p.t.Context(), "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and (state <> 'idle' or xact_start is not null)").Scan(&active); err != nil {
			p.t.Errorf("look at the database: %v", err)
			return true
		}
		now := p.blobs.begun.Load()
		if active > 0 || p.blobs.underWay.Load() > 0 || now != begun {
			quiet = 0
		} else {
			quiet++
		}
		begun = now
		return quiet >= 20
	}, 2*time.Minute, 20*time.Millisecond)
}

// throughAPI moves the pair's Blobs to another server, through the API, as on Netlify.
func (p *pairTest) throughAPI(server *blobstest.Server, limiter *blobs.Limiter) {
	p.t.Helper()
	listening := httptest.NewServer(server)
	p.t.Cleanup(listening.Close)
	way := server.Access(listening.URL)
	p.faults, p.way = listening.URL+blobstest.FaultsPath, blobs.Access{SiteID: way.SiteID, APIURL: way.APIURL, APIToken: way.APIToken}
	client := func(store string) *blobs.Client {
		return blobs.NewClient(store).WithDefault(p.way).WithLimiter(limiter)
	}
	p.Pair.Blobs = blobs.NewStore(client("kv"), client("kv-indexes"))
}

// log is the log of all instances of a test.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(text)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (p *pairTest) setFaults(f blobstest.Faults) {
	p.t.Helper()
	body, err := json.Marshal(f)
	require.NoError(p.t, err)
	request, err := http.NewRequest(http.MethodPut, p.faults, bytes.NewReader(body))
	require.NoError(p.t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(p.t, err)
	require.NoError(p.t, response.Body.Close())
	require.Equal(p.t, http.StatusOK, response.StatusCode)
}

// outbox returns the keys of the test's outbox entries.
func (p *pairTest) outbox() (keys []string) {
	p.t.Helper()
	rows, err := p.database.SQL.Query(p.t.Context(), "select key from kv.outbox where starts_with(key, $1) order by id", p.prefix)
	require.NoError(p.t, err)
	keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(p.t, err)
	return keys
}

// repair repairs every outbox entry.
func (p *pairTest) repair(primary Primary) {
	p.t.Helper()
	before := len(p.outbox())
	r, err := p.Repair(p.t.Context(), primary)
	require.NoError(p.t, err)
	require.Equal(p.t, Repairs{Found: before, Repaired: before}, r)
}

// everything returns the values under the prefix, by key.
func (p *pairTest) everything(store kv.Store) map[string]json.RawMessage {
	p.t.Helper()
	text, err := store.List(p.t.Context(), kv.ListQuery{Prefix: p.prefix, Values: true})
	require.NoError(p.t, err)
	var list struct{ Data map[string]json.RawMessage }
	require.NoError(p.t, json.Unmarshal([]byte(text), &list))
	return list.Data
}

func (p *pairTest) requireAlike(message string) {
	p.t.Helper()
	require.Empty(p.t, contents{values: p.everything(p.Supabase)}.differences(contents{values: p.everything(p.Blobs)}), message)
}

func first(p *Pair, primary Primary) kv.Store {
	if primary == PrimarySupabase {
		return NewSupabasePrimary(p)
	}
	return NewBlobsPrimary(p)
}

var directions = []Primary{PrimarySupabase, PrimaryBlobs}

func TestMirroredStoreContract(t *testing.T) {
	t.Parallel()
	for _, direction := range directions {
		t.Run(string(direction), func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			kvtest.Run(t, first(p.Pair, direction), kvtest.Limits{
				CheckKey: blobs.CheckKey, MaxKeyBytes: blobs.MaxKeyBytes, NoQueries: direction == PrimaryBlobs,
			})
		})
	}
}

func TestWriteIsInBothStoresWhenItReturns(t *testing.T) {
	t.Parallel()
	for _, direction := range directions {
		t.Run(string(direction), func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			store := first(p.Pair, direction)
			ctx := t.Context()
			index := kv.Index{Key: p.prefix + "index", Member: "a"}
			upsert := func(key, value string, indexes ...kv.Index) {
				t.Helper()
				_, err := store.Upsert(ctx, kv.Entry{Key: p.prefix + key, Value: value, Indexes: indexes})
				require.NoError(t, err)
				p.requireAlike("after the upsert of " + key)
				require.Empty(t, p.outbox(), "of "+key)
			}
			upsert("a", `{"b":1,"a":1.0}`, index)
			upsert("a", `{"n":2}`)
			upsert("b", ` [ ] `, kv.Index{Key: p.prefix + "index", Member: "b"}, kv.Index{Key: p.prefix + "other", Member: "b"})
			upsert("index", `["replaced"]`)
			upsert("c", `null`, kv.Index{Key: p.prefix + "index", Member: "c"})
			upsert("other", `{"no":"array"}`)
			upsert("d", `{"odd":"\u0000\ud800"}`, kv.Index{Key: p.prefix + "other", Member: "d"})
			for _, stored := range []kv.Store{p.Supabase, p.Blobs} {
				value, err := stored.Get(ctx, p.prefix+"index")
				require.NoError(t, err)
				require.Equal(t, `["replaced","c"]`, value)
				list, err := stored.List(ctx, kv.ListQuery{Prefix: p.prefix, IndexKeys: []string{p.prefix + "index"}})
				require.NoError(t, err)
				require.Equal(t, fmt.Sprintf(`{"keys":["%[1]sa","%[1]sb","%[1]sc"],"count":3}`, p.prefix), list, "indexes are mirrored too")
			}
			for _, key := range []string{"a", "index", "never was"} {
				_, err := store.Delete(ctx, p.prefix+key)
				require.NoError(t, err)
				p.requireAlike("after the delete of " + key)
				require.Empty(t, p.outbox(), "of "+key)
			}
			require.Empty(t, p.log.String())
		})
	}
}

// A failed copy does not fail the write. It is logged, its outbox entry stays, and repair copies it.
func TestRepairAfterAFailedCopy(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.Timeout = 300 * time.Millisecond
	store := NewSupabasePrimary(p.Pair)
	p.setFaults(blobstest.Faults{ServerError: 1})
	_, err := store.Upsert(t.Context(), kv.Entry{Key: p.prefix + "a", Value: `{"secret":"value"}`, Indexes: []kv.Index{{Key: p.prefix + "i", Member: "m"}}})
	require.NoError(t, err, "the caller is answered by Supabase")
	_, err = store.Delete(t.Context(), p.prefix+"gone")
	require.NoError(t, err)
	require.Equal(t, []string{p.prefix + "a", p.prefix + "i", p.prefix + "gone"}, p.outbox())
	require.Contains(t, p.log.String(), `"msg":"mirror failed"`)
	require.NotContains(t, p.log.String(), "secret")
	require.NotContains(t, p.log.String(), p.prefix)
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r, err := p.Repair(short, PrimarySupabase)
	require.Error(t, err, "Blobs are still away")
	require.Equal(t, Repairs{Found: 3, Failed: 3}, r)
	p.setFaults(blobstest.Faults{})
	r, err = p.Repair(t.Context(), PrimaryBlobs)
	require.ErrorIs(t, err, errOtherPrimary, "these are copied from Supabase, or by a person")
	require.Equal(t, Repairs{Found: 3, OtherPrimary: 3}, r)
	require.Len(t, p.outbox(), 3)
	p.repair(PrimarySupabase)
	p.requireAlike("after repair")
	require.Empty(t, p.outbox())

	// With Blobs as primary and the database unreachable, Blobs answers.
	away := p.instance()
	away.Supabase, err = kv.NewSupabase("http://127.0.0.1:1", "key")
	require.NoError(t, err)
	_, err = NewBlobsPrimary(away).Upsert(t.Context(), kv.Entry{Key: p.prefix + "b", Value: `{}`})
	require.NoError(t, err)
	require.Contains(t, p.log.String(), "add outbox entries")

	// With Blobs as primary and Blobs failing, the caller gets an error and the outbox entry stays: the write may
	// arrive.
	p.setFaults(blobstest.Faults{ServerError: 1})
	ctx, cancelWrite := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancelWrite()
	_, err = NewBlobsPrimary(p.Pair).Upsert(ctx, kv.Entry{Key: p.prefix + "c", Value: `{}`})
	require.Error(t, err)
	require.Equal(t, []string{p.prefix + "c"}, p.outbox())
}

func TestKeysThatBlobsCannotStoreAreRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, direction := range directions {
		store := first(p.Pair, direction)
		for _, key := range []string{"/lead", "a?b", "a#b", `a\b`, "a%41b", "a/../b", strings.Repeat("k", 601)} {
			_, err := store.Upsert(t.Context(), kv.Entry{Key: key, Value: `{}`})
			require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err), "%s: %q", direction, key)
			_, err = store.Upsert(t.Context(), kv.Entry{Key: p.prefix + "k", Value: `{}`, Indexes: []kv.Index{{Key: key, Member: "m"}}})
			require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err), "%s: index %q", direction, key)
			written, err := store.Delete(t.Context(), key)
			require.NoError(t, err, "%s: a delete of what cannot be there", direction)
			require.False(t, written.Existed)
		}
	}
	require.Empty(t, p.everything(p.Supabase))
}

// TestConcurrentWritesConverge has several instances write, index and delete the same keys, while writes to Blobs
// arrive late, fail or lose their response. After repair no key differs. MIRROR_TEST_KEYS is the number of keys.
func TestConcurrentWritesConverge(t *testing.T) {
	t.Parallel()
	const instances, callers = 3, 4
	keys := migratetest.Share(t, "MIRROR_TEST_KEYS", 120)
	for _, direction := range directions {
		t.Run(string(direction), func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			seed := migratetest.Seed(t, "MIRROR_TEST_SEED")
			p.setFaults(blobstest.Faults{Seed: seed, Methods: []string{"PUT", "DELETE"}, Delayed: 0.05, DelayMS: 250, ServerError: 0.05, LostAnswer: 0.02})
			var failed, racing atomic.Int64
			var group sync.WaitGroup
			for i := range instances {
				pair := p.instance()
				// So short that many copies are abandoned, whose requests still arrive. Only Blobs has faults, so a
				// copy to Supabase gets less time.
				pair.Timeout = map[Primary]time.Duration{PrimarySupabase: 150 * time.Millisecond, PrimaryBlobs: 5 * time.Millisecond}[direction]
				store := first(pair, direction)
				for c := range callers {
					random := rand.New(rand.NewPCG(seed, uint64(i*callers+c)))
					group.Go(func() {
						for n := range 2 * keys / (instances * callers) {
							ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
							key := fmt.Sprintf("%sk%04d", p.prefix, (n*6+random.IntN(6))%keys)
							var err error
							switch random.IntN(6) {
							case 0:
								_, err = store.Delete(ctx, key)
							case 1:
								_, err = store.Upsert(ctx, kv.Entry{Key: key, Value: fmt.Sprintf(`{"i":%d,"n":%d}`, i, n),
									Indexes: []kv.Index{{Key: fmt.Sprintf("%sx%d", p.prefix, random.IntN(20)), Member: []kv.Member{kv.TextMember(fmt.Sprint(random.IntN(50))), kv.NumberMember(fmt.Sprint(random.IntN(50)))}[random.IntN(2)]}}})
							default:
								_, err = store.Upsert(ctx, kv.Entry{Key: key, Value: fmt.Sprintf(`{"i":%d,"c":%d,"n":%d}`, i, c, n)})
							}
							cancel()
							racing.Add(1)
							if err != nil {
								failed.Add(1)
							}
						}
					})
				}
			}
			group.Wait()
			p.waitForLateWrites()
			p.setFaults(blobstest.Faults{})
			before := len(contents{values: p.everything(p.Supabase)}.differences(contents{values: p.everything(p.Blobs)}))
			known := len(p.outbox())
			p.repair(direction)
			t.Logf("%d writes, %d of them failed; %d keys differed and %d outbox entries were left before repair", racing.Load(), failed.Load(), before, known)
			require.Positive(t, known, "no write was late or failed: the race proves nothing")
			p.requireAlike("after repair")
			require.Empty(t, p.outbox())
			require.Greater(t, len(p.everything(p.Supabase)), keys/3)
		})
	}
}

// TestStoresMatchAModel applies MIRROR_TEST_STEPS random operations to both stores, to both mirrored pairs and to a
// model.
func TestStoresMatchAModel(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	steps, seed := migratetest.Share(t, "MIRROR_TEST_STEPS", 20), migratetest.Seed(t, "MIRROR_TEST_SEED")
	t.Run("Stores", func(t *testing.T) {
		kvtest.RunModel(t, map[string]kv.Store{"supabase": p.Supabase, "blobs": p.Blobs}, seed, steps)
	})
	for _, direction := range directions {
		t.Run("Mirrored/"+string(direction), func(t *testing.T) {
			kvtest.RunModel(t, map[string]kv.Store{"first": both{first(p.Pair, direction), p}}, seed, steps)
		})
	}
}

// both reads from both stores, and requires the same result.
type both struct {
	kv.Store
	pair *pairTest
}

func (b both) Get(ctx context.Context, key string) (string, error) {
	one, err := b.pair.Supabase.Get(ctx, key)
	other, otherErr := b.pair.Blobs.Get(ctx, key)
	if one != other || kv.CodeOf(err) != kv.CodeOf(otherErr) {
		return "", fmt.Errorf("Supabase has %q (%v), Blobs have %q (%v)", one, err, other, otherErr)
	}
	return one, err
}

func (b both) List(ctx context.Context, q kv.ListQuery) (string, error) {
	one, err := b.pair.Supabase.List(ctx, q)
	other, otherErr := b.pair.Blobs.List(ctx, q)
	if one != other {
		return "", fmt.Errorf("Supabase lists %q (%v), Blobs list %q (%v)", one, err, other, otherErr)
	}
	return one, err
}

// Many callers add to one index at a time. Each copies what it added, without waiting for the others.
func TestCopiesOfMembersMayOverlap(t *testing.T) {
	t.Parallel()
	p, ctx := newPair(t), t.Context()
	index := p.prefix + "index"
	add := func(member string) {
		_, err := p.Supabase.Upsert(ctx, kv.Entry{Key: p.prefix + "entry/" + member, Value: "1", Indexes: []kv.Index{{Key: index, Member: kv.TextMember(member)}}})
		require.NoError(t, err)
	}
	requireValue := func(want string) {
		t.Helper()
		value, err := p.Supabase.Get(ctx, index)
		require.NoError(t, err)
		require.Equal(t, want, value)
	}
	add("a")
	entries, err := p.Supabase.AddOutboxEntries(ctx, []string{index})
	require.NoError(t, err)
	before := entries[0].Revision
	add("b")
	copyOf := func(value string, expected kv.RowRevision, added bool) (applied bool, now kv.RowRevision) {
		applied, now, err := p.Supabase.Copy(ctx, kv.State{Key: index, Value: value, IsIndex: true}, expected, added)
		require.NoError(t, err)
		return applied, now
	}
	for what, tt := range map[string]struct {
		value string
		added bool
	}{"what replaces it": {`["a","c"]`, false}, "its removal": {"", true}, "a plain value": {`{"a":1}`, true}} {
		applied, _ := copyOf(tt.value, before, tt.added)
		require.False(t, applied, "%s comes after a member that was added since", what)
		requireValue(`["a","b"]`)
	}
	applied, now := copyOf(`["a","c"]`, before, true)
	require.True(t, applied, "members join those that were added since")
	requireValue(`["a","b","c"]`)

	add("d")
	done, _, err := p.Supabase.ConfirmCopy(ctx, entries[0], now)
	require.NoError(t, err)
	require.True(t, done, "d is for whoever added it")

	_, err = p.Supabase.Upsert(ctx, kv.Entry{Key: index, Value: `["x"]`})
	require.NoError(t, err)
	applied, _ = copyOf(`["e"]`, now, true)
	require.False(t, applied, "the index was replaced since")
	done, state, err := p.Supabase.ConfirmCopy(ctx, entries[0], now)
	require.NoError(t, err)
	require.False(t, done, "the index was replaced since")
	require.Equal(t, `["x"]`, state.Value)
}
