package bench

import (
	"fmt"
	"slices"
)

// TargetsTable is what is promised, and whether it holds.
func (r Results) TargetsTable() Table {
	t := Table{Title: "What is promised", Texts: 1, Header: []string{"", "promised", "measured", "holds"}}
	for _, target := range r.Targets() {
		t.Rows = append(t.Rows, []string{target.What, target.Limit, target.Measured, yes(target.Met)})
	}
	return t
}

// OperationsTable is how long the functions take for one size and concurrency.
func (r Results) OperationsTable(entries, concurrency int) Table {
	t := Table{
		Title: fmt.Sprintf("%s entries, %s at a time, ms", thousands(entries), callers(concurrency)), Texts: 1,
		Header: []string{"", "calls", "mean", "p50", "p95", "p99", "/ PostgREST", "/ SQL", "miss", "hosted", "table", "/ table"},
	}
	for _, name := range r.names() {
		if o, ok := r.find(name, entries, concurrency); ok {
			l := o.Ways[WayFunction]
			t.Rows = append(t.Rows, []string{name, fmt.Sprint(l.Calls), ms(l.Mean), ms(l.P50), ms(l.P95), ms(l.P99),
				times(o.Ratio(WayFunction, WayPostgREST)), times(o.Ratio(WayFunction, WaySQL)),
				ms(o.Ways[WayCache].P50), ms(o.Ways[WayHost].P50), ms(o.Ways[WayTable].P50), times(o.Ratio(WayFunction, WayTable))})
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

// OperationsTables are those of every size and concurrency.
func (r Results) OperationsTables() (tables []Table) {
	for _, entries := range r.sizes() {
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
	}
	return tables
}

// WaysTable takes apart where the time goes, one call at a time.
func (r Results) WaysTable(entries int) Table {
	t := Table{Title: fmt.Sprintf("Where the time goes at %s entries, p50 in ms", thousands(entries)), Texts: 1,
		Header: []string{"", "SQL", "PostgREST", "function", "PostgREST adds", "function adds", "host adds"}}
	for _, name := range r.names() {
		o, ok := r.find(name, entries, 1)
		if !ok {
			continue
		}
		sql, rest, function, host := o.Ways[WaySQL].P50, o.Ways[WayPostgREST].P50, o.Ways[WayFunction].P50, o.Ways[WayHost].P50
		under := function
		if miss := o.Ways[WayCache].P50; miss > 0 {
			under = miss // which is what the host runs
		}
		hop := "–"
		if host > 0 {
			hop = fmt.Sprintf("%.2f", host-under)
		}
		t.Rows = append(t.Rows, []string{name, ms(sql), ms(rest), ms(function), fmt.Sprintf("%.2f", rest-sql), fmt.Sprintf("%.2f", function-rest), hop})
	}
	return t
}

// GrowthTable compares the smallest size with the largest.
func (r Results) GrowthTable() Table {
	sizes := r.sizes()
	least, most := sizes[0], sizes[len(sizes)-1]
	t := Table{Title: "What more entries cost, p50 in ms, one call at a time", Texts: 1, Header: []string{"", thousands(least), thousands(most), "ratio"}}
	for _, name := range r.names() {
		before, ok := r.find(name, least, 1)
		after, too := r.find(name, most, 1)
		if ok && too {
			a, b := before.Ways[WayFunction].P50, after.Ways[WayFunction].P50
			t.Rows = append(t.Rows, []string{name, ms(a), ms(b), times(ratio(b, a))})
		}
	}
	return t
}

// StoresTable compares the functions on Netlify Blobs with those on Supabase.
func (r Results) StoresTable() Table {
	t := Table{Title: "Before and after, ms", Texts: 1,
		Header: []string{"", "Blobs mean", "p50", "p95", "p99", "Supabase mean", "p50", "p95", "p99", "Blobs / Supabase"}}
	for _, o := range r.Stores {
		b, s := o.Ways[WayBlobs], o.Ways[WaySupabase]
		t.Rows = append(t.Rows, []string{o.Operation, ms(b.Mean), ms(b.P50), ms(b.P95), ms(b.P99), ms(s.Mean), ms(s.P50), ms(s.P95), ms(s.P99), times(o.Ratio(WayBlobs, WaySupabase))})
	}
	return t
}

// ColdTable is what the first request to a new instance waits for.
func (r Results) ColdTable() Table {
	t := Table{Title: "A new instance, ms from the start of the process", Texts: 1,
		Header: []string{"", "binary", "starts", "ready p50", "p95", "first answer mean", "p50", "p95", "p99"}}
	for _, c := range r.Cold {
		t.Rows = append(t.Rows, []string{c.Function, fmt.Sprintf("%.1f MB", float64(c.Bytes)/1e6), fmt.Sprint(c.Answer.Calls),
			ms(c.Ready.P50), ms(c.Ready.P95), ms(c.Answer.Mean), ms(c.Answer.P50), ms(c.Answer.P95), ms(c.Answer.P99)})
	}
	return t
}

// CacheTable is what the cache of kv-get saves.
func (r Results) CacheTable() Table {
	t := Table{Title: "kv-get with its cache and without, ms", Texts: 2, Header: []string{"load", "", "from memory", "calls", "mean", "p50", "p95", "p99"}}
	for _, c := range r.Cache {
		first, share := c.Load.Name, fmt.Sprintf("%.1f %%", 100*c.HitRatio)
		for _, row := range []struct {
			name string
			l    Latency
		}{{"with the cache", c.Cached}, {"from memory", c.Hits}, {"from the database", c.Misses}, {"without a cache", c.Uncached}} {
			t.Rows = append(t.Rows, []string{first, row.name, share, fmt.Sprint(row.l.Calls), ms(row.l.Mean), ms(row.l.P50), ms(row.l.P95), ms(row.l.P99)})
			first, share = "", ""
		}
	}
	return t
}

// Tables are all that there is something to say in.
func (r Results) Tables() (tables []Table) {
	tables = append(tables, r.OperationsTables()...)
	if sizes := r.sizes(); len(sizes) > 0 {
		tables = append(tables, r.WaysTable(sizes[len(sizes)-1]))
		if len(sizes) > 1 {
			tables = append(tables, r.GrowthTable())
		}
	}
	for _, t := range []Table{r.StoresTable(), r.ColdTable(), r.CacheTable(), r.TargetsTable()} {
		if len(t.Rows) > 0 {
			tables = append(tables, t)
		}
	}
	return tables
}
