package wire

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func sampleJoin() *JoinRequest {
	return &JoinRequest{
		SwarmId: bytes.Repeat([]byte{1}, 16), InviteKey: bytes.Repeat([]byte{2}, 32), DeviceId: "12D3KooWjoiner",
		Role: Role_ROLE_MEMBER, Nonce: bytes.Repeat([]byte{3}, 32), OfferHash: bytes.Repeat([]byte{4}, 32),
	}
}

func sampleSession() (*Hello, *Challenge) {
	return &Hello{
			Version: 1, SwarmId: bytes.Repeat([]byte{1}, 16), Generation: 5, DeviceId: "12D3KooWdevice",
			Nonce: bytes.Repeat([]byte{6}, 32), Slots: 7,
		}, &Challenge{
			CoordinatorId: "12D3KooWcoordinator", Nonce: bytes.Repeat([]byte{8}, 32), Term: 9, Generation: 5,
		}
}

func sampleLease() *LeaseClaim {
	return &LeaseClaim{JobId: "job", Attempt: &Attempt{Term: 10, Counter: 11}, Indexes: []uint32{0, 1, 4_000_000_000}}
}

// TestFormatsDoNotDrift compares what is not protobuf with the bytes of the
// first release: old signatures, leases and pages must stay good. The flag
// -update writes new ones.
func TestFormatsDoNotDrift(t *testing.T) {
	hello, challenge := sampleSession()
	key := bytes.Repeat([]byte{12}, 32)
	digest := Digest{}.Next(HashOf([]byte("a\n"))).Next(HashOf([]byte("b\n")))
	swarm := NewSwarmID(bytes.Repeat([]byte{13}, 32))
	for name, got := range map[string][]byte{
		"pack":                EncodePack([][]byte{[]byte("one\n"), nil, bytes.Repeat([]byte("x"), 300)}),
		"message":             mustAppend(t, &Frame{Kind: &Frame_Goodbye{Goodbye: &Goodbye{Reason: "stops", Redial: true}}}),
		"lease-token":         LeaseToken(key, "12D3KooWdevice", sampleLease()),
		"session-device":      SessionTranscript("device", hello, challenge),
		"session-coordinator": SessionTranscript("coordinator", hello, challenge),
		"join-statement":      JoinStatement(sampleJoin()),
		"founding-statement":  FoundingStatement(&FoundSwarm{RootKey: key, Founder: "12D3KooWfounder", LeaseKey: key}),
		"digest":              digest[:],
		"device-id":           []byte(NewDeviceID(key)),
		"swarm-id":            swarm.Bytes(),
	} {
		t.Run(name, func(t *testing.T) { checkGolden(t, name, got) })
	}
}

func checkGolden(t *testing.T, name string, got []byte) {
	path := filepath.Join("testdata", name+".hex")
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(got) != strings.TrimSpace(string(want)) {
		t.Errorf("%s is now\n%x\nwant\n%s", name, got, want)
	}
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the golden files anew")
	flag.Parse()
	os.Exit(m.Run())
}

func TestAStatementCoversEachField(t *testing.T) {
	plain := JoinStatement(sampleJoin())
	for name, change := range map[string]func(*JoinRequest){
		"swarm":      func(r *JoinRequest) { r.SwarmId[0]++ },
		"invite":     func(r *JoinRequest) { r.InviteKey[0]++ },
		"device":     func(r *JoinRequest) { r.DeviceId += "x" },
		"role":       func(r *JoinRequest) { r.Role++ },
		"nonce":      func(r *JoinRequest) { r.Nonce[0]++ },
		"offer":      func(r *JoinRequest) { r.OfferHash = nil },
		"a boundary": func(r *JoinRequest) { r.InviteKey, r.SwarmId = r.InviteKey[1:], append(r.SwarmId, r.InviteKey[0]) },
	} {
		r := sampleJoin()
		change(r)
		if bytes.Equal(JoinStatement(r), plain) {
			t.Errorf("another %s, the same statement to sign", name)
		}
	}
}

func TestATranscriptCoversEachFieldAndSide(t *testing.T) {
	hello, challenge := sampleSession()
	seen := map[string]string{}
	note := func(name, side string, h *Hello, c *Challenge) {
		key := string(SessionTranscript(side, h, c))
		if before, ok := seen[key]; ok {
			t.Errorf("%s and %s have one transcript", name, before)
		}
		seen[key] = name
	}
	note("plain", "device", hello, challenge)
	note("other side", "coordinator", hello, challenge)
	for name, change := range map[string]func(*Hello, *Challenge){
		"swarm":                    func(h *Hello, _ *Challenge) { h.SwarmId[0]++ },
		"device's generation":      func(h *Hello, _ *Challenge) { h.Generation++ },
		"device":                   func(h *Hello, _ *Challenge) { h.DeviceId += "x" },
		"device's nonce":           func(h *Hello, _ *Challenge) { h.Nonce[0]++ },
		"slots":                    func(h *Hello, _ *Challenge) { h.Slots++ },
		"coordinator":              func(_ *Hello, c *Challenge) { c.CoordinatorId += "x" },
		"coordinator's nonce":      func(_ *Hello, c *Challenge) { c.Nonce[0]++ },
		"term":                     func(_ *Hello, c *Challenge) { c.Term++ },
		"coordinator's generation": func(_ *Hello, c *Challenge) { c.Generation++ },
	} {
		h, c := sampleSession()
		change(h, c)
		note(name, "device", h, c)
	}
}

func TestALeaseIsValidForItsDeviceAlone(t *testing.T) {
	key := []byte("the swarm's lease key")
	valid := sampleLease()
	valid.Token = LeaseToken(key, "device", valid)
	if !ValidLease(key, "device", valid) {
		t.Error("the lease itself is not valid")
	}
	if ValidLease(key, "another", valid) || ValidLease([]byte("another"), "device", valid) {
		t.Error("it is valid for another device or key")
	}
	for name, change := range map[string]func(*LeaseClaim){
		"job":           func(c *LeaseClaim) { c.JobId += "x" },
		"term":          func(c *LeaseClaim) { c.Attempt.Term++ },
		"counter":       func(c *LeaseClaim) { c.Attempt.Counter++ },
		"a task more":   func(c *LeaseClaim) { c.Indexes = append(c.Indexes, 2) },
		"a task less":   func(c *LeaseClaim) { c.Indexes = c.Indexes[:2] },
		"other order":   func(c *LeaseClaim) { c.Indexes[0], c.Indexes[1] = c.Indexes[1], c.Indexes[0] },
		"no token":      func(c *LeaseClaim) { c.Token = nil },
		"half a token":  func(c *LeaseClaim) { c.Token = c.Token[:16] },
		"a longer one":  func(c *LeaseClaim) { c.Token = append(c.Token, 0) },
		"no attempt":    func(c *LeaseClaim) { c.Attempt = nil },
		"another token": func(c *LeaseClaim) { c.Token[31] ^= 1 },
	} {
		claim := proto.CloneOf(valid)
		change(claim)
		if ValidLease(key, "device", claim) {
			t.Errorf("%s: still valid", name)
		}
	}
	if ValidLease(key, "device", nil) {
		t.Error("no claim at all is valid")
	}
}

func TestADigestTellsInputsAndTheirOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inputs := rapid.SliceOf(rapid.SliceOfN(rapid.ByteRange(0, 2), 0, 2))
		a, b := inputs.Draw(t, "a"), inputs.Draw(t, "b")
		same := len(a) == len(b)
		for i := 0; same && i < len(a); i++ {
			same = bytes.Equal(a[i], b[i])
		}
		if got := digestOf(a) == digestOf(b); got != same {
			t.Fatalf("%q and %q: equal digests %v, want %v", a, b, got, same)
		}
	})
}

func digestOf(inputs [][]byte) (d Digest) {
	for _, input := range inputs {
		d = d.Next(HashOf(input))
	}
	return d
}
