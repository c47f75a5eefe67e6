package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
)

func TestDurations(t *testing.T) {
	tests := map[string]time.Duration{
		"90s": 90 * time.Second, "7d": 7 * day, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "0s": 0,
		"": -1, "d": -1, "5": -1, "-1d": -1, "1d-1h": -1, "9999999999d": -1, "106751d25h": -1, "1.5d": -1,
	}
	for in, want := range tests {
		got, err := parseDuration(in)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %v (%v), want %v", in, got, err, want)
		}
	}
}

func TestSizes(t *testing.T) {
	tests := map[string]int64{
		"0": 0, "10": 10, "1K": 1024, "1k": 1024, "16M": 16 << 20, "2G": 2 << 30,
		"": -1, "K": -1, "-1": -1, "1.5K": -1, "1T": -1, "1KB": -1, "99999999999G": -1,
	}
	for in, want := range tests {
		got, err := parseSize(in)
		if (err != nil) != (want < 0) || err == nil && int64(got) != want {
			t.Errorf("%q: got %v (%v), want %v", in, got, err, want)
		}
	}
	for in, want := range map[string]int64{"64": 64, "512M": 512, "2G": 2048, "100K": -1, "": -1, "x": -1} {
		got, err := parseMiB(in)
		if (err != nil) != (want < 0) || err == nil && int64(got) != want {
			t.Errorf("%q MiB: got %v (%v), want %v", in, got, err, want)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"7d", "1d12h", "90s", "-1h", "d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDuration(s)
		if err == nil && strings.Contains(s, "d") && d < 0 {
			t.Errorf("%q is %v", s, d)
		}
		again, err2 := parseDuration(d.String())
		if err == nil && (err2 != nil || again != d) {
			t.Errorf("%q is %v, read again %v", s, d, again)
		}
	})
}

func FuzzSizeAndRange(f *testing.F) {
	for _, s := range []string{"64K", "1..3", "-5..5", "9223372036854775807..9223372036854775807", "1G"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parseSize(s)
		parseMiB(s)
		first, last, err := parseRange(s)
		if err != nil {
			return
		}
		n := 0
		for range countUp(first, last) {
			if n++; n > 3 {
				break
			}
		}
		if want := min(uint64(last)-uint64(first)+1, 4); uint64(n) != want {
			t.Errorf("%q has %d numbers, want %d", s, n, want)
		}
	})
}

// bytesOf returns an input's bytes.
func bytesOf(t *testing.T, in control.Input) []byte {
	t.Helper()
	if in.Open == nil {
		return in.Data
	}
	r, err := in.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// collect returns the inputs' bytes.
func collect(t *testing.T, all inputs) (out [][]byte) {
	t.Helper()
	for in, err := range all {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, bytes.Clone(bytesOf(t, in)))
	}
	return out
}

func FuzzSplitters(f *testing.F) {
	f.Add([]byte("a\nb\x00\n\nc"), 3)
	f.Add([]byte("\x00\x00"), 1)
	f.Add([]byte(strings.Repeat("long", 40_000)+"\nx"), 100)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		lines := collect(t, splitLines(iotest.HalfReader(bytes.NewReader(data))))
		if got := bytes.Join(lines, nil); !bytes.Equal(got, data) {
			t.Errorf("the lines are not the input: %.100q", got)
		}
		for i, line := range lines {
			if n := bytes.Count(line, []byte("\n")); n > 1 || i < len(lines)-1 && n != 1 || len(line) == 0 {
				t.Errorf("line %d is %.100q", i, line)
			}
		}
		records := collect(t, splitNull(bytes.NewReader(data)))
		joined := bytes.Join(records, []byte{0})
		if len(data) > 0 && data[len(data)-1] == 0 {
			joined = append(joined, 0)
		}
		if !bytes.Equal(joined, data) {
			t.Errorf("the records are not the input: %.100q", joined)
		}
		if size < 1 {
			return
		}
		size = min(size, 1<<20)
		if len(data)/size > 10_000 {
			return
		}
		chunks := collect(t, splitChunks(iotest.HalfReader(bytes.NewReader(data)), int64(size)))
		if got := bytes.Join(chunks, nil); !bytes.Equal(got, data) {
			t.Errorf("the chunks are not the input: %.100q", got)
		}
		for i, c := range chunks {
			cut := bytes.HasSuffix(c, []byte("\n")) || len(c) == size && !bytes.Contains(c, []byte("\n"))
			if len(c) > size || len(c) == 0 || i < len(chunks)-1 && !cut {
				t.Errorf("chunk %d of at most %d is %.100q", i, size, c)
			}
		}
	})
}

func TestLargeRecordsWaitInAFile(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	large := bytes.Repeat([]byte("0123456789abcde\n"), 600_000) // 9.6 MB
	line := bytes.ReplaceAll(large, []byte("\n"), []byte(" "))
	for name, all := range map[string]inputs{
		"line":  splitLines(bytes.NewReader(line)),
		"chunk": splitChunks(bytes.NewReader(large), 5_000_001),
		"whole": whole(bytes.NewReader(large)),
	} {
		var got []byte
		spooled := 0
		for in, err := range all {
			if err != nil {
				t.Fatal(err)
			}
			if in.Open != nil {
				spooled++
			}
			got = append(got, bytesOf(t, in)...)
		}
		if want := map[string][]byte{"line": line, "chunk": large, "whole": large}[name]; !bytes.Equal(got, want) || spooled == 0 {
			t.Errorf("%s: %d bytes (want %d), %d of the inputs in files", name, len(got), len(want), spooled)
		}
	}
	if left, _ := collectNames(temp); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
}
