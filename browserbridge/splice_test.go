package browserbridge

import (
	"bytes"
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
