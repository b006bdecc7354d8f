package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/stream"
)

// Difference is a key that the two stores do not have alike.
type Difference struct {
	Key string `json:"key"`
	// How: "missing" in Supabase, "extra" in Supabase, or what is "different": value, metadata, indexes, that queries by
	// index miss it ("postings"), or a key that Blobs cannot have.
	How  string `json:"how"`
	What string `json:"what,omitempty"`
}

// Verification is what [Verify] found.
type Verification struct {
	Source       string            `json:"source"`
	Target       string            `json:"target"`
	At           time.Time         `json:"at"`
	Seconds      float64           `json:"seconds"`
	Rules        []string          `json:"rules"`
	Blobs        int               `json:"blobs"`
	Entries      int               `json:"entries"`
	Keys         int               `json:"keys"` // that either store had: the sum of identical, missing, extra, different, unmigratable, skipped and gone
	Identical    int               `json:"identical"`
	Members      int               `json:"members"` // of the index entries among the identical, which have them in the same order
	Missing      int               `json:"missing"`
	Extra        int               `json:"extra"`
	Different    int               `json:"different"`
	Unmigratable int               `json:"unmigratable"`   // blobs that no entry can be made of
	Skipped      int               `json:"skipped"`        // blobs that no entry was to be made of
	Gone         int               `json:"gone"`           // keys that neither store had any more when they were looked at
	Repaired     int               `json:"repaired"`       // keys that differed until the repair wrote or removed their entries
	Requests     int               `json:"requests"`       // to Netlify's API
	Found        []Difference      `json:"differences"`    // at most entries.MaxListed, as are Problems
	Problems     []entries.Problem `json:"problems"`       // of the unmigratable and the skipped
	Stray        int               `json:"stray_postings"` // see [kv.Supabase.StrayPostings]
	Finished     bool              `json:"finished"`
	Identity     bool              `json:"same"` // see Same
}

// Same reports whether both stores have the same, apart from blobs that were said to be skipped.
func (v Verification) Same() bool {
	return v.Finished && v.Missing+v.Extra+v.Different+v.Unmigratable+v.Stray == 0
}

// digestPage is how many entries one call takes the sums of.
const digestPage = 500

// usualRechecks are the pauses before what differs is looked at again: writes may be on their way between the stores.
var usualRechecks = []time.Duration{0, 250 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second}

// VerifyOptions say how to compare.
type VerifyOptions struct {
	entries.Options
	Rules    entries.Rules
	Dir      string // for the result; "" keeps none
	Repair   bool   // make Supabase what Blobs is, where they differ
	Progress sources.Progress

	rechecks []time.Duration // nil: the usual
	page     int             // 0: digestPage
}

// Verify reads every blob, and compares its SHA-256 with the one that the database makes of its entry. It looks at
// nothing that a run remembers. What differs is looked at again, since writes may be on their way. The database keeps
// the result, without keys.
func Verify(ctx context.Context, source sources.Source, target entries.Target, o VerifyOptions) (v Verification, err error) {
	if o.Options, err = o.For(source.StoreName()); err != nil {
		return v, err
	}
	c := &comparison{source: source, target: target, o: o, differing: map[string]differing{}, problems: map[string]entries.Problem{}}
	c.v = Verification{Source: source.Name(), Target: target.Name, At: time.Now().UTC(), Rules: o.Rules.Strings(), Found: []Difference{}, Problems: []entries.Problem{}}
	if err := canWrite(o.Dir); err != nil {
		return c.v, err
	}
	if err := target.Takes(source); err != nil {
		return c.v, err
	}
	if err := c.checkSource(ctx); err != nil {
		return c.v, err
	}
	before := sources.Requests(source)
	if err := c.compare(ctx); err != nil {
		return c.v, err
	}
	c.v.Requests = sources.Requests(source) - before
	if err := c.keep(ctx); err != nil {
		return c.v, fmt.Errorf("keep the result: %w", err)
	}
	return c.v, nil
}

// comparison is one verification.
type comparison struct {
	source sources.Source
	target entries.Target
	o      VerifyOptions
	v      Verification

	mu        sync.Mutex
	differing map[string]differing       // at most entries.MaxListed; of more, only the number is known
	problems  map[string]entries.Problem // likewise
}

// differing is a key that was found not to be alike, with what is needed to look again.
type differing struct {
	Difference
	listed blobs.Listed
	pairs  [][2]string
}

// checkSource refuses another source than that of the migration that is open: above all, nothing is to be repaired
// from it.
func (c *comparison) checkSource(ctx context.Context) error {
	m, err := c.target.Supabase.Migration(ctx)
	if err != nil {
		return fmt.Errorf("ask the target: %w", err)
	}
	if m != nil && m.ClosedAt == nil && m.Source != c.source.Name() {
		return &kv.MigrationDiffers{Source: m.Source, Options: m.Options}
	}
	return nil
}

func (c *comparison) compare(ctx context.Context) (err error) {
	if err := c.all(ctx); err != nil {
		return err
	}
	pauses := c.o.rechecks
	if pauses == nil {
		pauses = usualRechecks
	}
	for _, pause := range pauses {
		if len(c.differing) == 0 || c.v.Missing+c.v.Extra+c.v.Different > entries.MaxListed {
			break
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		if err := c.again(ctx); err != nil {
			return err
		}
	}
	if c.o.Repair {
		if err := c.repair(ctx); err != nil {
			return err
		}
	}
	if c.v.Stray, err = c.target.Supabase.StrayPostings(ctx); err != nil {
		return fmt.Errorf("count the postings: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(c.differing)) {
		c.v.Found = append(c.v.Found, c.differing[key].Difference)
	}
	for _, key := range slices.Sorted(maps.Keys(c.problems)) {
		c.v.Problems = append(c.v.Problems, c.problems[key])
	}
	c.v.Seconds, c.v.Finished = time.Since(c.v.At).Seconds(), true
	c.v.Identity = c.v.Same()
	return nil
}

// keep writes the result into the database, for whoever asks whether to switch, and into the directory.
func (c *comparison) keep(ctx context.Context) error {
	brief := c.v
	brief.Found, brief.Problems = nil, nil
	err := c.target.Supabase.VerificationAdd(ctx, brief)
	if c.o.Dir != "" {
		err = errors.Join(err, writeJSON(filepath.Join(c.o.Dir, verificationFile), c.v))
	}
	return err
}

// all compares everything once, in key order.
func (c *comparison) all(ctx context.Context) error {
	l, err := sources.List(ctx, c.source, c.o.Dir, c.o.Progress)
	if err != nil { // of an empty source, too: else all that Supabase has would be extra, and a repair would remove it
		return err
	}
	defer l.Close()
	derived, err := entries.Derive(ctx, c.source, l, c.o.Options, c.o.Rules, c.o.Dir, c.o.Progress)
	if err != nil {
		return err
	}
	defer derived.Close()
	c.v.Blobs, c.v.Keys = l.Blobs, l.Blobs
	c.o.Progress.Stage("comparing", l.Blobs)
	for s, err := range readSteps(ctx, c.source, c.listed(ctx, l, derived)) {
		if err != nil {
			return err
		}
		c.judge(s.step, c.expect(s.item, s.pairs), s.digest)
		c.o.Progress.Done(1, 0)
	}
	return nil
}

// page is how many entries one call takes the sums of.
func (c *comparison) page() int { return cmp.Or(c.o.page, digestPage) }

// listed are the steps with a blob. Entries without one are extra.
func (c *comparison) listed(ctx context.Context, l *sources.Listing, derived *entries.Derivation) iter.Seq2[step, error] {
	digests := stream.Pages(ctx, c.page(), digestKey, func(ctx context.Context, after string) ([]kv.Digest, error) {
		page, err := c.target.Supabase.Digests(ctx, after, c.page())
		if err != nil {
			return nil, fmt.Errorf("ask the database for its sums: %w", err)
		}
		return page, nil
	})
	return func(yield func(step, error) bool) {
		for s, err := range walk(l.All(), derived.All(), stream.None, digests, derived.Unnamed) {
			if s.digest != nil {
				c.v.Entries++
			}
			if err == nil && s.listed == nil {
				c.v.Keys++
				c.judge(s, expected{key: s.key, missing: true}, s.digest)
				continue
			}
			if !yield(s, err) {
				return
			}
		}
	}
}

// expected is what a blob's entry is to be, without its value.
type expected struct {
	key     string
	missing bool             // there is no blob
	problem *entries.Problem // why no entry can be made of it
	digest  kv.Digest
	members int // of an index entry
}

func (c *comparison) expect(item sources.Item, ruled [][2]string) expected {
	if item.Missing {
		return expected{key: item.Key, missing: true}
	}
	e, problem := c.o.Transform(item, ruled)
	if problem != nil {
		return expected{key: item.Key, problem: problem}
	}
	return expected{key: item.Key, digest: kv.DigestOf(e.State), members: e.Members()}
}

// judge counts what a key is found to be.
func (c *comparison) judge(s step, want expected, digest *kv.Digest) {
	difference := want.differs(digest)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case difference != nil:
		c.count(difference.How, 1)
		if len(c.differing) < entries.MaxListed {
			d := differing{Difference: *difference, pairs: s.pairs}
			if s.listed != nil {
				d.listed = *s.listed
			}
			d.listed.Key = s.key
			c.differing[s.key] = d
		}
	case want.problem != nil:
		if want.problem.Code == entries.CodeSkipped {
			c.v.Skipped++
		} else {
			c.v.Unmigratable++
		}
		if len(c.problems) < entries.MaxListed {
			c.problems[want.key] = *want.problem
		}
	case want.missing:
		c.v.Gone++
	default:
		c.v.Identical++
		c.v.Members += want.members
	}
}

func (c *comparison) count(how string, by int) {
	switch how {
	case "missing":
		c.v.Missing += by
	case "extra":
		c.v.Extra += by
	default:
		c.v.Different += by
	}
}

// differs compares.
func (want expected) differs(digest *kv.Digest) *Difference {
	switch {
	case want.missing && digest != nil:
		return &Difference{Key: want.key, How: "extra"}
	case want.problem != nil && want.problem.Code == entries.CodeBadKey && digest != nil:
		return &Difference{Key: want.key, How: "different", What: "key, which Netlify Blobs cannot keep: store it under another"}
	case want.problem != nil && digest != nil:
		return &Difference{Key: want.key, How: "different", What: "value"}
	case want.missing || want.problem != nil:
		return nil
	case digest == nil:
		return &Difference{Key: want.key, How: "missing"}
	}
	var what []string
	if want.digest.Value != digest.Value {
		what = append(what, "value")
	}
	if want.digest.Metadata != digest.Metadata {
		what = append(what, "metadata")
	}
	if want.digest.Indexes != digest.Indexes {
		what = append(what, "indexes")
	}
	if digest.Unposted > 0 {
		what = append(what, "postings")
	}
	if what != nil {
		return &Difference{Key: want.key, How: "different", What: strings.Join(what, ", ")}
	}
	return nil
}

// again looks at the keys that differ once more: at the blob, then at the entry.
func (c *comparison) again(ctx context.Context) error {
	c.o.Progress.Stage("looking again", len(c.differing))
	for keys := range slices.Chunk(slices.Sorted(maps.Keys(c.differing)), c.page()) {
		var steps []step
		for _, key := range keys {
			d := c.differing[key]
			steps = append(steps, step{key: key, listed: &d.listed, pairs: d.pairs})
		}
		var wanted []expected
		for s, err := range readSteps(ctx, c.source, stream.Of(steps)) {
			if err != nil {
				return err
			}
			wanted = append(wanted, c.expect(s.item, s.pairs))
		}
		digests, err := c.target.Digests(ctx, keys)
		if err != nil {
			return err
		}
		for i, s := range steps {
			c.count(c.differing[s.key].How, -1)
			delete(c.differing, s.key)
			c.judge(s, wanted[i], digests[s.key])
		}
		c.o.Progress.Done(len(keys), 0)
	}
	return nil
}
