package blobs

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Listed is a blob in a list.
type Listed struct {
	Key          string
	ETag         string
	Size         int64     // bytes of the value
	LastModified time.Time // zero: the service does not say
}

// List iterates over the blobs whose keys begin with the prefix, in the service's order, and ends with the first
// error. Each page is a request of its own, so blobs that are written or deleted meanwhile may be missing or not.
func (c *Client) List(ctx context.Context, prefix string) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		a, from, err := c.access(ctx)
		if err != nil {
			yield(Listed{}, err)
			return
		}
		encoded, asked := c.local && from != nil && a.edge(), prefix
		if encoded {
			asked = escape(prefix)
		}
		for cursor := ""; ; {
			page, err := c.page(ctx, asked, cursor)
			if err != nil {
				yield(Listed{}, err)
				return
			}
			for _, l := range page.listed() {
				if encoded && !l.decode(prefix) {
					continue
				}
				if !yield(l, nil) {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			cursor = page.NextCursor
		}
	}
}

// decode decodes a percent-encoded key. It is not ok for a malformed key, nor for one without the prefix.
func (l *Listed) decode(prefix string) bool {
	key, err := url.PathUnescape(l.Key)
	l.Key = key
	return err == nil && strings.HasPrefix(key, prefix)
}

// page is the service's response to a list request.
type page struct {
	Blobs []struct {
		Key          string
		ETag         string
		Size         int64
		LastModified string `json:"last_modified"`
	}
	NextCursor string `json:"next_cursor"`
}

func (c *Client) page(ctx context.Context, prefix, cursor string) (page, error) {
	query := url.Values{}
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	call := call{op: "list", method: http.MethodGet, query: query}
	return run(ctx, c, call, func(_ context.Context, got response, err error) (p page, _ error) {
		if err != nil {
			return p, err
		}
		switch got.status {
		case http.StatusOK:
		case http.StatusNoContent, http.StatusNotFound: // a store that nobody has written to (getListIterator in @netlify/blobs)
			return p, nil
		default:
			return p, got.unexpected()
		}
		if json.Unmarshal(got.body, &p) != nil {
			return page{}, got.malformed("the response is not a list")
		}
		if p.NextCursor != "" && p.NextCursor == cursor {
			return page{}, got.malformed("the list repeats its cursor")
		}
		return p, nil
	})
}

// listed omits blobs without a key, like formatListResultBlob in @netlify/blobs.
func (p page) listed() []Listed {
	listed := make([]Listed, 0, len(p.Blobs))
	for _, b := range p.Blobs {
		if b.Key != "" {
			modified, _ := time.Parse(time.RFC3339, b.LastModified)
			listed = append(listed, Listed{b.Key, b.ETag, b.Size, modified})
		}
	}
	return listed
}
