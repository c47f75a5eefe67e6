package p2p

import (
	"net/netip"
	"testing"
	"time"
)

var limitsNow = time.Unix(1_000_000, 0)

func limitAddress(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
}

func TestOneJoinASecondOfAnAddressTheNextOnesWait(t *testing.T) {
	l := newJoinLimits()
	var waits []time.Duration
	for {
		wait, ok := l.begin(limitAddress(1), limitsNow)
		if !ok {
			break
		}
		l.end(limitAddress(1), false, limitsNow)
		waits = append(waits, wait)
	}
	if len(waits) != joinBurst+4 || waits[joinBurst-1] != 0 || waits[joinBurst] != time.Second {
		t.Errorf("waits %v", waits)
	}
	if _, ok := l.begin(limitAddress(1), limitsNow.Add(time.Second)); !ok {
		t.Error("refused a second later")
	}
}

func TestTenFailedJoinsAMinuteOfAnAddress(t *testing.T) {
	l := newJoinLimits()
	failures := 0
	for i := range 60 {
		at := limitsNow.Add(time.Duration(i) * time.Second)
		if _, ok := l.begin(limitAddress(1), at); ok {
			failures++
			l.end(limitAddress(1), true, at)
		}
	}
	if failures < failuresPerMinute || failures > 2*failuresPerMinute {
		t.Errorf("%d failures in a minute", failures)
	}
	if _, ok := l.begin(limitAddress(2), limitsNow); !ok {
		t.Error("another address was refused")
	}
}

func TestSixtyFailedJoinsAMinuteInAll(t *testing.T) {
	l := newJoinLimits()
	failures := 0
	for i := range 500 {
		if _, ok := l.begin(limitAddress(i), limitsNow); ok {
			failures++
			l.end(limitAddress(i), true, limitsNow)
		}
	}
	if failures != allFailuresPerMinute {
		t.Errorf("%d failures at once, want %d", failures, allFailuresPerMinute)
	}
}

func TestJoinsAtOneTimeAreBounded(t *testing.T) {
	l := newJoinLimits()
	running := 0
	for i := range 500 {
		if _, ok := l.begin(limitAddress(i), limitsNow); ok {
			running++
		}
	}
	if running != maxJoins {
		t.Errorf("%d joins at one time, want %d", running, maxJoins)
	}
}

func TestAddressesThatOweNothingAreForgotten(t *testing.T) {
	l := newJoinLimits()
	for i := range 3 * maxJoinAddresses {
		at := limitsNow.Add(time.Duration(i) * time.Second)
		if _, ok := l.begin(limitAddress(i), at); !ok {
			t.Fatalf("join %d was refused", i)
		}
		l.end(limitAddress(i), false, at)
	}
	if len(l.addresses) > maxJoinAddresses {
		t.Errorf("%d addresses are remembered", len(l.addresses))
	}
}
