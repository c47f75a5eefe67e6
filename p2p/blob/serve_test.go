package blob

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// caller is the near end of a stream that node 0 of c serves.
func caller(c *cluster, from wire.DeviceID) net.Conn {
	near, far := net.Pipe()
	c.serves.Go(func() { c.nodes[0].Serve(c.ctx, from, far) })
	c.t.Cleanup(func() { near.Close() })
	return near
}

func putCall(hash []byte, size uint32) *wire.PageCall {
	return &wire.PageCall{Kind: &wire.PageCall_Put{Put: &wire.PagePut{Hash: hash, Size: size}}}
}

func getCall(hash []byte) *wire.PageCall {
	return &wire.PageCall{Kind: &wire.PageCall_Get{Get: &wire.PageGet{Hash: hash}}}
}

func TestBrokenCallsAreRefusedAndEndTheStream(t *testing.T) {
	data := randomPage(100)
	h := wire.HashOf(data)
	tests := []struct {
		name  string
		call  *wire.PageCall
		after []byte
	}{
		{"no kind", &wire.PageCall{}, nil},
		{"put under a short hash", putCall(h[:31], 100), nil},
		{"put under no hash", putCall(nil, 100), nil},
		{"put of too much", putCall(h[:], wire.PageSize+1), nil},
		{"put of other bytes", putCall(h[:], 100), make([]byte, 100)},
		{"get of a long hash", getCall(append(h[:], 0)), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t, 1, 1)
			conn := caller(c, "stranger")
			if err := writeWithPage(conn, maxCall, test.call, test.after); err != nil {
				t.Fatal(err)
			}
			got, err := readReply(conn, maxReply)
			if err != nil || got.GetError().GetCode() != wire.Code_CODE_INVALID {
				t.Errorf("reply %v, %v; want CODE_INVALID", got, err)
			}
			if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("after it: %v, want the end of the stream", err)
			}
			if c.nodes[0].store.Size() != 0 {
				t.Error("something was stored")
			}
		})
	}
}

func TestAStreamCarriesManyCalls(t *testing.T) {
	c := newCluster(t, 1, 1)
	conn := caller(c, "member")
	if _, answer, err := getOver(conn, wire.HashOf(nil)); err != nil || wire.CodeOf(answer) != wire.Code_CODE_NOT_FOUND {
		t.Errorf("a get of what is not there: %v, %v; want CODE_NOT_FOUND", answer, err)
	}
	for _, size := range []int{0, 1, wire.PageSize} {
		data := randomPage(size)
		h := wire.HashOf(data)
		for range 2 { // the second time it is there
			if answer, err := putOver(conn, page{hash: h, data: data}); answer != nil || err != nil {
				t.Errorf("put of %d bytes: %v, %v", size, answer, err)
			}
		}
		c.nodes[0].cache.remove(h)
		if got, answer, err := getOver(conn, h); answer != nil || err != nil || !bytes.Equal(got, data) {
			t.Errorf("get of %d bytes: %d, %v, %v", size, len(got), answer, err)
		}
	}
	c.nodes[0].free.Store(0)
	data := randomPage(wire.PageSize)
	if answer, err := putOver(conn, page{hash: wire.HashOf(data), data: data}); err != nil || wire.CodeOf(answer) != wire.Code_CODE_NO_SPACE {
		t.Errorf("put on a full disk: %v, %v; want CODE_NO_SPACE", answer, err)
	}
	if _, answer, err := getOver(conn, wire.HashOf(nil)); answer != nil || err != nil {
		t.Errorf("get on a full disk: %v, %v", answer, err)
	}
}

func TestAMemberHasBoundedStreams(t *testing.T) {
	c := newCluster(t, 1, 1)
	for range maxServing {
		if _, answer, err := getOver(caller(c, "greedy"), wire.HashOf(nil)); answer == nil || err != nil {
			t.Fatal(answer, err)
		}
	}
	if _, _, err := getOver(caller(c, "greedy"), wire.HashOf(nil)); err == nil {
		t.Error("one more stream than allowed is served")
	}
	if _, answer, err := getOver(caller(c, "modest"), wire.HashOf(nil)); answer == nil || err != nil {
		t.Errorf("another member is not served: %v", err)
	}
}

func TestSilentStreamsEnd(t *testing.T) {
	data := randomPage(100)
	h := wire.HashOf(data)
	put := mustMarshal(t, putCall(h[:], 100))
	for name, test := range map[string]struct {
		sent []byte
		in   time.Duration
	}{
		"before a call":  {nil, silentFor},
		"within a call":  {put[:7], silentFor},
		"within a page":  {append(put, data[:50]...), callTime},
		"before a reply": {append(put, data...), callTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1, 1)
				defer c.close()
				near, far := net.Pipe()
				defer near.Close()
				done := make(chan time.Duration)
				begin := time.Now()
				go func() {
					c.nodes[0].Serve(c.ctx, "silent", far)
					done <- time.Since(begin)
				}()
				if len(test.sent) > 0 {
					if _, err := near.Write(test.sent); err != nil {
						t.Fatal(err)
					}
				}
				if took := <-done; took != test.in {
					t.Errorf("the stream ended after %s, want %s", took, test.in)
				}
			})
		})
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	c := newCluster(t, 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	near, far := net.Pipe()
	defer near.Close()
	done := make(chan struct{})
	go func() { c.nodes[0].Serve(ctx, "member", far); close(done) }()
	cancel()
	<-done
}

func mustMarshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	buf, err := wire.AppendMessage(nil, maxCall, m)
	if err != nil {
		t.Fatal(err)
	}
	return buf
}

// script is a stream whose other end has sent everything already.
type script struct {
	io.Reader
	replies bytes.Buffer
}

func (s *script) Write(b []byte) (int, error)      { return s.replies.Write(b) }
func (*script) Close() error                       { return nil }
func (*script) LocalAddr() net.Addr                { return nil }
func (*script) RemoteAddr() net.Addr               { return nil }
func (*script) SetDeadline(time.Time) error        { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// FuzzServe sends any bytes to a server. Whatever comes, it returns, and its
// store holds only pages that are what their names promise.
func FuzzServe(f *testing.F) {
	data := []byte("some page")
	h := wire.HashOf(data)
	put, get := mustMarshal(f, putCall(h[:], uint32(len(data)))), mustMarshal(f, getCall(h[:]))
	f.Add(bytes.Join([][]byte{put, data, get, get}, nil))
	f.Add(bytes.Join([][]byte{put, []byte("some pane"), get}, nil))
	f.Add(append(get, put...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Add(mustMarshal(f, putCall(h[:], 1<<31)))
	c := newCluster(f, 1, 1)
	f.Fuzz(func(t *testing.T, sent []byte) {
		n := c.nodes[0]
		conn := &script{Reader: bytes.NewReader(sent)}
		n.Serve(t.Context(), "fuzzer", conn)
		if limit := len(sent)*(64+wire.PageSize) + maxReply; conn.replies.Len() > limit {
			t.Errorf("%d bytes of replies to %d", conn.replies.Len(), len(sent))
		}
		for h := range n.store.List() {
			if _, err := n.store.Get(h); err != nil {
				t.Errorf("the store holds %s: %v", h, err)
			}
			_ = n.store.Delete(h)
			n.cache.remove(h)
		}
	})
}
