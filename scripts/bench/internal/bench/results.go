package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// Results is the JSON document of a run.
type Results struct {
	At         time.Time         `json:"at"`
	Machine    Machine           `json:"machine"`
	Seed       uint64            `json:"seed"`
	Operations []OperationResult `json:"operations,omitempty"`
	Thousand   []Thousand        `json:"thousand,omitempty"`
	Stores     []OperationResult `json:"stores,omitempty"`
	// Alternatives compares the functions with what a user might choose instead.
	Alternatives []OperationResult `json:"alternatives,omitempty"`
	// Entries compares entries of any bytes with a plain table, and with the server of @netlify/blobs.
	Entries []OperationResult `json:"entries,omitempty"`
	Cold    []ColdResult      `json:"cold,omitempty"`
	Cache   []CacheResult     `json:"cache,omitempty"`
	Storage []StorageResult   `json:"storage,omitempty"`
}

// Machine describes the machine of the measurement.
type Machine struct {
	CPUs      int    `json:"cpus"`
	MemoryGB  int    `json:"memory_gb"`
	System    string `json:"system"`
	Go        string `json:"go"`
	Postgres  string `json:"postgres"`
	PostgREST string `json:"postgrest"`
}

func (m Machine) String() string {
	return fmt.Sprintf("%d CPUs, %d GB, %s, %s, Postgres %s, PostgREST %s", m.CPUs, m.MemoryGB, m.System, m.Go, m.Postgres, m.PostgREST)
}

// Read reads a file that [report.WriteJSON] wrote.
func Read(file string) (r Results, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", file, err)
	}
	return r, nil
}

// find returns the result of an operation. It is not ok if that was not measured.
func (r Results) find(operation string, entries, concurrency int) (OperationResult, bool) {
	i := slices.IndexFunc(r.Operations, func(o OperationResult) bool {
		return o.Operation == operation && o.Entries == entries && o.Concurrency == concurrency
	})
	if i < 0 {
		return OperationResult{}, false
	}
	return r.Operations[i], true
}

// sizes returns the measured numbers of entries, sorted.
func (r Results) sizes() (sizes []int) {
	for _, o := range r.Operations {
		if !slices.Contains(sizes, o.Entries) {
			sizes = append(sizes, o.Entries)
		}
	}
	slices.Sort(sizes)
	return sizes
}

// names returns the measured operations, in order.
func (r Results) names() (names []string) {
	for _, o := range r.Operations {
		if !slices.Contains(names, o.Operation) {
			names = append(names, o.Operation)
		}
	}
	return names
}
