package bench

import (
	"errors"
	"fmt"

	"netlify-supabase-kv/scripts/bench/report"
)

// Target is a promised number and its measured value.
type Target struct {
	What     string
	Limit    string
	Measured string
	Met      bool
}

// The promises.
const (
	maxUpsertMean  = 50.0 // ms
	maxListMean    = 100.0
	maxIndexMean   = 30.0
	maxThousand    = 10.0 // seconds
	minHitRatio    = 0.80 // of the hot keys
	maxHitToMiss   = 0.03 // at p50
	maxToPostgREST = 1.10 // at p50
	maxBinary      = 12e6 // bytes
	maxCold        = 15.0 // ms at p50
	maxColdAway    = 10.0 // ms at p50, in addition to three round trips
	maxGrowth      = 1.2  // from the smallest to the largest number of entries, at p50
)

// maxStorage is the limit for the size of a value with two indexes, relative to its JSON, by the value's bytes.
func maxStorage(bytes int) float64 {
	switch {
	case bytes < 700:
		return 8
	case bytes < 2000:
		return 4
	}
	return 2.5
}

// brokenError is the number of broken promises.
type brokenError struct{ broken, all int }

func (e brokenError) Error() string {
	return fmt.Sprintf("%d of %d promises do not hold on this machine: see the last table", e.broken, e.all)
}

// IsBroken reports whether the error is about broken promises.
func IsBroken(err error) bool { return errors.As(err, new(brokenError)) }

// Kept returns an error if a promise is broken.
func (r Results) Kept() error {
	targets := r.Targets()
	broken := 0
	for _, t := range targets {
		if !t.Met {
			broken++
		}
	}
	if broken > 0 {
		return brokenError{broken, len(targets)}
	}
	return nil
}

// Targets compares the results with the promises.
func (r Results) Targets() (targets []Target) {
	add := func(met bool, what, limit, measured string, args ...any) {
		targets = append(targets, Target{what, limit, fmt.Sprintf(measured, args...), met})
	}
	for _, entries := range r.sizes() {
		for _, mean := range []struct {
			operation string
			most      float64
		}{{OpUpsert, maxUpsertMean}, {OpList, maxListMean}, {OpIndex, maxIndexMean}} {
			if o, ok := r.find(mean.operation, entries, 1); ok {
				l := o.Ways[WayFunction]
				add(l.Mean < mean.most, mean.operation+", mean", fmt.Sprintf("< %.0f ms", mean.most), "%.2f ms", l.Mean)
			}
		}
		for _, operation := range []string{OpUpsert, OpGet, OpList, OpIndex} {
			if o, ok := r.find(operation, entries, 1); ok {
				toCall := o.Ratio(WayFunction, WayPostgREST)
				add(toCall > 0 && toCall <= maxToPostgREST, operation+", p50 over that of the same call to PostgREST", fmt.Sprintf("≤ %.2f", maxToPostgREST), "%.3f", toCall)
			}
		}
	}
	if sizes := r.sizes(); len(sizes) > 1 {
		least, most := sizes[0], sizes[len(sizes)-1]
		for _, name := range []string{OpUpsert, OpGet, OpList, OpIndex} {
			before, ok := r.find(name, least, 1)
			after, too := r.find(name, most, 1)
			if ok && too {
				growth := ratio(after.Ways[WayFunction].P50, before.Ways[WayFunction].P50)
				add(growth <= maxGrowth, fmt.Sprintf("%s, p50 at %s entries over that at %s", name, report.Thousands(most), report.Thousands(least)), fmt.Sprintf("≤ %.2f", maxGrowth), "%.3f", growth)
			}
		}
	}
	for _, a := range alternatives() {
		for _, o := range r.Alternatives {
			if o.Operation != a.Name {
				continue
			}
			plain, javascript := o.Ratio(WayDefault, WayPlain), o.Ratio(WayDefault, WayJavaScript)
			add(plain > 0 && plain <= a.most, a.Name+", p50 over that of a plain table", fmt.Sprintf("≤ %.2f", a.most), "%.3f", plain)
			add(javascript > 0 && javascript <= 1, a.Name+", p50 over that of a JavaScript function", "≤ 1.00", "%.3f", javascript)
		}
	}
	for _, c := range comparisons {
		for _, o := range r.Entries {
			if o.Operation == c.name && c.most > 0 {
				toOther := o.Ratio(c.of, c.to)
				add(toOther > 0 && toOther <= c.most, fmt.Sprintf("%s, p50 over that of the %s", c.name, c.to), fmt.Sprintf("≤ %.2f", c.most), "%.3f", toOther)
			}
		}
	}
	for _, t := range r.Thousand {
		each := t.Seconds / float64(t.Operations) * 1000
		add(each < maxThousand, "1,000 operations, one after the other", fmt.Sprintf("< %.0f s", maxThousand), "%.2f s", each)
	}
	for _, c := range r.Cache {
		if c.Load.Name == HotKeys {
			add(c.HitRatio > minHitRatio, c.Load.Name+", served from memory", fmt.Sprintf("> %.0f %%", 100*minHitRatio), "%.1f %%", 100*c.HitRatio)
		}
		add(c.HitToMiss <= maxHitToMiss, c.Load.Name+", p50 from memory over that from the database", fmt.Sprintf("≤ %.2f", maxHitToMiss), "%.3f", c.HitToMiss)
	}
	for _, c := range r.Cold {
		if c.Distance > 0 { // TCP, TLS, and the call
			most := 3*c.Distance + maxColdAway
			add(c.Response.P50 <= most, fmt.Sprintf("p50 to the first response, %.0f ms away", c.Distance), fmt.Sprintf("≤ %.0f ms", most), "%.1f ms", c.Response.P50)
			continue
		}
		add(float64(c.Bytes) < maxBinary, "size of a binary", fmt.Sprintf("< %.0f MB", maxBinary/1e6), "%.1f MB", float64(c.Bytes)/1e6)
		add(c.Response.P50 < maxCold, "p50 from the start of a process to its first response", fmt.Sprintf("< %.0f ms", maxCold), "%.1f ms", c.Response.P50)
	}
	for _, s := range r.Storage {
		most := maxStorage(s.Value())
		add(s.Times() <= most, fmt.Sprintf("storage of values of %s bytes with two indexes, times the JSON", report.Thousands(s.Value())), fmt.Sprintf("≤ %.1f", most), "%.2f", s.Times())
	}
	return targets
}
