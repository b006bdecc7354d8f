package schema

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// together runs work n times at once, each on its own connection, and requires that none fails.
func together(t *testing.T, d *database, n int, work func(i int, conn *pgx.Conn) error) {
	t.Helper()
	conns := connections(t, d, n)
	race(t, conns, work)
	for _, conn := range conns {
		require.NoError(t, conn.Close(context.Background()))
	}
}

func connections(t *testing.T, d *database, n int) []*pgx.Conn {
	t.Helper()
	conns := make([]*pgx.Conn, n)
	for i := range conns {
		conns[i] = d.connect(t)
	}
	return conns
}

func race(t *testing.T, conns []*pgx.Conn, work func(i int, conn *pgx.Conn) error) {
	t.Helper()
	start := make(chan struct{})
	errs := make([]error, len(conns))
	var wait sync.WaitGroup
	for i, conn := range conns {
		wait.Go(func() {
			<-start
			errs[i] = work(i, conn)
		})
	}
	close(start)
	wait.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
}

func TestFiftyUpsertsOfOneKey(t *testing.T) {
	d := newDatabase(t)
	together(t, d, 50, func(i int, conn *pgx.Conn) error {
		_, err := conn.Exec(context.Background(), "select public.kv_upsert('k', $1, $2)",
			fmt.Sprintf(`{"n":%d}`, i), [][]string{{"i", fmt.Sprint(i)}})
		return err
	})
	conn := d.connect(t)
	var value struct{ N int }
	require.NoError(t, json.Unmarshal([]byte(get(t, conn, "k")), &value))
	require.Equal(t, fmt.Sprintf("{i:%d} {{i,%d}}", value.N, value.N), indexesOf(t, conn, "k"), "value and indexes of one call")
	require.Len(t, members(t, conn, "i"), 50)
}

// The cases have the same connections, since each new one compiles the functions anew.
func TestFiftyMembersOfOneIndex(t *testing.T) {
	d := newDatabase(t)
	conns := connections(t, d, 50)
	for name, first := range map[string]string{"New": "", "Known": `{"kv_upsert":true}`, "PlainObject": `{"a":1}`, "PlainArray": `["stored","7"]`} {
		t.Run(name, func(t *testing.T) {
			index, want := "i/"+name, 50
			switch name {
			case "New":
			case "Known":
				upsert(t, conns[0], "e", `{}`, pairs{{index, "first"}})
				want++
			default:
				upsert(t, conns[0], index, first, nil)
				if name == "PlainArray" {
					want++ // "stored"; "7" is also one of the fifty
				}
			}
			race(t, conns, func(i int, conn *pgx.Conn) error {
				_, err := conn.Exec(context.Background(), "select public.kv_upsert($1, '{}', $2)",
					fmt.Sprint(name, i), [][]string{{index, fmt.Sprint(i)}})
				return err
			})
			got := members(t, conns[0], index)
			require.Len(t, got, want)
			slices.Sort(got)
			require.Len(t, slices.Compact(got), want)
		})
	}
}

// An index that many add to can be replaced, if not at once: those who add share its lock and overtake one who waits
// for it alone. Here they pause after three seconds.
func TestABusyIndexCanBeReplaced(t *testing.T) {
	d := newDatabase(t)
	upsert(t, d.connect(t), "e", `{}`, pairs{{"busy", "m"}})
	var stop atomic.Bool
	var added atomic.Int64
	var replaced time.Duration
	together(t, d, 9, func(i int, conn *pgx.Conn) error {
		ctx := context.Background()
		if i == 0 {
			defer stop.Store(true)
			time.Sleep(100 * time.Millisecond)
			begin := time.Now()
			_, err := conn.Exec(ctx, `select public.kv_upsert('busy', '["replaced"]')`)
			replaced = time.Since(begin)
			return err
		}
		for n, begin := 0, time.Now(); !stop.Load() && time.Since(begin) < 3*time.Second; n++ {
			_, err := conn.Exec(ctx, "select public.kv_upsert($1, '{}', $2)", fmt.Sprint("k", i), [][]string{{"busy", fmt.Sprint(i, ".", n)}})
			if code(err) != "55P03" && err != nil {
				return err
			}
			added.Add(1)
		}
		return nil
	})
	t.Logf("waited %v while %d members came", replaced.Round(time.Millisecond), added.Load())
	require.Less(t, replaced, 15*time.Second)
	require.Contains(t, members(t, d.connect(t), "busy"), "replaced")
}

// Many add the same new members, each in another order: the second one waits, and never the first one for the second.
func TestTheSameMembersInEveryOrder(t *testing.T) {
	const workers, rounds, each = 6, 6, 900
	source := random(t)
	d := newDatabase(t)
	seeds := make([]uint64, workers)
	for i := range seeds {
		seeds[i] = source.Uint64()
	}
	together(t, d, workers, func(worker int, conn *pgx.Conn) error {
		r := rand.New(rand.NewPCG(seeds[worker], 3))
		for round := range rounds {
			var indexes pairs
			for _, n := range r.Perm(each) {
				indexes = append(indexes, []string{fmt.Sprint("i", n%3), fmt.Sprintf("%d.%d", round, n)})
			}
			if _, err := conn.Exec(context.Background(), "select public.kv_upsert($1, '{}', $2)", fmt.Sprint("k", worker), [][]string(indexes)); err != nil {
				return err
			}
		}
		return nil
	})
	conn := d.connect(t)
	for i := range 3 {
		require.Len(t, members(t, conn, fmt.Sprint("i", i)), rounds*each/3)
	}
}

func members(t *testing.T, q querier, index string) []string {
	t.Helper()
	var list []json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(get(t, q, index)), &list), index)
	texts := make([]string, 0, len(list))
	for _, element := range list {
		var text string
		require.NoError(t, json.Unmarshal(element, &text))
		texts = append(texts, text)
	}
	return texts
}

// history is what callers know about an index key at the end: which members were acknowledged, and when the key was
// last replaced or deleted.
type history struct {
	added map[string]time.Time // when the last call that added the member began
	ended time.Time            // when the last call that replaced or deleted the key was answered
}

// Random writers on entries, indexes, and keys that are both, in any order.
func TestRacingCallsNeverDeadlockAndLoseNothing(t *testing.T) {
	const workers = 16
	calls := number(t, "KV_SCHEMA_RACES", 500)
	source := random(t)
	d := newDatabase(t)

	// The keys sort between each other. Some only get members; others are also written and deleted.
	var stable, both, plain []string
	for i := range 6 {
		stable = append(stable, fmt.Sprintf("k%02d", i*4))
		both = append(both, fmt.Sprintf("k%02d", i*4+1), fmt.Sprintf("k%02d", i*4+2))
		plain = append(plain, fmt.Sprintf("k%02d", i*4+3))
	}
	indexKeys := append(slices.Clone(stable), both...)
	entryKeys := append(slices.Clone(plain), both...)

	var mutex sync.Mutex
	histories := map[string]*history{}
	for _, key := range indexKeys {
		histories[key] = &history{added: map[string]time.Time{}}
	}
	counts := map[string]int{}
	seeds := make([]uint64, workers)
	for i := range seeds {
		seeds[i] = source.Uint64()
	}

	together(t, d, workers, func(worker int, conn *pgx.Conn) error {
		r := rand.New(rand.NewPCG(seeds[worker], uint64(worker)))
		for n := range calls / workers {
			key := entryKeys[r.IntN(len(entryKeys))]
			sql, args := "select public.kv_delete($1)", []any{key}
			var indexes pairs
			writes := slices.Contains(both, key)
			kind := "delete"
			if roll := r.IntN(100); roll < 90 {
				kind = "upsert"
				value := fmt.Sprintf(`{"by":%d}`, worker)
				if roll%3 == 0 {
					value = fmt.Sprintf(`["stored %d.%d"]`, worker, n)
				}
				sql, args = "select public.kv_upsert($1, $2, $3)", []any{key, value, nil}
				if roll < 75 {
					kind = "upsert with indexes"
					indexes = pairs{}
					most := 6
					if r.IntN(10) == 0 {
						most = 80 // beyond some, a call holds rows instead of advisory locks
					}
					for i := range r.IntN(most) {
						index := indexKeys[r.IntN(len(indexKeys))]
						member := fmt.Sprintf("m%d.%d", worker, n)
						if i > 0 {
							member = fmt.Sprintf("%sm%d.%d", []string{"", "\x01\x01"}[i%2], worker, n*100+i)
						}
						if i > 0 && i%3 == 0 {
							member = fmt.Sprintf("\x01%d%d", worker+1, n*100+i) // a number
						}
						if r.IntN(3) == 0 {
							member = fmt.Sprintf("shared%d.%d", n/4, r.IntN(6)) // new to several workers at once
						}
						if index != key {
							indexes = append(indexes, []string{index, member})
						}
					}
					args[2] = [][]string(indexes)
				}
			}
			begin := time.Now()
			for {
				_, err := conn.Exec(context.Background(), sql, args...)
				if err == nil {
					break
				}
				mutex.Lock()
				counts[code(err)]++
				mutex.Unlock()
				if code(err) != "55P03" { // an index entry is being replaced; the only error that is documented
					return fmt.Errorf("%s of %s with %v: %w", kind, key, indexes, err)
				}
				begin = time.Now()
			}
			end := time.Now()

			mutex.Lock()
			counts[kind]++
			if writes && histories[key].ended.Before(end) {
				histories[key].ended = end
			}
			for _, pair := range indexes {
				if h := histories[pair[0]]; h.added[pair[1]].Before(begin) {
					h.added[pair[1]] = begin
				}
			}
			mutex.Unlock()
		}
		return nil
	})

	conn := d.connect(t)
	checked := 0
	for key, h := range histories {
		text := get(t, conn, key)
		var list []any
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			list = nil // a plain entry, or none
		}
		for member, begin := range h.added {
			if begin.After(h.ended) {
				var shown any = strings.TrimPrefix(member, "\x01")
				if number, err := strconv.ParseFloat(shown.(string), 64); err == nil && shown != member {
					shown = number
				}
				require.Contains(t, list, shown, "%s lost a member", key)
				checked++
			}
		}
		seen := map[any]bool{}
		for _, element := range list {
			require.False(t, seen[element], "%s repeats %v", key, element)
			seen[element] = true
		}
	}
	require.Greater(t, checked, calls/4, "the test lost its teeth")
	requireConsistent(t, conn)
	t.Logf("%d members held against the index entries; %v", checked, counts)
}

// Copies and imports replace members of index entries and add to them in another order, while others add.
func TestRacingCopiesNeverDeadlock(t *testing.T) {
	t.Parallel()
	const workers, rounds = 12, 40
	source := random(t)
	d := newDatabase(t)
	seeds := make([]uint64, workers)
	for i := range seeds {
		seeds[i] = source.Uint64()
	}
	session := one[string](t, d.connect(t), "select gen_random_uuid()")
	exec(t, d.connect(t), "select public.kv_migration_open('a source', '{}', '{}', $1, 'a test', 600, null, false)", session)
	var mutex sync.Mutex
	codes := map[string]int{}
	together(t, d, workers, func(worker int, conn *pgx.Conn) error {
		r := rand.New(rand.NewPCG(seeds[worker], uint64(worker)))
		ctx := context.Background()
		for n := range rounds {
			index := fmt.Sprint("i", r.IntN(3))
			var shuffled []string // the same few members for everybody, in any order
			var indexes pairs
			for _, m := range r.Perm(30)[:20] {
				shuffled = append(shuffled, fmt.Sprintf(`"%d.%d"`, n/4, m))
				indexes = append(indexes, []string{fmt.Sprint("i", m%3), fmt.Sprintf("%d.%d", n/4, m)})
			}
			list := "[" + strings.Join(shuffled, ",") + "]"
			var err error
			switch kind := worker % 6; kind {
			case 0, 1: // a copy: of what was added, or of all
				var revision string
				if err = conn.QueryRow(ctx, "select kv.row_revision($1)", index).Scan(&revision); err == nil {
					_, err = conn.Exec(ctx, "select public.kv_mirror_copy($1, $2, $3, '{}', true, $4, null, null, gen_random_uuid())", index, revision, list, kind == 0)
				}
			case 2:
				_, err = conn.Exec(ctx, importOf("{i2,i0,i1}", "{"+strings.Repeat(`,"`+strings.ReplaceAll(list, `"`, `\"`)+`"`, 3)[1:]+"}", "{t,t,t}"), session)
			case 3:
				if _, err = conn.Exec(ctx, "select public.kv_upsert($1, $2)", index, list); r.IntN(3) == 0 && err == nil {
					_, err = conn.Exec(ctx, "select public.kv_delete($1)", index)
				}
			default:
				_, err = conn.Exec(ctx, "select public.kv_upsert($1, '{}', $2)", fmt.Sprint("e", worker), [][]string(indexes))
			}
			mutex.Lock()
			codes[code(err)]++
			mutex.Unlock()
			if c := code(err); c != "" && c != "55P03" {
				return fmt.Errorf("worker %d: %w", worker, err)
			}
		}
		return nil
	})
	t.Logf("%v", codes)
}
