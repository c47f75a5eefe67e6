package worker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxPrograms bounds the programs kept on disk, in bytes; those in use count
	// and stay.
	maxPrograms = 2 << 30
	// maxNamed bounds the programs that a hello names.
	maxNamed = 1000

	programSuffix = ".wasm"
	partSuffix    = ".part"
)

// programs keeps programs on disk, each in a file named by its hash, and those
// used longest ago make room for others. A file is verified before its first
// use in this process.
type programs struct {
	dir   string
	limit int64
	call  call

	mu    sync.Mutex
	here  map[wire.Hash]*program
	bytes int64
}

// program is a program on disk or on its way there.
type program struct {
	size     int64
	used     time.Time
	users    int
	verified bool
	busy     chan struct{} // closed when verifying or fetching is over; nil if neither is under way
}

// openPrograms lists what the folder holds, and removes what was left half
// done.
func openPrograms(dir string, limit int64, c call) (*programs, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the folder of programs: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("the folder of programs: %w", err)
	}
	p := &programs{dir: dir, limit: limit, call: c, here: make(map[wire.Hash]*program)}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), partSuffix) {
			os.Remove(filepath.Join(dir, entry.Name()))
			continue
		}
		name, ok := strings.CutSuffix(entry.Name(), programSuffix)
		hash, err := wire.ParseHash(name)
		info, infoErr := entry.Info()
		if !ok || err != nil || infoErr != nil || !info.Mode().IsRegular() {
			continue
		}
		p.here[hash] = &program{size: info.Size(), used: info.ModTime()}
		p.bytes += info.Size()
	}
	return p, nil
}

func (p *programs) path(hash wire.Hash) string {
	return filepath.Join(p.dir, hash.String()+programSuffix)
}

// names returns the hashes of the programs on disk, those used last first.
func (p *programs) names() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	var hashes []wire.Hash
	for hash, program := range p.here {
		if program.busy == nil || program.verified {
			hashes = append(hashes, hash)
		}
	}
	slices.SortFunc(hashes, func(a, b wire.Hash) int {
		return cmp.Or(p.here[b].used.Compare(p.here[a].used), slices.Compare(a[:], b[:]))
	})
	names := make([][]byte, 0, min(len(hashes), maxNamed))
	for _, hash := range hashes[:min(len(hashes), maxNamed)] {
		names = append(names, hash[:])
	}
	return names
}

// acquireHere returns the program's file if it is here and verified; it then
// stays until release.
func (p *programs) acquireHere(hash wire.Hash) (path string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	program := p.here[hash]
	if program == nil || !program.verified {
		return "", false
	}
	program.users++
	program.used = time.Now()
	return p.path(hash), true
}

// release undoes an acquire.
func (p *programs) release(hash wire.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if program := p.here[hash]; program != nil {
		program.users--
	}
}

// acquire returns the program's file, which then stays until release. It
// fetches the program if it is not here; of several callers one does.
func (p *programs) acquire(ctx context.Context, blob *wire.Blob) (path string, err error) {
	hash := wire.Hash(blob.GetHash())
	for {
		if path, ok := p.acquireHere(hash); ok {
			return path, nil
		}
		wait, present := p.claim(hash)
		if wait != nil {
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		if !present || p.verify(hash) != nil {
			err = p.fetch(ctx, hash, blob) // over a damaged one, if there is one
		}
		p.settle(hash, int64(blob.GetSize()), err)
		if err != nil {
			return "", fmt.Errorf("fetching program %s: %w", hash, err)
		}
	}
}

// claim makes the caller the one who brings the program here, or returns what
// to wait for because another does. present tells whether there is a file.
func (p *programs) claim(hash wire.Hash) (wait chan struct{}, present bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	have := p.here[hash]
	switch {
	case have == nil:
		p.here[hash] = &program{busy: make(chan struct{})}
		return nil, false
	case have.busy != nil:
		return have.busy, false
	case have.verified: // since the caller looked
		done := make(chan struct{})
		close(done)
		return done, true
	}
	have.busy = make(chan struct{})
	return nil, true
}

// settle ends what claim began, and makes room.
func (p *programs) settle(hash wire.Hash, size int64, err error) {
	p.mu.Lock()
	have := p.here[hash]
	close(have.busy)
	have.busy = nil
	p.bytes -= have.size
	if err != nil {
		delete(p.here, hash)
	} else {
		have.size, have.used, have.verified = size, time.Now(), true
		p.bytes += size
	}
	gone := p.evict(hash)
	p.mu.Unlock()
	for _, hash := range gone {
		os.Remove(p.path(hash)) // what is left is found again at the next start
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, hash := range gone {
		close(p.here[hash].busy)
		delete(p.here, hash)
	}
}

// evict takes programs away until the rest is within the limit, and returns
// them, to be removed: until then they count as busy. It spares those in use and
// the one that has just come. The caller holds mu.
func (p *programs) evict(spare wire.Hash) []wire.Hash {
	if p.bytes <= p.limit {
		return nil
	}
	var idle []wire.Hash
	for hash, program := range p.here {
		if program.users == 0 && program.busy == nil && hash != spare {
			idle = append(idle, hash)
		}
	}
	slices.SortFunc(idle, func(a, b wire.Hash) int { return p.here[a].used.Compare(p.here[b].used) })
	n := 0
	for ; n < len(idle) && p.bytes > p.limit; n++ {
		program := p.here[idle[n]]
		p.bytes -= program.size
		program.verified = false
		program.busy = make(chan struct{})
	}
	return idle[:n]
}

// verify reports why the program's file is not the program.
func (p *programs) verify(hash wire.Hash) error {
	file, err := os.Open(p.path(hash))
	if err != nil {
		return err
	}
	defer file.Close()
	os.Chtimes(p.path(hash), time.Time{}, time.Now()) // its last use, across restarts
	return checkHash(file, hash)
}

// checkHash reports whether r's bytes have the hash.
func checkHash(r io.Reader, hash wire.Hash) error {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return err
	}
	if wire.Hash(h.Sum(nil)) != hash {
		return wire.Errorf(wire.Code_CODE_INTERNAL, "the bytes of program %s are damaged", hash)
	}
	return nil
}

// fetch reads the program's pages into its file.
func (p *programs) fetch(ctx context.Context, hash wire.Hash, blob *wire.Blob) error {
	part := p.path(hash) + partSuffix
	file, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(part)
	defer file.Close()
	if err := p.call.readBlob(ctx, blob, file); err != nil {
		return err
	}
	if err := checkHash(file, hash); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(part, p.path(hash))
}
