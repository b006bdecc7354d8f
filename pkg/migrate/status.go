package migrate

import (
	"context"
	"fmt"

	"netlify-supabase-kv/pkg/kv"
)

// Status is where a migration is.
type Status struct {
	Database *kv.ImportStatus    `json:"database,omitempty"` // nil where no target was given
	Journal  *JournalStatus      `json:"journal,omitempty"`  // nil where the directory has none
	Results  *Report             `json:"results,omitempty"`
	Statuses map[kv.Imported]int `json:"statuses,omitempty"` // what became of the keys that the journal has
}

// JournalStatus is what a journal says.
type JournalStatus struct {
	Header
	Keys int `json:"keys"`
	// Ours tells whether the migration that the database has open is this one.
	Ours bool `json:"ours"`
}

// ReadStatus looks at a directory and, where target is not nil, at the database. It changes neither.
func ReadStatus(ctx context.Context, dir string, target *Target) (Status, error) {
	var s Status
	if target != nil {
		status, err := target.Supabase.ImportStatus(ctx)
		if err != nil {
			return s, fmt.Errorf("ask the target: %w", err)
		}
		s.Database = &status
	}
	journal, err := ReadJournal(dir)
	if err != nil {
		return s, err
	}
	if journal != nil {
		s.Journal = &JournalStatus{Header: journal.Header, Keys: len(journal.Records)}
		s.Journal.Ours = s.Database != nil && s.Database.Run != nil && *s.Database.Run == journal.Header.Run
		s.Statuses = map[kv.Imported]int{}
		for _, record := range journal.Records {
			s.Statuses[record.Status]++
		}
	}
	if report, err := ReadReport(dir); err == nil {
		s.Results = &report
	}
	return s, nil
}
