package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// measurePage measures the page in a real browser. The benchmarks of
// browserbridge/web do it, for they alone know how to drive one.
func measurePage(ctx context.Context, e *env) error {
	const where = "the page in Chromium, on loopback"
	if !browserFound() {
		e.table.add(figure{what: where, baseline: "not measured: no browser was found here (chromium, chromium-browser or google-chrome)"})
		return nil
	}
	test := exec.CommandContext(ctx, "go", "test", "github.com/ostrich-legs/ostrich/browserbridge/web",
		"-run", "^$", "-bench", "^(BenchmarkJoin|BenchmarkMillisecondTasks)$", "-benchtime", "1x", "-count", strconv.Itoa(e.runs))
	out, err := test.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go test: %w\n%s", err, out)
	}
	got := parseBench(string(out))
	share := got["tasks/s"]
	for i, bare := range got["bare-tasks/s"] {
		if i < len(share) && bare > 0 {
			share[i] *= 100 / bare
		}
	}
	without := "the same browser, no swarm: "
	for _, f := range []figure{
		{what: ": click to the first finished task", unit: "ms", runs: got["ms/first-task"], goal: "under 1,000 ms",
			baseline: without + number(median(got["ms/bare-first-task"])) + " ms"},
		{what: ": offer posted to data channel open", unit: "ms", runs: got["ms/channel"], goal: "under 100 ms",
			baseline: "two ends in one page, no network: " + number(median(got["ms/bare-channel"])) + " ms"},
		{what: ": tasks of 1 ms in one tab, of the rate without a swarm", unit: "%", runs: share, goal: "at least 70 %",
			baseline: without + number(median(got["bare-tasks/s"])) + " tasks/s"},
		{what: ": ostrich run of a new program of 5 MB, to its output", unit: "ms", runs: got["ms/program"], goal: "under 1,500 ms",
			baseline: without + number(median(got["ms/bare-program"])) + " ms by HTTP"},
	} {
		f.what = where + f.what
		e.table.add(f)
	}
	return nil
}

// browserFound reports whether there is a browser that the benchmarks can drive.
func browserFound() bool {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if _, err := exec.LookPath(name); err == nil {
			return true
		}
	}
	return false
}

// parseBench collects the figures of benchmarks, by their units.
func parseBench(out string) map[string][]float64 {
	figures := make(map[string][]float64)
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "Benchmark") {
			continue
		}
		fields := strings.Fields(line)
		for i := 2; i+1 < len(fields); i += 2 { // after the name and the count
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				figures[fields[i+1]] = append(figures[fields[i+1]], v)
			}
		}
	}
	return figures
}
