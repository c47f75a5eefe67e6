package blob

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestABlobComesBackAsItWent(t *testing.T) {
	c := newCluster(t, 4, 3)
	for _, size := range []int{0, 1, wire.PageSize - 1, wire.PageSize, wire.PageSize + 1, 7*wire.PageSize + 12345} {
		data := randomPage(size)
		blob, err := c.nodes[0].PutBlob(t.Context(), wire.NewHoldID(), iotest.OneByteReader(bytes.NewReader(data[:min(size, 100)])), wire.MaxBlob)
		if err != nil || blob.GetSize() != uint64(min(size, 100)) {
			t.Fatalf("size %d, byte by byte: %v, %v", size, blob, err)
		}
		if blob, err = c.nodes[0].PutBlob(t.Context(), wire.NewHoldID(), bytes.NewReader(data), uint64(size)); err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		if want := (size + wire.PageSize - 1) / wire.PageSize; blob.GetSize() != uint64(size) || len(blob.GetPages()) != want {
			t.Errorf("size %d: a blob of %d bytes in %d pages, want %d", size, blob.GetSize(), len(blob.GetPages()), want)
		}
		var got bytes.Buffer
		if err := c.nodes[3].ReadBlob(t.Context(), blob, &got); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("size %d: read %d bytes, %v", size, got.Len(), err)
		}
	}
}

func TestABlobThatIsNotAllThereIsAnError(t *testing.T) {
	c := newCluster(t, 1, 1)
	x := c.nodes[0]
	data := randomPage(2*wire.PageSize + 5)
	if _, err := x.PutBlob(t.Context(), wire.NewHoldID(), bytes.NewReader(data), uint64(len(data)-1)); wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("above the limit: %v, want CODE_INVALID", err)
	}
	cut := io.MultiReader(bytes.NewReader(data[:10]), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := x.PutBlob(t.Context(), wire.NewHoldID(), cut, wire.MaxBlob); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that breaks off: %v, want its error", err)
	}
	x.free.Store(0)
	if _, err := x.PutBlob(t.Context(), wire.NewHoldID(), bytes.NewReader(data), wire.MaxBlob); wire.CodeOf(err) != wire.Code_CODE_NO_SPACE {
		t.Errorf("a full disk: %v, want CODE_NO_SPACE", err)
	}
}

func TestABlobThatContradictsItselfIsRefused(t *testing.T) {
	c := newCluster(t, 1, 1)
	x := c.nodes[0]
	good, err := x.PutBlob(t.Context(), wire.NewHoldID(), bytes.NewReader(randomPage(wire.PageSize+5)), wire.MaxBlob)
	if err != nil {
		t.Fatal(err)
	}
	pages := good.GetPages()
	for name, bad := range map[string]*wire.Blob{
		"too few pages":   {Size: good.GetSize(), Pages: pages[:1]},
		"too many pages":  {Size: 1, Pages: pages},
		"a short hash":    {Size: good.GetSize(), Pages: [][]byte{pages[0], pages[1][:9]}},
		"a shorter page":  {Size: good.GetSize() + 1, Pages: pages},
		"a longer page":   {Size: good.GetSize() - 1, Pages: pages},
		"pages exchanged": {Size: good.GetSize(), Pages: [][]byte{pages[1], pages[0]}},
		"too large":       {Size: 1 << 63, Pages: pages},
		"all but none":    {Size: ^uint64(0), Pages: nil},
	} {
		if err := x.ReadBlob(t.Context(), bad, io.Discard); wire.CodeOf(err) != wire.Code_CODE_INVALID {
			t.Errorf("%s: %v, want CODE_INVALID", name, err)
		}
	}
	full := errors.New("the writer is full")
	if err := x.ReadBlob(t.Context(), good, writerFunc(func([]byte) (int, error) { return 0, full })); !errors.Is(err, full) {
		t.Errorf("a writer that fails: %v, want its error", err)
	}
	missing := &wire.Blob{Size: good.GetSize(), Pages: slices.Clone(pages)}
	missing.Pages[1] = make([]byte, 32)
	if err := x.ReadBlob(t.Context(), missing, io.Discard); !errors.Is(err, ErrMissing) {
		t.Errorf("a page that is missing: %v, want ErrMissing", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// countingReader gives zeros without end and counts them.
type countingReader struct{ n atomic.Int64 }

func (r *countingReader) Read(b []byte) (int, error) {
	clear(b)
	r.n.Add(int64(len(b)))
	return len(b), nil
}

func TestAStreamDoesNotRunAheadOfItsPuts(t *testing.T) {
	c := newCluster(t, 2, 2)
	c.nodes[1].fault.Store(int32(mute))
	source := &countingReader{}
	done := make(chan error)
	go func() {
		_, err := c.nodes[0].PutBlob(t.Context(), wire.NewHoldID(), source, wire.MaxBlob)
		done <- err
	}()
	eventually(t, "the window is full", func() bool { return source.n.Load() >= blobWindow<<20 })
	c.nodes[0].stop() // what waits for the mute voter breaks off
	if err := <-done; wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("PutBlob: %v, want CODE_UNAVAILABLE", err)
	}
	if got := source.n.Load(); got > (blobWindow+1)<<20 {
		t.Errorf("%d bytes were read while none was on a quorum, want at most five pages", got)
	}
}
