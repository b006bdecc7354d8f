package migrate

import (
	"cmp"
	"path/filepath"
	"slices"
	"time"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// keepBlobs is how long the blobs are to be kept after a migration, for the way back.
const keepBlobs = 7 * 24 * time.Hour

func resultPath(dir string) string       { return filepath.Join(dir, "run.json") }
func planPath(dir string) string         { return filepath.Join(dir, "plan.json") }
func verificationPath(dir string) string { return filepath.Join(dir, "verify.json") }

// Result is what a plan found, or what a migration has done by the end of a run.
type Result struct {
	Plan     bool      `json:"plan,omitempty"` // nothing was written
	Source   string    `json:"source"`
	Target   string    `json:"target,omitempty"`
	At       time.Time `json:"at"` // of the run's beginning
	Seconds  float64   `json:"seconds"`
	Finished bool      `json:"finished"`
	Stopped  string    `json:"stopped,omitempty"` // why it ended early
	Options  Options   `json:"options"`

	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
	// Of this run: blobs read, entries written and entries removed. A key that changes meanwhile counts each time.
	Read    int `json:"read"`
	Written int `json:"written"`
	Removed int `json:"removed"`
	// Requests is how many this run has made to Netlify's API.
	Requests int `json:"requests"`
	// Unanswerable blobs are larger than what a function can answer with: 6 MB.
	Unanswerable int `json:"unanswerable"`
	// Statuses counts the keys by what became of them, in this run or an earlier one: each blob once, and each key whose blob is gone.
	Statuses map[kv.Imported]int `json:"statuses"`

	IndexEntries int `json:"index_entries"`
	Members      int `json:"members"`  // one that its index has twice counts once: resolved, ambiguous and unresolved together
	Resolved     int `json:"resolved"` // members that name an entry

	// These are at most maxListed each; the numbers are of all.
	Failed           int       `json:"failed"`
	Failures         []Problem `json:"failures"`
	Noted            int       `json:"noted"`
	Notes            []Problem `json:"notes"`
	UnresolvedCount  int       `json:"unresolved_count"`
	Unresolved       []Member  `json:"unresolved"`
	AmbiguousCount   int       `json:"ambiguous_count"`
	Ambiguous        []Member  `json:"ambiguous"`
	MixedCount       int       `json:"mixed_count"`
	Mixed            []Kind    `json:"mixed"` // kinds of entries of the indexes that name more than one
	Largest          []Sized   `json:"largest"`
	KeepBlobsUntil   time.Time `json:"keep_blobs_until,omitzero"`
	EstimatedSeconds float64   `json:"estimated_seconds,omitempty"` // of a plan: for a run and a verification
}

// Sized is an entry and the bytes of its value.
type Sized struct {
	Key   string `json:"key"`
	Bytes int64  `json:"bytes"`
}

// maxLargest is how many of the largest entries a result names.
const maxLargest = 20

// Rate is how many blobs a second the run got through.
func (r Result) Rate() float64 {
	if r.Seconds == 0 {
		return 0
	}
	return float64(r.Read) / r.Seconds
}

// result is what the journal has by now.
func (r *run) result(err error) Result {
	result := Result{
		Source: r.source.Name(), Target: r.target.Name, At: r.started.UTC(), Seconds: time.Since(r.started).Seconds(), Finished: err == nil,
		Options: r.o.Options, Read: r.read, Written: r.written, Removed: r.removed, Requests: requestsOf(r.source) - r.askedBefore,
		Statuses: map[kv.Imported]int{}, Failures: []Problem{}, Notes: []Problem{},
	}
	if err != nil {
		result.Stopped = err.Error()
	} else {
		result.KeepBlobsUntil = time.Now().Add(keepBlobs).UTC().Truncate(time.Second)
	}
	result.add(r.list, r.indexes)
	for _, key := range sortedKeys(r.journal.Records) {
		result.count(r.journal.Records[key].Status, r.journal.Records[key].Problem)
	}
	for _, blob := range r.list {
		if _, known := r.journal.Records[blob.Key]; !known {
			result.count(statusPending, nil)
		}
	}
	return result
}

// add takes what the list and the index entries say.
func (r *Result) add(list []blobs.Listed, x *Indexes) {
	r.Blobs = len(list)
	sizes := make([]Sized, len(list))
	for i, blob := range list {
		r.Bytes += blob.Size
		if blob.Size > kv.MaxResponseBytes {
			r.Unanswerable++
		}
		sizes[i] = Sized{blob.Key, blob.Size}
	}
	slices.SortStableFunc(sizes, func(a, b Sized) int { return cmp.Compare(b.Bytes, a.Bytes) })
	r.Largest = sizes[:min(len(sizes), maxLargest)]
	if x == nil {
		return
	}
	r.IndexEntries, r.Members, r.Resolved = x.Count()
	r.UnresolvedCount, r.AmbiguousCount = len(x.Unresolved), len(x.Ambiguous)
	mixed := x.Mixed()
	r.MixedCount, r.Mixed = len(mixed), mixed[:min(len(mixed), maxListed)]
	r.Unresolved, r.Ambiguous = x.Unresolved[:min(len(x.Unresolved), maxListed)], x.Ambiguous[:min(len(x.Ambiguous), maxListed)]
}

// count takes what became of a key.
func (r *Result) count(status kv.Imported, problem *Problem) {
	r.Statuses[status]++
	switch {
	case status == statusFailed:
		r.Failed++
		if problem != nil && len(r.Failures) < maxListed {
			r.Failures = append(r.Failures, *problem)
		}
	case problem != nil:
		r.Noted++
		if len(r.Notes) < maxListed {
			r.Notes = append(r.Notes, *problem)
		}
	}
}
