package node_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/browserbridge/gobrowser"
	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/worker"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// browsers runs n browsers with the node's bridge until the test ends: gobrowser
// for the connection, a device's worker for the session, and one sandbox that
// they share.
func browsers(t *testing.T, url, link string, n int) {
	t.Helper()
	invite, err := p2p.ParseInvite(link)
	if err != nil {
		t.Fatal(err)
	}
	pool := sandbox.New(sandbox.Options{Slots: 2, CacheDir: t.TempDir()})
	t.Cleanup(func() { pool.Close() })
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(stop)
	dir := t.TempDir()
	for i := range n {
		key := newKey(t)
		id := wire.NewDeviceID(key.Public().(ed25519.PublicKey))
		profile := gobrowser.Profile(fmt.Sprintf("browser %d", i))
		dialer := &gobrowser.Dialer{Config: gobrowser.Config{
			URL: url, Key: key, Invite: invite.Key(), Profile: profile, Client: clientFrom(fmt.Sprintf("127.0.0.%d", 2+i%200)),
		}}
		w, err := worker.New(worker.Config{
			Slots: 1, Sandbox: pool, Dir: filepath.Join(dir, fmt.Sprint(i)),
			Link: worker.LinkConfig{
				Identity: session.Identity{ID: id, Key: key},
				Dial:     dialer.Dial,
				Trust:    func(wire.DeviceID) error { return nil },
				Hello: func() *wire.Hello {
					return &wire.Hello{SwarmId: invite.Swarm.Bytes(), Generation: 1, Slots: 1, Profile: profile}
				},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			defer dialer.Close()
			w.Run(ctx)
		})
	}
}

// clientFrom makes requests from one address of this machine, so that a crowd of
// browsers is not one visitor.
func clientFrom(address string) *http.Client {
	local := &net.TCPAddr{IP: net.ParseIP(address)}
	return &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: local}).DialContext, DisableKeepAlives: true,
	}}
}

// online counts the browsers that the swarm sees.
func (n *testNode) online(t *testing.T) (count int, completed uint64) {
	t.Helper()
	out, err := control.Call(t.Context(), n.client.ListDevices, &wire.ListDevicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range out.GetDevices() {
		if d.GetProfile().GetType() != wire.DeviceType_DEVICE_TYPE_BROWSER {
			continue
		}
		completed += d.GetTotalTasksCompleted()
		if s := d.GetStatus(); s == wire.DeviceStatus_DEVICE_STATUS_ONLINE || s == wire.DeviceStatus_DEVICE_STATUS_BUSY {
			count++
		}
	}
	return count, completed
}

// mapInBrowsers maps "upper" over lines in browsers only, and checks the outputs.
func (n *testNode) mapInBrowsers(t *testing.T, tasks int) {
	t.Helper()
	module, _ := programs.Get("upper")
	stored, err := n.client.PutProgram(t.Context(), "upper", strings.NewReader(string(module)))
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	job, err := n.client.Map(t.Context(), control.MapOptions{
		JobID: wire.NewJobID(),
		Spec: &wire.JobSpec{Program: stored, MemoryMib: 64, TimeoutMs: 60_000, MaxOutputBytes: 1 << 20,
			Require: &wire.Requirements{Browser: true}},
		Inputs: func(yield func(control.Input, error) bool) {
			for i := range tasks {
				if !yield(control.Input{Data: fmt.Appendf(nil, "line %d\n", i)}, nil) {
					return
				}
			}
		},
		Result: func(r *wire.TaskResult, out io.Reader) error {
			b, err := io.ReadAll(out)
			if want := fmt.Sprintf("LINE %d\n", next); string(b) != want {
				t.Errorf("task %d: got %q, want %q", next, b, want)
			}
			next++
			return err
		},
	})
	if err != nil || next != tasks {
		t.Fatalf("%d of %d results, job %v: %v", next, tasks, job.GetState(), err)
	}
}

func TestThreeHundredBrowsersComputeAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("a crowd of browsers is not short")
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	const crowd, tasks = 300, 3000
	n := start(t, filepath.Join(t.TempDir(), "a"), "")
	link := n.link(t, &wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER}).GetLink()
	began := time.Now()
	browsers(t, n.status(t).GetPublicAddress(), link, crowd)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		count, _ := n.online(t)
		if count == crowd {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d browsers are there after 2 minutes", count, crowd)
		}
	}
	t.Logf("%d browsers after %v", crowd, time.Since(began))
	n.mapInBrowsers(t, tasks)
	if count, completed := n.online(t); count != crowd || completed != tasks {
		t.Errorf("afterwards %d browsers are there, want %d; they have done %d tasks, want %d", count, crowd, completed, tasks)
	}
}
