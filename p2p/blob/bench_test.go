package blob

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// renew changes the page so that its hash is new, without the cost of making
// random bytes.
func renew(data []byte, i int) {
	copy(data, fmt.Sprintf("%016x", i))
}

func BenchmarkHash(b *testing.B) {
	data := randomPage(wire.PageSize)
	b.SetBytes(wire.PageSize)
	for b.Loop() {
		wire.HashOf(data)
	}
}

// BenchmarkRawWrite is what a store is compared with: the same bytes to files
// that are synced, and nothing else.
func BenchmarkRawWrite(b *testing.B) {
	data, dir, i := randomPage(wire.PageSize), b.TempDir(), 0
	b.SetBytes(wire.PageSize)
	for b.Loop() {
		i++
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			b.Fatal(err)
		}
		if err := syncFile(path); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStorePut(b *testing.B) {
	for _, size := range []int{16 << 10, wire.PageSize} {
		for _, putters := range []int{1, 4} {
			b.Run(fmt.Sprintf("%dKiB/%dputters", size>>10, putters), func(b *testing.B) {
				s := newStore(b)
				benchmarkPuts(b, putters, size, func(data []byte) error {
					_, err := s.Put(data)
					return err
				})
			})
		}
	}
}

func BenchmarkExchangePut(b *testing.B) {
	for _, size := range []int{16 << 10, wire.PageSize} {
		for _, putters := range []int{1, 4} {
			b.Run(fmt.Sprintf("%dKiB/%dputters", size>>10, putters), func(b *testing.B) {
				c := newCluster(b, 3, 3)
				benchmarkPuts(b, putters, size, func(data []byte) error {
					_, err := c.nodes[0].Put(b.Context(), wire.NewHoldID(), data)
					return err
				})
			})
		}
	}
}

// benchmarkPuts puts new pages, some at one time. It counts what making them
// costs: an exchange keeps what it is given.
func benchmarkPuts(b *testing.B, putters, size int, put func([]byte) error) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	work := make(chan int)
	done := make(chan error, putters)
	base := randomPage(size)
	for range putters {
		go func() {
			var err error
			for i := range work {
				data := append([]byte(nil), base...)
				renew(data, i)
				if err == nil {
					err = put(data)
				}
			}
			done <- err
		}()
	}
	i := 0
	for b.Loop() {
		i++
		work <- i
	}
	close(work)
	for range putters {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen100kPages(b *testing.B) {
	s := newStore(b)
	for i := range 100_000 {
		h := wire.HashOf(fmt.Append(nil, i))
		if err := os.MkdirAll(s.folder(int(h[0])), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(s.path(h), []byte("page"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := Open(s.dir); err != nil {
			b.Fatal(err)
		}
	}
}
