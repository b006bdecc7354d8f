package bench

import (
	"fmt"
	"slices"

	"netlify-supabase-kv/scripts/bench/report"
)

// TargetsTable lists the promises and whether they hold. What is measured several times, such as at several numbers of
// entries, has one row.
func (r Results) TargetsTable() report.Table {
	t := report.Table{Title: "What is promised", Texts: 1, Header: []string{"", "promised", "measured", "holds"}}
	for _, target := range r.Targets() {
		i := slices.IndexFunc(t.Rows, func(row []string) bool { return row[0] == target.What && row[1] == target.Limit })
		if i < 0 {
			t.Rows = append(t.Rows, []string{target.What, target.Limit, target.Measured, yes(target.Met)})
			continue
		}
		t.Rows[i][2] += ", " + target.Measured
		if !target.Met {
			t.Rows[i][3] = yes(false)
		}
	}
	return t
}

// OperationsTable has the latencies of the functions for one size and concurrency.
func (r Results) OperationsTable(entries, concurrency int) report.Table {
	t := report.Table{
		Title: fmt.Sprintf("%s entries, %s at a time, ms", report.Thousands(entries), callers(concurrency)), Texts: 1,
		Header: []string{"", "calls", "mean", "p50", "p95", "p99", "/ PostgREST", "/ SQL", "miss", "hosted", "table", "/ table"},
	}
	for _, name := range r.names() {
		if o, ok := r.find(name, entries, concurrency); ok {
			l := o.Ways[WayFunction]
			t.Rows = append(t.Rows, []string{name, fmt.Sprint(l.Calls), report.Millis(l.Mean), report.Millis(l.P50), report.Millis(l.P95), report.Millis(l.P99),
				times(o.Ratio(WayFunction, WayPostgREST)), times(o.Ratio(WayFunction, WaySQL)),
				report.Millis(o.Ways[WayCache].P50), report.Millis(o.Ways[WayHost].P50), report.Millis(o.Ways[WayTable].P50), times(o.Ratio(WayFunction, WayTable))})
		}
	}
	return t
}

func callers(n int) string {
	if n == 1 {
		return "one call"
	}
	return fmt.Sprintf("%d calls", n)
}

// OperationsTables returns the tables of every concurrency for one size.
func (r Results) OperationsTables(entries int) (tables []report.Table) {
	var concurrencies []int
	for _, o := range r.Operations {
		if o.Entries == entries && !slices.Contains(concurrencies, o.Concurrency) {
			concurrencies = append(concurrencies, o.Concurrency)
		}
	}
	slices.Sort(concurrencies)
	for _, concurrency := range concurrencies {
		tables = append(tables, r.OperationsTable(entries, concurrency))
	}
	return tables
}

// WaysTable shows where the time of a single call is spent.
func (r Results) WaysTable(entries int) report.Table {
	t := report.Table{Title: fmt.Sprintf("Where the time goes at %s entries, p50 in ms", report.Thousands(entries)), Texts: 1,
		Header: []string{"", "SQL", "PostgREST", "function", "PostgREST adds", "function adds", "host adds"}}
	for _, name := range r.names() {
		o, ok := r.find(name, entries, 1)
		if !ok {
			continue
		}
		sql, rest, function, host := o.Ways[WaySQL].P50, o.Ways[WayPostgREST].P50, o.Ways[WayFunction].P50, o.Ways[WayHost].P50
		under := function
		if miss := o.Ways[WayCache].P50; miss > 0 {
			under = miss // as on the host
		}
		hop := "–"
		if host > 0 {
			hop = fmt.Sprintf("%.2f", host-under)
		}
		t.Rows = append(t.Rows, []string{name, report.Millis(sql), report.Millis(rest), report.Millis(function), fmt.Sprintf("%.2f", rest-sql), fmt.Sprintf("%.2f", function-rest), hop})
	}
	return t
}

// GrowthTable compares the smallest size with the largest.
func (r Results) GrowthTable() report.Table {
	sizes := r.sizes()
	least, most := sizes[0], sizes[len(sizes)-1]
	t := report.Table{Title: "What more entries cost, p50 in ms, one call at a time", Texts: 1, Header: []string{"", report.Thousands(least), report.Thousands(most), "ratio"}}
	for _, name := range r.names() {
		before, ok := r.find(name, least, 1)
		after, too := r.find(name, most, 1)
		if ok && too {
			a, b := before.Ways[WayFunction].P50, after.Ways[WayFunction].P50
			t.Rows = append(t.Rows, []string{name, report.Millis(a), report.Millis(b), times(ratio(b, a))})
		}
	}
	return t
}

// StoresTable compares the functions on Netlify Blobs and on Supabase.
func (r Results) StoresTable() report.Table {
	t := report.Table{Title: "Before and after, ms", Texts: 1,
		Header: []string{"", "Blobs mean", "p50", "p95", "p99", "Supabase mean", "p50", "p95", "p99", "Blobs / Supabase"}}
	for _, o := range r.Stores {
		b, s := o.Ways[WayBlobs], o.Ways[WaySupabase]
		t.Rows = append(t.Rows, []string{o.Operation, report.Millis(b.Mean), report.Millis(b.P50), report.Millis(b.P95), report.Millis(b.P99), report.Millis(s.Mean), report.Millis(s.P50), report.Millis(s.P95), report.Millis(s.P99), times(o.Ratio(WayBlobs, WaySupabase))})
	}
	return t
}

// AlternativesTable compares the functions with what a user might choose instead.
func (r Results) AlternativesTable() report.Table {
	t := report.Table{Title: "Beside a plain table and a JavaScript function, p50 in ms", Texts: 1,
		Header: []string{"", "entries", "at a time", "function", "plain table", "JavaScript", "/ plain table", "promised", "/ JavaScript"}}
	for _, a := range alternatives() {
		for _, o := range r.Alternatives {
			if o.Operation == a.Name {
				t.Rows = append(t.Rows, []string{a.Name, report.Thousands(o.Entries), fmt.Sprint(o.Concurrency),
					report.Millis(o.Ways[WayDefault].P50), report.Millis(o.Ways[WayPlain].P50), report.Millis(o.Ways[WayJavaScript].P50),
					times(o.Ratio(WayDefault, WayPlain)), fmt.Sprintf("≤ %.2f", a.most), times(o.Ratio(WayDefault, WayJavaScript))})
			}
		}
	}
	return t
}

// EntriesTable compares entries of any bytes with a plain table, and with the server of @netlify/blobs.
func (r Results) EntriesTable() report.Table {
	t := report.Table{Title: "Entries of any bytes, p50 in ms", Texts: 2, Header: []string{"", "beside", "entries", "at a time", "p50", "the other's", "ratio", "promised"}}
	for _, c := range comparisons {
		for _, o := range r.Entries {
			if o.Operation != c.name {
				continue
			}
			promised := "–"
			if c.most > 0 {
				promised = fmt.Sprintf("≤ %.2f", c.most)
			}
			t.Rows = append(t.Rows, []string{c.name, string(c.to), report.Thousands(o.Entries), fmt.Sprint(o.Concurrency),
				report.Millis(o.Ways[c.of].P50), report.Millis(o.Ways[c.to].P50), times(o.Ratio(c.of, c.to)), promised})
		}
	}
	return t
}

// ColdTable has the latencies of the first request to a new instance.
func (r Results) ColdTable() report.Table {
	t := report.Table{Title: "A new instance, ms from the start of the process", Texts: 1,
		Header: []string{"", "round trip", "binary", "starts", "ready p50", "p95", "first response mean", "p50", "p95", "p99"}}
	for _, c := range r.Cold {
		distance := "–"
		if c.Distance > 0 {
			distance = fmt.Sprintf("%.0f", c.Distance)
		}
		t.Rows = append(t.Rows, []string{c.Function, distance, fmt.Sprintf("%.1f MB", float64(c.Bytes)/1e6), fmt.Sprint(c.Response.Calls),
			report.Millis(c.Ready.P50), report.Millis(c.Ready.P95), report.Millis(c.Response.Mean), report.Millis(c.Response.P50), report.Millis(c.Response.P95), report.Millis(c.Response.P99)})
	}
	return t
}

// CacheTable shows the effect of kv-get's cache.
func (r Results) CacheTable() report.Table {
	t := report.Table{Title: "kv-get with its cache and without, ms", Texts: 2, Header: []string{"load", "", "from memory", "calls", "mean", "p50", "p95", "p99"}}
	for _, c := range r.Cache {
		first, share := c.Load.Name, fmt.Sprintf("%.1f %%", 100*c.HitRatio)
		for _, row := range []struct {
			name string
			l    Latency
		}{{"with the cache", c.Cached}, {"from memory", c.Hits}, {"from the database", c.Misses}, {"without a cache", c.Uncached}} {
			t.Rows = append(t.Rows, []string{first, row.name, share, fmt.Sprint(row.l.Calls), report.Millis(row.l.Mean), report.Millis(row.l.P50), report.Millis(row.l.P95), report.Millis(row.l.P99)})
			first, share = "", ""
		}
	}
	return t
}

// Tables returns all tables that have results.
func (r Results) Tables() (tables []report.Table) {
	for _, t := range []report.Table{r.AlternativesTable(), r.EntriesTable()} {
		if len(t.Rows) > 0 {
			tables = append(tables, t)
		}
	}
	sizes := r.sizes()
	for _, entries := range sizes {
		tables = append(tables, r.OperationsTables(entries)...)
	}
	if len(sizes) > 0 {
		tables = append(tables, r.WaysTable(sizes[len(sizes)-1]))
		if len(sizes) > 1 {
			tables = append(tables, r.GrowthTable())
		}
	}
	for _, t := range []report.Table{r.StoresTable(), r.ColdTable(), r.CacheTable(), r.StorageTable(), r.TargetsTable()} {
		if len(t.Rows) > 0 {
			tables = append(tables, t)
		}
	}
	return tables
}
