package browserbridge

import (
	"context"
	"errors"
	"io"
	"sync"
)

const (
	// A splice reads into a buffer of smallBuffer to largeBuffer in each direction:
	// a thousand browsers have some of them each.
	smallBuffer = 2 << 10
	largeBuffer = 16 << 10
	// quietReads is after how many short reads a buffer becomes smaller again.
	quietReads = 256
)

// splice copies both ways between a browser's side and the coordinator's, until
// one of them or ctx ends, and then ends the other: in good order if the browser
// has closed its side, else at once. It returns why it ended, nil in that one case.
// panicked is told of a panic, which ends it too.
func splice(ctx context.Context, browser, coordinator io.ReadWriteCloser, panicked func(what string, r any)) error {
	var both sync.WaitGroup
	defer both.Wait()
	up, down := make(chan error, 1), make(chan error, 1)
	copying := func(what string, ended chan<- error, to io.Writer, from io.Reader) {
		err := errPanicked
		defer func() {
			if r := recover(); r != nil {
				panicked(what, r)
			}
			ended <- err
		}()
		err = transfer(to, from)
	}
	both.Go(func() { copying("the way up", up, coordinator, browser) })
	both.Go(func() { copying("the way down", down, browser, coordinator) })
	var err error
	select {
	case err = <-up:
		if err == nil {
			coordinator.Close() // the browser's goodbye
			browser.Close()
			return nil
		}
	case err = <-down: // the session's end, unless the browser takes nothing
		if err == nil {
			err = io.EOF
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	abort(coordinator)
	browser.Close()
	return err
}

var errPanicked = errors.New("a panic")

// transfer copies from one side to the other; nil after a clean end.
func transfer(to io.Writer, from io.Reader) error {
	buf, quiet := make([]byte, smallBuffer), 0
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
			buf, quiet = fitting(buf, n, quiet)
		}
		switch {
		case err == io.EOF && n == 0: // nothing that wraps it: a broken stream says why
			return nil
		case err != nil && err != io.EOF: // with bytes, yamux says so of a broken pipe
			return err
		}
	}
}

// fitting returns a buffer for the next read after one of n bytes into buf, and
// how many reads in a row have left most of it empty.
func fitting(buf []byte, n, quiet int) ([]byte, int) {
	switch size := len(buf); {
	case n == size && size < largeBuffer:
		return make([]byte, 2*size), 0
	case n > size/4 || size == smallBuffer:
		return buf, 0
	case quiet < quietReads:
		return buf, quiet + 1
	default:
		return make([]byte, size/2), 0
	}
}

// abort ends a stream so that the coordinator takes it for a broken link, whose
// leases it keeps for a while.
func abort(stream io.ReadWriteCloser) {
	if s, ok := stream.(interface{ Reset() error }); ok {
		s.Reset()
		return
	}
	stream.Close()
}
