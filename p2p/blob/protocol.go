package blob

import (
	"errors"
	"io"
	"net"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxCall and maxReply bound the messages of the page protocol, the pages
	// after them apart.
	maxCall  = 256
	maxReply = 2 << 10
	// maxHeldPages bounds the pages of one hold, maxHoldCall and maxHoldReply what
	// that takes.
	maxHeldPages = 1024
	maxHoldCall  = 64 << 10
	maxHoldReply = 8 << 10
)

// putOver stores a page at the other end. answer is what it said, err what is
// wrong with the stream.
func putOver(conn net.Conn, pg page) (answer, err error) {
	call := &wire.PageCall{Kind: &wire.PageCall_Put{Put: &wire.PagePut{Hash: pg.hash[:], Size: uint32(len(pg.data)), Hold: pg.hold[:]}}}
	if err := writeWithPage(conn, maxCall, call, pg.data); err != nil {
		return nil, err
	}
	reply, err := readReply(conn, maxReply)
	if err != nil {
		return nil, err
	}
	return wire.DecodeError(reply.GetError()), nil
}

// holdOver has the other end keep pages that it has. lacking are the places of
// those that it has not.
func holdOver(conn net.Conn, id wire.HoldID, pages []wire.Hash) (lacking []uint32, answer, err error) {
	hold := &wire.PageHold{Hold: id[:], Hashes: make([][]byte, len(pages))}
	for i := range pages {
		hold.Hashes[i] = pages[i][:]
	}
	if err := wire.WriteMessage(conn, maxHoldCall, &wire.PageCall{Kind: &wire.PageCall_Hold{Hold: hold}}); err != nil {
		return nil, nil, err
	}
	reply, err := readReply(conn, maxHoldReply)
	if err != nil {
		return nil, nil, err
	}
	for _, place := range reply.GetLacking() {
		if uint64(place) >= uint64(len(pages)) {
			return nil, nil, wire.Errorf(wire.Code_CODE_INVALID, "it lacks page %d of %d", place, len(pages))
		}
	}
	return reply.GetLacking(), wire.DecodeError(reply.GetError()), nil
}

// getOver fetches a page from the other end. Bytes that are not those of the
// page are an error of the stream.
func getOver(conn net.Conn, h wire.Hash) (data []byte, answer, err error) {
	call := &wire.PageCall{Kind: &wire.PageCall_Get{Get: &wire.PageGet{Hash: h[:]}}}
	if err := wire.WriteMessage(conn, maxCall, call); err != nil {
		return nil, nil, err
	}
	reply, err := readReply(conn, maxReply)
	if err != nil || reply.GetError() != nil {
		return nil, wire.DecodeError(reply.GetError()), err
	}
	if reply.GetSize() > wire.PageSize {
		return nil, nil, wire.Errorf(wire.Code_CODE_INVALID, "it offers a page of %d bytes", reply.GetSize())
	}
	data = make([]byte, reply.GetSize())
	if _, err := io.ReadFull(conn, data); err != nil {
		return nil, nil, cutOff(err)
	}
	if wire.HashOf(data) != h {
		return nil, nil, wire.Errorf(wire.Code_CODE_INVALID, "it sent other bytes than those of the page")
	}
	return data, nil, nil
}

// writeWithPage writes a message and the bytes of the page that belongs to it.
func writeWithPage(conn net.Conn, limit int, m proto.Message, data []byte) error {
	if err := wire.WriteMessage(conn, limit, m); err != nil {
		return err
	}
	if len(data) == 0 {
		return nil // a pipe would wait for somebody to read nothing
	}
	_, err := conn.Write(data)
	return err
}

func readReply(conn net.Conn, limit int) (*wire.PageReply, error) {
	reply := &wire.PageReply{}
	if err := wire.ReadMessage(conn, limit, reply); err != nil {
		return nil, cutOff(err)
	}
	return reply, nil
}

// cutOff says that a stream ended where it should not.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
