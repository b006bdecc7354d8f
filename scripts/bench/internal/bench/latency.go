package bench

import (
	"slices"
	"time"
)

// Latency sums up how long calls took, in milliseconds.
type Latency struct {
	Calls int     `json:"calls"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
}

func summarize(calls []time.Duration) Latency {
	if len(calls) == 0 {
		return Latency{}
	}
	sorted := slices.Sorted(slices.Values(calls))
	var sum time.Duration
	for _, took := range sorted {
		sum += took
	}
	at := func(share float64) float64 { return milliseconds(sorted[int(share*float64(len(sorted)-1))]) }
	return Latency{Calls: len(sorted), Mean: milliseconds(sum) / float64(len(sorted)), P50: at(0.50), P95: at(0.95), P99: at(0.99)}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
