package session

import (
	"io"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
	"google.golang.org/protobuf/encoding/protowire"
)

// side is which end of a session a Conn is.
type side uint8

const (
	deviceSide side = iota
	coordinatorSide
)

// Numbers of the frame's kinds in session.proto.
const (
	kindWelcome     = 4
	kindGoodbye     = 6
	kindPing        = 7
	kindPong        = 8
	kindRequest     = 9
	kindResponse    = 10
	kindHeartbeat   = 11
	kindResults     = 12
	kindLogLine     = 13
	kindLease       = 14
	kindCancelTasks = 15
	kindResultsAck  = 16
)

// Kinds that may arrive, as a bit set.
const (
	bothWays = 1<<kindGoodbye | 1<<kindPing | 1<<kindPong | 1<<kindRequest | 1<<kindResponse
	toDevice = bothWays | 1<<kindWelcome | 1<<kindLease | 1<<kindCancelTasks | 1<<kindResultsAck
	upward   = bothWays | 1<<kindHeartbeat | 1<<kindResults | 1<<kindLogLine
)

// maxFields bounds the fields of a frame's message. A field of two bytes can
// cost a hundred once it is decoded: without the bound a frame of 1 MiB takes
// 100 MiB.
const maxFields = wire.MaxPackItems + 64

// checkFrame reports why a frame may not be decoded on this side: it is not one
// message of a kind that may arrive here, or has more parts than any needs.
func checkFrame(b []byte, s side) error {
	allowed := uint32(toDevice)
	if s == coordinatorSide {
		allowed = upward
	}
	kinds := 0
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protocolError("a frame that is none")
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(number, typ, b)
		if size < 0 {
			return protocolError("a frame that is none")
		}
		if kinds++; kinds > 1 || number > kindResultsAck || allowed&(1<<number) == 0 || typ != protowire.BytesType {
			return protocolError("a frame of a kind that is not sent this way")
		}
		if fields(b[:size]) > maxFields {
			return protocolError("a frame of more than %d parts", maxFields)
		}
		b = b[size:]
	}
	if kinds == 0 {
		return protocolError("an empty frame")
	}
	return nil
}

// fields counts the fields of a message that stands as a field's value, up to
// where it is damaged: decoding finds that.
func fields(value []byte) int {
	message, n := protowire.ConsumeBytes(value)
	if n < 0 {
		return 0
	}
	count := 0
	for len(message) > 0 {
		_, _, n := protowire.ConsumeField(message)
		if n < 0 {
			break
		}
		message = message[n:]
		count++
	}
	return count
}

// isBulk reports whether the frame carries bytes of programs, inputs or outputs
// downward, or a client's bytes upward: it waits behind all others.
func isBulk(frame *wire.Frame) bool {
	switch kind := frame.GetKind().(type) {
	case *wire.Frame_Lease:
		return true
	case *wire.Frame_Request:
		switch kind.Request.GetKind().(type) {
		case *wire.Request_AppendInputs, *wire.Request_WritePage:
			return true
		}
	case *wire.Frame_Response:
		switch kind.Response.GetKind().(type) {
		case *wire.Response_ReadPage, *wire.Response_ReadResults, *wire.Response_ListJobs,
			*wire.Response_ListDevices, *wire.Response_GetView:
			return true
		}
	}
	return false
}

// kindName names the kind of a frame in words, for errors.
func kindName(frame *wire.Frame) string {
	m := frame.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if field == nil {
		return "a frame of no kind"
	}
	return "a " + string(field.Message().Name())
}

// breakLink ends a stream whose Read or Write may hang. Close alone does not
// free a writer on every transport.
func breakLink(rw io.ReadWriteCloser) {
	if r, ok := rw.(interface{ Reset() error }); ok {
		r.Reset()
		return
	}
	if d, ok := rw.(interface{ SetDeadline(time.Time) error }); ok {
		d.SetDeadline(time.Unix(1, 0))
	}
	rw.Close()
}
