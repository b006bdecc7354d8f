package migrate

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"netlify-supabase-kv/pkg/kv"
)

// PlanOptions say what to plan.
type PlanOptions struct {
	Options
	Dir      string // for the result and the rules; "" keeps none
	Progress Progress
}

// Planned is what a plan found.
type Planned struct {
	Source  string    `json:"source"`
	Target  string    `json:"target,omitempty"`
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`
	Options Options   `json:"options"`
	Contents
	// Migratable, Skipped, Failed and Absent are what would become of the blobs; those that went after they were listed are absent.
	Migratable int `json:"migratable"`
	Skipped    int `json:"skipped"`
	Absent     int `json:"absent"`
	Problems
	Requests         int             `json:"requests"`
	EstimatedSeconds float64         `json:"estimated_seconds"` // for a run and a verification
	Indexes          []ProposedIndex `json:"indexes"`
	IndexesLeft      int             `json:"indexes_left"` // for which no rules were looked for: there are too many
	RulesFile        string          `json:"rules_file,omitempty"`
}

// Plan reads every blob and makes its entry, as a run would, and writes neither store. It finds out which rules fit the members of index
// entries, and writes these into [RulesFile]. target may be nil; where it is not, the plan looks whether the database is ready.
func Plan(ctx context.Context, source Source, target *Target, o PlanOptions) (p Planned, err error) {
	p = Planned{Source: source.Name(), At: time.Now().UTC(), Options: o.Options, Problems: newProblems()}
	before := requestsOf(source)
	if err := o.Validate(); err != nil {
		return p, err
	}
	if o.Dir != "" {
		if err := canWrite(o.Dir); err != nil {
			return p, err
		}
	}
	if target != nil {
		p.Target = target.Name
		if _, err := target.Supabase.Migration(ctx); err != nil {
			return p, fmt.Errorf("ask the target: %w", err)
		}
	}
	l, err := list(ctx, source, o.Dir, o.Progress)
	if err != nil {
		return p, err
	}
	defer l.close()
	p.Contents = l.contents()
	finder, err := newRuleFinder(o.Dir, l.under(o.IndexPrefix))
	if err != nil {
		return p, err
	}
	defer finder.close()
	o.Progress.Stage("reading", l.blobs)
	for item, err := range source.Read(ctx, l.all()) {
		if err == nil {
			err = p.add(item, o.Options, finder)
		}
		if err != nil {
			return p, err
		}
		o.Progress.Done(1, 0)
	}
	if err := finder.compare(); err != nil {
		return p, err
	}
	p.Indexes, p.IndexesLeft = finder.proposals(), finder.left
	p.Requests = requestsOf(source) - before
	p.Seconds = time.Since(p.At).Seconds()
	// A run reads every blob and writes it, a verification reads them again: about three times what reading them took.
	p.EstimatedSeconds = 3 * p.Seconds
	if o.Dir == "" {
		return p, nil
	}
	if p.RulesFile, err = writeRules(o.Dir, p.Indexes); err == nil {
		err = writeJSON(filepath.Join(o.Dir, planFile), p)
	}
	if err != nil {
		return p, fmt.Errorf("write the result: %w", err)
	}
	return p, nil
}

// add takes a blob that was read.
func (p *Planned) add(item Item, o Options, finder *ruleFinder) error {
	if item.Missing {
		p.Absent++
		return nil
	}
	e, problem := o.transform(item, nil)
	switch {
	case problem == nil:
		p.Migratable++
		p.note(e.note)
	case problem.Code == CodeSkipped:
		p.Skipped++
		p.note(problem)
	default:
		p.fail(*problem)
	}
	switch {
	case e.IsIndex:
		elements, _ := readElements(e.Value)
		return finder.index(item.Key, elements)
	case problem != nil && (problem.Code == CodeBadKey || problem.Code == CodeUnreadable):
		return nil
	}
	return finder.entry(item.Key, item.Indexes)
}

// Contents is what a source has.
type Contents struct {
	Blobs        int     `json:"blobs"`
	Bytes        int64   `json:"bytes"`
	Unanswerable int     `json:"unanswerable"` // larger than what a function can answer with: 6 MB
	Largest      []Sized `json:"largest"`
}

// Sized is an entry and the bytes of its value.
type Sized struct {
	Key   string `json:"key"`
	Bytes int64  `json:"bytes"`
}

// maxLargest is how many of the largest entries a result names.
const maxLargest = 20

func (l *listing) contents() Contents { return Contents{l.blobs, l.bytes, l.unanswerable, l.largest} }

// Problems are why entries could not be made, and what is to be known of those that were: of each at most maxListed, and how many in all.
type Problems struct {
	Failed   int       `json:"failed"`
	Failures []Problem `json:"failures"`
	Noted    int       `json:"noted"`
	Notes    []Problem `json:"notes"`
}

func newProblems() Problems { return Problems{Failures: []Problem{}, Notes: []Problem{}} }

func (p *Problems) fail(problem Problem) {
	p.Failed++
	if len(p.Failures) < maxListed {
		p.Failures = append(p.Failures, problem)
	}
}

func (p *Problems) note(problem *Problem) {
	if problem == nil {
		return
	}
	p.Noted++
	if len(p.Notes) < maxListed {
		p.Notes = append(p.Notes, *problem)
	}
}

// readProblems are those that the database remembers.
func readProblems(ctx context.Context, target Target, status kv.MigrationStatus) (p Problems, err error) {
	p = newProblems()
	p.Failed, p.Noted = status.States[kv.ImportFailed], status.Noted
	for _, kind := range []struct {
		failed bool
		into   *[]Problem
	}{{true, &p.Failures}, {false, &p.Notes}} {
		const limit = 1000
		for after := ""; len(*kind.into) < maxListed; {
			var page []Problem
			if err := target.Supabase.ImportProblems(ctx, after, limit, kind.failed, &page); err != nil {
				return p, fmt.Errorf("read what failed: %w", err)
			}
			*kind.into = append(*kind.into, page...)
			if len(page) < limit {
				break
			}
			after = page[limit-1].Key
		}
	}
	return p, nil
}
