package browserbridge

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeChannel is a data channel whose other side is the test.
type fakeChannel struct {
	messages [][]byte // to read
	text     bool

	mu     sync.Mutex
	queued uint64
	sent   []int // sizes of messages
	low    func()
	mark   uint64
	closed int
}

func (f *fakeChannel) ReadDataChannel(b []byte) (int, bool, error) {
	if len(f.messages) == 0 {
		return 0, false, io.EOF
	}
	if len(f.messages[0]) > len(b) {
		return 0, false, io.ErrShortBuffer
	}
	n := copy(b, f.messages[0])
	f.messages = f.messages[1:]
	return n, f.text, nil
}

func (f *fakeChannel) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queued += uint64(len(b))
	f.sent = append(f.sent, len(b))
	return len(b), nil
}

// drain takes n bytes of the queue.
func (f *fakeChannel) drain(n uint64) {
	f.mu.Lock()
	before := f.queued
	f.queued -= min(n, before)
	low := before > f.mark && f.queued <= f.mark
	f.mu.Unlock()
	if low {
		f.low()
	}
}

func (f *fakeChannel) Close() error                    { f.closed++; return nil }
func (f *fakeChannel) SetReadDeadline(time.Time) error { return nil }
func (f *fakeChannel) OnBufferedAmountLow(g func())    { f.low = g }
func (f *fakeChannel) SetBufferedAmountLowThreshold(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mark = n
}
func (f *fakeChannel) BufferedAmount() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.queued
}

func TestMessagesOfAnySizeAreAStream(t *testing.T) {
	var want []byte
	f := &fakeChannel{}
	for i, n := range []int{1, 0, 16 << 10, 16<<10 + 1, maxMessage, 7} {
		message := bytes.Repeat([]byte{byte(i)}, n)
		f.messages, want = append(f.messages, message), append(want, message...)
	}
	got, err := io.ReadAll(NewChannel(f))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
}

func TestAMessageThatIsTooLargeIsRefused(t *testing.T) {
	f := &fakeChannel{messages: [][]byte{make([]byte, maxMessage+1)}}
	if _, err := NewChannel(f).Read(make([]byte, 10)); !errors.Is(err, ErrBadMessage) {
		t.Errorf("got %v, want %v", err, ErrBadMessage)
	}
	f = &fakeChannel{messages: [][]byte{[]byte("hello")}, text: true}
	if _, err := NewChannel(f).Read(make([]byte, 10)); !errors.Is(err, ErrBadMessage) {
		t.Errorf("text: got %v, want %v", err, ErrBadMessage)
	}
}

func TestWhatIsWrittenGoesInSmallMessagesAndWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeChannel{}
		c := NewChannel(f)
		done := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, 3<<20))
			done <- err
		}()
		for range 12 {
			synctest.Wait()
			if q := f.BufferedAmount(); q > highMark {
				t.Fatalf("%d bytes are queued, want at most %d", q, highMark)
			}
			f.drain(300 << 10)
			time.Sleep(9 * time.Second) // slow, and not dead
		}
		if err := <-done; err != nil {
			t.Errorf("writing: %v", err)
		}
		for _, n := range f.sent {
			if n > writeSize {
				t.Errorf("a message of %d bytes, want at most %d", n, writeSize)
			}
		}
		go func() {
			_, err := c.Write(make([]byte, 3<<20))
			done <- err
		}()
		began := time.Now()
		if err := <-done; !errors.Is(err, ErrNotDraining) || time.Since(began) > 2*drainLimit {
			t.Errorf("to one that takes nothing: %v after %v", err, time.Since(began))
		}
	})
}

// distantChannel knows its round trip.
type distantChannel struct {
	*fakeChannel
	roundTrip time.Duration
}

func (d distantChannel) RoundTrip() time.Duration { return d.roundTrip }

func TestABrowserIsSentAsMuchAtOnceAsItsDistanceAsksFor(t *testing.T) {
	for _, c := range []struct {
		roundTrip time.Duration
		want      uint64
	}{
		{0, lowestMark}, // not known yet
		{time.Millisecond, lowestMark},
		{50 * time.Millisecond, pace / 20},
		{10 * time.Second, highMark},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeChannel{}
			channel := NewChannel(distantChannel{f, c.roundTrip})
			done := make(chan error, 1)
			go func() {
				_, err := channel.Write(make([]byte, 3<<20))
				done <- err
			}()
			total := uint64(0)
			for synctest.Wait(); total < 3<<20; synctest.Wait() {
				if q := f.BufferedAmount(); q > c.want || q <= c.want/2-writeSize && total+q < 3<<20 {
					t.Fatalf("a round trip of %v: %d bytes are on their way, want at most %d, and not half of that less", c.roundTrip, q, c.want)
				}
				total += min(f.BufferedAmount(), 8<<10)
				f.drain(8 << 10)
			}
			if err := <-done; err != nil {
				t.Errorf("a round trip of %v: %v", c.roundTrip, err)
			}
		})
	}
}

func TestCloseEndsAWriteThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeChannel{}
		c := NewChannel(f)
		done := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, 3<<20))
			done <- err
		}()
		synctest.Wait()
		c.Close()
		c.Close()
		if err := <-done; !errors.Is(err, errClosed) || f.closed != 1 {
			t.Errorf("got %v, closed %d times", err, f.closed)
		}
	})
}
