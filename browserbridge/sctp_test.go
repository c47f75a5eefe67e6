package browserbridge

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// packet returns an SCTP packet of chunks.
func packet(chunks ...[]byte) []byte {
	return append(make([]byte, sctpHeader), bytes.Join(chunks, nil)...)
}

func TestPacketsOfReliableChannelsPass(t *testing.T) {
	for name, b := range map[string][]byte{
		"data":                   packet([]byte{0, 3, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 50, 1, 2, 3, 4}),
		"data of an odd length":  packet([]byte{0, 3, 0, 17, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 50, 1, 0, 0, 0}),
		"without its padding":    packet([]byte{0, 3, 0, 17, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 50, 1}),
		"an acknowledgement":     packet([]byte{3, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0}),
		"a cookie and data":      packet([]byte{10, 0, 0, 8, 1, 2, 3, 4}, []byte{0, 3, 0, 17, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 50, 1}),
		"the reset of a stream":  packet([]byte{130, 0, 0, 8, 0, 13, 0, 4}),
		"the end of everything":  packet([]byte{6, 0, 0, 4}),
		"a shutdown's last word": packet([]byte{14, 0, 0, 4}),
	} {
		if !wellFormedSCTP(b) {
			t.Errorf("%s is dropped", name)
		}
	}
}

func TestPacketsThatCostTheStackTooMuchAreDropped(t *testing.T) {
	many := make([][]byte, maxChunks+1)
	for i := range many {
		many[i] = []byte{5, 0, 0, 4}
	}
	for name, b := range map[string][]byte{
		"nothing":                     {},
		"a header alone":              packet(),
		"a far FORWARD TSN":           packet([]byte{192, 0, 0, 8, 0x7f, 0xff, 0xff, 0xf0}),
		"one behind data":             packet([]byte{3, 0, 0, 4}, []byte{192, 0, 0, 8, 0x7f, 0xff, 0xff, 0xf0}),
		"an unknown chunk":            packet([]byte{64, 0, 0, 4}),
		"a chunk of no length":        packet([]byte{0, 0, 0, 0}),
		"a chunk over the end":        packet([]byte{0, 0, 0, 9, 1, 2, 3, 4}),
		"a piece of a chunk":          packet([]byte{3, 0, 0, 4}, []byte{3, 0}),
		"more chunks than a packet's": packet(many...),
		"too much":                    packet(make([]byte, maxDatagram)),
	} {
		if wellFormedSCTP(b) {
			t.Errorf("%s would reach the stack", name)
		}
	}
}

func TestAPacketThatIsDroppedIsLostAndNoError(t *testing.T) {
	a, b := net.Pipe()
	good := packet([]byte{5, 0, 0, 4})
	go func() {
		b.Write(packet([]byte{192, 0, 0, 8, 0x7f, 0xff, 0xff, 0xf0}))
		b.Write(good)
		b.Close()
	}()
	got := make([]byte, 100)
	n, err := guardedConn{a}.Read(got)
	if err != nil || !bytes.Equal(got[:n], good) {
		t.Errorf("got %x, %v", got[:n], err)
	}
	if _, err := (guardedConn{a}).Read(got); err != io.EOF {
		t.Errorf("at the end: got %v", err)
	}
}

func FuzzAPacketThatPassesIsNeededChunksFromEndToEnd(f *testing.F) {
	f.Add(packet([]byte{0, 3, 0, 17, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 50, 1, 0, 0, 0}))
	f.Add(packet([]byte{3, 0, 0, 4}, []byte{192, 0, 0, 8, 0x7f, 0xff, 0xff, 0xf0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !wellFormedSCTP(b) {
			return
		}
		for at := sctpHeader; at < len(b); {
			size := int(b[at+2])<<8 | int(b[at+3])
			if b[at] == 192 || size < chunkHeader || at+size > len(b) {
				t.Fatalf("a chunk of kind %d and %d bytes at %d of %d", b[at], size, at, len(b))
			}
			at += (size + 3) &^ 3
		}
	})
}
