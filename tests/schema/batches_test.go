package schema

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// A path that was made fast refuses what its index cannot hold.
func TestAValueThatPostgresRefusesFailsInItsPlace(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	exec(t, d.owner(t), "select public.kv_index_path('score')")
	conn := d.connect(t)
	huge := `{"score":1`
	for random := random(t); len(huge) < 20_000; { // digits that compression does not shorten
		huge += strconv.Itoa(random.IntN(1 << 30))
	}
	huge += "}"
	requireCode(t, "54000", conn, "select public.kv_upsert('k', $1)", huge)
	for _, atomic := range []bool{false, true} {
		operations, err := json.Marshal([]map[string]any{
			{"action": "put", "key": "a", "value": "1", "indexes": [][]string{{"index", "a"}}},
			{"action": "put", "key": "b", "value": huge, "indexes": [][]string{{"other", "b"}}},
			{"action": "put", "key": "c", "value": "3"},
		})
		require.NoError(t, err)
		var response struct {
			Results []struct{ Code string }
			Failed  *int
		}
		require.NoError(t, json.Unmarshal([]byte(one[string](t, conn, "select public.kv_batch($1::text::jsonb, $2)", string(operations), atomic)), &response))
		var codes []string
		for _, r := range response.Results {
			codes = append(codes, r.Code)
		}
		require.Equal(t, []string{"", "unstorable_value", ""}, codes, "atomic: %v", atomic)
		require.Equal(t, 1, *response.Failed)
		want := "a 1,c 3,index [\"a\"]"
		if atomic {
			want = ""
		}
		require.Equal(t, want, one[string](t, conn, `select coalesce(string_agg(key || ' ' || case when is_index then kv.index_value(key, value::text) else value::text end, ',' order by key), '') from public.kv_store`))
		exec(t, conn, "delete from public.kv_store where true")
	}
}
