package main

import (
	"context"
	"io"
)

// pumped reads from a source until the source or a context ends.
type pumped struct {
	ctx   context.Context
	full  chan []byte
	empty chan []byte
	rest  []byte
	block []byte
	err   error // valid once full is closed
}

// pump returns a reader of r that ends with ctx. A read of r that is under way
// then, of a terminal or a pipe, cannot be ended: its goroutine stays until it
// returns, which for standard input is the end of the process.
func pump(ctx context.Context, r io.Reader) io.Reader {
	p := &pumped{ctx: ctx, full: make(chan []byte, 2), empty: make(chan []byte, 2)}
	p.empty <- make([]byte, 64<<10)
	p.empty <- make([]byte, 64<<10)
	go func() {
		defer close(p.full)
		for {
			var block []byte
			select {
			case block = <-p.empty:
			case <-ctx.Done():
				return
			}
			n, err := r.Read(block)
			p.full <- block[:n]
			if err != nil {
				p.err = err
				return
			}
		}
	}()
	return p
}

// Read returns the cause of the context's end once that has come.
func (p *pumped) Read(buf []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.block != nil {
			p.empty <- p.block[:cap(p.block)]
			p.block = nil
		}
		select {
		case block, ok := <-p.full:
			switch {
			case ok:
				p.block, p.rest = block, block
			case p.err != nil:
				return 0, p.err
			default:
				return 0, context.Cause(p.ctx)
			}
		case <-p.ctx.Done():
			return 0, context.Cause(p.ctx)
		}
	}
	n := copy(buf, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
