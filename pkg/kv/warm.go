package kv

import (
	"context"
	"encoding/json"
	"strings"
	"time"
)

// WarmWith says what a function's cache loads before it is asked.
type WarmWith int

const (
	WarmNothing WarmWith = iota
	WarmEntries          // answers of Get: the keys, and the keys under the prefixes
	WarmLists            // answers of List: those of the prefixes, with and without values
)

// warmTime bounds a warm start. As long as it takes, reads are not kept.
const warmTime = 3 * time.Second

// StartWarm begins to load answers in the background, in one round trip: patterns are keys, or prefixes that end in "*".
// It returns at once. Reads do not wait for it; those that come before it has ended go to the database and leave the
// cache to it. done is called at the end, with what went wrong if something did; the cache is then empty and works.
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

// warm loads the answers. No read moves the cursor meanwhile.
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
	for i := len(found) - 1; i >= 0; i-- { // what was named first is the last to go
		c.keep(found[i].read, newReadResult(found[i].body, SourceMiss), began)
	}
	return nil
}

// warmed is an answer that was loaded before anybody asked for it.
type warmed struct {
	read readRequest
	body string
}

func (s *Supabase) warmEntries(ctx context.Context, keys, prefixes []string, config CacheConfig) (found []warmed, seen changes, err error) {
	text, err := s.call(ctx, "kv_warm_get", struct {
		Keys     []string `json:"p_keys"`
		Prefixes []string `json:"p_prefixes"`
		Entries  int      `json:"p_entries"`
		Bytes    int64    `json:"p_bytes"`
	}{keys, prefixes, config.Entries, config.MaxBytes})
	if err != nil {
		return nil, changes{}, err
	}
	var pairs [][2]string
	seen, err = readWarmed("kv_warm_get", text, &pairs)
	for _, pair := range pairs {
		r, err := getRequest(pair[0])
		if err != nil {
			continue // a pattern that can be no key
		}
		found = append(found, warmed{r, pair[1]})
	}
	return found, seen, err
}

func (s *Supabase) warmLists(ctx context.Context, prefixes []string, config CacheConfig) (found []warmed, seen changes, err error) {
	text, err := s.call(ctx, "kv_warm_list", struct {
		Prefixes []string `json:"p_prefixes"`
		Bytes    int64    `json:"p_bytes"`
	}{prefixes, config.MaxBytes})
	if err != nil {
		return nil, changes{}, err
	}
	var lists []struct {
		Prefix string
		Values bool
		Body   string
	}
	seen, err = readWarmed("kv_warm_list", text, &lists)
	for _, list := range lists {
		r, err := listRequest(ListQuery{Prefix: list.Prefix, Values: list.Values})
		if err != nil {
			continue
		}
		found = append(found, warmed{r, list.Body})
	}
	return found, seen, err
}

func readWarmed(op, text string, into any) (changes, error) {
	rest, seen, err := cutChanges(op, text)
	if err != nil {
		return changes{}, err
	}
	if err := json.Unmarshal([]byte(rest), into); err != nil {
		return changes{}, &Error{Code: CodeDatabaseUnreachable, Message: messageMalformed, Op: op, Err: err}
	}
	return seen, nil
}
