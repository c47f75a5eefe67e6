package worker

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
	"golang.org/x/sync/errgroup"
)

const (
	// pagesInFlight bounds the pages of one blob that are read, and the pages of
	// all outputs that are written, at one time.
	pagesInFlight = 4
	// pageTries is how often a page is asked for, or offered, before the
	// coordinator's refusal counts as final.
	pageTries = 5
)

// call asks the coordinator; see Link.Call.
type call func(context.Context, *wire.Request) (*wire.Response, error)

// readBlob reads a blob into a file, page by page, each verified by its hash.
// The caller has checked the blob.
func (c call) readBlob(ctx context.Context, blob *wire.Blob, file io.WriterAt) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(pagesInFlight)
	for i, name := range blob.GetPages() {
		if ctx.Err() != nil {
			break
		}
		at := int64(i) * wire.PageSize
		size := min(wire.PageSize, int64(blob.GetSize())-at)
		group.Go(func() error {
			page, err := c.readPage(ctx, wire.Hash(name), int(size))
			if err != nil {
				return fmt.Errorf("page %d of %d: %w", i+1, len(blob.GetPages()), err)
			}
			_, err = file.WriteAt(page, at)
			return err
		})
	}
	return group.Wait()
}

// readPage reads a page, a few times if need be.
func (c call) readPage(ctx context.Context, name wire.Hash, size int) (page []byte, err error) {
	for try := range pageTries {
		if try > 0 {
			if err := sleep(ctx, jitter(200*time.Millisecond<<try)); err != nil {
				return nil, err
			}
		}
		page, err = c.readPageOnce(ctx, name, size)
		if err == nil || ctx.Err() != nil {
			return page, err
		}
	}
	return nil, err
}

func (c call) readPageOnce(ctx context.Context, name wire.Hash, size int) ([]byte, error) {
	page := make([]byte, 0, size)
	for len(page) < size {
		length := min(size-len(page), wire.MaxChunk)
		response, err := c(ctx, &wire.Request{Kind: &wire.Request_ReadPage{ReadPage: &wire.ReadPageRequest{
			Hash: name[:], Offset: uint32(len(page)), Length: uint32(length),
		}}})
		if err != nil {
			return nil, err
		}
		data, err := rangeOf(response.GetReadPage(), length)
		if err != nil || len(data) == 0 || int(response.GetReadPage().GetSize()) != size {
			return nil, wire.Errorf(wire.Code_CODE_INTERNAL, "page %s came with another size", name)
		}
		page = append(page, data...)
	}
	if wire.HashOf(page) != name {
		return nil, wire.Errorf(wire.Code_CODE_INTERNAL, "page %s came damaged", name)
	}
	return page, nil
}

// rangeOf returns the range of a page that an answer holds, whichever way it is
// written: at most limit bytes, or an error. No more than that is ever
// decompressed.
func rangeOf(r *wire.ReadPageResponse, limit int) ([]byte, error) {
	data := r.GetData()
	if r.GetDeflated() {
		var err error
		data, err = io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(data)), int64(limit)+1))
		if err != nil {
			return nil, err
		}
	}
	if len(data) > limit {
		return nil, fmt.Errorf("a range of more than %d bytes", limit)
	}
	return data, nil
}

// writer writes the output of one task.
type writer struct {
	call    call
	attempt *wire.Attempt
	index   uint32
}

// writeBlob puts a file into pages. places bounds the pages in flight, together
// with other callers.
func (c writer) writeBlob(ctx context.Context, path string, size int64, places chan struct{}) (*wire.Blob, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	group, ctx := errgroup.WithContext(ctx)
	blob := &wire.Blob{Size: uint64(size), Pages: make([][]byte, (size+wire.PageSize-1)/wire.PageSize)}
	for i := range blob.Pages {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil, errors.Join(group.Wait(), ctx.Err())
		}
		group.Go(func() error {
			defer func() { <-places }()
			at := int64(i) * wire.PageSize
			page := make([]byte, min(wire.PageSize, size-at))
			if _, err := file.ReadAt(page, at); err != nil {
				return err
			}
			name := wire.HashOf(page)
			blob.Pages[i] = name[:]
			return c.writePage(ctx, name, page)
		})
	}
	return blob, group.Wait()
}

// writePage puts a page, from its start again when the coordinator changes on
// the way. It waits for ever where there is no room.
func (c writer) writePage(ctx context.Context, name wire.Hash, page []byte) error {
	for try := 0; ; try++ {
		err := c.writePageOnce(ctx, name, page)
		code := wire.CodeOf(err)
		full := code == wire.Code_CODE_NO_SPACE || code == wire.Code_CODE_EXHAUSTED
		if err == nil || try >= pageTries && !full {
			return err
		}
		if err := sleep(ctx, jitter(min(100*time.Millisecond<<min(try, 6), 5*time.Second))); err != nil {
			return err
		}
	}
}

func (c writer) writePageOnce(ctx context.Context, name wire.Hash, page []byte) error {
	for at := 0; at < len(page); at += wire.MaxChunk {
		_, err := c.call(ctx, &wire.Request{Kind: &wire.Request_WritePage{WritePage: &wire.WritePageRequest{
			Hash: name[:], Size: uint32(len(page)), Offset: uint32(at), Data: page[at:min(len(page), at+wire.MaxChunk)],
			Attempt: c.attempt, Index: c.index,
		}}})
		if err != nil {
			return err
		}
	}
	return nil
}

// sleep waits so long, or until ctx ends, whose error it returns then.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
