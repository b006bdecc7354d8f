package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/process"
)

// instance is one process of a function, as the local function host lists it, with its memory (RSS) in MB.
type instance struct {
	Name     string  `json:"name"`
	PID      int     `json:"pid"`
	Requests int     `json:"requests"`
	Start    float64 `json:"start_mb"`
	Middle   float64 `json:"middle_mb"` // maximum in the second third of the time
	Late     float64 `json:"late_mb"`   // maximum in the last third
	Most     float64 `json:"most_mb"`
	End      float64 `json:"end_mb"`

	samples []float64
}

// memory samples the memory of every instance.
type memory struct {
	host      string
	instances []*instance
	stop      context.CancelFunc
	done      sync.WaitGroup
	err       error // why sampling ended early
}

// watchMemory starts sampling. Without a host there are no instances to sample.
func watchMemory(ctx context.Context, host string) (*memory, error) {
	m := &memory{host: strings.TrimRight(host, "/"), stop: func() {}}
	if host == "" {
		return m, nil
	}
	var err error
	if m.instances, err = m.list(ctx); err != nil {
		return nil, err
	}
	if len(m.instances) == 0 {
		return nil, errors.New("the host runs none")
	}
	if err := m.look(); err != nil {
		return nil, err
	}
	ctx, m.stop = context.WithCancel(ctx)
	m.done.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for m.err == nil {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				m.err = m.look()
			}
		}
	})
	return m, nil
}

func (m *memory) list(ctx context.Context) ([]*instance, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.host+"/_platform/instances", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var told struct{ Instances []*instance }
	return told.Instances, json.NewDecoder(resp.Body).Decode(&told)
}

func (m *memory) look() error {
	for _, in := range m.instances {
		p, err := process.NewProcess(int32(in.PID))
		if err != nil {
			return fmt.Errorf("%s, pid %d: %w", in.Name, in.PID, err)
		}
		info, err := p.MemoryInfo()
		if err != nil {
			return fmt.Errorf("%s, pid %d: %w", in.Name, in.PID, err)
		}
		in.samples = append(in.samples, float64(info.RSS)/(1<<20))
	}
	return nil
}

// end stops sampling. It returns the memory of the instances, and which of them used too much, kept growing or ended.
func (m *memory) end(maxMB int) (took []instance, broken brokenPromises) {
	m.stop()
	m.done.Wait()
	if m.host == "" {
		return nil, nil
	}
	if m.err != nil {
		broken = append(broken, m.err.Error())
	}
	now, err := m.list(context.Background())
	if err != nil {
		broken = append(broken, "the host does not list its instances: "+err.Error())
	}
	requests := map[string]int{}
	for _, in := range now {
		requests[in.Name] = in.Requests
	}
	for _, in := range m.instances {
		in.sum()
		n, there := requests[in.Name]
		in.Requests = n - in.Requests
		if !there {
			broken = append(broken, in.Name+" has ended")
		}
		if in.Most > float64(maxMB) {
			broken = append(broken, fmt.Sprintf("%s took %.1f MB, and %d are allowed", in.Name, in.Most, maxMB))
		}
		if in.grows() {
			broken = append(broken, fmt.Sprintf("%s goes on growing: from %.1f MB in the second third to %.1f in the last", in.Name, in.Middle, in.Late))
		}
		took = append(took, *in)
	}
	return took, broken
}

func (in *instance) sum() {
	n := len(in.samples)
	most := func(samples []float64) (most float64) {
		for _, s := range samples {
			most = max(most, s)
		}
		return most
	}
	in.Start, in.End, in.Most = in.samples[0], in.samples[n-1], most(in.samples)
	in.Middle, in.Late = most(in.samples[n/3:2*n/3+1]), most(in.samples[2*n/3:])
}

// grows reports a leak. Caches fill up in the first two thirds of the time; the margin is for garbage that is not
// collected yet.
func (in *instance) grows() bool { return in.Late > 1.2*in.Middle+8 }
