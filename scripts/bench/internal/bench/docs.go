package bench

import (
	"fmt"

	"netlify-supabase-kv/scripts/bench/report"
)

// WriteDocs writes the tables to BENCHMARKS.md in dir (see [report.WriteDocs]).
func (r Results) WriteDocs(dir string) error {
	parts := map[string]string{"machine": fmt.Sprintf("Measured on %s: %s. Seed %d.\n", r.At.Format("2006-01-02"), r.Machine, r.Seed)}
	parts["alternatives"] = report.Markdown(r.AlternativesTable())
	parts["entries"] = report.Markdown(r.EntriesTable())
	parts["targets"] = report.Markdown(r.TargetsTable())
	parts["stores"] = report.Markdown(r.StoresTable())
	parts["cold"] = report.Markdown(r.ColdTable())
	parts["storage"] = report.Markdown(r.StorageTable())
	parts["cache"] = report.Markdown(r.CacheTable())
	if sizes := r.sizes(); len(sizes) > 0 {
		most := sizes[len(sizes)-1] // the table of growth has the others
		parts["operations"] = report.Markdown(r.OperationsTables(most)...)
		parts["ways"] = report.Markdown(r.WaysTable(most))
		parts["growth"] = ""
		if len(sizes) > 1 {
			parts["growth"] = report.Markdown(r.GrowthTable())
		}
	}
	return report.WriteDocs(dir, parts)
}
