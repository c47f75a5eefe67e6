package node

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestTheDiskIsLowUntilThereIsEnough(t *testing.T) {
	var d diskWatch
	for i, step := range []struct {
		mib          uint64
		changed, low bool
	}{
		{1000, false, false}, {300, false, false}, {255, true, true}, {300, false, true}, {512, false, true},
		{513, true, false}, {257, false, false}, {0, true, true}, {0, false, true},
	} {
		if changed := d.see(step.mib << 20); changed != step.changed || d.low.Load() != step.low {
			t.Errorf("step %d, %d MiB free: changed %t, low %t; want %t, %t", i, step.mib, changed, d.low.Load(), step.changed, step.low)
		}
	}
}

func TestHandingOverIsSpaced(t *testing.T) {
	var h handOvers
	now := time.Unix(1_800_000_000, 0)
	for i, step := range []struct {
		after time.Duration
		due   bool
	}{
		{0, true}, {500 * time.Millisecond, false}, {time.Second, true}, {time.Second, false}, {2 * time.Second, true},
		{3 * time.Second, false}, {4 * time.Second, true}, {time.Hour, true}, {999 * time.Millisecond, false}, {time.Second, true},
	} {
		// Each step is so long after the last that was due.
		at := h.last.Add(step.after)
		if h.last.IsZero() {
			at = now
		}
		if due := h.due(at); due != step.due {
			t.Errorf("step %d, %v after the last: due %t, want %t", i, step.after, due, step.due)
		}
	}
	for range 20 {
		h.due(h.last.Add(lastHandOverPause))
	}
	if h.pause != lastHandOverPause {
		t.Errorf("the pause grew to %v, want %v at the most", h.pause, lastHandOverPause)
	}
}

func TestANodeWhoseDiskHangsEndsAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled, never := make(chan struct{}), make(chan error, 1)
		close(stalled)
		begun := time.Now()
		if _, ended := awaitEnd(never, stalled); ended || time.Since(begun) != stallGrace {
			t.Errorf("it took %v, ended %t; want %v without an end", time.Since(begun), ended, stallGrace)
		}
		failure := errors.New("why")
		never <- failure
		if err, ended := awaitEnd(never, stalled); !ended || err != failure {
			t.Errorf("a node that ended in time gives %v, %t", err, ended)
		}
	})
}

func TestGreetingsAreRead(t *testing.T) {
	want := greeting{generation: 7, last: 1 << 40}
	if got, err := decodeGreeting(want.encode()); err != nil || got != want {
		t.Errorf("it reads as %v, %v; want %v", got, err, want)
	}
	for _, bad := range [][]byte{nil, make([]byte, greetingSize-1), make([]byte, greetingSize+1), greeting{generation: wire.MaxGeneration + 1}.encode()} {
		if g, err := decodeGreeting(bad); err == nil {
			t.Errorf("%x reads as %v, want an error", bad, g)
		}
	}
}

func FuzzGreeting(f *testing.F) {
	f.Add(greeting{generation: 2, last: 99}.encode())
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := decodeGreeting(b)
		if err == nil && string(g.encode()) != string(b) {
			t.Errorf("%x reads as %v, which is written as %x", b, g, g.encode())
		}
	})
}

func TestStatusSaysWhatTheLossOfAMachineWouldCost(t *testing.T) {
	member := func(id string, voter bool, silentMS int64) *wire.MemberView {
		return &wire.MemberView{Id: id, Name: strings.ToUpper(id), Voter: voter, SilentMs: silentMS}
	}
	view := func(members ...*wire.MemberView) *wire.View {
		v := &wire.View{Coordinator: members[0].GetId(), MemberViews: members}
		for _, m := range members {
			v.Members = append(v.Members, m.GetId())
			if m.GetVoter() {
				v.Voters = append(v.Voters, m.GetId())
			}
		}
		return v
	}
	three := view(member("a", true, 0), member("b", true, 10), member("c", true, 10))
	for name, tt := range map[string]struct {
		status *wire.Status
		want   []string // words of the one warning; none for no warning
	}{
		"one member":              {&wire.Status{Quorum: true, View: view(member("a", true, 0))}, []string{"one member", "ostrich invite --role member"}},
		"two members, one voter":  {&wire.Status{Quorum: true, View: view(member("a", true, 0), member("b", false, 10))}, []string{"A alone votes", "ostrich recover", "ostrich invite --role member"}},
		"two members, two voters": {&wire.Status{Quorum: true, View: view(member("a", true, 0), member("b", true, 10))}, []string{"both vote", "ostrich invite --role member"}},
		"three":                   {&wire.Status{Quorum: true, View: three}, nil},
		"three, two so far":       {&wire.Status{Quorum: true, View: view(member("a", true, 0), member("b", true, 1), member("c", false, 1))}, []string{"2 of 3 members vote so far"}},
		"three, one silent":       {&wire.Status{Quorum: true, View: view(member("a", true, 0), member("b", true, 10), member("c", true, 5000))}, []string{"1 of 3 voters do not answer (C)", "one more voter", "device remove"}},
		"no quorum":               {&wire.Status{View: three}, []string{"no coordinator answers", "2 of the 3 voters are needed: A, B, C", "ostrich recover"}},
	} {
		got := warnings(tt.status)
		if len(tt.want) == 0 != (len(got) == 0) || len(got) > 1 {
			t.Errorf("%s: the warnings are %q", name, got)
			continue
		}
		for _, word := range tt.want {
			if !strings.Contains(got[0], word) {
				t.Errorf("%s: the warning %q does not say %q", name, got[0], word)
			}
		}
	}
}

func TestAMembersCountOfPagesIsBelievedOnlyWhenItsStateWasThere(t *testing.T) {
	var goals pageGoals
	begin := time.Now()
	for _, c := range []struct {
		id        wire.DeviceID
		committed uint64
		after     time.Duration
		want      uint64
	}{
		{"a", 100, 0, 100},
		{"a", 900, 10 * time.Second, 100}, // what is committed meanwhile is not waited for
		{"b", 900, 10 * time.Second, 900},
		{"a", 5000, goalFor, 5000}, // a goal of long ago says nothing about today
	} {
		if got := goals.of(c.id, c.committed, begin.Add(c.after)); got != c.want {
			t.Errorf("after %v the goal of %s is %d, want %d", c.after, c.id, got, c.want)
		}
	}
}

func TestEveryWayToTheCoordinatorCanBeBroken(t *testing.T) {
	ours, _ := newPipe()
	for _, s := range []stream{toCoordinator{}, ours} {
		if _, ok := s.(interface{ Reset() error }); !ok {
			t.Errorf("a session over %T cannot be ended while a write hangs", s)
		}
	}
}
