package migrate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

// DefaultIndexPrefix is what the keys of index entries begin with.
const DefaultIndexPrefix = "index:"

// memberPlace is what stands for the member in a rule.
const memberPlace = "{member}"

// IndexRule says which entry a member of an index names.
type IndexRule struct {
	Index string // the key of the index entry
	Entry string // the key of the entry that a member names, with {member} in it
}

// ParseIndexRule reads "index:sessions=session:{member}".
func ParseIndexRule(text string) (IndexRule, error) {
	index, entry, found := strings.Cut(text, "=")
	if !found || index == "" || strings.Count(entry, memberPlace) != 1 {
		return IndexRule{}, fmt.Errorf("an index rule is like index:sessions=session:{member}, got %q", text)
	}
	return IndexRule{index, entry}, nil
}

func (r IndexRule) key(member string) string { return strings.Replace(r.Entry, memberPlace, member, 1) }

// indexEntry is an index entry of the source.
type indexEntry struct {
	key      string
	elements []element
}

// element is one of the array that an index entry is.
type element struct {
	member  kv.Member
	problem string // why it can name no entry; then member is what is shown of it
}

// readElements reads an array that has a string or a number in it, or nothing; false for anything else.
func readElements(value string) (elements []element, ok bool) {
	var texts []json.RawMessage
	if !strings.HasPrefix(strings.TrimLeft(value, " \t\r\n"), "[") || json.Unmarshal([]byte(value), &texts) != nil {
		return nil, false
	}
	ok = len(texts) == 0
	for _, text := range texts {
		e := readElement(text)
		ok = ok || e.problem != problemType
		elements = append(elements, e)
	}
	return elements, ok
}

// Why an element of an index entry names no entry.
const (
	problemType      = "it is neither a string nor a number"
	problemCharacter = "it has a character that no key can have"
	problemEmpty     = "it is empty"
)

func readElement(text json.RawMessage) element {
	member, ok := kv.ParseMember(string(text))
	switch {
	case ok && member == "":
		return element{problem: problemEmpty}
	case ok:
		return element{member: member}
	case text[0] != '"':
		return element{kv.TextMember(excerpt(string(text))), problemType}
	}
	var shown string
	_ = json.Unmarshal(text, &shown) // with U+FFFD for what no text can carry
	return element{kv.TextMember(shown), problemCharacter}
}

// excerpt is what a report shows of a JSON text that may be long.
func excerpt(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Member is one of an index that names no entry, or more than one.
type Member struct {
	Index   string   `json:"index"`
	Member  string   `json:"member"`
	Reason  string   `json:"reason"`
	Entries []string `json:"entries,omitempty"` // that it may name, the first of them
}

// Indexes are what index entries say of the other entries.
type Indexes struct {
	Unresolved []Member // members that name no entry
	Ambiguous  []Member // members that may name several

	entries []indexEntry
	is      map[string]bool
	of      map[string][]pair
	members int // distinct ones
	settled int // members of entries that say so themselves
}

// pair is one of an entry's indexes, by its place: there may be millions.
type pair struct{ index, element uint32 }

// IsIndex tells whether the entry is an index entry.
func (x *Indexes) IsIndex(key string) bool { return x.is[key] }

// Count is how many index entries there are, with how many distinct members, and how many of these name one entry. The others are
// Unresolved or Ambiguous.
func (x *Indexes) Count() (entries, members, resolved int) {
	for _, pairs := range x.of {
		resolved += len(pairs)
	}
	return len(x.entries), x.members, resolved + x.settled
}

func (x *Indexes) member(p pair) kv.Member { return x.entries[p.index].elements[p.element].member }

// Of are the indexes of an entry: not nil.
func (x *Indexes) Of(key string) [][2]string {
	pairs := make([][2]string, len(x.of[key]))
	for i, p := range x.of[key] {
		pairs[i] = [2]string{x.entries[p.index].key, string(x.member(p))}
	}
	return pairs
}

// Kind is how many members of an index name entries whose keys are alike.
type Kind struct {
	Index   string `json:"index"`
	Entries string `json:"entries"` // their keys, with {member} in them, as in an [IndexRule]
	Members int    `json:"members"`
}

// Mixed are the kinds of entries that an index names where there is more than one: a member stays when its entry is deleted, and then
// fits whatever other entry ends in it. In the order of the indexes, those with the most members first.
func (x *Indexes) Mixed() []Kind {
	counts := map[uint32]map[string]int{}
	for key, pairs := range x.of {
		for _, p := range pairs {
			if counts[p.index] == nil {
				counts[p.index] = map[string]int{}
			}
			counts[p.index][strings.TrimSuffix(key, x.member(p).Text())+memberPlace]++
		}
	}
	mixed := []Kind{}
	for index, kinds := range counts {
		if len(kinds) < 2 {
			continue
		}
		for entries, members := range kinds {
			mixed = append(mixed, Kind{x.entries[index].key, entries, members})
		}
	}
	slices.SortFunc(mixed, func(a, b Kind) int {
		return cmp.Or(strings.Compare(a.Index, b.Index), cmp.Compare(b.Members, a.Members), strings.Compare(a.Entries, b.Entries))
	})
	return mixed
}

// names are what may stand for an entry in an index: its key, and what follows its last colon or slash.
func names(key string) []string {
	all := []string{key, key[strings.LastIndexByte(key, ':')+1:], key[strings.LastIndexByte(key, '/')+1:]}
	slices.Sort(all)
	return slices.Compact(all)
}

// extract finds which entries the members of the index entries name. keys are sorted. left are members whose entries have gone or left
// the index: where no rule says whom they name, they name no other. own are the indexes of entries that say themselves which they have;
// where members are ambiguous, the others are what they may name.
func extract(keys []string, entries []indexEntry, rules []IndexRule, left map[[2]string]bool, own map[string][][2]string) *Indexes {
	x := &Indexes{entries: entries, is: map[string]bool{}, of: map[string][]pair{}}
	named := map[string][]string{} // by how a member is spelled, the entries that it may name
	for _, e := range entries {
		x.is[e.key] = true
		for _, element := range e.elements {
			named[element.member.Text()] = nil
		}
	}
	for _, key := range keys {
		if x.is[key] {
			continue
		}
		for _, name := range names(key) {
			if known, wanted := named[name]; wanted {
				named[name] = append(known, key)
			}
		}
	}
	ruled := map[string][]IndexRule{}
	for _, rule := range rules {
		ruled[rule.Index] = append(ruled[rule.Index], rule)
	}
	for i, e := range entries {
		seen := map[kv.Member]bool{}
		for m, element := range e.elements {
			member := element.member
			if element.problem != "" {
				x.members++
				x.resolve(pair{uint32(i), uint32(m)}, nil)
				continue
			} else if seen[member] {
				continue
			}
			seen[member] = true
			x.members++
			candidates := named[member.Text()]
			if rules, ok := ruled[e.key]; ok {
				candidates = follow(rules, member.Text(), keys)
			} else if left[[2]string{e.key, string(member)}] {
				x.Unresolved = append(x.Unresolved, Member{Index: e.key, Member: member.Text(), Reason: "the entry that it named was deleted, or left the index"})
				continue
			}
			if len(candidates) > 1 {
				var settled bool
				if candidates, settled = others(candidates, [2]string{e.key, string(member)}, own); settled {
					x.settled++
					continue
				}
			}
			x.resolve(pair{uint32(i), uint32(m)}, candidates)
		}
	}
	return x
}

// others are the candidates that do not say themselves which indexes they have. settled: one does, and has this one.
func others(candidates []string, pair [2]string, own map[string][][2]string) (rest []string, settled bool) {
	for _, key := range candidates {
		indexes, says := own[key]
		if !says {
			rest = append(rest, key)
		}
		settled = settled || slices.Contains(indexes, pair)
	}
	return rest, settled
}

// follow are the entries that the rules make of a member.
func follow(rules []IndexRule, member string, keys []string) (candidates []string) {
	for _, rule := range rules {
		key := rule.key(member)
		if _, found := slices.BinarySearch(keys, key); found && key != rule.Index && !slices.Contains(candidates, key) {
			candidates = append(candidates, key)
		}
	}
	return candidates
}

// maxEntries is how many candidates a report names.
const maxEntries = 5

func (x *Indexes) resolve(p pair, candidates []string) {
	element, index := x.entries[p.index].elements[p.element], x.entries[p.index].key
	found := Member{Index: index, Member: element.member.Text()}
	switch {
	case element.problem != "":
		found.Reason = element.problem
	case len(index)+1+len(found.Member) > kv.MaxKeyBytes:
		found.Reason = fmt.Sprintf("with its index it is longer than %d bytes", kv.MaxKeyBytes)
	case len(candidates) == 0:
		found.Reason = "no entry has that key or ends in it"
	case len(candidates) > 1:
		found.Reason, found.Entries = "several entries have that name", candidates[:min(len(candidates), maxEntries)]
		x.Ambiguous = append(x.Ambiguous, found)
		return
	default:
		x.of[candidates[0]] = append(x.of[candidates[0]], p)
		return
	}
	x.Unresolved = append(x.Unresolved, found)
}
