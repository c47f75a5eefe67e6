package worker

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// newPrograms returns programs of a folder, fetched straight from a coordinator.
func newPrograms(t *testing.T, dir string, limit int64, c *coordinator) *programs {
	t.Helper()
	p, err := openPrograms(dir, limit, func(ctx context.Context, r *wire.Request) (*wire.Response, error) {
		response := c.request(ctx, r)
		return response, wire.DecodeError(response.GetError())
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (c *coordinator) readsSoFar() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads
}

func TestAProgramStaysAcrossRestarts(t *testing.T) {
	c, dir := newCoordinator(t), t.TempDir()
	module := bytes.Repeat([]byte("wasm"), wire.PageSize)
	blob := c.store(module)
	for range 2 {
		p := newPrograms(t, dir, maxPrograms, c)
		path, err := p.acquire(t.Context(), blob)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, module) {
			t.Errorf("the file holds %d bytes, %v", len(got), err)
		}
	}
	if got, want := c.readsSoFar(), 16; got != want {
		t.Errorf("%d reads, want %d: fetched once", got, want)
	}
}

func TestADamagedProgramIsFetchedAgain(t *testing.T) {
	c, dir := newCoordinator(t), t.TempDir()
	blob := c.store([]byte("program"))
	path, err := newPrograms(t, dir, maxPrograms, c).acquire(t.Context(), blob)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("progrbm"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newPrograms(t, dir, maxPrograms, c).acquire(t.Context(), blob); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "program" {
		t.Errorf("got %q", got)
	}
}

func TestManyWhoWantAProgramFetchItOnce(t *testing.T) {
	c := newCoordinator(t)
	blob := c.store([]byte("program"))
	p := newPrograms(t, t.TempDir(), maxPrograms, c)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := p.acquire(t.Context(), blob); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := c.readsSoFar(); got != 1 {
		t.Errorf("%d reads, want 1", got)
	}
}

func TestProgramsUsedLongestAgoMakeRoom(t *testing.T) {
	c, dir := newCoordinator(t), t.TempDir()
	p := newPrograms(t, dir, 250, c)
	var blobs []*wire.Blob
	for i := range 4 {
		blobs = append(blobs, c.store(bytes.Repeat([]byte{byte(i)}, 100)))
		if _, err := p.acquire(t.Context(), blobs[i]); err != nil {
			t.Fatal(err)
		}
		if i == 1 { // 0 stays in use, 1 does not
			p.release(wire.Hash(blobs[i].GetHash()))
		}
	}
	var got []int
	for i, blob := range blobs {
		if _, err := os.Stat(p.path(wire.Hash(blob.GetHash()))); err == nil {
			got = append(got, i)
		}
	}
	if want := []int{0, 2, 3}; !slices.Equal(got, want) || len(p.names()) != 3 {
		t.Errorf("left are %v, want %v; named are %d", got, want, len(p.names()))
	}
}

func TestAFetchThatFailsLeavesNothingAndMayBeTriedAgain(t *testing.T) {
	c, dir := newCoordinator(t), t.TempDir()
	blob := c.store([]byte("program"))
	p := newPrograms(t, dir, maxPrograms, c)
	lie := &wire.Blob{Size: blob.GetSize(), Pages: blob.GetPages(), Hash: make([]byte, 32)}
	if _, err := p.acquire(t.Context(), lie); err == nil {
		t.Error("a program of another hash was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.answer = func(*wire.Request) error { return ctx.Err() }
	if _, err := p.acquire(ctx, blob); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a fetch without time: got %v", err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 0 {
		t.Errorf("left over: %v", files)
	}
	c.answer = nil
	if _, err := p.acquire(t.Context(), blob); err != nil {
		t.Errorf("the next try: %v", err)
	}
}
