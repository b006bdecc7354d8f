package blobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"netlify-supabase-kv/pkg/kv"
)

// listed is a blob that may be in a list's response.
type listed struct {
	Listed
	metadata         // for filters and orders by time
	at       int64   // the time to sort by, in microseconds since 1970
	value    *string // with values; nil if the blob was deleted meanwhile
}

// List implements [kv.Store]. Blobs lists keys alone. Filters by index and orders by time therefore read the metadata
// of every blob under the prefix.
func (s *Store) List(ctx context.Context, q kv.ListQuery) (string, error) {
	if err := q.Validate(); err != nil {
		return "", err
	}
	answer, err := s.list(ctx, q)
	return answer, storeError("blobs.List", err)
}

func (s *Store) list(ctx context.Context, q kv.ListQuery) (string, error) {
	var all []*listed
	for blob, err := range s.client.List(ctx, q.Prefix) {
		if err != nil {
			return "", err
		}
		all = append(all, &listed{Listed: blob})
	}
	byTime := !q.ByKey()
	if byTime || len(q.Indexes)+len(q.IndexKeys) > 0 {
		var err error
		if all, err = s.readMetadata(ctx, all, q); err != nil {
			return "", err
		}
	}
	slices.SortFunc(all, func(a, b *listed) int {
		order := cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.Key, b.Key))
		if q.Sort.Descending {
			return -order
		}
		return order
	})
	return s.respond(ctx, q, pageStart(all, q))
}

// checkRoom refuses a list that cannot end within the request's time, and would use up the limit for others.
func (s *Store) checkRoom(ctx context.Context, requests int) error {
	if room := s.client.room(ctx); float64(requests) > room {
		return tooLarge(fmt.Sprintf("the list takes %d requests to Netlify's API, which takes about %.0f in the time of this one: page with limit, or list without includeValues, filters and orders by time",
			requests, room))
	}
	return nil
}

// readMetadata returns the blobs that match the filters, with the time to sort by.
func (s *Store) readMetadata(ctx context.Context, all []*listed, q kv.ListQuery) (matching []*listed, err error) {
	if err := s.checkRoom(ctx, len(all)); err != nil {
		return nil, err
	}
	err = each(ctx, all, func(ctx context.Context, b *listed) error {
		if err := b.readable(); err != nil {
			return err
		}
		etag, known, err := s.head(ctx, b.Key)
		if err != nil {
			return err
		}
		b.metadata = known
		if etag == "" {
			b.ETag = "" // deleted since it was listed
		}
		if len(q.Indexes)+len(q.IndexKeys) > 0 {
			b.Indexes, err = s.indexesOf(ctx, known)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, b := range all {
		if b.ETag == "" || !b.matches(q) {
			continue
		}
		switch q.Sort.Path {
		case "createdAt":
			b.at = cmp.Or(b.Created, b.LastModified.UnixMicro())
		case "updatedAt":
			b.at = cmp.Or(b.Updated, b.LastModified.UnixMicro())
		}
		matching = append(matching, b)
	}
	return matching, nil
}

func (m metadata) matches(q kv.ListQuery) bool {
	for _, spelled := range q.Indexes {
		if !slices.ContainsFunc(m.Indexes, func(pair [2]string) bool {
			return kv.Index{Key: pair[0], Member: kv.Member(pair[1])}.String() == spelled
		}) {
			return false
		}
	}
	for _, key := range q.IndexKeys {
		if !slices.ContainsFunc(m.Indexes, func(pair [2]string) bool { return pair[0] == key }) {
			return false
		}
	}
	return true
}

// pageStart returns the blobs after the cursor or the offset.
func pageStart(all []*listed, q kv.ListQuery) []*listed {
	if q.Offset != nil {
		return all[min(*q.Offset, len(all)):]
	}
	if q.After == nil {
		return all
	}
	micros, byTime := q.After.Micros()
	from := slices.IndexFunc(all, func(b *listed) bool {
		order := strings.Compare(b.Key, q.After.Key)
		if byTime {
			order = cmp.Or(cmp.Compare(b.at, micros), order)
		}
		if q.Sort.Descending {
			return order < 0
		}
		return order > 0
	})
	if from < 0 {
		return nil
	}
	return all[from:]
}

// respond writes the page that the blobs begin with, in the form of kv_list. Its size is known before values are read.
func (s *Store) respond(ctx context.Context, q kv.ListQuery, blobs []*listed) (string, error) {
	paged := q.Limit != nil || q.Offset != nil || q.After != nil
	page, err := fitting(q, blobs, paged)
	if err != nil {
		return "", err
	}
	more := len(page) < len(blobs)
	cursor := "null"
	if more && paged {
		last := page[len(page)-1]
		c := kv.Cursor{Question: q.Question(), Key: last.Key}
		if !q.ByKey() {
			c.Position = strconv.AppendInt(nil, last.at, 10)
		}
		cursor = `"` + c.String() + `"`
	}
	if q.Values {
		if err := s.readValues(ctx, page); err != nil {
			return "", err
		}
		page = slices.DeleteFunc(slices.Clone(page), func(b *listed) bool { return b.value == nil })
	}
	out := []byte(`{"keys":[`)
	for i, b := range page {
		out = kv.AppendString(comma(out, i), b.Key)
	}
	out = strconv.AppendInt(append(out, `],"count":`...), int64(len(page)), 10)
	if q.Values {
		out = append(out, `,"data":{`...)
		for i, b := range page {
			out = append(append(kv.AppendString(comma(out, i), b.Key), ':'), *b.value...)
		}
		out = append(out, '}')
	}
	if paged {
		limit, offset := "null", 0
		if q.Limit != nil {
			limit = strconv.Itoa(*q.Limit)
		}
		if q.Offset != nil {
			offset = *q.Offset
		}
		out = fmt.Appendf(out, `,"pagination":{"limit":%s,"offset":%d,"hasMore":%t,"nextCursor":%s}`, limit, offset, more, cursor)
	}
	return string(append(out, '}')), nil
}

func comma(out []byte, i int) []byte {
	if i > 0 {
		return append(out, ',')
	}
	return out
}

// fitting returns the blobs that fit into the response. Without a page it is all of them, or [kv.CodeTooLarge].
func fitting(q kv.ListQuery, blobs []*listed, paged bool) ([]*listed, error) {
	size := int64(0)
	for i, b := range blobs {
		if q.Limit != nil && i == *q.Limit {
			return blobs[:i], nil
		}
		key := int64(len(kv.AppendString(nil, b.Key)))
		if q.Values {
			size += 2*key + 3 + b.Size
		} else {
			size += key + 1
		}
		switch {
		case !paged && size > kv.MaxResponseBytes:
			return nil, tooLarge("the answer would be larger than the 6 MB of a response: page with limit")
		case paged && i > 0 && size > kv.MaxPageBytes:
			return blobs[:i], nil
		case paged && q.Values && size > kv.MaxResponseBytes:
			return nil, tooLarge(fmt.Sprintf("the entry %s alone is larger than the 6 MB of a response: list this page without includeValues, and go on with its nextCursor",
				kv.AppendString(nil, b.Key)))
		}
	}
	return blobs, nil
}

func tooLarge(message string) error { return &kv.Error{Code: kv.CodeTooLarge, Message: message} }

// readValues reads the blobs' values. A blob that is gone by now keeps none.
func (s *Store) readValues(ctx context.Context, page []*listed) error {
	if err := s.checkRoom(ctx, len(page)); err != nil {
		return err
	}
	return each(ctx, page, func(ctx context.Context, b *listed) error {
		if err := b.readable(); err != nil {
			return err
		}
		blob, err := s.client.Get(ctx, b.Key)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil
		case err != nil:
			return err
		case !isJSON(blob.Value):
			return &kv.Error{Code: kv.CodeNotJSON, Err: errNotJSON,
				Message: fmt.Sprintf("the blob %s is not JSON: it was written by something else; list without includeValues, or delete it", kv.AppendString(nil, b.Key))}
		}
		value := string(blob.Value)
		b.value = &value
		return nil
	})
}

// readable refuses a key that another client wrote and this one cannot address.
func (b *listed) readable() error {
	if err := ValidateKey(b.Key); err != nil {
		return &kv.Error{Code: kv.CodeDatabaseUnreachable, Err: err, Message: fmt.Sprintf(
			"the blob %s cannot be read here: %v; list without includeValues, filters and orders by time, or a prefix that it does not have", kv.AppendString(nil, b.Key), err)}
	}
	return nil
}

// each calls do for every blob, some at a time, and returns the first error.
func each(ctx context.Context, blobs []*listed, do func(context.Context, *listed) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, b := range blobs {
		group.Go(func() error { return do(ctx, b) })
	}
	return group.Wait()
}
