package control

import "io"

// timedBody lifts the deadline of a body once it has been read, since on
// HTTP/1.1 the deadline would also end the wait for a client that goes away.
type timedBody struct {
	io.ReadCloser
	done func()
}

// Read reads on; the first error, the end included, lifts the deadline.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.done != nil {
		b.done()
		b.done = nil
	}
	return n, err
}
