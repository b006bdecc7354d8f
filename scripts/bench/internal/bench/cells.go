package bench

import "fmt"

// The cells of tables.

func times(ratio float64) string {
	if ratio == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", ratio)
}

func yes(met bool) string {
	if met {
		return "yes"
	}
	return "**no**"
}
