package state

import (
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Every check here must give the same verdict on every node, whatever Go
// version built it: no Unicode tables, no map order, no locale.

func invalid(format string, args ...any) error {
	return wire.Errorf(wire.Code_CODE_INVALID, format, args...)
}

// checkText accepts valid UTF-8 of minimum to maximum characters, all of them
// printable.
func checkText(what, text string, minimum, maximum int) error {
	if !utf8.ValidString(text) {
		return invalid("%s is not UTF-8", what)
	}
	if n := utf8.RuneCountInString(text); n < minimum || n > maximum {
		return invalid("%s has %d characters: %d to %d are allowed", what, n, minimum, maximum)
	}
	if strings.ContainsFunc(text, unprintable) {
		return invalid("%s has characters that cannot be printed", what)
	}
	return nil
}

// unprintable reports control characters, line separators, characters that
// turn the direction of what follows, and the byte order mark. The list is our
// own because unicode.IsPrint changes with the version of Unicode.
func unprintable(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r < 0xa0:
		return true
	case r == 0x200b, r == 0x200e, r == 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f:
		return true
	case r == 0xfeff, r >= 0xfff0 && r <= 0xffff, r >= 0xe0000 && r <= 0xe0fff:
		return true
	}
	return false
}

// checkArg accepts what may be an argument or a variable of a program.
func checkArg(what, text string) error {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return invalid("%s must be UTF-8 without a zero byte", what)
	}
	return nil
}

func checkHash(what string, b []byte) error {
	if _, err := wire.HashFromBytes(b); err != nil {
		return invalid("%s: %v", what, err)
	}
	return nil
}

func checkHashes(what string, list [][]byte) error {
	for _, b := range list {
		if err := checkHash(what, b); err != nil {
			return err
		}
	}
	return nil
}

func checkDeviceID(id string) error {
	if _, err := wire.DeviceID(id).PublicKey(); err != nil || len(id) > maxActor {
		return invalid("the ID of a device is not one of an Ed25519 key")
	}
	return nil
}

// Bounds of stored messages as encoded. They leave room for fields that later
// versions add, which are kept unread.
const (
	maxSpecSize    = 256 << 10
	maxProfileSize = 32 << 10
	maxSegmentSize = 64 << 10
)

func checkSize(what string, m proto.Message, limit int) error {
	if size := proto.Size(m); size > limit {
		return invalid("%s of %d bytes: at most %d are allowed", what, size, limit)
	}
	return nil
}

func checkRole(role wire.Role) error {
	if role < wire.Role_ROLE_WORKER || role > wire.Role_ROLE_ADMIN {
		return invalid("there is no role %d", role)
	}
	return nil
}

// checkProfile accepts what a device may say of itself.
func checkProfile(p *wire.DeviceProfile) error {
	if p == nil {
		return invalid("a device without a profile")
	}
	if p.GetType() < wire.DeviceType_DEVICE_TYPE_DESKTOP || p.GetType() > wire.DeviceType_DEVICE_TYPE_BROWSER {
		return invalid("there is no device type %d", p.GetType())
	}
	if score := p.GetOpsScore(); !(score >= 0 && score <= math.MaxFloat64) {
		return invalid("a device's score must be a number from 0 on")
	}
	if err := checkText("a device's name", p.GetName(), 1, wire.MaxName); err != nil {
		return err
	}
	if err := checkText("a device's version", p.GetVersion(), 0, wire.MaxLabel); err != nil {
		return err
	}
	if err := checkCapabilities(p.GetCapabilities()); err != nil {
		return err
	}
	if err := checkLabels(p.GetLabels()); err != nil {
		return err
	}
	return checkSize("a device's profile", p, maxProfileSize)
}

// checkReplica accepts the name of a memory of the log: 16 lower-case
// hexadecimal digits, or nothing.
func checkReplica(replica string) error {
	if replica == "" {
		return nil
	}
	if len(replica) != 16 || strings.Trim(replica, "0123456789abcdef") != "" {
		return invalid("a device's replica has 16 lower-case hexadecimal digits")
	}
	return nil
}

func checkMode(mode wire.DeviceMode) error {
	if mode < wire.DeviceMode_DEVICE_MODE_ENABLED || mode > wire.DeviceMode_DEVICE_MODE_DISABLED {
		return invalid("a device is enabled, draining or disabled: there is no mode %d", mode)
	}
	return nil
}

func checkCapabilities(c *wire.Capabilities) error {
	if n := c.GetCpuCores(); n < 1 || n > 1024 {
		return invalid("a device has 1 to 1024 cores, not %d", n)
	}
	if gb := c.GetMemoryGb(); !(gb >= 0.125 && gb <= 65536) {
		return invalid("a device has 0.125 to 65,536 GB of memory")
	}
	if err := checkText("the name of a GPU", c.GetGpuName(), 0, wire.MaxName); err != nil {
		return err
	}
	return checkText("a device's runtime", c.GetRuntime(), 0, wire.MaxName)
}

func checkLabels(labels map[string]string) error {
	if len(labels) > wire.MaxLabels {
		return invalid("%d labels: at most %d are allowed", len(labels), wire.MaxLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if err := checkText("the key of a label", key, 1, wire.MaxLabel); err != nil {
			return err
		}
		if err := checkText("the value of a label", labels[key], 0, wire.MaxLabel); err != nil {
			return err
		}
	}
	return nil
}
