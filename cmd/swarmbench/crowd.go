package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ostrich-legs/ostrich/browserbridge/gobrowser"
	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/worker"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// crowdAddresses is from how many addresses of this machine a crowd comes: a
// bridge bounds what one visitor may ask of it.
const crowdAddresses = 200

// crowdGCPercent leaves the processors to what is measured.
const crowdGCPercent = 400

// waits is the argument of tasks that a crowd does not run: it holds them until
// they are cancelled.
const waits = "wait"

// crowdSandbox is what a crowd computes with: one sandbox for all, where a
// thousand tasks at a time can wait.
type crowdSandbox struct{ *sandbox.Pool }

// Run implements worker.Sandbox.
func (s crowdSandbox) Run(ctx context.Context, program sandbox.Program, tasks []sandbox.Task, done func(int, sandbox.Result)) error {
	if slices.Contains(tasks[0].Args, waits) {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Pool.Run(ctx, program, tasks, done)
}

// crowdReport is what a crowd has seen so far.
type crowdReport struct {
	// Connected browsers have a session now; Sessions is how many there were.
	Connected, Sessions int
	// Received is the bytes that sessions have brought.
	Received int64
	// Cancelled browsers have been told of a cancellation since the last report,
	// the last of them at Last.
	Cancelled int
	Last      time.Time
}

// visitor is a browser of a crowd: gobrowser for the connection, a device's
// worker for the session.
type visitor struct {
	worker   *worker.Worker
	dialer   *gobrowser.Dialer
	sessions atomic.Int64
	received atomic.Int64
	// cancelled is when it was first told of a cancellation, in Unix nanoseconds;
	// 0 if it was not.
	cancelled atomic.Int64
}

// runCrowd is the process that a crowd of browsers lives in, apart from the node
// whose memory is measured. They join by an invite's link. For each line of in it writes
// a report, and it ends with in.
func runCrowd(ctx context.Context, link string, in io.Reader, out io.Writer) error {
	invite, err := p2p.ParseInvite(link)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "crowd-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	pool := sandbox.New(sandbox.Options{Slots: slots, CacheDir: filepath.Join(dir, "cache")})
	defer pool.Close()
	debug.SetGCPercent(crowdGCPercent)
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	crowd := make([]*visitor, crowdSize)
	for i := range crowd {
		v, err := newVisitor(invite, i, pool, filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		crowd[i] = v
		running.Go(func() {
			defer v.dialer.Close()
			_ = v.worker.Run(ctx) // ends when the crowd does
		})
	}
	reports := json.NewEncoder(out)
	for asked := bufio.NewScanner(in); asked.Scan(); {
		if err := reports.Encode(reportOf(crowd)); err != nil {
			return err
		}
	}
	return nil
}

// newVisitor makes the browser of a number, which computes in a sandbox that it
// shares with the others.
func newVisitor(invite p2p.Invite, number int, pool *sandbox.Pool, dir string) (*visitor, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+number%crowdAddresses))}
	profile := gobrowser.Profile(fmt.Sprint("browser ", number))
	v := &visitor{dialer: &gobrowser.Dialer{Config: gobrowser.Config{
		URL: invite.PublicURL, Key: key, Invite: invite.Key(), Profile: profile,
		Client: &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: local}).DialContext, DisableKeepAlives: true}},
	}}}
	v.worker, err = worker.New(worker.Config{
		Slots: 1, Sandbox: crowdSandbox{pool}, Dir: dir,
		Link: worker.LinkConfig{
			Identity: session.Identity{ID: wire.NewDeviceID(key.Public().(ed25519.PublicKey)), Key: key},
			Dial:     v.dial,
			Trust:    func(wire.DeviceID) error { return nil },
			Hello: func() *wire.Hello {
				return &wire.Hello{SwarmId: invite.Swarm.Bytes(), Generation: 1, Slots: 1, Profile: profile}
			},
			Welcome: func(*wire.Welcome) { v.sessions.Add(1) },
		},
	})
	return v, err
}

// dial opens the stream of the next session, and watches what it brings.
func (v *visitor) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	stream, err := v.dialer.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return &watched{ReadWriteCloser: stream, visitor: v}, nil
}

// reportOf sums up, and forgets cancellations.
func reportOf(crowd []*visitor) (r crowdReport) {
	for _, v := range crowd {
		if v.worker.Link().Connected() {
			r.Connected++
		}
		r.Sessions += int(v.sessions.Load())
		r.Received += v.received.Load()
		if at := v.cancelled.Swap(0); at != 0 {
			r.Cancelled++
			if t := time.Unix(0, at); t.After(r.Last) {
				r.Last = t
			}
		}
	}
	return r
}

// watched is the stream of a session. It counts the bytes that come, and notes
// when a frame comes that cancels tasks.
type watched struct {
	io.ReadWriteCloser
	visitor *visitor
	head    []byte // length and first byte of the frame that comes
	left    int    // bytes of it that are still to come after the head
}

// cancelTag is the first byte of a frame that cancels tasks.
const cancelTag = 15<<3 | 2

// Read implements io.Reader.
func (w *watched) Read(b []byte) (int, error) {
	n, err := w.ReadWriteCloser.Read(b)
	w.visitor.received.Add(int64(n))
	w.look(b[:n])
	return n, err
}

// look follows the frames: a length of four bytes, then as many bytes, of which
// the first says what kind it is.
func (w *watched) look(b []byte) {
	const head = 5
	for len(b) > 0 {
		if w.left > 0 {
			n := min(w.left, len(b))
			w.left, b = w.left-n, b[n:]
			continue
		}
		n := min(head-len(w.head), len(b))
		w.head, b = append(w.head, b[:n]...), b[n:]
		if len(w.head) < head {
			return
		}
		if w.head[head-1] == cancelTag {
			w.visitor.cancelled.CompareAndSwap(0, time.Now().UnixNano())
		}
		w.left = int(binary.BigEndian.Uint32(w.head)) - 1
		w.head = w.head[:0]
	}
}
