package browserbridge

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestAChallengeIsGoodOnceForAMinute(t *testing.T) {
	n, now := newNonces(), time.Now().Truncate(time.Millisecond)
	nonce := n.issue(now)
	if len(nonce) != nonceSize {
		t.Fatalf("a nonce of %d bytes", len(nonce))
	}
	if err := n.check(nonce, now.Add(nonceLife)); err != nil {
		t.Errorf("after its minute: %v", err)
	}
	if err := n.check(nonce, now.Add(nonceLife+time.Second)); wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
		t.Errorf("later: got %v, want CODE_PRECONDITION", err)
	}
	if err := n.use(nonce, now); err != nil {
		t.Errorf("once: %v", err)
	}
	if err := n.use(nonce, now); wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
		t.Errorf("twice: got %v, want CODE_PRECONDITION", err)
	}
	forged := append([]byte(nil), nonce...)
	forged[0] ^= 1
	for name, nonce := range map[string][]byte{"another node's": newNonces().issue(now), "a changed one": forged, "none": nil, "a longer one": append(nonce, 0)} {
		if err := n.check(nonce, now); wire.CodeOf(err) != wire.Code_CODE_BAD_PROOF {
			t.Errorf("%s: got %v, want CODE_BAD_PROOF", name, err)
		}
	}
}

func TestUsedChallengesAreForgottenOnlyWhenTheyAreUseless(t *testing.T) {
	n, now := newNonces(), time.Now()
	for range maxUsedNonces {
		if err := n.use(n.issue(now), now); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.use(n.issue(now), now); wire.CodeOf(err) != wire.Code_CODE_EXHAUSTED {
		t.Errorf("one too many: got %v, want CODE_EXHAUSTED", err)
	}
	later := now.Add(2*nonceLife + time.Second)
	if err := n.use(n.issue(later), later); err != nil || len(n.used) != 1 {
		t.Errorf("later: %v, %d remembered", err, len(n.used))
	}
}

// fail makes an offer that fails, and reports whether it was looked at.
func fail(g *gate, address string, guessing bool) bool {
	from := group(address)
	if ok, wait := g.tryBegin(from, guessing, time.Now()); !ok || wait != nil {
		return false
	}
	g.end(from, guessing, true)
	return true
}

func TestTenFailuresAMinuteOfAnAddressAndSixtyInAll(t *testing.T) {
	g := newGate(DefaultLimits())
	looked := 0
	for range 100 {
		if fail(g, "10.0.0.1:1", true) {
			looked++
		}
	}
	if looked != 10 {
		t.Errorf("%d failures of an address, want 10", looked)
	}
	for i := range 100 {
		if fail(g, fmt.Sprintf("10.0.1.%d:1", i), true) {
			looked++
		}
	}
	if looked != 60 {
		t.Errorf("%d failures in all, want 60", looked)
	}
	if ok, _ := g.tryBegin(group("10.0.2.1:1"), false, time.Now()); !ok {
		t.Error("guessers keep out a device that belongs")
	}
}

func TestAddressesOfOneMachineAreOne(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"10.0.0.1:1", "10.0.0.1:2", true},
		{"10.0.0.1:1", "10.0.0.2:1", false},
		{"[::ffff:10.0.0.1]:1", "10.0.0.1:1", true},
		{"[fd00:1:2:3::1]:1", "[fd00:1:2:3:9::1]:1", true},
		{"[fd00:1:2:3::1]:1", "[fd00:1:2:4::1]:1", false},
		{"[fe80::1%eth0]:1", "[fe80::2%eth1]:1", true},
	} {
		if got := group(tt.a) == group(tt.b); got != tt.same {
			t.Errorf("%s and %s: the same is %v, want %v", tt.a, tt.b, got, tt.same)
		}
	}
}

func TestOffersAtOneTimeCannotPassWhereOneAfterTheOtherCouldNot(t *testing.T) {
	g := newGate(DefaultLimits())
	from := group("10.0.0.1:1")
	for range 10 {
		if !g.begin(t.Context(), from, true) {
			t.Fatal("one of the first ten is refused")
		}
	}
	passed := make(chan bool)
	go func() { passed <- g.begin(t.Context(), from, true) }()
	select {
	case <-passed:
		t.Fatal("the eleventh does not wait")
	case <-time.After(20 * time.Millisecond):
	}
	g.end(from, true, true)
	select {
	case <-passed:
		t.Fatal("the eleventh does not wait, though one has failed")
	case <-time.After(20 * time.Millisecond):
	}
	g.end(from, true, false)
	if !<-passed {
		t.Error("the eleventh is refused, though one did not fail")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if g.begin(ended, from, true) {
		t.Error("the twelfth passes")
	}
}

func TestAddressesAreForgotten(t *testing.T) {
	g, now := newGate(DefaultLimits()), time.Now()
	for i := range maxAddresses {
		g.request(group(fmt.Sprintf("10.0.%d.%d:1", i/256, i%256)), now)
	}
	if g.request(group("10.1.0.0:1"), now) {
		t.Error("one address too many is remembered")
	}
	if !g.request(group("10.1.0.0:1"), now.Add(time.Minute)) || len(g.addresses) != 1 {
		t.Errorf("a minute later %d addresses are remembered, want 1", len(g.addresses))
	}
}
