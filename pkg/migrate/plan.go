package migrate

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
)

// PlanOptions say what to plan.
type PlanOptions struct {
	entries.Options
	Dir      string // for the result and the rules; "" keeps none
	Progress sources.Progress
}

// Planned is what a plan found.
type Planned struct {
	Source  string          `json:"source"`
	Target  string          `json:"target,omitempty"`
	At      time.Time       `json:"at"`
	Seconds float64         `json:"seconds"`
	Options entries.Options `json:"options"`
	sources.Contents
	// Migratable, Skipped, Failed and Absent are what would become of the blobs; those that went after they were
	// listed are absent.
	Migratable int `json:"migratable"`
	Skipped    int `json:"skipped"`
	Absent     int `json:"absent"`
	Problems
	Requests         int                     `json:"requests"`
	EstimatedSeconds float64                 `json:"estimated_seconds"` // for a run and a verification
	Indexes          []entries.ProposedIndex `json:"indexes"`
	IndexesLeft      int                     `json:"indexes_left"` // for which no rules were looked for: there are too many
	RulesFile        string                  `json:"rules_file,omitempty"`
}

// Plan reads every blob and makes its entry, as a run would, and writes neither store. It finds out which rules fit
// the members of index entries, and writes these into [entries.RulesFile]. target may be nil; where it is not, the
// plan looks whether the database is ready.
func Plan(ctx context.Context, source sources.Source, target *entries.Target, o PlanOptions) (p Planned, err error) {
	if o.Options, err = o.For(source.StoreName()); err != nil {
		return p, err
	}
	p = Planned{Source: source.Name(), At: time.Now().UTC(), Options: o.Options, Problems: newProblems()}
	before := sources.Requests(source)
	if err := canWrite(o.Dir); err != nil {
		return p, err
	}
	if target != nil {
		p.Target = target.Name
		if _, err := target.Supabase.Migration(ctx); err != nil {
			return p, fmt.Errorf("ask the target: %w", err)
		}
	}
	l, err := sources.List(ctx, source, o.Dir, o.Progress)
	if err != nil {
		return p, err
	}
	defer l.Close()
	p.Contents = l.Contents
	var finder *entries.RuleFinder // nil where there are no indexes
	if o.IndexPrefix != "" {
		if finder, err = entries.NewRuleFinder(o.Dir, l.Under(o.IndexPrefix)); err != nil {
			return p, err
		}
		defer finder.Close()
	}
	o.Progress.Stage("reading", l.Blobs)
	for item, err := range source.Read(ctx, l.All()) {
		if err == nil {
			err = p.add(item, o.Options, finder)
		}
		if err != nil {
			return p, err
		}
		o.Progress.Done(1, 0)
	}
	p.Indexes = []entries.ProposedIndex{}
	if finder != nil {
		if err := finder.Compare(); err != nil {
			return p, err
		}
		p.Indexes, p.IndexesLeft = finder.Proposals(), finder.Left
	}
	p.Requests = sources.Requests(source) - before
	p.Seconds = time.Since(p.At).Seconds()
	// A run reads every blob and writes it, a verification reads them again: about three times what reading them took.
	p.EstimatedSeconds = 3 * p.Seconds
	if o.Dir == "" {
		return p, nil
	}
	if finder != nil {
		var rules []byte
		p.RulesFile, rules = entries.ProposedRules(o.Dir, p.Indexes)
		err = writeFile(p.RulesFile, rules)
	}
	if err == nil {
		err = writeJSON(filepath.Join(o.Dir, planFile), p)
	}
	if err != nil {
		return p, fmt.Errorf("write the result: %w", err)
	}
	return p, nil
}

// add takes a blob that was read.
func (p *Planned) add(item sources.Item, o entries.Options, finder *entries.RuleFinder) error {
	if item.Missing {
		p.Absent++
		return nil
	}
	e, problem := o.Transform(item, nil)
	switch {
	case problem == nil:
		p.Migratable++
		p.note(e.Note)
	case problem.Code == entries.CodeSkipped:
		p.Skipped++
		p.note(problem)
	default:
		p.fail(*problem)
	}
	switch {
	case finder == nil:
		return nil
	case e.IsIndex:
		return finder.Index(item.Key, e.Value)
	case problem != nil && (problem.Code == entries.CodeBadKey || problem.Code == entries.CodeUnreadable):
		return nil
	}
	return finder.Entry(item.Key, item.Indexes)
}

// Problems are why entries could not be made, and what is to be known of those that were: of each at most
// entries.MaxListed, and how many in all.
type Problems struct {
	Failed   int               `json:"failed"`
	Failures []entries.Problem `json:"failures"`
	Noted    int               `json:"noted"`
	Notes    []entries.Problem `json:"notes"`
}

func newProblems() Problems {
	return Problems{Failures: []entries.Problem{}, Notes: []entries.Problem{}}
}

func (p *Problems) fail(problem entries.Problem) {
	p.Failed++
	if len(p.Failures) < entries.MaxListed {
		p.Failures = append(p.Failures, problem)
	}
}

func (p *Problems) note(problem *entries.Problem) {
	if problem == nil {
		return
	}
	p.Noted++
	if len(p.Notes) < entries.MaxListed {
		p.Notes = append(p.Notes, *problem)
	}
}

// readProblems are those that the database remembers.
func readProblems(ctx context.Context, target entries.Target, status kv.MigrationStatus) (p Problems, err error) {
	p = newProblems()
	p.Failed, p.Noted = status.States[kv.ImportFailed], status.Noted
	for _, kind := range []struct {
		failed bool
		into   *[]entries.Problem
	}{{true, &p.Failures}, {false, &p.Notes}} {
		const limit = 1000
		for after := ""; len(*kind.into) < entries.MaxListed; {
			var page []entries.Problem
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
