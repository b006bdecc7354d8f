package blobs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs/blobstest"
)

func TestSetThenGet(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{}, func(t *testing.T, _ *standIn, c *Client) {
		ctx := t.Context()
		for name, value := range map[string]string{
			"Text": "one", "Empty": "", "JSON": `{"b":1.0,"a":"é😀"}`, "Binary": "\x00\xff\n\r", "Large": strings.Repeat("5 MB\n\x00", 1<<20),
		} {
			t.Run(name, func(t *testing.T) {
				etag, err := c.Set(ctx, name, []byte(value), SetOptions{Metadata: `{"v":"é"}`})
				require.NoError(t, err)
				require.NotEmpty(t, etag)
				want := Blob{Value: []byte(value), ETag: etag, Metadata: `{"v":"é"}`, ContentType: "application/octet-stream"}
				got, err := c.Get(ctx, name)
				require.NoError(t, err)
				require.Equal(t, want, got)
				want.Value = nil
				got, err = c.Head(ctx, name)
				require.NoError(t, err)
				require.Empty(t, got.Value)
				got.Value = nil
				require.Equal(t, want, got)

				again, err := c.Set(ctx, name, []byte("other"), SetOptions{})
				require.NoError(t, err)
				require.NotEqual(t, etag, again)
				got, err = c.Get(ctx, name)
				require.NoError(t, err)
				require.Equal(t, Blob{Value: []byte("other"), ETag: again, ContentType: "application/octet-stream"}, got)
			})
		}
	})
}

func TestDeleteOfAMissingBlob(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{}, func(t *testing.T, _ *standIn, c *Client) {
		_, err := c.Set(t.Context(), "a", []byte("1"), SetOptions{})
		require.NoError(t, err)
		for range 2 {
			require.NoError(t, c.Delete(t.Context(), "a"))
			_, err = c.Get(t.Context(), "a")
			require.ErrorIs(t, err, ErrNotFound)
			_, err = c.Head(t.Context(), "a")
			require.ErrorIs(t, err, ErrNotFound)
		}
	})
}

func TestFailedConditionWritesNothing(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{}, func(t *testing.T, _ *standIn, c *Client) {
		set := func(value string, o SetOptions) (string, error) { return c.Set(t.Context(), "a", []byte(value), o) }
		_, err := set("0", SetOptions{IfMatch: `"none"`})
		require.ErrorIs(t, err, ErrConditionFailed)
		_, err = c.Get(t.Context(), "a")
		require.ErrorIs(t, err, ErrNotFound)
		first, err := set("1", SetOptions{IfNew: true})
		require.NoError(t, err)
		_, err = set("2", SetOptions{IfNew: true})
		require.Equal(t, ErrConditionFailed, err) // unwrapped: no response was lost
		second, err := set("3", SetOptions{IfMatch: first})
		require.NoError(t, err)
		_, err = set("4", SetOptions{IfMatch: first})
		require.Equal(t, ErrConditionFailed, err)
		got, err := c.Get(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, "3", string(got.Value))
		require.Equal(t, second, got.ETag)
	})
}

func TestOneOfFiftyCreatesWins(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{}, func(t *testing.T, _ *standIn, c *Client) {
		var won, lost atomic.Int64
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				switch _, err := c.Set(t.Context(), "a", fmt.Append(nil, i), SetOptions{IfNew: true}); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, ErrConditionFailed):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, won.Load())
		require.EqualValues(t, 49, lost.Load())
	})
}

// add appends a member to the list under the key "list", unless it is there, by compare-and-set.
func add(ctx context.Context, c *Client, member string) error {
	for {
		got, err := c.Get(ctx, "list")
		o := SetOptions{IfMatch: got.ETag}
		if errors.Is(err, ErrNotFound) {
			o = SetOptions{IfNew: true}
		} else if err != nil {
			return err
		}
		if slices.Contains(strings.Fields(string(got.Value)), member) {
			return nil
		}
		_, err = c.Set(ctx, "list", append(got.Value, " "+member...), o)
		if !errors.Is(err, ErrConditionFailed) {
			return err
		}
	}
}

// requireMembers requires the members 0 to n-1, each once.
func requireMembers(t *testing.T, c *Client, n int) {
	t.Helper()
	got, err := c.Get(t.Context(), "list")
	require.NoError(t, err)
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i))
	}
	require.ElementsMatch(t, want, strings.Fields(string(got.Value)))
}

func TestFiftyConcurrentAppends(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{}, func(t *testing.T, _ *standIn, c *Client) {
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if err := add(t.Context(), c, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		requireMembers(t, c, 50)
	})
}

func TestListReadsAllPages(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{PageSize: 10}, func(t *testing.T, _ *standIn, c *Client) {
		require.Empty(t, keys(t, c, ""))
		want := []string{}
		for i := range 35 {
			key := fmt.Sprintf("p/%02d", i)
			_, err := c.Set(t.Context(), key, []byte("12345"), SetOptions{})
			require.NoError(t, err)
			want = append(want, key)
		}
		etag, err := c.Set(t.Context(), "q é&=+/x", []byte("1"), SetOptions{})
		require.NoError(t, err)

		require.Equal(t, want, keys(t, c, "p/"))
		require.Equal(t, want[10:20], keys(t, c, "p/1"))
		require.Equal(t, append(want, "q é&=+/x"), keys(t, c, ""))
		require.Equal(t, []string{"q é&=+/x"}, keys(t, c, "q é&=+/"))
		require.Empty(t, keys(t, c, "r"))

		for l, err := range c.List(t.Context(), "q") {
			require.NoError(t, err)
			require.WithinDuration(t, time.Now(), l.LastModified, time.Hour)
			l.LastModified = time.Time{}
			require.Equal(t, Listed{Key: "q é&=+/x", ETag: etag, Size: 1}, l)
		}
		seen := 0
		for _, err := range c.List(t.Context(), "") {
			require.NoError(t, err)
			if seen++; seen == 12 {
				break
			}
		}
		require.Equal(t, 12, seen)
	})
}

func TestListAcceptsWhatTheJavaScriptClientDoes(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"NoStore":   status(404),
		"NoContent": status(204),
		"NoBlobs":   text(`{"directories":[]}`),
		"NoKey":     text(`{"blobs":[{"etag":"x"}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := script(t, handler)
			require.Empty(t, keys(t, c, ""))
		})
	}
	c, _ := script(t, text(`{"blobs":[{"key":"a","size":1,"last_modified":"yesterday"}]}`))
	for l, err := range c.List(t.Context(), "") {
		require.NoError(t, err)
		require.Equal(t, Listed{Key: "a", Size: 1}, l)
	}
}

func TestOtherStatusesAreErrors(t *testing.T) {
	t.Parallel()
	operations := map[string]func(context.Context, *Client) error{
		"get":    func(ctx context.Context, c *Client) error { _, err := c.Get(ctx, "a"); return err },
		"head":   func(ctx context.Context, c *Client) error { _, err := c.Head(ctx, "a"); return err },
		"set":    func(ctx context.Context, c *Client) error { _, err := c.Set(ctx, "a", nil, SetOptions{}); return err },
		"delete": func(ctx context.Context, c *Client) error { return c.Delete(ctx, "a") },
		"list": func(ctx context.Context, c *Client) error {
			for _, err := range c.List(ctx, "") {
				return err
			}
			return nil
		},
	}
	known := map[string][]int{"get": {404}, "head": {404}, "set": {}, "delete": {204, 404}, "list": {204, 404}}
	for op, run := range operations {
		for _, code := range []int{201, 202, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 405, 409, 412, 413, 418} {
			if slices.Contains(known[op], code) {
				continue
			}
			t.Run(fmt.Sprint(op, code), func(t *testing.T) {
				t.Parallel()
				answer := status(code, "Location", "/elsewhere", "X-Nf-Error", "the reason "+token, "X-Nf-Request-Id", "id")
				c, asked := script(t, answer, text("x"))
				require.Equal(t, &Error{Op: op, Status: code, Message: "the reason …, request id"}, run(t.Context(), c))
				require.Equal(t, 1, asked())
			})
		}
		t.Run(op+"ByTheAPI", func(t *testing.T) {
			t.Parallel()
			c, asked := script(t, status(403))
			require.Equal(t, &Error{Op: op, Status: 403, Message: "forbidden"}, run(t.Context(), viaAPI(c)))
			require.Equal(t, 1, asked()) // refused by the API, not by a signed URL
		})
	}
	// The same holds for a conditional write.
	for _, o := range []SetOptions{{IfNew: true}, {IfMatch: `"etag"`}} {
		c, _ := script(t, status(403))
		_, err := c.Set(t.Context(), "a", nil, o)
		require.Equal(t, &Error{Op: "set", Status: 403, Message: "forbidden"}, err)
	}
}

func TestConditionsFollowS3(t *testing.T) {
	t.Parallel()
	c, _ := script(t, status(404))
	_, err := c.Set(t.Context(), "a", nil, SetOptions{IfMatch: `"gone"`})
	require.Equal(t, ErrConditionFailed, err)
	_, err = c.Set(t.Context(), "a", nil, SetOptions{IfNew: true})
	require.Equal(t, &Error{Op: "set", Status: 404, Message: "not found"}, err)

	c, asked := script(t, status(409), status(409), status(200, "ETag", `"1"`))
	etag, err := c.Set(t.Context(), "a", nil, SetOptions{IfNew: true})
	require.NoError(t, err)
	require.Equal(t, `"1"`, etag)
	require.Equal(t, 3, asked())
}

func TestInvalidRequestsAreNotSent(t *testing.T) {
	t.Parallel()
	c, asked := script(t, text(""))
	for name, tt := range map[string]struct {
		key  string
		o    SetOptions
		want string
	}{
		"Key":           {"", SetOptions{}, "the key must not be empty"},
		"TwoConditions": {"a", SetOptions{IfMatch: `"x"`, IfNew: true}, "a write can have one condition, IfMatch or IfNew"},
		"ETag":          {"a", SetOptions{IfMatch: "x\ny"}, "IfMatch is not an etag"},
		"NotJSON":       {"a", SetOptions{Metadata: "{"}, "the metadata must be JSON"},
		"TooMuch":       {"a", SetOptions{Metadata: `"` + strings.Repeat("m", 1514) + `"`}, "the metadata must be at most 1515 bytes of JSON, got 1516"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Set(t.Context(), tt.key, nil, tt.o)
			require.EqualError(t, err, tt.want)
		})
	}
	_, err := c.Get(t.Context(), "a?b")
	require.EqualError(t, err, `the key must not contain '?'`)
	_, err = c.Head(t.Context(), "/a")
	require.EqualError(t, err, "the key must not start with a slash")
	require.EqualError(t, c.Delete(t.Context(), "a/.."), `the key must not have ".." between slashes`)
	require.Zero(t, asked())
}
