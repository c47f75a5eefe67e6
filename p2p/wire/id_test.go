package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDeviceIDNamesItsKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := ed25519.PublicKey(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		id := NewDeviceID(key)
		got, err := id.PublicKey()
		if err != nil || !bytes.Equal(got, key) {
			t.Fatalf("the key of %s is %x, %v; want %x", id, got, err, key)
		}
		if len(id) != deviceIDSize || !strings.HasPrefix(string(id), "12D3KooW") {
			t.Fatalf("%s does not look like the peer ID of an Ed25519 key", id)
		}
	})
}

func TestDeviceIDsOfExtremeKeysHaveOneLength(t *testing.T) {
	for _, b := range []byte{0, 0xff} {
		id := NewDeviceID(bytes.Repeat([]byte{b}, 32))
		if _, err := id.PublicKey(); err != nil || len(id) != deviceIDSize {
			t.Errorf("%s has %d characters, %v; want %d", id, len(id), err, deviceIDSize)
		}
	}
}

func TestWhatIsNoDeviceIDHasNoKey(t *testing.T) {
	good := string(NewDeviceID(make([]byte, 32)))
	for name, id := range map[string]string{
		"empty":              "",
		"cut off":            good[:51],
		"longer":             good + "1",
		"another prefix":     "2" + good[1:],
		"not base 58":        good[:51] + "0",
		"not ASCII":          good[:50] + "é",
		"an RSA peer":        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
		"a megabyte of ones": strings.Repeat("1", 1<<20),
		"a megabyte of z":    strings.Repeat("z", 1<<20),
	} {
		key, err := DeviceID(id).PublicKey()
		if err == nil {
			t.Errorf("%s: the key %x, want an error", name, key)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func FuzzDeviceIDPublicKey(f *testing.F) {
	f.Add(string(NewDeviceID(make([]byte, 32))))
	f.Add("12D3KooW")
	f.Fuzz(func(t *testing.T, s string) {
		if key, err := DeviceID(s).PublicKey(); err == nil && NewDeviceID(key) != DeviceID(s) {
			t.Errorf("%q names a key whose ID is %q", s, NewDeviceID(key))
		}
	})
}

func TestJobIDCheck(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "night-run_2026.11": true, strings.Repeat("x", 64): true, "-x": true, "x.": true,
		"": false, strings.Repeat("x", 65): false, "a/b": false, "a b": false, "ä": false, "a\x00": false,
		".": false, "..": false, ".hidden": false, `a\b`: false, "a\xff": false,
	} {
		if err := JobID(id).Check(); (err == nil) != ok {
			t.Errorf("%q: %v, want it allowed: %v", id, err, ok)
		}
	}
}

func TestNewJobIDsAreValidAndDiffer(t *testing.T) {
	seen := map[JobID]bool{}
	for range 1000 {
		id := NewJobID()
		if err := id.Check(); err != nil || seen[id] {
			t.Fatalf("%s: %v, seen before: %v", id, err, seen[id])
		}
		seen[id] = true
	}
}

func FuzzJobIDCheck(f *testing.F) {
	f.Add("a.b")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, s string) {
		if JobID(s).Check() == nil && (len(s) > 64 || strings.ContainsAny(s, "/\\:\x00") || strings.HasPrefix(s, ".")) {
			t.Errorf("%q is allowed", s)
		}
	})
}

func TestShortIsTheLastEightCharacters(t *testing.T) {
	for id, want := range map[string]string{"": "", "abc": "abc", "12345678": "12345678", "x12345678": "12345678"} {
		if got := JobID(id).Short(); got != want {
			t.Errorf("JobID %q: %q, want %q", id, got, want)
		}
		if got := DeviceID(id).Short(); got != want {
			t.Errorf("DeviceID %q: %q, want %q", id, got, want)
		}
	}
}

func TestSwarmIDAndItsBytes(t *testing.T) {
	id := NewSwarmID(make([]byte, 32))
	back, err := SwarmIDFromBytes(id.Bytes())
	if err != nil || back != id {
		t.Errorf("%s comes back as %s, %v", id, back, err)
	}
	if NewSwarmID(bytes.Repeat([]byte{1}, 32)) == id {
		t.Error("two roots give one ID")
	}
	for _, bad := range []SwarmID{"", "zz", id + "00", id[:30]} {
		if got := bad.Bytes(); got != nil {
			t.Errorf("%q has the bytes %x", bad, got)
		}
	}
	if _, err := SwarmIDFromBytes(make([]byte, 15)); err == nil {
		t.Error("15 bytes are taken for an ID")
	}
}

func TestHashIsReadAsItIsWritten(t *testing.T) {
	h := HashOf([]byte("ostrich"))
	if got, err := ParseHash(h.String()); err != nil || got != h {
		t.Errorf("%s comes back as %s, %v", h, got, err)
	}
	if got, err := HashFromBytes(h[:]); err != nil || got != h {
		t.Errorf("%x comes back as %s, %v", h[:], got, err)
	}
	for _, bad := range []string{"", "00", h.String() + "00", "g" + h.String()[1:]} {
		if got, err := ParseHash(bad); err == nil {
			t.Errorf("%q is read as %s", bad, got)
		}
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	coded := Errorf(Code_CODE_CONFLICT, "job %s exists", "x")
	for _, err := range []error{coded, fmt.Errorf("submit: %w", coded), errors.New("plain")} {
		got := DecodeError(EncodeError(err))
		if CodeOf(got) != CodeOf(err) || got.Error() != err.Error() {
			t.Errorf("%v (%s) comes back as %v (%s)", err, CodeOf(err), got, CodeOf(got))
		}
	}
	if EncodeError(nil) != nil || DecodeError(nil) != nil || CodeOf(nil) != Code_CODE_UNSPECIFIED {
		t.Error("no error does not stay none")
	}
	if got := CodeOf(errors.Join(errors.New("plain"), coded)); got != Code_CODE_CONFLICT {
		t.Errorf("the code of a joined error is %s", got)
	}
}

func TestAnyErrorTextCanBeSent(t *testing.T) {
	for name, text := range map[string]string{
		"long": strings.Repeat("x", 5000), "cut within a character": strings.Repeat("x", maxErrorBytes-1) + "é",
		"not UTF-8": "open \xff\xfe: no such file",
	} {
		encoded := EncodeError(errors.New(text))
		if len(encoded.GetText()) > maxErrorBytes {
			t.Errorf("%s: %d bytes", name, len(encoded.GetText()))
		}
		if _, err := AppendMessage(nil, 1<<20, encoded); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
