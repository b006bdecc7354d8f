// Command stages runs the stages of the tests, each a make target named test-<stage>, and prints a table of their
// times.
//
//	stages [-side-by-side 3] check,unit,e2e coverage
//
// Each argument is a group. The stages of a group run in parallel and start in the given order; groups run one after
// the other. After a failure the other stages continue, so that one run shows everything that fails. The output of a
// stage goes to .local/stages/<stage>.log, and is shown if the stage fails.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

// logs is the folder of the stages' output, relative to the checkout's root.
const logs = ".local/stages"

func main() {
	// One more than there are processors, since tests also wait for timers, databases and processes.
	sideBySide := flag.Int("side-by-side", runtime.NumCPU()+1, "how many stages may run in parallel")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "Usage: stages [-side-by-side n] stage[,stage…]…\n\nRuns `make test-<stage>` for each stage: those of one argument in parallel, the arguments one after the other.")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 || *sideBySide < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := &runner{command: makeStage, out: os.Stdout, logs: logs, sideBySide: *sideBySide}
	var groups [][]string
	for _, arg := range flag.Args() {
		groups = append(groups, strings.Split(arg, ","))
	}
	if !r.run(ctx, groups) {
		os.Exit(1)
	}
}

// makeStage is the command of a stage. It does not inherit the jobs and flags of the outer make.
func makeStage(name string) *exec.Cmd {
	cmd := exec.Command("make", "--no-print-directory", "test-"+name)
	for _, line := range os.Environ() {
		if !strings.HasPrefix(line, "MAKE") && !strings.HasPrefix(line, "MFLAGS=") {
			cmd.Env = append(cmd.Env, line)
		}
	}
	return cmd
}

// runner runs stages and records their results.
type runner struct {
	command    func(stage string) *exec.Cmd
	out        io.Writer
	logs       string // folder
	sideBySide int

	mu      sync.Mutex // guards results and out
	results []*result
}

// result is the result of one stage.
type result struct {
	stage string
	state string        // "passed", "FAILED", or for an interrupted run "stopped" or "not run"
	took  time.Duration // from start to end
	cpu   time.Duration // of all its processes
}

// run reports whether every stage passed.
func (r *runner) run(ctx context.Context, groups [][]string) bool {
	if err := os.MkdirAll(r.logs, 0o755); err != nil {
		fmt.Fprintln(r.out, "Error:", err)
		return false
	}
	began := time.Now()
	for _, group := range groups {
		r.runGroup(ctx, group)
	}
	return r.summarize(time.Since(began))
}

// runGroup runs the stages of a group, at most sideBySide at a time.
func (r *runner) runGroup(ctx context.Context, stages []string) {
	var all sync.WaitGroup
	turns := make(chan struct{}, r.sideBySide)
	group := make([]*result, len(stages))
	for i, stage := range stages {
		group[i] = &result{stage: stage}
	}
	r.results = append(r.results, group...)
	for _, result := range group {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			r.runStage(ctx, result)
		})
	}
	all.Wait()
}

func (r *runner) runStage(ctx context.Context, result *result) {
	if ctx.Err() != nil {
		result.state = "not run"
		return
	}
	r.print("%-10s started\n", result.stage)
	began := time.Now()
	log := filepath.Join(r.logs, result.stage+".log")
	cmd, err := r.start(result.stage, log)
	if err == nil {
		err = wait(ctx, cmd)
		result.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	result.took = time.Since(began)
	if err == nil {
		result.state = "passed"
		r.print("%-10s passed after %s\n", result.stage, seconds(result.took))
		return
	}
	result.state = "FAILED"
	if ctx.Err() != nil {
		result.state = "stopped"
		return
	}
	text, _ := os.ReadFile(log)
	r.print("%-10s FAILED after %s: %v. Its output (%s):\n\n%s\n", result.stage, seconds(result.took), err, log, text)
}

// start starts the stage in its own process group, so that all its processes can be ended.
func (r *runner) start(stage, log string) (*exec.Cmd, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close() // the child has its own
	cmd := r.command(stage)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, cmd.Start()
}

// graceful is how long a stage may take to stop. Postgres first writes everything to disk.
const graceful = 90 * time.Second

// wait waits for the stage's end. When ctx ends first, it asks the stage to stop, and kills it after a while.
func wait(ctx context.Context, cmd *exec.Cmd) error {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(graceful):
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	}
	return ctx.Err()
}

func (r *runner) print(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, format, args...)
}

// summarize prints the table and a line of totals, and reports whether every stage passed.
func (r *runner) summarize(total time.Duration) bool {
	var passed, failed, skipped int
	var cpu time.Duration
	table := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(r.out)
	fmt.Fprintln(table, "stage\ttime\tCPU\t  \t")
	for _, result := range r.results {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t\n", result.stage, seconds(result.took), seconds(result.cpu), result.state)
		cpu += result.cpu
		switch result.state {
		case "passed":
			passed++
		case "FAILED":
			failed++
		default:
			skipped++
		}
	}
	fmt.Fprintf(table, "all\t%s\t%s\t\t\n", seconds(total), seconds(cpu))
	_ = table.Flush() // to the terminal
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return passed == len(r.results)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%d s", int(d.Round(time.Second).Seconds())) }
