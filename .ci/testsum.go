// Command testsum reads what "go test -json" writes and says it in short: a
// line a package, the whole output of what failed, and every skipped test with
// its reason. It ends with status 1 if a test failed, a package did not build,
// or a test was skipped that may not be: a check that did not run has proven
// nothing.
//
//	go test -json ./... | go run .ci/testsum.go -skips .ci/skips -total FILE
//
// The file of skips has a line for each test that may be skipped: package in
// this module, test, reason. The word "any" for the file allows all skips. The
// number of tests that ran is added, as a line, to the file -total names.
//
// With -again FILE, packages that Go's race detector ended by a known fault of
// its own are no failures: they are written to the file, one a line, to be run
// again.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

const module = "github.com/ostrich-legs/ostrich/"

// event is one line of go test -json.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// name is a test of a package; the package itself has no test.
type name struct{ pkg, test string }

func (n name) String() string {
	return strings.TrimSpace(strings.TrimPrefix(n.pkg, module) + " " + n.test)
}

type summary struct {
	out     io.Writer
	skips   map[string]bool // nil allows any
	again   string          // the file of packages to run again; "" if there are none
	output  map[name][]string
	ran     int
	skipped int
	failed  bool
	rerun   bool // something was written to again
}

func main() {
	skips := flag.String("skips", ".ci/skips", "the file of tests that may be skipped, or any")
	total := flag.String("total", "", "the file that gets the number of tests")
	again := flag.String("again", "", "the file that gets the packages that the race detector ended by a fault of its own")
	flag.Parse()
	s := &summary{out: os.Stdout, again: *again, output: make(map[name][]string)}
	err := s.allow(*skips)
	if err == nil {
		err = s.read(os.Stdin)
	}
	if err == nil && *total != "" {
		err = appendLine(*total, s.ran)
	}
	fmt.Fprintf(s.out, "%d tests passed, %d skipped\n", s.ran, s.skipped)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(2)
	}
	if s.failed || s.ran == 0 && !s.rerun {
		os.Exit(1)
	}
}

// allow reads the file of tests that may be skipped.
func (s *summary) allow(path string) error {
	if path == "any" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s.skips = make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] != "#" {
			s.skips[f[0]+" "+f[1]] = true
		}
	}
	return nil
}

func (s *summary) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		switch {
		case len(line) == 0:
		case json.Unmarshal(line, &e) == nil && e.Action != "":
			s.take(e)
		default: // the go command speaks for itself
			fmt.Fprintf(s.out, "%s", line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) take(e event) {
	n := name{e.Package, e.Test}
	switch e.Action {
	case "output":
		s.output[n] = append(s.output[n], e.Output)
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "build-fail":
		s.failed = true
		fmt.Fprintf(s.out, "DOES NOT BUILD %s\n", e.ImportPath)
	case "pass":
		delete(s.output, n)
		if e.Test == "" {
			fmt.Fprintf(s.out, "ok    %-28s %6.1f s\n", n, e.Elapsed)
		} else {
			s.ran++
		}
	case "fail":
		fmt.Fprintf(s.out, "FAIL  %-28s %6.1f s\n%s", n, e.Elapsed, strings.Join(s.output[n], ""))
		delete(s.output, n)
		cut := ""
		if e.Test == "" {
			cut = s.unended(e.Package)
			fmt.Fprint(s.out, cut)
		}
		if s.again != "" && isDetectorsFault(cut) && appendLine(s.again, e.Package) == nil {
			s.rerun = true
		} else {
			s.failed = true
		}
	case "skip":
		s.skip(n)
		delete(s.output, n)
	}
}

func (s *summary) skip(n name) {
	if n.test == "" {
		return // a package without tests
	}
	s.skipped++
	top := n
	top.test, _, _ = strings.Cut(n.test, "/")
	word := "skip"
	if s.skips != nil && !s.skips[top.String()] {
		s.failed, word = true, "SKIPPED, and may not be:"
	}
	fmt.Fprintf(s.out, "%s %s: %s\n", word, n, reason(s.output[n]))
}

// reason returns what a skipped test said, without the lines around it.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}

// unended returns what those tests of a package said that neither passed nor
// failed: its process ended in the middle of them.
func (s *summary) unended(pkg string) string {
	var cut []string
	for n, output := range s.output {
		if n.pkg == pkg && n.test != "" {
			cut = append(cut, fmt.Sprintf("DID NOT END %s\n%s", n, strings.Join(output, "")))
			delete(s.output, n)
		}
	}
	slices.Sort(cut)
	return strings.Join(cut, "")
}

// outsideGo is how a fault at an address begins that is not in Go's own code; in
// a race build that is the detector's, which is C.
var outsideGo = regexp.MustCompile(`(?m)^SIGSEGV: segmentation violation\nPC=`)

// isDetectorsFault reports whether the race detector ended a process because
// Go's runtime had two threads use one of its contexts at a time: that of the
// timers of a synctest bubble (go.dev/issue/78156). It comes as a failed check
// of the detector, or as a fault in it. What has found a race in the program is
// a failure all the same.
func isDetectorsFault(output string) bool {
	if strings.Contains(output, "WARNING: DATA RACE") {
		return false
	}
	return strings.Contains(output, "ThreadSanitizer: CHECK failed") ||
		outsideGo.MatchString(output) && strings.Contains(output, "synctest bubble")
}

// appendLine adds a line to a file.
func appendLine(path string, line any) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
