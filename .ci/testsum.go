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
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
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
	output  map[name][]string
	ran     int
	skipped int
	failed  bool
}

func main() {
	skips := flag.String("skips", ".ci/skips", "the file of tests that may be skipped, or any")
	total := flag.String("total", "", "the file that gets the number of tests")
	flag.Parse()
	s := &summary{out: os.Stdout, output: make(map[name][]string)}
	err := s.allow(*skips)
	if err == nil {
		err = s.read(os.Stdin)
	}
	if err == nil && *total != "" {
		err = s.count(*total)
	}
	fmt.Fprintf(s.out, "%d tests passed, %d skipped\n", s.ran, s.skipped)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(2)
	}
	if s.failed || s.ran == 0 {
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
		s.failed = true
		fmt.Fprintf(s.out, "FAIL  %-28s %6.1f s\n%s", n, e.Elapsed, strings.Join(s.output[n], ""))
		delete(s.output, n)
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

// count adds the number of tests that passed to a file.
func (s *summary) count(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, s.ran)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
