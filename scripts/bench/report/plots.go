package report

import (
	"bytes"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Plot is a plot for the documentation.
type Plot struct {
	Name, Title string
	SVG         []byte
}

// colors can be distinguished by people with colour blindness.
var colors = []color.Color{
	color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff}, color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}, color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff},
	color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff},
}

// Color returns the color of the i-th series, from 0.
func Color(i int) color.Color { return colors[i%len(colors)] }

// Picture draws a plot as SVG. unit is the unit of its y axis.
func Picture(title, unit string, fill func(*plot.Plot) error) ([]byte, error) {
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
