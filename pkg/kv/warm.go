package kv

import (
	"context"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// WarmWith says what a function's cache loads at the start.
type WarmWith int

const (
	WarmNothing WarmWith = iota
	WarmEntries          // results of Get, for the keys and for the keys under the prefixes
	WarmLists            // results of List, for the prefixes, with and without values
)

// warmTime bounds a warm start. The cache keeps no reads meanwhile.
const warmTime = 3 * time.Second

// StartWarm begins to load results in the background, in one round trip, and returns at once. Patterns are keys, or
// prefixes that end in "*". Until it has ended, reads go to the database and the cache keeps none of them. At the end
// done is called with nil, or with the error after which the cache is empty and works.
func (c *Cache) StartWarm(ctx context.Context, with WarmWith, patterns []string, done func(error)) {
	c.setWarming(true)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, warmTime)
		defer cancel()
		err := c.warm(ctx, with, patterns)
		c.setWarming(false)
		done(err)
	}()
}

func (c *Cache) setWarming(warming bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warming = warming
}

// warm loads the results. No read moves the cursor meanwhile.
func (c *Cache) warm(ctx context.Context, with WarmWith, patterns []string) error {
	began := c.now()
	keys, prefixes := []string{}, []string{}
	for _, pattern := range patterns {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			prefixes = append(prefixes, prefix)
		} else {
			keys = append(keys, pattern)
		}
	}
	var (
		found []warmed
		seen  changes
		err   error
	)
	switch with {
	case WarmEntries:
		found, seen, err = c.store.warmEntries(ctx, keys, prefixes, c.config)
	case WarmLists:
		found, seen, err = c.store.warmLists(ctx, prefixes, c.config)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.observe(c.cursor, seen, began)
	for i := len(found) - 1; i >= 0; i-- { // what was named first is evicted last
		c.keep(found[i].read, found[i].body, newReadResult(found[i].body.text, SourceMiss), began, c.config.MaxStale)
	}
	return nil
}

// warmed is an answer that was loaded before a caller asked for it.
type warmed struct {
	read readRequest
	body readBody
}

func (s *Supabase) warmEntries(ctx context.Context, keys, prefixes []string, config CacheConfig) (found []warmed, seen changes, err error) {
	var pairs [][2]string
	space := s.space(DefaultStore)
	seen, err = s.callWarm(ctx, "kv_warm_get", struct {
		Keys     []string `json:"p_keys"`
		Prefixes []string `json:"p_prefixes"`
		Entries  int      `json:"p_entries"`
		Bytes    int64    `json:"p_bytes"`
	}{inSpace(space, keys), inSpace(space, prefixes), config.Entries, config.MaxBytes}, &pairs)
	for _, pair := range pairs {
		if r, err := getRequest(space, strings.TrimPrefix(pair[0], space)); err == nil { // not ok for a pattern that cannot be a key
			found = append(found, warmed{r, readBody{text: pair[1]}})
		}
	}
	return found, seen, err
}

func (s *Supabase) warmLists(ctx context.Context, prefixes []string, config CacheConfig) (found []warmed, seen changes, err error) {
	var requests []readRequest
	args := []jsontext.Value{}
	for _, prefix := range prefixes {
		for _, values := range []bool{false, true} {
			if r, err := listRequest(s.space(DefaultStore), ListQuery{Prefix: prefix, Values: values}); err == nil {
				requests, args = append(requests, r), append(args, jsontext.Value(r.args))
			}
		}
	}
	var bodies []*string // null for one that is too large
	seen, err = s.callWarm(ctx, "kv_warm_list", struct {
		Lists []jsontext.Value `json:"p_lists"`
		Bytes int64            `json:"p_bytes"`
	}{args, config.MaxBytes}, &bodies)
	for i, body := range bodies[:min(len(bodies), len(requests))] {
		if body == nil {
			continue
		}
		read, err := requests[i].readBody(*body)
		if err != nil {
			return nil, changes{}, err
		}
		found = append(found, warmed{requests[i], read})
	}
	return found, seen, err
}

func inSpace(space string, prefixes []string) []string {
	moved := make([]string, len(prefixes))
	for i, prefix := range prefixes {
		moved[i] = spacePrefix(space, prefix)
	}
	return moved
}

func (s *Supabase) callWarm(ctx context.Context, function string, args, into any) (seen changes, err error) {
	_, err = s.callWith(ctx, s.retry, function, args, func(text string) error {
		body, err := cutChanges(function, text, &seen)
		if err != nil {
			return err
		}
		return decodeResponse(function, body, into)
	})
	return seen, err
}
