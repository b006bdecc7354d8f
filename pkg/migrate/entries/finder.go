package entries

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/stream"
)

const (
	// maxSiblings is how many indexes with the same beginning are looked at one by one; more are one family.
	maxSiblings = 50
	// maxFamilies bounds how many families, and how many indexes of each, rules are looked for.
	maxFamilies = 1000
	// maxPatterns bounds how many patterns are counted for an index, and how many entries of one name.
	maxPatterns = 200
)

// separators end the part of a key before a name.
const separators = ":/"

// RuleFinder finds which patterns the members of indexes fit. It is told of all entries, and compares in the end.
// Close it.
type RuleFinder struct {
	siblings map[string]int // indexes by family
	units    map[string]*unit
	sorted   *stream.Sorter // by name: how a member is spelled, or what an entry's key ends in
	Left     int            // indexes for which there was no room
}

// unit is an index, or a family of indexes, and what was found of its members.
type unit struct {
	name     string
	indexes  int
	members  int
	own      int // members of entries that say themselves that they have the index: they need no rule
	nothing  int // members that no entry's key ends in
	several  int // members that several entries' keys end in
	patterns map[string]int
}

// family is how the keys of an index and of its siblings begin.
func family(index string) string { return index[:strings.LastIndexAny(index, separators)+1] + "*" }

// NewRuleFinder returns a finder for the listed index entries. dir is where names are sorted, if they are many: see
// [stream.NewSorter].
func NewRuleFinder(dir string, indexes iter.Seq2[blobs.Listed, error]) (*RuleFinder, error) {
	f := &RuleFinder{siblings: map[string]int{}, units: map[string]*unit{}, sorted: stream.NewSorter(dir)}
	for blob, err := range indexes {
		if err != nil {
			return nil, err
		}
		if name := family(blob.Key); f.siblings[name] > 0 || len(f.siblings) < maxFamilies {
			f.siblings[name]++
		}
	}
	return f, nil
}

// Close gives back the room that sorting took.
func (f *RuleFinder) Close() { f.sorted.Close() }

func (f *RuleFinder) unit(index string) *unit {
	name := index
	if f.siblings[family(index)] > maxSiblings {
		name = family(index)
	}
	if f.siblings[family(index)] == 0 {
		return nil
	}
	u := f.units[name]
	if u == nil {
		u = &unit{name: name, patterns: map[string]int{}}
		f.units[name] = u
	}
	return u
}

// What a record of a name is of. An entry's come before a member's.
const (
	nameOfEntry  = "a" // and the pattern
	nameOfOwn    = "b" // a pair that an entry says it has: the index, NUL, the member
	nameOfMember = "c" // likewise
)

// Entry takes one that is no index entry.
func (f *RuleFinder) Entry(key string, own [][2]string) error {
	for _, pair := range own {
		if err := f.sorted.Add(kv.Member(pair[1]).Text(), nameOfOwn+pair[0]+"\x00"+pair[1]); err != nil {
			return err
		}
	}
	if own != nil { // no rule can change its indexes
		return nil
	}
	for at := 0; ; {
		if at < len(key) {
			if err := f.sorted.Add(key[at:], nameOfEntry+key[:at]+memberPlace); err != nil {
				return err
			}
		}
		next := strings.IndexAny(key[at:], separators)
		if next < 0 {
			return nil
		}
		at += next + 1
	}
}

// Index takes an index entry.
func (f *RuleFinder) Index(key, value string) error {
	u := f.unit(key)
	if u == nil {
		f.Left++
		return nil
	}
	u.indexes++
	elements, _ := readElements(value)
	return eachMember(elements, func(e element) error {
		u.members++
		if e.problem != "" {
			u.nothing++
			return nil
		}
		return f.sorted.Add(e.member.Text(), nameOfMember+key+"\x00"+string(e.member))
	})
}

// Compare holds members against the entries.
func (f *RuleFinder) Compare() error {
	var patterns []string
	own, name := map[string]bool{}, ""
	for r, err := range f.sorted.All() {
		if err != nil {
			return err
		}
		if r.Key != name {
			name, patterns = r.Key, nil
			clear(own)
		}
		what := r.Data[1:]
		switch r.Data[:1] {
		case nameOfEntry:
			if len(patterns) < maxPatterns {
				patterns = append(patterns, what)
			}
		case nameOfOwn:
			if len(own) < MaxListed {
				own[what] = true
			}
		default:
			index, _, _ := strings.Cut(what, "\x00")
			f.unit(index).found(patterns, own[what])
		}
	}
	return nil
}

func (u *unit) found(patterns []string, own bool) {
	switch {
	case own:
		u.own++
		return
	case len(patterns) == 0:
		u.nothing++
	case len(patterns) > 1:
		u.several++
	}
	for _, pattern := range patterns {
		if u.patterns[pattern] > 0 || len(u.patterns) < maxPatterns {
			u.patterns[pattern]++
		}
	}
}

// ProposedRule is a rule that fits members of an index, or of a family of them.
type ProposedRule struct {
	Rule    string `json:"rule"`
	Members int    `json:"members"`           // that it names an entry for
	Active  bool   `json:"active"`            // it alone fits all members
	Against string `json:"against,omitempty"` // why it is not active
}

// ProposedIndex is what was found of an index, or of a family of them.
type ProposedIndex struct {
	Index   string         `json:"index"`
	Indexes int            `json:"indexes"`
	Members int            `json:"members"`
	Own     int            `json:"own"`     // members of entries that say themselves that they have the index
	Nothing int            `json:"nothing"` // members that no entry's key ends in
	Several int            `json:"several"` // members that several entries' keys end in
	Rules   []ProposedRule `json:"rules"`   // those that fit most first, at most maxProposed
}

// maxProposed is how many rules are written down for one index.
const maxProposed = 10

// Proposals are what was found, by index.
func (f *RuleFinder) Proposals() []ProposedIndex {
	found := []ProposedIndex{}
	for _, name := range slices.Sorted(maps.Keys(f.units)) {
		found = append(found, f.units[name].proposal())
	}
	return found
}

func (u *unit) proposal() ProposedIndex {
	p := ProposedIndex{u.name, u.indexes, u.members, u.own, u.nothing, u.several, []ProposedRule{}}
	wanted, whole := u.members-u.own, 0
	for pattern, n := range u.patterns {
		p.Rules = append(p.Rules, ProposedRule{Rule: Rule{u.name, pattern}.String(), Members: n})
		if n == wanted {
			whole++
		}
	}
	slices.SortFunc(p.Rules, func(a, b ProposedRule) int {
		return cmp.Or(cmp.Compare(b.Members, a.Members), strings.Compare(a.Rule, b.Rule))
	})
	for i := range p.Rules {
		r := &p.Rules[i]
		switch {
		case !isLine(r.Rule, u.name):
			r.Against = "it cannot be written as a line"
		case r.Members < wanted:
			r.Against = fmt.Sprintf("it names an entry for %d of %d members", r.Members, wanted)
			if u.nothing > 0 {
				r.Against += fmt.Sprintf("; %d name nothing: their entries may have been deleted", u.nothing)
			}
		case whole > 1:
			r.Against = "other rules fit all members, too: which of them is meant, only you know"
		default:
			r.Active = true
		}
	}
	p.Rules = p.Rules[:min(len(p.Rules), maxProposed)]
	return p
}

// isLine reports whether a rule of the index can be written as a line.
func isLine(rule, index string) bool {
	rules, err := ParseRules(strings.Split(rule, "\n"))
	return err == nil && len(rules) == 1 && rules[0].Index == index && rules[0].String() == rule
}

// ProposedRules is the text of the proposals, and the file that it is for: [RulesFile] in the directory, or, where
// somebody has changed that, another beside it.
func ProposedRules(dir string, found []ProposedIndex) (file string, text []byte) {
	var out strings.Builder
	for _, p := range found {
		fmt.Fprintf(&out, "\n# %s: %d index entries with %d members. %d name nothing, the keys of %d end several entries, %d are of entries that say so themselves.\n",
			strings.ReplaceAll(p.Index, "\n", `\n`), p.Indexes, p.Members, p.Nothing, p.Several, p.Own)
		if len(p.Rules) == 0 && p.Members > p.Own {
			out.WriteString("# No rule fits. Without one the members stay in the index entry, and no entry gets the index.\n")
		}
		for _, r := range p.Rules {
			if r.Active {
				fmt.Fprintf(&out, "%s\n", r.Rule)
				continue
			}
			fmt.Fprintf(&out, "#%s\n#    ^ %s\n", strings.ReplaceAll(r.Rule, "\n", `\n`), r.Against)
		}
	}
	file = filepath.Join(dir, RulesFile)
	if before, err := os.ReadFile(file); err == nil && !isGenerated(string(before)) {
		file = filepath.Join(dir, "index-rules.new.txt")
	}
	return file, []byte(rulesHead + checkSum(out.String()) + "\n" + out.String())
}

// rulesHead begins the file, and the sum of the rest, by which a change is seen.
const rulesHead = `# Which entry a member of an index names. A line is a rule: <index>=<key of the entry, with {member} in it>; <beginning>*=… is for
# every index that begins so. Take the # away from what is right, and put one before what is not. A plan writes over this file
# only while nobody has changed it: `

func checkSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

func isGenerated(text string) bool {
	rest, found := strings.CutPrefix(text, rulesHead)
	sum, body, _ := strings.Cut(rest, "\n")
	return found && sum == checkSum(body)
}
