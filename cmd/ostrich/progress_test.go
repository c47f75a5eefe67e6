package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// collectNames lists what is in a folder.
func collectNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Join(dir, e.Name()))
	}
	return names, err
}

func TestTheBarShowsRateAndETA(t *testing.T) {
	p := &progress{w: &bytes.Buffer{}, bar: true}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p.job(&wire.Job{Tasks: &wire.TaskCounts{Total: 100}})
	if got, want := p.line(start), "[                        ] 0/100+"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.job(&wire.Job{Tasks: &wire.TaskCounts{Total: 100, Completed: 49, Failed: 1}, InputsClosed: true})
	if got, want := p.line(start.Add(2*time.Second)), "[============            ] 50/100  25/s  ETA 2s  1 failed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.wait(errors.New("no quorum"))
	p.tasks.Completed = 99
	if got, want := p.line(start.Add(4*time.Second)), "[========================] 100/100  25/s  1 failed  waiting: no quorum"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWithoutATerminalWaitingIsSaidOnce(t *testing.T) {
	var w bytes.Buffer
	p := &progress{w: &w}
	for range 3 {
		p.wait(errors.New("no quorum"))
	}
	p.wait(nil)
	if got, want := w.String(), "ostrich: waiting: no quorum\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
