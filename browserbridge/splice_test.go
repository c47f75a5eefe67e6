package browserbridge

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestASpliceHoldsMuchOnlyWhileMuchComes(t *testing.T) {
	buf, quiet := make([]byte, smallBuffer), 0
	read := func(n, times int) {
		for range times {
			buf, quiet = fitting(buf, min(n, len(buf)), quiet)
		}
	}
	for _, step := range []struct {
		what     string
		n, times int
		want     int
	}{
		{"heartbeats", 40, 10_000, smallBuffer},
		{"one lease", smallBuffer, 1, 2 * smallBuffer},
		{"a program", largeBuffer, 100, largeBuffer},
		{"results now and then", largeBuffer / 2, 10_000, largeBuffer},
		{"a short rest", 40, quietReads, largeBuffer},
		{"the next program", largeBuffer, 1, largeBuffer},
		{"a long rest", 40, 4 * (quietReads + 1), smallBuffer},
	} {
		if read(step.n, step.times); len(buf) != step.want {
			t.Errorf("after %s: a buffer of %d bytes, want %d", step.what, len(buf), step.want)
		}
	}
}

// dying gives the end of the pipe below it with its last bytes, as yamux does, and
// says only then that it is broken.
type dying struct {
	left int
	said bool
}

var errBroken = errors.New("the pipe is broken")

func (d *dying) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, errBroken
	}
	n := min(len(p), d.left)
	d.left -= n
	if d.said {
		return n, nil
	}
	d.said = true
	return n, io.EOF
}

func TestABrokenPipeIsNoGoodbye(t *testing.T) {
	var got bytes.Buffer
	if err := transfer(&got, &dying{left: 100_000}); err != errBroken || got.Len() != 100_000 {
		t.Errorf("%d bytes and %v, want all 100,000 and %v", got.Len(), err, errBroken)
	}
}

func TestASpliceBringsAllInOrder(t *testing.T) {
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(i * i >> 8)
	}
	var got bytes.Buffer
	if err := transfer(&got, iotest.HalfReader(bytes.NewReader(want))); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d of %d bytes arrive, or others: %v", got.Len(), len(want), err)
	}
}
