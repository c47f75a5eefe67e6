package browserbridge

import (
	"encoding/binary"
	"net"
)

// Layout of SCTP packets and numbers of chunks: RFC 9260, and RFC 6525 for the
// reset of streams.
const (
	sctpHeader  = 12
	chunkHeader = 4
	chunkCookie = 11 // COOKIE ACK; the chunks up to it are the base protocol's
	chunkEnd    = 14 // SHUTDOWN COMPLETE
	chunkReset  = 130
	// maxChunks bounds the chunks of a packet: a few bytes each would be many.
	maxChunks = 64
)

// wellFormedSCTP reports whether a packet, as DTLS has decrypted it, may reach
// the stack: chunks from end to end whose lengths are right, and none but those
// that reliable channels need. FORWARD TSN is none of them: the stack counts up
// to the number in it one by one, for many seconds of a core if it is far.
func wellFormedSCTP(b []byte) bool {
	if len(b) < sctpHeader+chunkHeader || len(b) > maxDatagram {
		return false
	}
	b = b[sctpHeader:]
	for n := 0; len(b) > 0; n++ {
		if len(b) < chunkHeader || n == maxChunks || !neededChunk(b[0]) {
			return false
		}
		size := int(binary.BigEndian.Uint16(b[2:]))
		if size < chunkHeader || size > len(b) {
			return false
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return true
}

func neededChunk(kind byte) bool {
	return kind <= chunkCookie || kind == chunkEnd || kind == chunkReset
}

// guardedConn reads none but packets that the stack may see. Others are lost.
type guardedConn struct{ net.Conn }

func (c guardedConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || wellFormedSCTP(b[:n]) {
			return n, err
		}
	}
}
