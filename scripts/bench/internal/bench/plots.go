package bench

import (
	"fmt"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"netlify-supabase-kv/scripts/bench/report"
)

// Plots returns the plots that have results.
func (r Results) Plots() (plots []report.Plot, err error) {
	add := func(name, title string, draw func(*plot.Plot) error) {
		if err != nil {
			return
		}
		var svg []byte
		if svg, err = report.Picture(title, "ms", draw); err == nil {
			plots = append(plots, report.Plot{Name: name, Title: title, SVG: svg})
		}
	}
	if sizes := r.sizes(); len(sizes) > 0 {
		most := sizes[len(sizes)-1]
		add("operations", "p50 and p95 of the functions, one call at a time", func(p *plot.Plot) error { return r.drawSpans(p, sizes) })
		add("ways", fmt.Sprintf("The same call three ways at %s entries, p50", report.Thousands(most)), func(p *plot.Plot) error {
			return drawBars(p, r.smallNames(), []Way{WaySQL, WayPostgREST, WayFunction}, func(name string, way Way) float64 {
				o, _ := r.find(name, most, 1)
				return o.Ways[way].P50
			})
		})
	}
	if len(r.Stores) > 0 {
		add("stores", "Before and after: the functions on Netlify Blobs and on Supabase, p50", func(p *plot.Plot) error {
			return drawBars(p, namesOf(r.Stores), []Way{WayBlobs, WaySupabase}, func(name string, way Way) float64 {
				i := slices.IndexFunc(r.Stores, func(o OperationResult) bool { return o.Operation == name })
				return r.Stores[i].Ways[way].P50
			})
		})
	}
	return plots, err
}

// smallNames leaves out operations that would make the others too small to see.
func (r Results) smallNames() (names []string) {
	for _, op := range Operations() {
		if op.Rarely == 0 && slices.Contains(r.names(), op.Name) {
			names = append(names, op.Name)
		}
	}
	return names
}

func namesOf(results []OperationResult) (names []string) {
	for _, o := range results {
		names = append(names, o.Operation)
	}
	return names
}

// span is a p50 with its p95.
type span struct {
	plotter.XYs
	plotter.YErrors
}

// drawSpans shows each operation at each size, on a logarithmic scale: a dot at p50 and a line to p95.
func (r Results) drawSpans(p *plot.Plot, sizes []int) error {
	names := r.names()
	for i, entries := range sizes {
		var s span
		for n, name := range names {
			o, ok := r.find(name, entries, 1)
			if l := o.Ways[WayFunction]; ok && l.P50 > 0 {
				x := float64(n) + (float64(i)-float64(len(sizes)-1)/2)*0.18
				s.XYs = append(s.XYs, plotter.XY{X: x, Y: l.P50})
				s.YErrors = append(s.YErrors, struct{ Low, High float64 }{0, max(l.P95-l.P50, 0)})
			}
		}
		dots, err := plotter.NewScatter(s.XYs)
		if err != nil {
			return err
		}
		lines, err := plotter.NewYErrorBars(s)
		if err != nil {
			return err
		}
		dots.Color, dots.Shape, dots.Radius = report.Color(i), draw.CircleGlyph{}, vg.Points(3.5)
		lines.Color, lines.Width = report.Color(i), vg.Points(1.5)
		p.Add(lines, dots)
		p.Legend.Add(report.Thousands(entries)+" entries", dots)
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.5, float64(len(names))-0.5
	p.Y.Min, p.Y.Max = p.Y.Min/1.2, p.Y.Max*1.2
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, logTicks(p.Y.Min, p.Y.Max)
	p.Add(plotter.NewGrid())
	return nil
}

// logTicks are at 1, 2 and 5 times the powers of ten.
func logTicks(least, most float64) (ticks plot.ConstantTicks) {
	for power := 0.001; power <= most; power *= 10 {
		for _, times := range []float64{1, 2, 5} {
			if at := power * times; at >= least && at <= most {
				ticks = append(ticks, plot.Tick{Value: at, Label: strconv.FormatFloat(at, 'g', 3, 64)})
			}
		}
	}
	return ticks
}

// drawBars shows the ways side by side.
func drawBars(p *plot.Plot, names []string, ways []Way, value func(name string, way Way) float64) error {
	width := vg.Points(12)
	p.Add(plotter.NewGrid())
	for i, way := range ways {
		var values plotter.Values
		for _, name := range names {
			values = append(values, value(name, way))
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width = report.Color(i), 0
		bars.Offset = width * vg.Length(float64(i)-float64(len(ways)-1)/2)
		p.Add(bars)
		p.Legend.Add(string(way), bars)
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max, p.Y.Min = -0.5, float64(len(names))-0.5, 0
	return nil
}
