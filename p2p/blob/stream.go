package blob

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// blobWindow is how many pages of one blob are on their way at one time.
const blobWindow = 4

// PutBlob reads r to its end and puts the bytes, as pages under one hold, on a
// quorum of the voters. More than limit bytes (at most wire.MaxBlob) are CODE_INVALID. The
// blob's Hash is left unset. At most five pages are in memory at a time,
// slower voters' apart; a blocked read of r outlasts ctx.
func (x *Exchange) PutBlob(ctx context.Context, id wire.HoldID, r io.Reader, limit uint64) (*wire.Blob, error) {
	limit = min(limit, wire.MaxBlob)
	puts, ctx := errgroup.WithContext(ctx)
	puts.SetLimit(blobWindow)
	blob := &wire.Blob{}
	var hashes []*wire.Hash
	for ctx.Err() == nil {
		data, err := readPage(r)
		if err != nil && err != io.EOF {
			_ = puts.Wait() // what was read is of no use without the rest
			return nil, fmt.Errorf("read the bytes of a blob: %w", err)
		}
		blob.Size += uint64(len(data))
		if blob.Size > limit {
			_ = puts.Wait()
			return nil, wire.Errorf(wire.Code_CODE_INVALID, "more than %d bytes, which are all that is allowed here", limit)
		}
		if len(data) > 0 {
			h := new(wire.Hash)
			hashes = append(hashes, h)
			puts.Go(func() (err error) {
				*h, err = x.Put(ctx, id, data)
				return err
			})
		}
		if err == io.EOF {
			break
		}
	}
	cut := ctx.Err()
	if err := puts.Wait(); err != nil {
		return nil, err
	}
	if cut != nil {
		return nil, cut
	}
	blob.Pages = make([][]byte, len(hashes))
	for i, h := range hashes {
		blob.Pages[i] = h[:]
	}
	return blob, nil
}

// readPage reads a page from r, a shorter one only at its end, which is io.EOF.
func readPage(r io.Reader) ([]byte, error) {
	buf := make([]byte, wire.PageSize)
	n := 0
	var err error
	for n < len(buf) && err == nil {
		var more int
		more, err = r.Read(buf[n:])
		n += more
	}
	if n < len(buf)/2 {
		return bytes.Clone(buf[:n]), err
	}
	return buf[:n], err
}

// ReadBlob writes the blob's bytes to w in order. Each page is checked against
// its hash; blob.Hash is not. A few pages are fetched ahead. A page that cannot
// be had is the error of Get, a blob that contradicts itself CODE_INVALID.
func (x *Exchange) ReadBlob(ctx context.Context, blob *wire.Blob, w io.Writer) error {
	hashes, err := blobPages(blob)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var gets sync.WaitGroup
	defer gets.Wait()
	defer stop()
	var ahead [blobWindow]chan fetched
	next := 0
	for i, h := range hashes {
		for ; next < min(i+blobWindow, len(hashes)); next++ {
			result, wanted := make(chan fetched, 1), hashes[next]
			ahead[next%blobWindow] = result
			gets.Go(func() {
				data, err := x.Get(ctx, wanted)
				result <- fetched{data, err}
			})
		}
		page := <-ahead[i%blobWindow]
		if page.err != nil {
			return page.err
		}
		if want := min(blob.GetSize()-uint64(i)*wire.PageSize, wire.PageSize); uint64(len(page.data)) != want {
			return wire.Errorf(wire.Code_CODE_INVALID, "a blob whose page %s has %d bytes and not %d", h, len(page.data), want)
		}
		if _, err := w.Write(page.data); err != nil {
			return fmt.Errorf("write a blob's bytes: %w", err)
		}
	}
	return nil
}

// blobPages returns the hashes of a blob that is consistent and within bounds.
func blobPages(blob *wire.Blob) ([]wire.Hash, error) {
	size, pages := blob.GetSize(), blob.GetPages()
	if size > wire.MaxBlob || uint64(len(pages)) != (size+wire.PageSize-1)/wire.PageSize {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "a blob of %d bytes in %d pages", size, len(pages))
	}
	hashes, err := wire.HashesFromBytes(pages)
	if err != nil {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "a blob: %v", err)
	}
	return hashes, nil
}
