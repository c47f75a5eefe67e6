package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// ErrMissing is in the chain of the errors that say a page is not here.
var ErrMissing = wire.Errorf(wire.Code_CODE_NOT_FOUND, "the page is not here")

// errDamaged is in the chain of errors of pages whose bytes are not those that
// their name promises.
var errDamaged = errors.New("its bytes are not what its name promises")

const (
	tempFolder    = "tmp"
	damagedFolder = "damaged"
	// maxDamaged bounds the damaged pages kept for people to look at.
	maxDamaged = 64
	// touchEvery is how old a page's modification time gets before a further
	// put of the same page renews it.
	touchEvery = time.Hour
	// openWalkers is how many folders Open reads at one time.
	openWalkers = 8
)

// Store is the pages on this machine's disk, a file each: DIR/ab/<hash>, where
// ab are the first two digits. Its methods may be called concurrently. One
// Store at a time owns a folder.
//
//	put:  DIR/tmp/x written, synced ─▶ renamed to DIR/ab/abcd… ─▶ DIR/ab synced
//	get:  read, hashed ─▶ given out; or, when damaged, moved to DIR/damaged
//
// A page's modification time says when it was last put for a command that has
// not come yet, to within an hour, or is 1970: nobody waits for one. So a node
// that was killed knows of each page whether somebody may still count on it.
type Store struct {
	dir  string
	size atomic.Int64

	mu    sync.Mutex
	owned map[wire.Hash]chan struct{} // being put, deleted or set aside; closed at the end
}

// Open opens the store in dir, and makes it where there is none. It removes
// what an interrupted put left, and walks the folders once to count the bytes.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, owned: map[wire.Hash]chan struct{}{}}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("open the page store in %s: %w", dir, err)
	}
	var walkers errgroup.Group
	walkers.SetLimit(openWalkers)
	for i := range 256 {
		walkers.Go(func() error {
			return s.walk(i, func(_ wire.Hash, info fs.FileInfo) bool {
				s.size.Add(info.Size())
				return true
			})
		})
	}
	if err := walkers.Wait(); err != nil {
		return nil, fmt.Errorf("count the pages in %s: %w", dir, err)
	}
	return s, nil
}

// prepare makes the folders that every put needs, and empties the one of
// temporary files. Those of the pages are made when the first page comes, and
// stay.
func (s *Store) prepare() error {
	if err := os.RemoveAll(filepath.Join(s.dir, tempFolder)); err != nil {
		return err
	}
	for _, name := range []string{"", tempFolder, damagedFolder} {
		if err := os.MkdirAll(filepath.Join(s.dir, name), 0o700); err != nil {
			return err
		}
	}
	return errors.Join(syncFolder(s.dir), syncFolder(filepath.Dir(s.dir)))
}

func (s *Store) folder(first int) string {
	return filepath.Join(s.dir, fmt.Sprintf("%02x", first))
}

func (s *Store) path(h wire.Hash) string {
	return filepath.Join(s.folder(int(h[0])), h.String())
}

// Put stores data, at most wire.PageSize bytes, and returns its hash. When it
// returns, the page is on disk: file and folder are synced. Putting a page
// that is there already checks it, mends it if it is damaged, and counts as a
// fresh put for List's time, to within an hour. A full disk is CODE_NO_SPACE.
func (s *Store) Put(data []byte) (wire.Hash, error) {
	h := wire.HashOf(data)
	return h, s.put(h, data, func(time.Time) {})
}

// put stores data, whose hash is h. Where somebody relies on the page from now
// on, noted is called while nobody can delete it, and told the time that it had,
// the zero time if it was not there; nil means that nobody does: the page is a
// copy.
func (s *Store) put(h wire.Hash, data []byte, noted func(before time.Time)) error {
	if len(data) > wire.PageSize {
		return wire.Errorf(wire.Code_CODE_INVALID, "a page of %d bytes: at most %d are allowed", len(data), wire.PageSize)
	}
	defer s.own(h)()
	existed, err := s.confirm(h)
	if err == nil && !existed {
		err = s.write(h, data, noted == nil)
	}
	var before time.Time
	if err == nil && existed && noted != nil {
		before, err = s.touch(h)
	}
	if err == nil && existed {
		err = s.sync(h)
	}
	if err != nil {
		if isNoSpace(err) {
			return wire.Errorf(wire.Code_CODE_NO_SPACE, "no space is left for a page in %s: free some space on that disk", s.dir)
		}
		return fmt.Errorf("put page %s: %w", h, err)
	}
	if noted != nil {
		noted(before)
	}
	return nil
}

// rely calls noted, as put does, if the page is here and sound, and reports
// whether it is. A page that is known to be on disk and whole is
// neither read nor synced for that.
func (s *Store) rely(h wire.Hash, known bool, noted func(before time.Time)) (bool, error) {
	defer s.own(h)()
	here := known && s.Has(h)
	var err error
	if !known {
		here, err = s.confirm(h)
	}
	var before time.Time
	if err == nil && here {
		before, err = s.touch(h)
	}
	if err == nil && here && !known {
		err = s.sync(h)
	}
	if err != nil || !here {
		return false, err
	}
	noted(before)
	return true, nil
}

// own waits until nobody else puts, deletes or sets aside page h, and keeps
// others from it until the function that it returns is called. Concurrent puts
// of a page so become one write.
func (s *Store) own(h wire.Hash) (release func()) {
	for {
		s.mu.Lock()
		busy, ok := s.owned[h]
		if !ok {
			busy = make(chan struct{})
			s.owned[h] = busy
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.owned, h)
				s.mu.Unlock()
				close(busy)
			}
		}
		s.mu.Unlock()
		<-busy
	}
}

// confirm reports whether the page is there and sound. The caller syncs it: a
// program that was killed may have left it unsynced. The caller owns h.
func (s *Store) confirm(h wire.Hash) (bool, error) {
	_, info, err := s.read(h)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, errDamaged):
		_, err := s.setAside(h, info)
		return false, err
	case err != nil:
		return false, err
	}
	return true, nil
}

// sync makes sure that a page is on disk, as it is.
func (s *Store) sync(h wire.Hash) error {
	return errors.Join(syncFile(s.path(h)), syncFolder(s.folder(int(h[0]))))
}

// touch notes in the page's time that somebody relies on it, and returns the time
// that it had. The caller owns h.
func (s *Store) touch(h wire.Hash) (before time.Time, err error) {
	info, err := os.Lstat(s.path(h))
	if err != nil {
		return time.Time{}, err
	}
	before = info.ModTime()
	now := time.Now()
	if age := now.Sub(before); age >= 0 && age <= touchEvery {
		return before, nil
	}
	return before, os.Chtimes(s.path(h), now, now)
}

// nobody is the time of pages that nobody waits to name.
func nobody() time.Time { return time.Unix(0, 0) }

// write puts the page's file in its place; copied says that nobody relies on it.
// The caller owns h.
func (s *Store) write(h wire.Hash, data []byte, copied bool) error {
	temp, err := os.CreateTemp(filepath.Join(s.dir, tempFolder), "page-")
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	put := time.Now()
	if copied {
		put = nobody()
	}
	if err == nil {
		err = os.Chtimes(temp.Name(), put, put)
	}
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	if err := s.place(temp.Name(), h); err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	s.size.Add(int64(len(data)))
	return syncFolder(s.folder(int(h[0])))
}

// place renames a file to that of the page, and makes the folder where this is
// its first page.
func (s *Store) place(file string, h wire.Hash) error {
	err := os.Rename(file, s.path(h))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Mkdir(s.folder(int(h[0])), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncFolder(s.dir); err != nil {
		return err
	}
	return os.Rename(file, s.path(h))
}

// Get returns the page's bytes, checked against its hash. A page that is not
// here is ErrMissing; so is a damaged one, which is set aside in DIR/damaged
// (64 are kept there, further ones deleted).
func (s *Store) Get(h wire.Hash) ([]byte, error) {
	data, info, err := s.read(h)
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("page %s: %w", h, ErrMissing)
	case !errors.Is(err, errDamaged):
		return nil, err
	}
	defer s.own(h)()
	where, asideErr := s.setAside(h, info)
	if asideErr != nil {
		return nil, fmt.Errorf("set aside page %s (%w): %w", h, err, asideErr)
	}
	return nil, fmt.Errorf("%w, and the file is now %s: %w", err, where, ErrMissing)
}

// read returns the page's bytes and its file's description, which is set with
// errDamaged too.
func (s *Store) read(h wire.Hash) ([]byte, fs.FileInfo, error) {
	file, err := os.Open(s.path(h))
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() > wire.PageSize {
		return nil, info, fmt.Errorf("page %s has %d bytes: %w", h, info.Size(), errDamaged)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(file, data); err != nil {
		return nil, info, fmt.Errorf("page %s (%w): %w", h, err, errDamaged)
	}
	if wire.HashOf(data) != h {
		return nil, info, fmt.Errorf("page %s: %w", h, errDamaged)
	}
	return data, info, nil
}

// setAside moves the page's file away, unless it is no longer the one that
// info describes, and says in words where it is. The caller owns h.
func (s *Store) setAside(h wire.Hash, info fs.FileInfo) (string, error) {
	now, err := os.Lstat(s.path(h))
	if errors.Is(err, fs.ErrNotExist) {
		return "gone", nil
	}
	if err != nil {
		return "", err
	}
	if !os.SameFile(now, info) {
		return "replaced", nil
	}
	kept, err := os.ReadDir(filepath.Join(s.dir, damagedFolder))
	if err != nil {
		return "", err
	}
	where, aside := "deleted", filepath.Join(s.dir, damagedFolder, h.String())
	if len(kept) < maxDamaged {
		where, err = "in "+aside, os.Rename(s.path(h), aside)
	} else {
		err = os.Remove(s.path(h))
	}
	if err != nil {
		return "", err
	}
	s.size.Add(-now.Size())
	return where, nil
}

// Has reports whether the page's file is there; Get tells whether it is sound.
func (s *Store) Has(h wire.Hash) bool {
	_, err := os.Lstat(s.path(h))
	return err == nil
}

// Delete removes the page; one that is not here is no error.
func (s *Store) Delete(h wire.Hash) error {
	_, err := s.decide(h, func(time.Time) fate { return goes })
	return err
}

// fate is what becomes of a page.
type fate uint8

const (
	stays fate = iota
	// settled: it stays, and nobody waits for a command that names it.
	settled
	goes
)

// decide does with the page what judge says, told when it was last put for a
// command that has not come. Nobody puts the page between question and deed.
func (s *Store) decide(h wire.Hash, judge func(put time.Time) fate) (deleted bool, err error) {
	defer s.own(h)()
	info, err := os.Lstat(s.path(h))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at page %s: %w", h, err)
	}
	switch judge(info.ModTime()) {
	case settled:
		if info.ModTime().Equal(nobody()) {
			return false, nil
		}
		return false, os.Chtimes(s.path(h), nobody(), nobody())
	case goes:
		if err := os.Remove(s.path(h)); err != nil {
			return false, fmt.Errorf("delete page %s: %w", h, err)
		}
		s.size.Add(-info.Size())
		return true, nil
	}
	return false, nil
}

// Size returns the bytes of all pages.
func (s *Store) Size() uint64 {
	return uint64(max(0, s.size.Load()))
}

// List goes through the pages, with the time that each has; see Store. Pages that are
// put or deleted meanwhile may be in it or not, and a folder that cannot be
// read is passed over.
func (s *Store) List() iter.Seq2[wire.Hash, time.Time] {
	return func(yield func(wire.Hash, time.Time) bool) {
		more := true
		for i := 0; i < 256 && more; i++ {
			_ = s.walk(i, func(h wire.Hash, info fs.FileInfo) bool {
				more = yield(h, info.ModTime())
				return more
			})
		}
	}
}

// walk calls visit for the pages of a folder until it returns false. Files that
// are no pages are passed over.
func (s *Store) walk(first int, visit func(wire.Hash, fs.FileInfo) bool) error {
	entries, err := os.ReadDir(s.folder(first))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		h, err := wire.ParseHash(entry.Name())
		if err != nil || h.String() != entry.Name() || int(h[0]) != first {
			continue
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() && !visit(h, info) {
			return nil
		}
	}
	return nil
}
