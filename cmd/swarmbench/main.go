// Command swarmbench measures Ostrich on the machine that it runs on, each
// figure beside its baseline in the same run, and prints the table of
// docs/performance.md. It needs only Go: it builds the program it measures, and
// the part "page" is left out where there is no Chromium.
//
//	go run ./cmd/swarmbench               everything, three runs of each
//	go run ./cmd/swarmbench -only latency one part
//	go run ./cmd/swarmbench -stream 10G   the size of the stream that flows through
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/ostrich-legs/ostrich/node/sandbox"
)

func main() {
	if sandbox.IsChild() {
		os.Exit(sandbox.ChildMain(os.Args[1:], os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "swarmbench:", err)
		os.Exit(1)
	}
}

// bench is a measurement: it adds figures to the table.
type bench struct {
	name string
	run  func(ctx context.Context, e *env) error
}

// benches in the order of the table.
func benches() []bench {
	return []bench{
		{"binary", measureBinary},
		{"sandbox", measureSandbox},
		{"start", measureStart},
		{"latency", measureLatency},
		{"noop", measureNoop},
		{"queue", measureQueue},
		{"depth", measureDepth},
		{"stream", measureStream},
		{"idle", measureIdle},
		{"behind", measureBehind},
		{"browsers", measureBrowsers},
		{"page", measurePage},
	}
}

// run measures what the flags ask for and prints the table.
func run(ctx context.Context, args []string, in io.Reader, out, progress io.Writer) error {
	flags := flag.NewFlagSet("swarmbench", flag.ContinueOnError)
	flags.SetOutput(progress)
	only := flags.String("only", "", "run only the parts with these names, separated by commas")
	runs := flags.Int("runs", 3, "runs of each figure")
	stream := flags.String("stream", "2G", "size of the stream that flows through three nodes")
	tasks := flags.String("tasks", "1M", "tasks that a member falls behind")
	pages := flags.String("pages", "2G", "bytes of pages that a member falls behind")
	binary := flags.String("ostrich", "", "measure this binary instead of building one")
	crowd := flags.String("crowd", "", "measure nothing: be the browsers of the part \"browsers\", which join by this link")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *crowd != "" {
		return runCrowd(ctx, *crowd, in, out)
	}
	size, err := parseSize(*stream)
	if err != nil || *runs < 1 {
		return fmt.Errorf("-stream %s, -runs %d: a size such as 10G, and at least one run", *stream, *runs)
	}
	behindTasks, err := parseSize(*tasks)
	if err != nil {
		return fmt.Errorf("-tasks %s: a number such as 1M", *tasks)
	}
	behindPages, err := parseSize(*pages)
	if err != nil {
		return fmt.Errorf("-pages %s: a size such as 2G", *pages)
	}
	e, err := newEnv(ctx, *binary, progress)
	if err != nil {
		return err
	}
	defer e.close()
	e.streamSize, e.runs = size, *runs
	e.behindTasks, e.behindPages = int(behindTasks), behindPages
	for _, b := range benches() {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), b.name) {
			continue
		}
		e.say("measuring %s …", b.name)
		if err := b.run(ctx, e); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return e.table.print(out)
}

// parseSize reads a number of bytes with K, M or G.
func parseSize(s string) (int64, error) {
	shift := 0
	switch {
	case strings.HasSuffix(s, "K"):
		shift = 10
	case strings.HasSuffix(s, "M"):
		shift = 20
	case strings.HasSuffix(s, "G"):
		shift = 30
	}
	var n int64
	if _, err := fmt.Sscanf(strings.TrimRight(s, "KMG"), "%d", &n); err != nil || n < 1 || n > 1<<20 {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n << shift, nil
}
