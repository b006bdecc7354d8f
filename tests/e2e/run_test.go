package e2e

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// run is this run of the suite. All its entries written over HTTP are under e2e/<id>/ or e2e/warm/<id>/. They are
// removed at the end, also after Ctrl-C, a timeout or a failed test. The next run removes those of a killed run.
var run = struct {
	id       string
	prefixes atomic.Int64
	stop     stopper
}{id: newRunID()}

// parents are the prefixes of all runs. The second is for KV_WARM_KEYS.
var parents = []string{"e2e/", "e2e/warm/"}

const (
	runTime = "20060102T150405"
	// tooOld is the age at which a run that left entries must have ended.
	tooOld = 3 * time.Hour
)

// newRunID names the run by its time, so that a later run knows its age. E2E_RUN sets another name.
func newRunID() string {
	if id := os.Getenv("E2E_RUN"); id != "" {
		return id
	}
	return time.Now().UTC().Format(runTime) + "-" + random()
}

var runID = regexp.MustCompile(`^(\d{8}T\d{6})-[0-9A-Za-z-]{1,40}$`)

// stopper ends a run early. It refuses every further request of a test, so that the tests end and clean up.
type stopper struct {
	why atomic.Pointer[string]
}

var errStopped = errors.New("the run was stopped")

func (s *stopper) now(why string) { s.why.CompareAndSwap(nil, &why) }

// reason returns why the run was stopped; "" while it continues.
func (s *stopper) reason() string {
	if why := s.why.Load(); why != nil {
		return *why
	}
	return ""
}

// skipIfStopped skips the rest of a test after the run was stopped, unless the test has failed.
func skipIfStopped(t testing.TB) {
	t.Helper()
	if why := run.stop.reason(); why != "" {
		t.Skip("the run was stopped: " + why)
	}
}

// watch stops the run at the first signal, and before Go's own time limit (-timeout), which ends the process at once.
// A second signal also ends the process.
func watch() (end func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	var timeUp <-chan time.Time
	limit := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration)
	if limit > 0 { // half a minute suffices to remove what a minute wrote, and two minutes for the whole suite
		timeUp = time.After(limit - min(limit/2, max(limit/5, 30*time.Second), 2*time.Minute))
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case s := <-signals:
				if run.stop.reason() != "" {
					fmt.Fprintf(os.Stderr, "\n%v again: what is under %s is left for the next run\n", s, under(run.id))
					os.Exit(130)
				}
				fmt.Fprintf(os.Stderr, "\n%v: removing what this run wrote (again: end at once)\n", s)
				run.stop.now(s.String())
			case <-timeUp:
				fmt.Fprintf(os.Stderr, "\nthe limit of %s is near: removing what this run wrote\n", limit)
				run.stop.now(fmt.Sprintf("its limit of %s (-timeout) was near", limit))
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(done)
		watching.Wait()
	}
}

func under(id string) string { return parents[0] + id + "/" }

// runAll runs the tests and removes their entries. It returns the exit status.
func runAll(m *testing.M) (status int) {
	end := watch()
	status = m.Run()
	removed, err := removeRun(run.id)
	end()
	why := run.stop.reason()
	if why != "" {
		status = max(status, 1)
		fmt.Fprintf(os.Stderr, "The run was stopped: %s.\n", why)
	}
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "What this run wrote could not be removed: %v\nTry: E2E_RUN=%s go test -run '^$' ./tests/e2e\n", err, run.id)
		return max(status, 1)
	default:
		fmt.Fprintf(os.Stderr, "The %d entries of this run were removed; nothing is under %s now.\n", removed, under(run.id))
	}
	return status
}

// removeRun deletes a run's entries and returns their number. It retries, because a later run may be hours away.
func removeRun(id string) (removed int, err error) {
	for attempt := range 3 {
		time.Sleep(time.Duration(attempt) * 2 * time.Second)
		var errs []error
		for _, parent := range parents {
			n, err := deleteAll(parent + id + "/")
			removed += n
			errs = append(errs, err)
		}
		if err = errors.Join(errs...); err == nil {
			break
		}
	}
	return removed, err
}

// removeOldRuns removes the entries of killed runs.
func removeOldRuns() error {
	old := map[string]bool{}
	err := eachKey(parents[0], func(key string) {
		for _, parent := range parents {
			id, _, _ := strings.Cut(strings.TrimPrefix(key, parent), "/")
			if match := runID.FindStringSubmatch(id); match != nil && id != run.id {
				if at, err := time.Parse(runTime, match[1]); err == nil && time.Since(at) > tooOld {
					old[id] = true
				}
			}
		}
	})
	if err != nil {
		return fmt.Errorf("find entries of earlier runs: %w", err)
	}
	for id := range old {
		n, err := removeRun(id)
		fmt.Fprintf(os.Stderr, "%d entries that an earlier run had left under %s were removed\n", n, under(id))
		if err != nil {
			return fmt.Errorf("remove the entries of an earlier run under %s: %w", under(id), err)
		}
	}
	return nil
}

// newPrefix returns a prefix that no other test has. Its entries are deleted at the end of the run.
func newPrefix() string { return newPrefixUnder(parents[0]) }

func newPrefixUnder(parent string) string {
	return fmt.Sprintf("%s%s/%d/", parent, run.id, run.prefixes.Add(1))
}

// deleteAll deletes the entries under a prefix and returns their number. It also works after the run was stopped.
func deleteAll(prefix string) (removed int, err error) {
	// In several passes, because a write in progress may land after a pass.
	for range 10 {
		var found []string
		if err := eachKey(prefix, func(key string) { found = append(found, key) }); err != nil || len(found) == 0 {
			return removed, err
		}
		parts := slices.Collect(slices.Chunk(found, 500))
		deletePart := deleteInABatch
		if site.writesBlobs { // each entry takes requests to Netlify Blobs
			parts, deletePart = slices.Collect(slices.Chunk(found, 1)), deleteOne
		}
		err := inParallel(16, len(parts), func(i int) error {
			a, err := deletePart(parts[i])
			if err == nil && a.status != http.StatusOK {
				err = errors.New(a.String())
			}
			return err
		})
		if err != nil {
			return removed, err
		}
		removed += len(found)
	}
	return removed, fmt.Errorf("there are still entries under %s", prefix)
}

func deleteOne(keys []string) (*response, error) {
	return roundTrip(http.MethodDelete, deletePath+"?key="+url.QueryEscape(keys[0]))
}

func deleteInABatch(keys []string) (*response, error) {
	operations := make([]string, len(keys))
	for i, key := range keys {
		operations[i] = `{"op":"delete","key":` + quote(key) + `}`
	}
	return roundTrip(http.MethodPost, batchPath, body(`{"operations":[`+strings.Join(operations, ",")+`]}`))
}

// eachKey passes every key with the prefix to give.
func eachKey(prefix string, give func(string)) error {
	for cursor := ""; ; {
		a, err := roundTrip(http.MethodGet, listPath+params("prefix", prefix, "limit", "1000", "cursor", cursor), fresh)
		if err != nil {
			return err
		}
		p, err := a.decodePage()
		if err != nil {
			return err
		}
		for _, key := range p.Keys {
			give(key)
		}
		if p.Pagination == nil || p.Pagination.NextCursor == nil {
			return nil
		}
		cursor = *p.Pagination.NextCursor
	}
}
