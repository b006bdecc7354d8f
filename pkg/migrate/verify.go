package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// Difference is a key that the two stores do not have alike.
type Difference struct {
	Key string `json:"key"`
	// How: "missing" in Supabase, "extra" in Supabase, or what is "different": value, indexes, that queries by index miss it
	// ("postings"), or a key that Blobs cannot have.
	How  string `json:"how"`
	What string `json:"what,omitempty"`
}

// Verification is what [Verify] found.
type Verification struct {
	Source    string       `json:"source"`
	Target    string       `json:"target"`
	At        time.Time    `json:"at"`
	Seconds   float64      `json:"seconds"`
	Blobs     int          `json:"blobs"`
	Entries   int          `json:"entries"`
	Keys      int          `json:"keys"` // that either store had: the sum of identical, missing, extra, different, left and gone
	Identical int          `json:"identical"`
	Members   int          `json:"members"` // of the index entries among the identical, which have them in the same order
	Missing   int          `json:"missing"`
	Extra     int          `json:"extra"`
	Different int          `json:"different"`
	Left      []Problem    `json:"left"`           // blobs that no entry can be made of
	Gone      int          `json:"gone"`           // keys that neither store had any more when they were looked at
	Repaired  int          `json:"repaired"`       // keys that differed until the repair wrote or removed their entries
	Requests  int          `json:"requests"`       // to Netlify's API
	Found     []Difference `json:"differences"`    // at most maxListed
	Stray     int          `json:"stray_postings"` // see [kv.Supabase.StrayPostings]
	Finished  bool         `json:"finished"`
}

// Same tells whether both stores have the same, apart from blobs that were said to be skipped.
func (v Verification) Same() bool {
	for _, p := range v.Left {
		if p.Code != CodeSkipped {
			return false
		}
	}
	return v.Finished && v.Missing+v.Extra+v.Different == 0 && v.Stray == 0
}

const (
	// digestPage is how many entries one call takes the sums of.
	digestPage = 500
	// maxListed bounds what a result lists of a kind; the numbers count all.
	maxListed = 10_000
)

// usualRechecks are the pauses before what differs is looked at again: writes may be on their way between the stores.
var usualRechecks = []time.Duration{0, 250 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second}

// VerifyOptions say how to compare.
type VerifyOptions struct {
	Options
	Dir      string // for the result; "" keeps none
	Repair   bool   // make Supabase what Blobs is, where they differ
	Progress Progress

	rechecks []time.Duration // nil: the usual
	page     int             // 0: digestPage
}

// Verify reads every blob, and compares its SHA-256 with the one that the database makes of its entry. It looks neither at the
// journal nor at what a run counted. What differs is looked at again, since writes may be on their way.
func Verify(ctx context.Context, source Source, target Target, o VerifyOptions) (v Verification, err error) {
	if err := o.Validate(); err != nil {
		return v, err
	}
	if o.Dir != "" {
		if err := errors.Join(checkDir(o.Dir, source, target), canWrite(o.Dir)); err != nil {
			return v, err
		}
	}
	before := requestsOf(source)
	c := &comparison{source: source, target: target, o: o, v: Verification{Source: source.Name(), Target: target.Name, At: time.Now().UTC()}}
	if err := c.all(ctx); err != nil {
		return c.v, err
	}
	pauses := o.rechecks
	if pauses == nil {
		pauses = usualRechecks
	}
	for _, pause := range pauses {
		if len(c.differing) == 0 || len(c.differing) > maxListed {
			break
		}
		if err := sleep(ctx, pause); err != nil {
			return c.v, err
		}
		if err := c.again(ctx, c.differing); err != nil {
			return c.v, err
		}
	}
	if o.Repair {
		if err := c.repair(ctx); err != nil {
			return c.v, err
		}
	}
	if c.v.Stray, err = target.Supabase.StrayPostings(ctx); err != nil {
		return c.v, fmt.Errorf("count the postings: %w", err)
	}
	c.finish()
	c.v.Requests = requestsOf(source) - before
	if o.Dir != "" {
		if err := writeJSON(verificationPath(o.Dir), c.v); err != nil {
			return c.v, fmt.Errorf("write the result: %w", err)
		}
	}
	return c.v, nil
}

// checkDir refuses a directory whose runs were between other stores: above all, nothing is to be repaired from these.
func checkDir(dir string, source Source, target Target) error {
	journal, err := ReadJournal(dir)
	if err != nil || journal == nil {
		return err
	}
	return journal.Header.checkStores(source.Name(), target.Name)
}

// comparison is one verification.
type comparison struct {
	source  Source
	target  Target
	o       VerifyOptions
	v       Verification
	indexes *Indexes
	listed  map[string]blobs.Listed

	mu        sync.Mutex
	differing map[string]Difference
	left      map[string]Problem
}

// all compares everything once: the database's entries page by page in key order, beside the blobs of the same keys.
func (c *comparison) all(ctx context.Context) error {
	c.differing, c.left = map[string]Difference{}, map[string]Problem{}
	c.o.Progress.Stage("listing", -1)
	list, err := c.source.List(ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 { // else all that Supabase has would be extra, and a repair would remove it
		return ErrEmptySource
	}
	c.listed = make(map[string]blobs.Listed, len(list))
	for _, blob := range list {
		c.listed[blob.Key] = blob
	}
	if c.indexes, err = readIndexes(ctx, c.source, &c.target, list, c.o.Options, c.o.Progress); err != nil {
		return err
	}
	c.v.Blobs, c.v.Keys = len(list), len(list)
	c.o.Progress.Stage("comparing", len(list))
	group, ctx := errgroup.WithContext(ctx)
	pages := make(chan []kv.Digest, 1)
	group.Go(func() error {
		defer close(pages)
		return c.digests(ctx, pages)
	})
	group.Go(func() error {
		rest := list
		for page := range pages {
			upTo := len(rest)
			if len(page) == c.page() {
				upTo = countUpTo(rest, page[len(page)-1].Key)
			}
			c.v.Entries += len(page)
			if err := c.compare(ctx, rest[:upTo], page); err != nil {
				return err
			}
			rest = rest[upTo:]
		}
		return nil
	})
	return group.Wait()
}

// page is how many entries one call takes the sums of.
func (c *comparison) page() int { return cmp.Or(c.o.page, digestPage) }

// digests asks the database for the sums of all entries, one page ahead of the comparison. The last page is not full.
func (c *comparison) digests(ctx context.Context, pages chan<- []kv.Digest) error {
	for after := ""; ; {
		page, err := c.target.Supabase.Digests(ctx, after, c.page())
		if err != nil {
			return fmt.Errorf("ask the database for its sums: %w", err)
		}
		select {
		case pages <- page:
		case <-ctx.Done():
			return ctx.Err()
		}
		if len(page) < c.page() {
			return nil
		}
		after = page[len(page)-1].Key
	}
}

// countUpTo is how many blobs have keys up to this one.
func countUpTo(list []blobs.Listed, key string) int {
	n, found := slices.BinarySearchFunc(list, key, func(blob blobs.Listed, key string) int { return strings.Compare(blob.Key, key) })
	if found {
		n++
	}
	return n
}

// compare holds blobs against the sums of the entries in the same range of keys.
func (c *comparison) compare(ctx context.Context, list []blobs.Listed, digests []kv.Digest) error {
	entries := make(map[string]kv.Digest, len(digests))
	for _, d := range digests {
		entries[d.Key] = d
		if _, ok := c.listed[d.Key]; !ok {
			c.differing[d.Key] = Difference{Key: d.Key, How: "extra"}
			c.v.Keys++
		}
	}
	return c.source.Read(ctx, list, func(_ context.Context, item Item) error {
		digest, exists := entries[item.Key]
		c.judge(c.sums(item), digest, exists)
		c.o.Progress.Done(1, 0)
		return nil
	})
}

// sums are what a blob's entry is to have, without its value.
type sums struct {
	key            string
	missing        bool     // there is no blob
	problem        *Problem // why no entry can be made of it
	value, indexes string   // as in [kv.Digest]
	members        int      // of an index entry
}

func (c *comparison) sums(item Item) sums {
	if item.Missing {
		return sums{key: item.Key, missing: true}
	}
	e, problem := c.o.transform(item, c.indexes)
	if problem != nil {
		return sums{key: item.Key, problem: problem}
	}
	s := sums{key: item.Key, value: hexSHA256([]byte(e.Value)), indexes: digestPairs(e.Indexes)}
	if e.IsIndex {
		elements, _ := readElements(e.Value)
		s.members = len(elements)
	}
	return s
}

// judge says whether a blob and an entry are alike. A key that is identical or gone is counted, and not judged again; the others are
// counted in the end (finish).
func (c *comparison) judge(blob sums, digest kv.Digest, exists bool) {
	difference := blob.differs(digest, exists)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.differing, blob.key)
	delete(c.left, blob.key)
	switch {
	case difference != nil:
		c.differing[blob.key] = *difference
	case blob.problem != nil:
		c.left[blob.key] = *blob.problem
	case blob.missing:
		c.v.Gone++
	default:
		c.v.Identical++
		c.v.Members += blob.members
	}
}

// differs compares.
func (blob sums) differs(digest kv.Digest, exists bool) *Difference {
	switch {
	case blob.missing && exists:
		return &Difference{Key: blob.key, How: "extra"}
	case blob.problem != nil && blob.problem.Code == CodeBadKey && exists:
		return &Difference{Key: blob.key, How: "different", What: "key, which Netlify Blobs cannot keep: store it under another"}
	case blob.problem != nil && exists:
		return &Difference{Key: blob.key, How: "different", What: "value"}
	case blob.missing || blob.problem != nil:
		return nil
	case !exists:
		return &Difference{Key: blob.key, How: "missing"}
	}
	var what []string
	if blob.value != digest.Value {
		what = append(what, "value")
	}
	if blob.indexes != digest.Indexes {
		what = append(what, "indexes")
	}
	if digest.Unposted > 0 {
		what = append(what, "postings")
	}
	if what != nil {
		return &Difference{Key: blob.key, How: "different", What: strings.Join(what, ", ")}
	}
	return nil
}

// again looks at keys once more: at the blob, then at the entry.
func (c *comparison) again(ctx context.Context, keys map[string]Difference) error {
	sorted := sortedKeys(keys)
	c.o.Progress.Stage("looking again", len(sorted))
	for chunk := range slices.Chunk(sorted, c.page()) {
		read, unsaid := map[string]sums{}, map[string][][2]string{} // unsaid: indexes that only index entries tell of
		list := make([]blobs.Listed, len(chunk))
		for i, key := range chunk {
			list[i] = c.listed[key]
			list[i].Key = key
		}
		err := c.source.Read(ctx, list, func(_ context.Context, item Item) error {
			blob := c.sums(item)
			c.mu.Lock()
			defer c.mu.Unlock()
			read[item.Key] = blob
			if item.Indexes == nil && !item.Missing && blob.problem == nil {
				unsaid[item.Key] = c.indexes.Of(item.Key)
			}
			return nil
		})
		if err != nil {
			return err
		}
		digests, err := c.target.Supabase.DigestsOf(ctx, chunk)
		if err != nil {
			return fmt.Errorf("ask the database for its sums: %w", err)
		}
		entries := map[string]kv.Digest{}
		for _, d := range digests {
			entries[d.Key] = d
		}
		for _, key := range chunk {
			digest, exists := entries[key]
			blob := read[key]
			if pairs, ok := unsaid[key]; ok && exists && blob.indexes != digest.Indexes {
				settled, err := c.undecidable(ctx, key, pairs)
				if err != nil {
					return err
				}
				if settled {
					blob.indexes = digest.Indexes
				}
			}
			c.judge(blob, digest, exists)
		}
		c.o.Progress.Done(len(chunk), 0)
	}
	return nil
}

// undecidable tells whether an entry has other indexes than index entries say only because of members that other entries brought
// along: whether it had those too, its blob does not tell.
func (c *comparison) undecidable(ctx context.Context, key string, expected [][2]string) (bool, error) {
	states, err := c.target.Supabase.States(ctx, []string{key})
	if err != nil {
		return false, fmt.Errorf("read an entry: %w", err)
	}
	has := states[0].Indexes
	for _, p := range slices.Concat(expected, has) {
		if slices.Contains(expected, p) && slices.Contains(has, p) {
			continue
		}
		claimed, err := isClaimed(ctx, c.target, key, p)
		if err != nil || !claimed {
			return false, err
		}
	}
	return true, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// finish counts what is left.
func (c *comparison) finish() {
	v := &c.v
	v.Found = []Difference{}
	v.Missing, v.Extra, v.Different = 0, 0, 0
	for _, key := range sortedKeys(c.differing) {
		d := c.differing[key]
		switch d.How {
		case "missing":
			v.Missing++
		case "extra":
			v.Extra++
		default:
			v.Different++
		}
		if len(v.Found) < maxListed {
			v.Found = append(v.Found, d)
		}
	}
	v.Left = []Problem{}
	for _, key := range sortedKeys(c.left) {
		v.Left = append(v.Left, c.left[key])
	}
	v.Seconds = time.Since(v.At).Seconds()
	v.Finished = true
}

// repair makes the entries that differ what the blobs are, and compares these once more.
func (c *comparison) repair(ctx context.Context) error {
	keys := sortedKeys(c.differing)
	c.o.Progress.Stage("repairing", len(keys))
	var written []string
	for _, key := range keys {
		wrote, err := c.settle(ctx, key)
		if err != nil && !errors.Is(err, errUnsettled) {
			return fmt.Errorf("repair: %w", err)
		}
		if wrote {
			written = append(written, key)
		}
		c.o.Progress.Done(1, 0)
	}
	if err := c.again(ctx, c.differing); err != nil {
		return err
	}
	for _, key := range written {
		if _, differs := c.differing[key]; !differs {
			c.v.Repaired++
		}
	}
	return nil
}

// errUnsettled is a key that others keep changing.
var errUnsettled = errors.New("others keep changing the entry")

// settle copies a key until the blob has not moved, as mirrored writes do: the entry's token is read before the blob is, the copy is
// a compare-and-set on it, and the blob is looked at again afterwards. wrote tells whether the entry was written or removed.
func (c *comparison) settle(ctx context.Context, key string) (wrote bool, err error) {
	const rounds = 20
	for range rounds {
		states, err := c.target.Supabase.States(ctx, []string{key})
		if err != nil {
			return wrote, fmt.Errorf("read the entry: %w", err)
		}
		item, err := c.readOne(ctx, key)
		if err != nil {
			return wrote, err
		}
		state := kv.State{Key: key}
		if !item.Missing {
			e, problem := c.o.transform(item, c.indexes)
			if problem != nil {
				return wrote, nil // it stays a difference
			}
			state = e.State
		}
		if strings.Contains(c.differing[key].What, "postings") { // which follow a change of the indexes alone
			bare := state
			bare.Indexes = [][2]string{}
			if _, _, err := c.target.Supabase.Copy(ctx, bare, states[0].Revision, false); err != nil {
				return wrote, fmt.Errorf("write the entry: %w", err)
			}
			if states, err = c.target.Supabase.States(ctx, []string{key}); err != nil {
				return wrote, fmt.Errorf("read the entry: %w", err)
			}
		}
		applied, _, err := c.target.Supabase.Copy(ctx, state, states[0].Revision, false)
		if err != nil {
			return wrote, fmt.Errorf("write the entry: %w", err)
		}
		if !applied {
			continue
		}
		wrote = true
		again, err := c.readOne(ctx, key)
		if err != nil {
			return wrote, err
		}
		if again.Missing == item.Missing && again.Blob.ETag == item.Blob.ETag && string(again.Blob.Value) == string(item.Blob.Value) {
			return true, nil
		}
	}
	return wrote, errUnsettled
}

func (c *comparison) readOne(ctx context.Context, key string) (Item, error) {
	item, err := readOne(ctx, c.source, key)
	item.LastModified = c.listed[key].LastModified
	return item, err
}

func readOne(ctx context.Context, source Source, key string) (got Item, err error) {
	err = source.Read(ctx, []blobs.Listed{{Key: key}}, func(_ context.Context, item Item) error {
		got = item
		return nil
	})
	return got, err
}
