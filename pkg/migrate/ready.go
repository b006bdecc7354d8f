package migrate

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
)

const (
	// DefaultRequired is how many reads are to be compared before a switch.
	DefaultRequired = 10_000
	// DefaultFor is for how long.
	DefaultFor = 48 * time.Hour
	// maxVerificationAge is how old the last verification may be.
	maxVerificationAge = 7 * 24 * time.Hour
)

// Bar is what is required of a switch.
type Bar struct {
	Require int           // reads compared without a difference
	For     time.Duration // since when reads are compared
	Primary string        // the store that answers now, "blobs" or "supabase"; "": the one of the last compared read

	window time.Duration // of the reads that are looked at
}

// Readiness says whether to switch, and why.
type Readiness struct {
	Store    string       `json:"store,omitempty"`   // "" for kv
	Primary  string       `json:"primary,omitempty"` // which of both answers now; "" for another store than kv, of which only its callers know
	Ready    bool         `json:"ready"`             // whether to let the other one answer
	Checks   []ReadyCheck `json:"checks"`
	Evidence kv.Readiness `json:"evidence"`
}

// ReadyCheck is one thing that is required.
type ReadyCheck struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Found string `json:"found"`
}

// Verdict is the answer in words.
func (r Readiness) Verdict() string {
	switch {
	case r.Store != "" && r.Ready:
		return "the store " + r.Store + " is ready to be read from Supabase"
	case r.Store != "":
		return "the store " + r.Store + " is not ready to be read from Supabase"
	case r.Primary == "supabase" && r.Ready:
		return "Supabase answers, and going back to Blobs is safe"
	case r.Primary == "supabase":
		return "Supabase answers, and going back to Blobs is not safe"
	case r.Ready:
		return "Blobs answers, and Supabase is ready to"
	}
	return "Blobs answers, and Supabase is not ready to"
}

// Ready collects the evidence and holds it against the bar.
func Ready(ctx context.Context, target entries.Target, bar Bar) (r Readiness, err error) {
	if bar.Require < 0 || bar.For < 0 {
		return r, fmt.Errorf("what is required must not be below 0, got %d reads for %s", bar.Require, bar.For)
	}
	bar.window = max(bar.For, time.Hour)
	e, err := target.Supabase.Readiness(ctx, bar.window)
	if err != nil {
		return r, fmt.Errorf("ask the target: %w", err)
	}
	r = Readiness{Primary: bar.Primary, Evidence: e, Ready: true}
	if store := target.Supabase.StoreName(); store != kv.DefaultStore {
		r.Store, r.Primary = store, "" // nobody compares its reads
		r.Evidence = kv.Readiness{Now: e.Now, AtWork: e.AtWork, Run: e.Run, Unmigratable: e.Unmigratable, Verification: e.Verification, VerifiedAt: e.VerifiedAt}
		r.checkMigration()
		return r, nil
	}
	if r.Primary == "" && e.Primary != nil {
		r.Primary = *e.Primary
	}
	r.Primary = cmp.Or(r.Primary, "blobs")
	if r.Primary == "blobs" {
		r.checkMigration()
	}
	r.checkReads(bar)
	r.check("outbox", e.OutboxWaiting == 0, fmt.Sprintf("%d writes wait for more than a minute; kv migrate repair --primary %s copies them", e.OutboxWaiting, r.Primary))
	other := map[string]string{"blobs": "supabase", "supabase": "blobs"}[r.Primary]
	r.check("direction", e.Primaries[other] == 0, fmt.Sprintf("%d writes in the outbox are from when %s answered", e.Primaries[other], other))
	return r, nil
}

func (r *Readiness) check(name string, ok bool, found string) {
	r.Checks = append(r.Checks, ReadyCheck{name, ok, found})
	r.Ready = r.Ready && ok
}

// checkMigration is about what runs and verifications of the store left.
func (r *Readiness) checkMigration() {
	r.checkVerification()
	r.check("entries", r.Evidence.Unmigratable == 0, fmt.Sprintf("no entry could be made of %d blobs", r.Evidence.Unmigratable))
	r.check("run", !r.Evidence.AtWork, map[bool]string{true: "a run is at work", false: "no run is at work"}[r.Evidence.AtWork])
}

func (r *Readiness) checkVerification() {
	var v *Verification
	var run Result
	_ = json.Unmarshal(r.Evidence.Run, &run)
	if _ = json.Unmarshal(r.Evidence.Verification, &v); v == nil {
		r.check("verification", false, "there was none: kv migrate verify")
		return
	}
	age := r.Evidence.Now.Sub(v.At)
	found := fmt.Sprintf("%s ago: %d identical; %d missing, %d extra, %d different, %d not to be migrated, %d stray postings",
		age.Round(time.Minute), v.Identical, v.Missing, v.Extra, v.Different, v.Unmigratable, v.Stray)
	switch {
	case age > maxVerificationAge:
		r.check("verification", false, found+"; that is too long ago: kv migrate verify")
	case run.Written+run.Removed > 0 && run.At.After(v.At):
		r.check("verification", false, found+"; a run has changed something since: kv migrate verify")
	default:
		r.check("verification", v.Identity, found)
	}
}

func (r *Readiness) checkReads(bar Bar) {
	matched, differed, unanswered := 0, 0, 0
	for _, h := range r.Evidence.Hours {
		if h.Primary == r.Primary {
			matched, differed, unanswered = matched+h.Matched, differed+h.Differed, unanswered+h.Unanswered
		}
	}
	found := fmt.Sprintf("%d reads differed", differed)
	for _, kind := range slices.Sorted(maps.Keys(r.Evidence.Kinds)) {
		found += fmt.Sprintf("; %s: %d", kind, r.Evidence.Kinds[kind])
	}
	r.check("differences", differed == 0, found)
	r.check("errors", unanswered*100 <= matched+differed+unanswered, fmt.Sprintf("the other store did not answer %d compared reads in time", unanswered))
	if r.Primary == "supabase" { // what is required of the switch is behind us; but something must show that Blobs follows
		var v *Verification
		_ = json.Unmarshal(r.Evidence.Verification, &v)
		verified := v != nil && v.Identity && r.Evidence.Now.Sub(v.At) < 24*time.Hour
		r.check("followed", matched > 0 || verified, fmt.Sprintf("%d reads compared in the last %s; verified within a day: %v", matched+differed, bar.window, verified))
		return
	}
	r.check("reads", matched >= bar.Require, fmt.Sprintf("%d compared in the last %s, of %d required", matched+differed, bar.window, bar.Require))
	since := "reads are not compared: KV_COMPARE_READS"
	long := bar.For == 0 || bar.Require == 0 // a site without reads to compare has its verification
	if r.Evidence.ComparedSince != nil {
		compared := r.Evidence.Now.Sub(*r.Evidence.ComparedSince)
		long = long || compared >= bar.For
		since = fmt.Sprintf("reads are compared since %s, of %s required", compared.Round(time.Minute), bar.For)
	}
	r.check("time", long, since)
}
