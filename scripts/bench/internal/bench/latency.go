package bench

import (
	"math"
	"slices"
	"time"
)

// Latency summarizes the durations of calls, in milliseconds.
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
	return Latency{
		Calls: len(sorted), Mean: milliseconds(sum / time.Duration(len(sorted))),
		P50: milliseconds(percentile(sorted, 0.50)), P95: milliseconds(percentile(sorted, 0.95)), P99: milliseconds(percentile(sorted, 0.99)),
	}
}

// percentile returns the smallest of the sorted values that the given share of them does not exceed (nearest rank).
func percentile(sorted []time.Duration, share float64) time.Duration {
	rank := int(math.Ceil(share * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// milliseconds keeps four decimal places, since a response from memory takes some hundredths.
func milliseconds(d time.Duration) float64 { return math.Round(float64(d)/100) / 10_000 }

// ratio returns 0 instead of dividing by 0.
func ratio(of, by float64) float64 {
	if by == 0 {
		return 0
	}
	return of / by
}
