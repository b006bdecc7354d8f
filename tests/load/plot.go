package main

import (
	"bytes"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// colors are of the series, and can be distinguished by people with colour blindness.
var colors = []color.Color{
	color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff}, color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}, color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff},
}

// picture draws a plot as SVG. unit is the unit of its y axis.
func picture(title, unit string, fill func(*plot.Plot) error) ([]byte, error) {
	p := plot.New()
	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	for _, style := range []*draw.TextStyle{&p.Title.TextStyle, &p.Legend.TextStyle, &p.Y.Label.TextStyle, &p.Y.Tick.Label, &p.X.Tick.Label} {
		style.Font = font.From(sans, style.Font.Size)
	}
	p.Title.Text, p.Title.Padding = title, vg.Points(8)
	p.Y.Label.Text = unit
	p.Legend.Top = true
	if err := fill(p); err != nil {
		return nil, err
	}
	p.X.Tick.Label.Rotation = 0.35
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = draw.XRight, draw.YTop
	canvas := vgsvg.New(22*vg.Centimeter, 11*vg.Centimeter)
	p.Draw(draw.Crop(draw.New(canvas), vg.Points(20), -vg.Points(8), 0, 0))
	var svg bytes.Buffer
	_, err := canvas.WriteTo(&svg)
	// The fallback has the same widths.
	return bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), err
}

// draw plots p50, p95 and p99 of each window.
func (r results) draw(p *plot.Plot) error {
	p.Add(plotter.NewGrid())
	for i, of := range []struct {
		name string
		ms   func(latency) float64
	}{{"p50", func(l latency) float64 { return l.P50 }}, {"p95", func(l latency) float64 { return l.P95 }}, {"p99", func(l latency) float64 { return l.P99 }}} {
		var points plotter.XYs
		for n, window := range r.Windows {
			points = append(points, plotter.XY{X: float64(n), Y: of.ms(window)})
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		line.Color, dots.Color, dots.Shape = colors[i], colors[i], draw.CircleGlyph{}
		p.Add(line, dots)
		p.Legend.Add(of.name, line)
	}
	var names []string
	for _, window := range r.Windows {
		names = append(names, window.Of)
	}
	p.NominalX(names...)
	p.Y.Min = 0
	return nil
}
