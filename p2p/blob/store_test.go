package blob

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "pages"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatIsPutIsGot(t *testing.T) {
	s := newStore(t)
	total := 0
	for _, size := range []int{0, 1, 4097, wire.PageSize} {
		data := randomPage(size)
		h := mustPut(t, s, data)
		if h != wire.HashOf(data) {
			t.Errorf("size %d: the hash is %s, want the SHA-256 %s", size, h, wire.HashOf(data))
		}
		mustHave(t, s, h, data)
		total += size
	}
	if got := s.Size(); got != uint64(total) {
		t.Errorf("Size is %d, want %d", got, total)
	}
	if _, err := s.Put(make([]byte, wire.PageSize+1)); wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("a page above the bound: error %v, want CODE_INVALID", err)
	}
}

func TestAMissingPageIsErrMissing(t *testing.T) {
	s := newStore(t)
	h := wire.HashOf([]byte("nobody put this"))
	if _, err := s.Get(h); !errors.Is(err, ErrMissing) || errors.Is(err, errDamaged) {
		t.Errorf("Get: %v, want ErrMissing alone", err)
	}
	if s.Has(h) {
		t.Error("Has says that it is there")
	}
	if err := s.Delete(h); err != nil {
		t.Errorf("Delete: %v, want none", err)
	}
}

// damages are the ways in which a test spoils a page's file.
func damages() map[string]func([]byte) []byte {
	return map[string]func([]byte) []byte{
		"a bit flipped":    func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 4; return b },
		"cut off":          func(b []byte) []byte { return b[:len(b)-1] },
		"empty":            func([]byte) []byte { return nil },
		"longer":           func(b []byte) []byte { return append(bytes.Clone(b), 0) },
		"longer than any":  func([]byte) []byte { return make([]byte, wire.PageSize+1) },
		"zeros, as of ext": func(b []byte) []byte { return make([]byte, len(b)) },
	}
}

func TestADamagedPageIsSetAsideAndMissing(t *testing.T) {
	for name, spoil := range damages() {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			data := randomPage(5000)
			h := mustPut(t, s, data)
			spoiled := spoil(data)
			if err := os.WriteFile(s.path(h), spoiled, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get(h); !errors.Is(err, ErrMissing) || !errors.Is(err, errDamaged) {
				t.Errorf("Get: %v, want one that says damaged and missing", err)
			}
			if s.Has(h) {
				t.Error("Has still says that it is there")
			}
			aside, err := os.ReadFile(filepath.Join(s.dir, damagedFolder, h.String()))
			if err != nil || !bytes.Equal(aside, spoiled) {
				t.Errorf("set aside: %d bytes, %v; want the damaged ones", len(aside), err)
			}
			mustPut(t, s, data)
			mustHave(t, s, h, data)
		})
	}
}

func TestPutMendsADamagedPage(t *testing.T) {
	for name, spoil := range damages() {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			data := randomPage(5000)
			h := mustPut(t, s, data)
			if err := os.WriteFile(s.path(h), spoil(data), 0o600); err != nil {
				t.Fatal(err)
			}
			mustPut(t, s, data)
			mustHave(t, s, h, data)
		})
	}
}

func TestFewDamagedPagesAreKept(t *testing.T) {
	s := newStore(t)
	for i := range maxDamaged + 3 {
		h := mustPut(t, s, fmt.Appendf(nil, "page %d", i))
		if err := os.WriteFile(s.path(h), []byte("spoiled"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(h); !errors.Is(err, ErrMissing) {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadDir(filepath.Join(s.dir, damagedFolder))
	if err != nil || len(kept) != maxDamaged {
		t.Errorf("%d damaged pages are kept (%v), want %d", len(kept), err, maxDamaged)
	}
}

func TestOpenCountsPagesAndRemovesWhatAPutLeft(t *testing.T) {
	s := newStore(t)
	data := randomPage(3000)
	h := mustPut(t, s, data)
	strays := []string{
		filepath.Join(s.dir, tempFolder, "page-123"),
		filepath.Join(s.folder(0xab), "not-a-page"),
		filepath.Join(s.folder(int(h[0])+1&0xff), h.String()), // in the wrong folder
	}
	for _, path := range strays {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, 999), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Size(); got != 3000 {
		t.Errorf("Size is %d, want 3000", got)
	}
	if _, err := os.Stat(strays[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file is still there (%v)", err)
	}
	mustHave(t, again, h, data)
	n := 0
	for got := range again.List() {
		n++
		if got != h {
			t.Errorf("List has %s, want %s alone", got, h)
		}
	}
	if n != 1 {
		t.Errorf("List has %d pages, want 1", n)
	}
}

func TestOpenOfAFileSaysWhereItFailed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !bytes.Contains([]byte(err.Error()), []byte(path)) {
		t.Errorf("Open: %v, want an error that names %s", err, path)
	}
}

func TestConcurrentPutsOfAPageAreOneWrite(t *testing.T) {
	s := newStore(t)
	data := randomPage(100_000)
	files := make([]os.FileInfo, 16)
	var puts sync.WaitGroup
	for i := range files {
		puts.Go(func() {
			err := s.put(wire.HashOf(data), data, func(time.Time) {
				files[i], _ = os.Stat(s.path(wire.HashOf(data)))
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	puts.Wait()
	for i, file := range files {
		if !os.SameFile(file, files[0]) {
			t.Errorf("put %d found another file than the first", i)
		}
	}
	if got := s.Size(); got != 100_000 {
		t.Errorf("Size is %d, want that of one page", got)
	}
}

func TestAPutRenewsTheTimeOfAnOldPage(t *testing.T) {
	s := newStore(t)
	data := randomPage(10)
	h := mustPut(t, s, data)
	age(t, s, h, time.Now().Add(-2*touchEvery))
	mustPut(t, s, data)
	for _, put := range s.List() {
		if since := time.Since(put); since > time.Minute {
			t.Errorf("the page was put %s ago by its time, want now", since)
		}
	}
}

func TestAPagesFateIsDone(t *testing.T) {
	s := newStore(t)
	h := mustPut(t, s, randomPage(10))
	if deleted, err := s.decide(h, func(time.Time) fate { return stays }); deleted || err != nil || !s.Has(h) {
		t.Errorf("stays: deleted %v, %v", deleted, err)
	}
	if deleted, err := s.decide(h, func(time.Time) fate { return settled }); deleted || err != nil || !s.Has(h) {
		t.Errorf("settled: deleted %v, %v", deleted, err)
	}
	for _, put := range s.List() {
		if !put.Equal(nobody()) {
			t.Errorf("by its time somebody put the settled page at %v", put)
		}
	}
	if deleted, err := s.decide(h, func(time.Time) fate { return goes }); !deleted || err != nil || s.Has(h) {
		t.Errorf("goes: deleted %v, %v", deleted, err)
	}
	if s.Size() != 0 {
		t.Errorf("Size is %d, want 0", s.Size())
	}
}

func TestFullDiskIsRecognised(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	if !isNoSpace(errors.Join(fmt.Errorf("put: %w", full), nil)) {
		t.Error("ENOSPC in a chain is not recognised")
	}
	if isNoSpace(fs.ErrPermission) {
		t.Error("a permission error is taken for a full disk")
	}
}

func TestFreeSpaceOfAFolder(t *testing.T) {
	if free, err := FreeSpace(t.TempDir()); err != nil || free == 0 {
		t.Errorf("FreeSpace: %d, %v; want some", free, err)
	}
	if _, err := FreeSpace(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("FreeSpace of a folder that is not there: no error")
	}
}

// TestStoreIsASetOfPages compares the store with a map through random puts,
// deletions, damage and restarts.
func TestStoreIsASetOfPages(t *testing.T) {
	dir := newStore(t).dir
	rapid.Check(t, func(t *rapid.T) {
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		for h := range s.List() {
			if err := s.Delete(h); err != nil {
				t.Fatal(err)
			}
		}
		model := map[wire.Hash][]byte{}
		anyPage := rapid.SliceOfN(rapid.ByteRange(0, 3), 1, 3)
		steps := rapid.IntRange(1, 12).Draw(t, "steps")
		for range steps {
			data := anyPage.Draw(t, "page")
			h := wire.HashOf(data)
			switch rapid.SampledFrom([]string{"put", "delete", "damage", "reopen"}).Draw(t, "step") {
			case "put":
				if _, err := s.Put(data); err != nil {
					t.Fatal(err)
				}
				model[h] = data
			case "delete":
				if err := s.Delete(h); err != nil {
					t.Fatal(err)
				}
				delete(model, h)
			case "damage":
				if model[h] != nil {
					_ = os.WriteFile(s.path(h), []byte("spoiled"), 0o600)
					if _, err := s.Get(h); !errors.Is(err, ErrMissing) {
						t.Fatalf("a damaged page: %v", err)
					}
					delete(model, h)
				}
			case "reopen":
				if s, err = Open(dir); err != nil {
					t.Fatal(err)
				}
			}
			checkModel(t, s, model)
		}
	})
}

func checkModel(t *rapid.T, s *Store, model map[wire.Hash][]byte) {
	for h := range s.List() {
		if model[h] == nil {
			t.Fatalf("the store has %s, which nobody put", h)
		}
	}
	for h, want := range model {
		if got, err := s.Get(h); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("page %s: %q, %v; want %q", h, got, err, want)
		}
	}
}
