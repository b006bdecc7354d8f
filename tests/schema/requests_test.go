package schema

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

const (
	upsertAs = "select public.kv_upsert($1, $2, $3, $4::text::uuid)"
	deleteAs = "select public.kv_delete($1, $2::text::uuid)"
)

func requestID(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

type written struct {
	Version string
	Deleted *bool
}

func parseWritten(t *testing.T, response string) (w written) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(response), &w), response)
	return w
}

func TestAnUpsertSentAgainIsAppliedOnce(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	indexes := [][]string{{"i", "m"}}
	first := one[string](t, conn, upsertAs, "k", `{"v":1}`, indexes, requestID(1))
	changes := one[int](t, conn, "select count(*) from kv.log")

	// Its reply was lost, or a gateway held the first attempt back: nobody can tell which.
	require.Equal(t, first, one[string](t, conn, upsertAs, "k", `{"v":1}`, indexes, requestID(1)))
	require.Equal(t, changes, one[int](t, conn, "select count(*) from kv.log"))

	// Others wrote and deleted meanwhile.
	upsert(t, conn, "k", `{"v":2}`, pairs{})
	remove(t, conn, "i")
	require.Equal(t, first, one[string](t, conn, upsertAs, "k", `{"v":1}`, indexes, requestID(1)))
	require.Equal(t, `{"v":2}`, get(t, conn, "k"))
	require.Equal(t, ``, get(t, conn, "i"))
	remove(t, conn, "k")
	require.Equal(t, first, one[string](t, conn, upsertAs, "k", `{"v":1}`, indexes, requestID(1)))
	require.Equal(t, ``, get(t, conn, "k"))

	// It never arrived.
	response := parseWritten(t, one[string](t, conn, upsertAs, "k", `{"v":3}`, indexes, requestID(2)))
	require.NotEqual(t, parseWritten(t, first).Version, response.Version)
	require.Equal(t, `{"v":3}`, get(t, conn, "k"))

	// Another request with the same content is a write of its own.
	again := parseWritten(t, one[string](t, conn, upsertAs, "k", `{"v":3}`, indexes, requestID(3)))
	require.NotEqual(t, response.Version, again.Version)
	none := parseWritten(t, one[string](t, conn, upsertAs, "k", `{"v":3}`, indexes, nil))
	require.NotEqual(t, again.Version, none.Version)
}

func TestADeleteSentAgainIsAppliedOnce(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	upsert(t, conn, "k", `{"v":1}`, pairs{{"i", "m"}})
	first := one[string](t, conn, deleteAs, "k", requestID(1))
	require.True(t, *parseWritten(t, first).Deleted)
	require.Equal(t, first, one[string](t, conn, deleteAs, "k", requestID(1)))

	upsert(t, conn, "k", `{"v":2}`, nil)
	require.Equal(t, first, one[string](t, conn, deleteAs, "k", requestID(1)))
	require.Equal(t, `{"v":2}`, get(t, conn, "k"))

	require.True(t, *parseWritten(t, one[string](t, conn, deleteAs, "i", requestID(2))).Deleted, "it never arrived")
	missed := one[string](t, conn, deleteAs, "none", requestID(3))
	require.False(t, *parseWritten(t, missed).Deleted)
	require.Equal(t, missed, one[string](t, conn, deleteAs, "none", requestID(3)))
}

// An entry that was written after the delete's response stays when the delete arrives again.
func TestADeleteThatFoundNothingIsAppliedOnce(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	first := one[string](t, conn, deleteAs, "k", requestID(1))
	require.False(t, *parseWritten(t, first).Deleted)
	upsert(t, conn, "k", `{"v":1}`, nil)
	require.Equal(t, first, one[string](t, conn, deleteAs, "k", requestID(1)))
	require.Equal(t, `{"v":1}`, get(t, conn, "k"))
	require.True(t, *parseWritten(t, one[string](t, conn, deleteAs, "k", requestID(2))).Deleted, "another request")
}

// A repetition finds the first attempt however long the log is.
func TestASentAgainRequestIsFoundInALongLog(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.connect(t)
	exec(t, conn, fillLog, 200_000)
	exec(t, conn, "update kv.log set request = gen_random_uuid() where right(key, 1) <> '0'")
	exec(t, d.owner(t), "analyze kv.log")
	first := one[string](t, conn, upsertAs, "k", `{"v":1}`, nil, requestID(1))
	for i := range 20 {
		one[string](t, conn, upsertAs, fmt.Sprint("other", i), `{}`, nil, requestID(2+i))
	}
	plans := d.plansOf(t, upsertAs, "k", `{"v":1}`, nil, requestID(1))
	require.Equal(t, first, plans.response)
	plans.requireReads(t, "log", 10)
	plans = d.plansOf(t, upsertAs, "k", `{"v":1}`, nil, requestID(100))
	require.NotEqual(t, first, plans.response)
	plans.requireReads(t, "log", 10)
}

func TestASentAgainRequestWaitsForItsFirstAttempt(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, end := range []string{"Commits", "RollsBack"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			one1, two := d.connect(t), d.connect(t)
			for n, call := range []struct {
				sql  string
				args []any
			}{
				{upsertAs, []any{"k", `{"v":1}`, [][]string{{"i", "m"}}, requestID(0)}},
				{deleteAs, []any{"gone", requestID(1)}},
			} {
				upsert(t, one1, "gone", `{}`, nil)
				tx, err := one1.Begin(ctx)
				require.NoError(t, err)
				first := one[string](t, tx, call.sql, call.args...)
				responses := make(chan string, 1)
				go func() {
					var response string
					_ = two.QueryRow(ctx, call.sql, call.args...).Scan(&response)
					responses <- response
				}()
				select {
				case <-responses:
					t.Fatal("answered while the first attempt is still running")
				case <-time.After(150 * time.Millisecond):
				}
				if end == "Commits" {
					require.NoError(t, tx.Commit(ctx))
					require.Equal(t, first, <-responses)
				} else {
					require.NoError(t, tx.Rollback(ctx))
					require.NotEqual(t, parseWritten(t, first).Version, parseWritten(t, <-responses).Version)
				}
				require.Equal(t, 1, one[int](t, one1, "select count(distinct transaction_id) from kv.log where request::text = $1", requestID(n)))
			}
			require.Equal(t, `{"v":1}`, get(t, one1, "k"))
			require.Equal(t, ``, get(t, one1, "gone"))
		})
	}
}

// Many requests with several attempts each run at once, on few keys. Each is applied once.
func TestRacingAttemptsAreAppliedOnce(t *testing.T) {
	d := newDatabase(t)
	const requests, attempts = 60, 4
	together(t, d, 12, func(worker int, conn *pgx.Conn) error {
		for n := range requests * attempts / 12 {
			request := (worker/attempts)*20 + n // attempts of one request run side by side
			_, err := conn.Exec(context.Background(), upsertAs, fmt.Sprint("k", request%3), `{}`,
				[][]string{{"i", fmt.Sprint(request)}}, requestID(request))
			if err != nil {
				return err
			}
		}
		return nil
	})
	conn := d.connect(t)
	require.Len(t, members(t, conn, "i"), requests)
	require.Empty(t, all[string](t, conn, `
		select request::text from kv.log where request is not null group by request having count(distinct transaction_id) > 1`))
}

// The next request on the connection does not get the request's name.
func TestARequestNamesOnlyItsOwnChanges(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	one[string](t, conn, upsertAs, "a", `{}`, nil, requestID(1))
	upsert(t, conn, "b", `{}`, nil)
	exec(t, conn, `update public.kv_store set value = '[]' where true`)
	require.Equal(t, []string{"a"}, all[string](t, conn, "select key from kv.log where request is not null"))
}
