package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// figure is a line of the table: what was measured, over several runs.
type figure struct {
	what     string
	unit     string
	runs     []float64
	baseline string // what it stands beside, with its figure; or why there are no runs
	goal     string
}

// table collects figures.
type table struct {
	figures []figure
}

func (t *table) add(f figure) { t.figures = append(t.figures, f) }

// median of the runs; 0 for none.
func median(runs []float64) float64 {
	if len(runs) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(runs))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// number writes a figure with the digits that mean something.
func number(v float64) string {
	switch {
	case v >= 1000:
		return thousands(int64(v + 0.5))
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	var parts []string
	for len(s) > 3 {
		parts = append([]string{s[len(s)-3:]}, parts...)
		s = s[:len(s)-3]
	}
	return strings.Join(append([]string{s}, parts...), ",")
}

// print writes the table as Markdown.
func (t *table) print(out io.Writer) error {
	fmt.Fprintf(out, "%s/%s, %d cores, %s. Median of the runs, with the least and the greatest.\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| what\t| figure\t| runs\t| baseline in the same run\t| goal\t|")
	fmt.Fprintln(w, "| ---\t| ---\t| ---\t| ---\t| ---\t|")
	for _, f := range t.figures {
		value := "–"
		if len(f.runs) > 0 {
			value = number(median(f.runs)) + " " + f.unit
		}
		fmt.Fprintf(w, "| %s\t| %s\t| %s\t| %s\t| %s\t|\n", f.what, value, spread(f.runs), dash(f.baseline), dash(f.goal))
	}
	return w.Flush()
}

func spread(runs []float64) string {
	if len(runs) < 2 {
		return fmt.Sprintf("%d", len(runs))
	}
	return fmt.Sprintf("%d: %s–%s", len(runs), number(slices.Min(runs)), number(slices.Max(runs)))
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
