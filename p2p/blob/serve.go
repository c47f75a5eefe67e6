package blob

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxServing bounds the streams that one member may have open here, and
	// maxReceiving the pages that arrive at one time from all, and so the
	// memory that both cost.
	maxServing   = 4 * maxStreams
	maxReceiving = 32
	// silentFor is how long a stream may be silent between calls.
	silentFor = 2 * idleFor
)

// Serve answers the page calls of from on conn until it closes the stream,
// breaks the protocol, is silent for a minute, or ctx ends; then it closes
// conn. Whether from may have pages at all is the caller's to check. A page is
// stored only if its bytes are those that its name promises. At most 1 MiB of
// memory a stream is in use at a time, and 32 MiB in sum.
func (x *Exchange) Serve(ctx context.Context, from wire.DeviceID, conn net.Conn) {
	defer conn.Close()
	if !x.admit(from) {
		return
	}
	defer x.dismiss(from)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer context.AfterFunc(x.ctx, func() { conn.Close() })()
	for {
		if err := conn.SetDeadline(time.Now().Add(silentFor)); err != nil {
			return
		}
		call := &wire.PageCall{}
		err := wire.ReadMessage(conn, maxHoldCall, call)
		if err == nil {
			err = conn.SetDeadline(time.Now().Add(callTime))
		}
		if err == nil {
			err = x.serveCall(ctx, conn, call)
		}
		if err != nil {
			if wire.CodeOf(err) == wire.Code_CODE_INVALID {
				x.cfg.Log.Warn("a member broke the page protocol; its stream is closed", "device", from, "error", err)
			}
			return
		}
	}
}

// admit takes a place for a stream of a member.
func (x *Exchange) admit(from wire.DeviceID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.serving[from] >= maxServing {
		return false
	}
	x.serving[from]++
	x.wg.Add(1)
	return true
}

func (x *Exchange) dismiss(from wire.DeviceID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.serving[from]--; x.serving[from] == 0 {
		delete(x.serving, from)
	}
	x.wg.Done()
}

// serveCall answers one call. Its error ends the stream.
func (x *Exchange) serveCall(ctx context.Context, conn net.Conn, call *wire.PageCall) error {
	switch kind := call.GetKind().(type) {
	case *wire.PageCall_Put:
		return x.servePut(ctx, conn, kind.Put)
	case *wire.PageCall_Get:
		return x.serveGet(conn, kind.Get)
	case *wire.PageCall_Hold:
		return x.serveHold(conn, kind.Hold)
	default:
		return refuse(conn, wire.Errorf(wire.Code_CODE_INVALID, "a page call of an unknown kind"))
	}
}

func (x *Exchange) servePut(ctx context.Context, conn net.Conn, put *wire.PagePut) error {
	h, err := wire.HashFromBytes(put.GetHash())
	if err != nil || put.GetSize() > wire.PageSize {
		return refuse(conn, wire.Errorf(wire.Code_CODE_INVALID, "a put of %d bytes under a hash of %d", put.GetSize(), len(put.GetHash())))
	}
	id, err := wire.HoldIDFromBytes(put.GetHold())
	if err != nil {
		return refuse(conn, wire.Errorf(wire.Code_CODE_INVALID, "a put: %v", err))
	}
	select {
	case x.receiving <- struct{}{}:
		defer func() { <-x.receiving }()
	case <-ctx.Done():
		return ctx.Err()
	case <-x.ctx.Done():
		return errClosed()
	}
	if err := x.space(hardReserve); err != nil {
		if _, err := io.CopyN(io.Discard, conn, int64(put.GetSize())); err != nil {
			return err
		}
		return reply(conn, err)
	}
	data := make([]byte, put.GetSize())
	if _, err := io.ReadFull(conn, data); err != nil {
		return err
	}
	if wire.HashOf(data) != h {
		return refuse(conn, wire.Errorf(wire.Code_CODE_INVALID, "the bytes put are not those of page %s", h))
	}
	err = x.keep(id, h, data)
	if err != nil && wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
		x.cfg.Log.Error("a page that another member put cannot be stored", "page", h, "error", err)
	}
	// It does not fill the memory: most of these pages are kept for others.
	return reply(conn, err)
}

// serveHold keeps pages that are here for a command that is to name them.
func (x *Exchange) serveHold(conn net.Conn, hold *wire.PageHold) error {
	id, err := wire.HoldIDFromBytes(hold.GetHold())
	if err != nil || id == (wire.HoldID{}) {
		return refuse(conn, wire.Errorf(wire.Code_CODE_INVALID, "a hold without an ID"))
	}
	if n := len(hold.GetHashes()); n > maxHeldPages {
		return refuse(conn, wire.Errorf(wire.Code_CODE_INVALID, "a hold of %d pages: at most %d are allowed", n, maxHeldPages))
	}
	pages, err := wire.HashesFromBytes(hold.GetHashes())
	if err != nil {
		return refuse(conn, wire.Errorf(wire.Code_CODE_INVALID, "a hold: %v", err))
	}
	return wire.WriteMessage(conn, maxHoldReply, &wire.PageReply{Lacking: x.keepHeld(id, pages)})
}

// serveGet answers from memory or disk. It does not fill the memory: a member
// that repairs asks for everything once.
func (x *Exchange) serveGet(conn net.Conn, get *wire.PageGet) error {
	h, err := wire.HashFromBytes(get.GetHash())
	if err != nil {
		return refuse(conn, wire.Errorf(wire.Code_CODE_INVALID, "a get of a hash of %d bytes", len(get.GetHash())))
	}
	data := x.cache.get(h)
	if data == nil {
		if data, err = x.cfg.Store.Get(h); err != nil {
			return reply(conn, err)
		}
	}
	return writeWithPage(conn, maxReply, &wire.PageReply{Size: uint32(len(data))}, data)
}

// reply answers a call with err, nil for done, and leaves the stream open.
func reply(conn net.Conn, err error) error {
	return wire.WriteMessage(conn, maxReply, &wire.PageReply{Error: wire.EncodeError(err)})
}

// refuse answers a call that breaks the protocol, and returns why.
func refuse(conn net.Conn, broken error) error {
	_ = reply(conn, broken) // the stream ends either way
	return broken
}
