package browserbridge

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/pion/stun"
)

// check returns an ICE check as browsers send it.
func check(t testing.TB, more ...stun.Setter) []byte {
	t.Helper()
	setters := append([]stun.Setter{
		stun.BindingRequest, stun.TransactionID, stun.NewUsername("bridge:browser"),
		stun.RawAttribute{Type: 0xc057, Value: []byte{0, 1, 0, 10}}, // network cost, of Chromium
		stun.RawAttribute{Type: attrICEControlling, Value: make([]byte, 8)},
		stun.RawAttribute{Type: attrUseCandidate},
		stun.RawAttribute{Type: attrPriority, Value: []byte{1, 2, 3, 4}},
	}, more...)
	return message(t, setters...)
}

// message returns a STUN message with its integrity and fingerprint.
func message(t testing.TB, setters ...stun.Setter) []byte {
	t.Helper()
	m, err := stun.Build(append(setters, stun.NewShortTermIntegrity("a password of twenty-two"), stun.Fingerprint)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// success returns the answer to a check.
func success(t testing.TB, address stun.Setter) []byte {
	return message(t, stun.BindingSuccess, stun.TransactionID, address)
}

// empty is the message that panics the stack's decoder: an address of no bytes,
// at the end.
func empty(t testing.TB) []byte {
	m, err := stun.Build(stun.BindingSuccess, stun.TransactionID, stun.RawAttribute{Type: attrXORMappedAddress})
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// decode does with a datagram all that the stack may do with it.
func decode(b []byte) {
	m := &stun.Message{Raw: bytes.Clone(b)[:len(b):len(b)]}
	if m.Decode() != nil {
		return
	}
	var address stun.XORMappedAddress
	address.GetFrom(m)
	var name stun.Username
	name.GetFrom(m)
	var code stun.ErrorCodeAttribute
	code.GetFrom(m)
	stun.NewShortTermIntegrity("p").Check(m)
	stun.Fingerprint.Check(m)
}

func TestWhatBrowsersSendPasses(t *testing.T) {
	for name, b := range map[string][]byte{
		"a check":            check(t),
		"an answer":          success(t, &stun.XORMappedAddress{IP: net.IPv4(10, 0, 0, 1), Port: 7}),
		"an answer, by IPv6": success(t, &stun.XORMappedAddress{IP: net.ParseIP("fd00::1"), Port: 7}),
		"a record of DTLS":   {23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 9, 9},
		"two records":        {22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 9, 20, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 1},
	} {
		if !wellFormed(b) {
			t.Errorf("%s is dropped", name)
		}
	}
}

func TestAnAddressOfNoBytesPanicsTheStackAndIsDropped(t *testing.T) {
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the stack's decoder is mended: the filter may go")
			}
		}()
		decode(empty(t))
	}()
	if wellFormed(empty(t)) {
		t.Error("it would reach the stack")
	}
}

func TestMalformedDatagramsAreDropped(t *testing.T) {
	changed := func(at int, to ...byte) []byte {
		b := check(t)
		copy(b[at:], to)
		return b
	}
	resealed := func(b []byte) []byte { // with a fingerprint that fits again
		binary.BigEndian.PutUint32(b[len(b)-4:], stun.FingerprintValue(b[:len(b)-8]))
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":                    {},
		"one byte":                   {0},
		"a header alone":             check(t)[:20],
		"a message cut short":        check(t)[:40],
		"a message with more behind": append(check(t), 0, 0, 0, 0),
		"no cookie":                  resealed(changed(4, 1, 2, 3, 4)),
		"a method that ICE lacks":    resealed(changed(0, 0, 3)),
		"an indication":              resealed(changed(0, 0, 0x11)),
		"a wrong fingerprint":        changed(24, 'x'),
		"an attribute over the end":  resealed(changed(22, 0xff, 0xff)),
		"a short priority":           check(t, stun.RawAttribute{Type: attrPriority, Value: []byte{1}}),
		"a priority twice":           check(t, stun.RawAttribute{Type: attrPriority, Value: []byte{1, 2, 3, 4}}),
		"an unknown attribute":       check(t, stun.RawAttribute{Type: 0x7001, Value: []byte{1, 2, 3, 4}}),
		"an address of no bytes":     success(t, stun.RawAttribute{Type: attrXORMappedAddress}),
		"an address of no family":    success(t, stun.RawAttribute{Type: attrXORMappedAddress, Value: make([]byte, 8)}),
		"an IPv6 address of 4 bytes": success(t, stun.RawAttribute{Type: attrXORMappedAddress, Value: []byte{0, 2, 0, 7, 1, 2, 3, 4}}),
		"a request without a name":   message(t, stun.BindingRequest, stun.TransactionID),
		"too much":                   check(t, stun.RawAttribute{Type: 0xc058, Value: make([]byte, maxSTUN)}),
		"TURN's channels":            {0x40, 0, 0, 4, 1, 2, 3, 4},
		"RTP":                        {0x80, 0, 0, 4, 1, 2, 3, 4},
		"a record of SSL":            {23, 3, 3, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 9, 9},
		"a record over the end":      {23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 3, 9, 9},
		"a record of nothing":        {23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0},
		"a record with more behind":  {23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 9, 9},
		"without any integrity":      unsealed(t),
	} {
		if wellFormed(b) {
			t.Errorf("%s would reach the stack", name)
		}
	}
}

func unsealed(t *testing.T) []byte {
	m, err := stun.Build(stun.BindingRequest, stun.TransactionID, stun.NewUsername("bridge:browser"), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

func FuzzWhatPassesTheFilterDoesNotPanicTheDecoder(f *testing.F) {
	f.Add(check(f))
	f.Add(empty(f))
	f.Add(success(f, &stun.XORMappedAddress{IP: net.IPv4(10, 0, 0, 1), Port: 7}))
	f.Add([]byte{23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 9, 9})
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) >= 28 && b[0] <= 3 { // a fuzzer does not find fingerprints by itself
			b = append([]byte(nil), b...)
			binary.BigEndian.PutUint32(b[len(b)-4:], stun.FingerprintValue(b[:len(b)-8]))
		}
		if wellFormed(b) {
			decode(b)
		}
	})
}
