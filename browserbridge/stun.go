package browserbridge

import (
	"encoding/binary"
	"hash/crc32"
)

// Layout of STUN messages: RFC 8489. Numbers of attributes: IANA's registry.
const (
	stunHeader   = 20
	stunCookie   = 0x2112A442
	stunBinding  = 0x0001
	stunSuccess  = 0x0101
	stunFailure  = 0x0111
	stunCRCMask  = 0x5354554e
	stunRequired = 0x8000 // attributes below must be understood

	attrUsername         = 0x0006
	attrMessageIntegrity = 0x0008
	attrErrorCode        = 0x0009
	attrXORMappedAddress = 0x0020
	attrPriority         = 0x0024
	attrUseCandidate     = 0x0025
	attrFingerprint      = 0x8028
	attrICEControlled    = 0x8029
	attrICEControlling   = 0x802a

	// maxSTUN bounds a message, and maxAttributes what is in it; an ICE check
	// has about a hundred bytes and seven attributes.
	maxSTUN       = 1280
	maxAttributes = 24
	// maxDatagram bounds a record of DTLS as it comes in one datagram.
	maxDatagram = 4096
)

// wellFormed reports whether a datagram may reach the WebRTC stack: a DTLS
// record by its first byte (RFC 7983), or an ICE check or its answer whose every
// length is right. The stack's own decoder trusts some of them, and panics.
func wellFormed(b []byte) bool {
	switch {
	case len(b) == 0 || len(b) > maxDatagram:
		return false
	case b[0] >= 20 && b[0] <= 63:
		return wellFormedDTLS(b)
	case b[0] <= 3:
		return wellFormedSTUN(b)
	}
	return false
}

// wellFormedDTLS reports whether a datagram is records of DTLS 1.0 or 1.2 from
// end to end: type, version, epoch, number, length (RFC 6347).
func wellFormedDTLS(b []byte) bool {
	const header = 13
	for len(b) > 0 {
		if len(b) < header || b[0] < 20 || b[0] > 63 || b[1] != 0xfe || b[2] != 0xff && b[2] != 0xfd {
			return false
		}
		size := int(binary.BigEndian.Uint16(b[11:]))
		if size == 0 || size > len(b)-header {
			return false
		}
		b = b[header+size:]
	}
	return true
}

// wellFormedSTUN reports whether a datagram is a binding request of ICE, or its
// answer, with each attribute once and of its right length, and a fingerprint
// that fits, as RFC 8445 wants of every check.
func wellFormedSTUN(b []byte) bool {
	if len(b) < stunHeader || len(b) > maxSTUN || len(b)%4 != 0 {
		return false
	}
	kind := binary.BigEndian.Uint16(b)
	if kind != stunBinding && kind != stunSuccess && kind != stunFailure {
		return false
	}
	if int(binary.BigEndian.Uint16(b[2:])) != len(b)-stunHeader || binary.BigEndian.Uint32(b[4:]) != stunCookie {
		return false
	}
	return attributesFit(b, kind)
}

func attributesFit(b []byte, kind uint16) bool {
	seen := make(map[uint16]bool, 8)
	for at := stunHeader; at < len(b); {
		if at+4 > len(b) || len(seen) == maxAttributes {
			return false
		}
		attr, size := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		padded := (size + 3) &^ 3
		if at+4+padded > len(b) || seen[attr] || seen[attrFingerprint] {
			return false
		}
		if seen[attrMessageIntegrity] && attr != attrFingerprint {
			return false // nothing vouches for what comes after the integrity
		}
		value := b[at+4 : at+4+size]
		if !attributeFits(attr, value) {
			return false
		}
		if attr == attrFingerprint && binary.BigEndian.Uint32(value) != crc32.ChecksumIEEE(b[:at])^stunCRCMask {
			return false
		}
		seen[attr] = true
		at += 4 + padded
	}
	if !seen[attrFingerprint] || !seen[attrMessageIntegrity] {
		return false
	}
	return kind != stunBinding || seen[attrUsername]
}

// attributeFits reports whether an attribute that the stack reads has the length
// that it takes for granted. One that it does not know may be there if it may be
// passed over.
func attributeFits(attr uint16, value []byte) bool {
	switch attr {
	case attrUsername:
		return len(value) >= 9 && len(value) <= 513
	case attrMessageIntegrity:
		return len(value) == 20
	case attrFingerprint, attrPriority:
		return len(value) == 4
	case attrUseCandidate:
		return len(value) == 0
	case attrICEControlled, attrICEControlling:
		return len(value) == 8
	case attrErrorCode:
		return len(value) >= 4
	case attrXORMappedAddress:
		return len(value) == 8 && value[1] == 1 || len(value) == 20 && value[1] == 2
	}
	return attr >= stunRequired
}
