package bench

import (
	"fmt"

	"netlify-supabase-kv/scripts/bench/report"
)

// Compare compares the results with older ones: each operation's time now, divided by its time then. The last column
// compares the ratios to the same call to PostgREST, which depend less on the machine.
func Compare(older, newer Results) report.Table {
	t := report.Table{Title: "Compared with the results of " + older.At.Format("2006-01-02 15:04") + ", new over old", Texts: 3,
		Header: []string{"", "entries", "at a time", "old p50", "new p50", "p50", "p95", "p99", "/ PostgREST"}}
	if older.Machine != newer.Machine {
		t.Notes = append(t.Notes, "The machines differ: "+older.Machine.String()+" then, "+newer.Machine.String()+" now.")
	}
	row := func(name, entries, concurrency string, a, b Latency, rest string) {
		if a.P50 == 0 || b.P50 == 0 {
			return // only one of them has it
		}
		t.Rows = append(t.Rows, []string{name, entries, concurrency, report.Millis(a.P50), report.Millis(b.P50), times(b.P50 / a.P50), times(ratio(b.P95, a.P95)), times(ratio(b.P99, a.P99)), rest})
	}
	for _, b := range newer.Operations {
		if a, ok := older.find(b.Operation, b.Entries, b.Concurrency); ok {
			row(b.Operation, report.Thousands(b.Entries), fmt.Sprint(b.Concurrency), a.Ways[WayFunction], b.Ways[WayFunction],
				times(ratio(b.Ratio(WayFunction, WayPostgREST), a.Ratio(WayFunction, WayPostgREST))))
		}
	}
	for _, b := range newer.Stores {
		for _, a := range older.Stores {
			if a.Operation == b.Operation && a.Entries == b.Entries {
				row(b.Operation+" on Blobs", report.Thousands(b.Entries), "1", a.Ways[WayBlobs], b.Ways[WayBlobs], "–")
				row(b.Operation+" as deployed", report.Thousands(b.Entries), "1", a.Ways[WaySupabase], b.Ways[WaySupabase], "–")
			}
		}
	}
	for _, b := range newer.Cold {
		for _, a := range older.Cold {
			if a.Function == b.Function && a.Distance == b.Distance {
				row(b.Function+", first response", "–", "1", a.Response, b.Response, "–")
			}
		}
	}
	for _, b := range newer.Cache {
		for _, a := range older.Cache {
			if a.Load.Name == b.Load.Name {
				row("from memory, "+b.Load.Name, report.Thousands(b.Load.Keys), "1", a.Hits, b.Hits, "–")
				row("from the database, "+b.Load.Name, report.Thousands(b.Load.Keys), "1", a.Misses, b.Misses, "–")
			}
		}
	}
	return t
}
