package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFiftyUpsertsToOneKey(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	key := prefix + "k"
	require.NoError(t, inParallel(50, 50, func(i int) error {
		return tryUpsert(key, fmt.Sprintf(`{"n":%d,"again":%d}`, i, i), index{prefix + "i", fmt.Sprint(i)})
	}))
	require.Equal(t, []string{key, prefix + "i"}[:1], keys(t, "prefix", key))
	var value struct{ N, Again *int }
	require.NoError(t, json.Unmarshal(get(t, key).fields(t)["value"], &value))
	require.Equal(t, value.N, value.Again, "the value is from one upsert")

	var members []string
	require.NoError(t, json.Unmarshal(get(t, prefix+"i").fields(t)["value"], &members))
	require.Len(t, members, 50, "every upsert added its member")
	found := 0
	for i := range 50 {
		found += len(keys(t, "index", fmt.Sprintf("%si:%d", prefix, i)))
	}
	require.Equal(t, 1, found, "the entry has the indexes of one upsert")
}

func TestFiftyMembersToOneIndex(t *testing.T) {
	t.Parallel()
	for round := range 3 {
		prefix := newPrefix()
		if round == 1 {
			upsert(t, prefix+"i", `["before"]`) // a plain entry that exists before all upserts
		}
		require.NoError(t, inParallel(50, 50, func(i int) error {
			return tryUpsert(fmt.Sprintf("%sk%02d", prefix, i), `[]`, index{prefix + "i", fmt.Sprintf("m%02d", i)})
		}))
		var members, want []string
		require.NoError(t, json.Unmarshal(get(t, prefix+"i").fields(t)["value"], &members))
		if round == 1 {
			require.Equal(t, "before", members[0], "the existing array comes first")
			members = members[1:]
		}
		slices.Sort(members)
		for i := range 50 {
			want = append(want, fmt.Sprintf("m%02d", i))
		}
		require.Equal(t, want, members)
		require.Len(t, keys(t, "indexKey", prefix+"i"), 50)
	}
}

// TestCrossingUpsertsDoNotDeadlock writes entries that are each other's indexes, named in every order.
func TestCrossingUpsertsDoNotDeadlock(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	names := []string{"a", "b", "c", "d"}
	require.NoError(t, inParallel(32, 200, func(i int) error {
		var indexes []index
		for j := 1; j <= 3; j++ {
			indexes = append(indexes, index{prefix + names[(i*j+j)%4], fmt.Sprintf("m%d", i*7%5)})
		}
		key := prefix + names[i%4]
		indexes = slices.DeleteFunc(indexes, func(ix index) bool { return ix.key == key })
		if i%3 == 0 {
			slices.Reverse(indexes)
		}
		if i%10 == 9 {
			_, err := send(http.MethodDelete, deletePath+params("key", key))
			return err
		}
		return tryUpsert(key, `["own"]`, indexes...)
	}))
}

// TestCreateAndDeleteAtOnce: in any order, an entry and its indexes stay consistent.
func TestCreateAndDeleteAtOnce(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	require.NoError(t, inParallel(20, 100, func(i int) error {
		if i%2 == 0 {
			return tryUpsert(prefix+"k", `[1]`, index{prefix + "i", "m"})
		}
		a, err := send(http.MethodDelete, deletePath+params("key", prefix+"k"))
		if err == nil && a.status != http.StatusOK {
			err = errors.New(a.String())
		}
		return err
	}))
	found := keys(t, "prefix", prefix+"k")
	require.Equal(t, found, append([]string{}, keys(t, "index", prefix+"i:m")...), "an entry and its index come and go together")
}

// TestThousandMixedOperations is not parallel on the local host, so that its time means something.
func TestThousandMixedOperations(t *testing.T) {
	if site.hostURL == "" {
		t.Parallel()
	}
	prefix := newPrefix()
	const n, workers = 1000, 16
	start := time.Now()
	require.NoError(t, inParallel(workers, n, func(i int) error {
		key := fmt.Sprintf("%s%02d", prefix, i*31%40)
		var (
			a      *response
			err    error
			wanted = []int{http.StatusOK}
		)
		switch i % 10 {
		case 0, 1, 2:
			return tryUpsert(key, fmt.Sprintf(`{"n":%d,"text":"some words"}`, i), index{prefix + "index", fmt.Sprint(i % 7)})
		case 3:
			return tryUpsert(key, fmt.Sprintf(`{"n":%d}`, i))
		case 4, 5, 6:
			a, err = send(http.MethodGet, getPath+"/"+url.PathEscape(key))
			wanted = append(wanted, http.StatusNotFound)
		case 7:
			a, err = send(http.MethodGet, listPath+params("prefix", prefix, "includeValues", "true"))
		case 8:
			a, err = send(http.MethodGet, listPath+params("prefix", prefix, "index", prefix+"index:3", "limit", "10"))
		case 9:
			a, err = send(http.MethodDelete, deletePath+params("key", key))
		}
		if err == nil && !slices.Contains(wanted, a.status) {
			err = errors.New(a.String())
		}
		return err
	}))
	took := time.Since(start)
	t.Logf("%d mixed operations by %d callers took %s", n, workers, took.Round(time.Millisecond))
	if site.hostURL != "" {
		require.Less(t, took, time.Minute, "make bench measures the promised 10 s; more than a minute means that something is stuck")
	}
	for i := range 40 {
		key := fmt.Sprintf("%s%02d", prefix, i)
		a := get(t, key)
		require.Contains(t, []int{http.StatusOK, http.StatusNotFound}, a.status)
		require.Equal(t, a.status == http.StatusOK, len(keys(t, "prefix", key)) == 1, "kv-get and kv-list agree about %s", key)
	}
}
