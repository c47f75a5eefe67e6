package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"

	"github.com/ostrich-legs/ostrich/node/control"
)

// inputs is what a map reads.
type inputs = iter.Seq2[control.Input, error]

// splitLines yields each line with its newline, the last one as it comes.
func splitLines(r io.Reader) inputs { return splitAt(r, '\n', true) }

// splitNull yields what stands before each zero byte, and what follows the
// last one if there is anything.
func splitNull(r io.Reader) inputs { return splitAt(r, 0, false) }

// splitAt yields the records that end with the byte end, with it if keep is
// set. Short ones are yielded as soon as they are complete.
func splitAt(r io.Reader, end byte, keep bool) inputs {
	return func(yield func(control.Input, error) bool) {
		in := bufio.NewReaderSize(r, 64<<10)
		var record spool
		defer record.reset()
		for {
			part, err := in.ReadSlice(end)
			complete := err == nil
			if complete && !keep {
				part = part[:len(part)-1]
			}
			if _, werr := record.Write(part); werr != nil {
				yield(control.Input{}, werr)
				return
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if complete || errors.Is(err, io.EOF) && record.size > 0 {
				if !yield(record.input(record.size), nil) {
					return
				}
				record.reset()
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					yield(control.Input{}, err)
				}
				return
			}
		}
	}
}

// splitChunks yields pieces of at most size bytes, each cut after its last
// newline, or at size if it has none.
func splitChunks(r io.Reader, size int64) inputs {
	return func(yield func(control.Input, error) bool) {
		var chunk spool
		defer chunk.reset()
		buf := make([]byte, 64<<10)
		for {
			cut, err := fillChunk(r, &chunk, size, buf)
			if err != nil && !errors.Is(err, io.EOF) {
				yield(control.Input{}, err)
				return
			}
			if chunk.size == 0 {
				return
			}
			if err != nil || cut == 0 {
				cut = chunk.size
			}
			if !yield(chunk.input(cut), nil) {
				return
			}
			if err := chunk.keep(cut); err != nil {
				yield(control.Input{}, err)
				return
			}
		}
	}
}

// fillChunk reads until the chunk has size bytes, or to the end: io.EOF. It
// returns where the last line ends.
func fillChunk(r io.Reader, chunk *spool, size int64, buf []byte) (cut int64, err error) {
	// What is kept of the chunk before has no newline, unless it was filled to
	// its last byte.
	for chunk.size < size {
		n, err := r.Read(buf[:min(int64(len(buf)), size-chunk.size)])
		if at := bytes.LastIndexByte(buf[:n], '\n'); at >= 0 {
			cut = chunk.size + int64(at) + 1
		}
		if _, werr := chunk.Write(buf[:n]); werr != nil {
			return 0, werr
		}
		if err != nil {
			return cut, err
		}
	}
	return cut, nil
}
