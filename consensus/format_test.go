//go:build !ostrich_format1

package consensus

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// announce registers a member as a program of some version and format.
func (n *node) announce(nodes []*node, version string, format uint32) {
	n.t.Helper()
	p := profile("member")
	p.Version, p.Format = version, format
	propose(n.t, nodes, &wire.Op{Actor: string(n.self.id), Kind: &wire.Op_UpdateDevice{
		UpdateDevice: &wire.UpdateDevice{DeviceId: string(n.self.id), Profile: p},
	}})
}

func drain(actor, id wire.DeviceID) *wire.Op {
	return &wire.Op{Actor: string(actor), Kind: &wire.Op_SetDeviceMode{SetDeviceMode: &wire.SetDeviceMode{
		DeviceId: string(id), Mode: wire.DeviceMode_DEVICE_MODE_DRAINING,
	}}}
}

func TestWhatAVoterDoesNotUnderstandIsRefusedAndSaysWhoseVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		first := leader(nodes)
		old := others(nodes, first)[0]
		if got := first.Format(); got != state.Format {
			t.Errorf("format %d with all of today, want %d", got, state.Format)
		}
		old.announce(nodes, "0.9-old", 0)
		if got := first.Format(); got != 1 {
			t.Errorf("format %d with a voter that says 0, want 1", got)
		}
		term, _ := first.leading()
		_, err := first.Propose(t.Context(), term, drain(first.self.id, old.self.id))
		wantCode(t, err, wire.Code_CODE_PRECONDITION)
		if err == nil || !strings.Contains(err.Error(), old.self.id.Short()) || !strings.Contains(err.Error(), "0.9-old") {
			t.Errorf("the refusal %v does not name the device and its version", err)
		}
		propose(t, nodes, rename(first.self.id, first.self.id, "format 1 goes on"))
		agree(t, nodes)

		old.announce(nodes, "1.0", state.Format)
		propose(t, nodes, drain(first.self.id, old.self.id))
		agree(t, nodes)
		var inUse uint32
		old.Read(func(s *state.State) { inUse = s.FormatInUse() })
		if inUse != 2 {
			t.Errorf("format in use %d, want 2", inUse)
		}
	})
}

func TestEntriesCarryTheFormatThatTheyNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		check := func(op *wire.Op, want uint32) {
			t.Helper()
			propose(t, []*node{n}, op)
			last, err := n.stores.logs.LastIndex()
			if err != nil {
				t.Fatal(err)
			}
			var l raft.Log
			if err := n.stores.logs.GetLog(last, &l); err != nil {
				t.Fatal(err)
			}
			cmd, err := decodeEntry(l.Data)
			if err != nil || cmd.GetFormat() != want {
				t.Errorf("the entry's format is %d (%v), want %d", cmd.GetFormat(), err, want)
			}
		}
		check(rename(n.self.id, n.self.id, "old"), 1)
		check(drain(n.self.id, n.self.id), 2)
		check(rename(n.self.id, n.self.id, "old again"), 1)
	})
}

// plain is a stream layer of a program from before the preamble: it hangs up on
// what begins with no message of raft's.
type plain struct{ *pipeLayer }

func (p plain) Accept() (net.Conn, error) {
	c, err := p.pipeLayer.Accept()
	if err != nil {
		return nil, err
	}
	return &plainConn{Conn: c}, nil
}

type plainConn struct {
	net.Conn
	looked bool
}

func (c *plainConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.looked && p[0] > 4 {
		c.Conn.Close()
		return 0, errors.New("unknown rpc type")
	}
	c.looked = c.looked || n > 0
	return n, err
}

func TestProgramsFromBeforeThePreambleAreSpokenToAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		theirs := plain{net.listen("old")}
		trans := raft.NewNetworkTransport(theirs, 1, time.Second, io.Discard)
		defer trans.Close()
		go func() {
			for rpc := range trans.Consumer() {
				if _, end := rpc.Command.(*raft.TimeoutNowRequest); end {
					rpc.Respond(&raft.TimeoutNowResponse{}, nil)
					return
				}
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			}
		}()
		ours := newStreams(net.listen("new"), card{me: Server{ID: "new"}, generation: 1, met: func(uint64) {}})
		defer ours.closeConns()
		ours.start()
		listener := raft.NewNetworkTransport(ours, 1, time.Second, io.Discard)
		defer listener.Close()
		d := newDialer(ours, false)
		sender := raft.NewNetworkTransport(d, 1, time.Second, io.Discard)
		defer sender.Close()
		if err := sender.AppendEntries("old", "old", &raft.AppendEntriesRequest{Term: 1}, new(raft.AppendEntriesResponse)); err != nil {
			t.Errorf("a message to a program from before the preamble: %v", err)
		}
		if _, err := d.Dial("old/0123456789abcdef", time.Second); err == nil {
			t.Error("a stream that means a replica was opened without a preamble")
		}

		// And from one: it sends raft's first byte at once.
		go func() {
			for rpc := range listener.Consumer() {
				rpc.Respond(&raft.TimeoutNowResponse{}, nil)
				return
			}
		}()
		if err := trans.TimeoutNow("new", "new", &raft.TimeoutNowRequest{}, new(raft.TimeoutNowResponse)); err != nil {
			t.Errorf("a message of a program from before the preamble: %v", err)
		}
		if err := sender.TimeoutNow("old", "old", &raft.TimeoutNowRequest{}, new(raft.TimeoutNowResponse)); err != nil {
			t.Errorf("the last message: %v", err)
		}
	})
}

func TestAStreamWithoutAPreambleIsRefusedByAReplica(t *testing.T) {
	for name, c := range map[string]card{
		"a replica":          {me: Server{ID: "x", Replica: "0123456789abcdef"}, generation: 1},
		"a newer generation": {me: Server{ID: "x"}, generation: 2},
	} {
		here, there := net.Pipe()
		go there.Write([]byte{0})
		if _, err := (&acceptedConn{Conn: here, card: c}).Read(make([]byte, 1)); err == nil {
			t.Errorf("%s took a stream without a preamble", name)
		}
		there.Close()
	}
}

func FuzzPreamble(f *testing.F) {
	good, err := hail{generation: 3, to: "0123456789abcdef", from: ""}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(reply{verdict: wrongGeneration, generation: 7}.encode())
	f.Add([]byte("orft"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHail(b); err == nil {
			again, err := h.encode()
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("%x decodes to %+v, and that encodes to %x (%v)", b, h, again, err)
			}
		}
		if r, err := decodeReply(b); err == nil && b[4] == preambleVersion && !bytes.Equal(r.encode(), b) {
			t.Errorf("%x decodes to %+v, and that encodes to %x", b, r, r.encode())
		}
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			go io.Copy(io.Discard, there)
			there.Write(b)
		}()
		c := card{me: Server{ID: "x", Replica: "0123456789abcdef"}, generation: 3, met: func(uint64) {}}
		io.ReadAll(&acceptedConn{Conn: here, card: c})
		here.Close()
	})
}
