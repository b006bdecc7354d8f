package entries

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/stream"
)

// MaxListed bounds what a result lists of a kind; the numbers count all.
const MaxListed = 10_000

// Member is one of an index that names no entry.
type Member struct {
	Index  string `json:"index"`
	Member string `json:"member"`
	Reason string `json:"reason"`
}

// IndexCounts are what the index entries of a source have. Members that an index has twice count once.
type IndexCounts struct {
	Entries int `json:"index_entries"`
	Members int `json:"members"` // of all index entries: the sum of Unruled, Unusable, and those that a rule was used for
	Named   int `json:"named"`   // entries that a rule names for a member: each gets the index if its blob does not say which it has
	Unnamed int `json:"unnamed"` // keys that a rule makes of a member, and no entry has
	// Without are the index entries that no rule is for, with their members: no entry gets these indexes but those
	// that say so themselves.
	WithoutRule int      `json:"index_entries_without_rule"`
	Unruled     int      `json:"members_without_rule"`
	Unusable    int      `json:"unusable_members"` // neither strings nor numbers, or too long
	Without     []string `json:"without_rule"`     // at most MaxListed, as are Unresolved
	Unresolved  []Member `json:"unresolved"`
}

// Derived are the indexes that rules give an entry, as pairs of index and member.
type Derived struct {
	Key   string
	Pairs [][2]string
}

// Derivation is what rules make of the index entries of a source. Close it.
type Derivation struct {
	Counts IndexCounts
	sorted *stream.Sorter
}

// Derive reads the listed index entries. dir is where pairs are sorted, if they are many: see [stream.NewSorter].
func Derive(ctx context.Context, source sources.Source, l *sources.Listing, o Options, rules Rules, dir string, progress sources.Progress) (d *Derivation, err error) {
	d = &Derivation{sorted: stream.NewSorter(dir), Counts: IndexCounts{Without: []string{}, Unresolved: []Member{}}}
	if o.IndexPrefix == "" {
		return d, nil
	}
	progress.Stage("reading indexes", -1)
	for item, err := range source.Read(ctx, l.Under(o.IndexPrefix)) {
		if err == nil {
			err = d.add(item, o, rules)
		}
		if err != nil {
			d.Close()
			return nil, err
		}
		progress.Done(1, 0)
	}
	return d, nil
}

// Close gives back the room that sorting took.
func (d *Derivation) Close() {
	if d != nil {
		d.sorted.Close()
	}
}

// add takes an entry that may be an index entry.
func (d *Derivation) add(item sources.Item, o Options, rules Rules) error {
	if item.Missing || item.Err != nil || !(item.IsIndex || o.isIndex(item.Key, item.Blob.Value)) {
		return nil
	}
	elements, _ := readElements(string(item.Blob.Value))
	rules = rules.of(item.Key)
	d.Counts.Entries++
	if len(rules) == 0 {
		d.Counts.WithoutRule++
		if len(d.Counts.Without) < MaxListed {
			d.Counts.Without = append(d.Counts.Without, item.Key)
		}
	}
	return eachMember(elements, func(e element) error {
		d.Counts.Members++
		if e.problem == "" && len(item.Key)+1+len(e.member.Text()) > kv.MaxKeyBytes {
			e.problem = fmt.Sprintf("with its index it is longer than %d bytes", kv.MaxKeyBytes)
		}
		switch {
		case e.problem != "":
			d.Counts.Unusable++
			d.unresolved(Member{item.Key, e.member.Text(), e.problem})
			return nil
		case len(rules) == 0:
			d.Counts.Unruled++
			return nil
		}
		for _, rule := range rules {
			if key := rule.key(e.member); key != item.Key {
				if err := d.sorted.Add(key, item.Key+"\x00"+string(e.member)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// eachMember gives each member once, and all elements that are none.
func eachMember(elements []element, each func(element) error) error {
	given := make(map[kv.Member]bool, len(elements))
	for _, e := range elements {
		if e.problem == "" {
			if given[e.member] {
				continue
			}
			given[e.member] = true
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return nil
}

func (d *Derivation) unresolved(m Member) {
	if len(d.Counts.Unresolved) < MaxListed {
		d.Counts.Unresolved = append(d.Counts.Unresolved, m)
	}
}

// Unnamed counts what rules name and is not there.
func (d *Derivation) Unnamed(p Derived) {
	d.Counts.Unnamed += len(p.Pairs)
	for _, pair := range p.Pairs {
		d.unresolved(Member{pair[0], kv.Member(pair[1]).Text(), fmt.Sprintf("there is no entry %q", p.Key)})
	}
}

// All are the pairs of each key that rules make of a member. The keys of index entries have no NUL.
func (d *Derivation) All() iter.Seq2[Derived, error] {
	return func(yield func(Derived, error) bool) {
		var now Derived
		for r, err := range d.sorted.All() {
			if err != nil {
				yield(Derived{}, err)
				return
			}
			if r.Key != now.Key && now.Pairs != nil {
				if !yield(now, nil) {
					return
				}
				now = Derived{}
			}
			now.Key = r.Key
			index, member, _ := strings.Cut(r.Data, "\x00")
			if pair := [2]string{index, member}; !slices.Contains(now.Pairs, pair) {
				now.Pairs = append(now.Pairs, pair)
			}
		}
		if now.Pairs != nil {
			yield(now, nil)
		}
	}
}
