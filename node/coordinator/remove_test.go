package coordinator_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func (p *peer) remove(id wire.DeviceID, revoke bool) (*wire.RemoveDeviceResponse, error) {
	r := removalOf(id)
	r.GetRemoveDevice().RevokeInvite = revoke
	out, err := p.conn.Call(p.h.t.Context(), r)
	return out.GetRemoveDevice(), err
}

func TestADeviceThatTheOthersNeedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		member := identity(4)
		h.register(member, wire.Role_ROLE_MEMBER)
		h.group.set(func() {
			h.group.holdsOn = wire.Errorf(wire.Code_CODE_PRECONDITION, "without it the swarm would have no quorum")
		})
		client, m := h.dial(h.founder, 0), h.dial(member, 0)
		for who, p := range map[string]*peer{"an admin removes it": client, "it leaves": m} {
			_, err := p.remove(member.ID, false)
			if wire.CodeOf(err) != wire.Code_CODE_PRECONDITION || !strings.Contains(err.Error(), "no quorum") {
				t.Errorf("%s: got %v, want the reason", who, err)
			}
		}
		if client.device(member.ID).GetStatus() != wire.DeviceStatus_DEVICE_STATUS_ONLINE {
			t.Error("it lost its session")
		}
		h.group.set(func() { h.group.holdsOn = nil })
		if _, err := client.remove(member.ID, false); err != nil {
			t.Errorf("when it can go: %v", err)
		}
	})
}

func TestARemovalAskedForTwiceHappensOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 1)
		for range 2 {
			if _, err := client.remove(worker.id.ID, true); err != nil {
				t.Fatal(err)
			}
		}
		if lines := h.said("was removed from the swarm by"); len(lines) != 1 {
			t.Errorf("%d lines tell of one removal", len(lines))
		}
		if _, err := client.remove("nobody", false); wire.CodeOf(err) != wire.Code_CODE_NOT_FOUND {
			t.Errorf("a device that never was: %v", err)
		}
	})
}

func TestADeviceThatWasAwayLearnsThatItWasRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		away := identity(5)
		h.register(away, wire.Role_ROLE_WORKER)
		if _, err := client.remove(away.ID, false); err != nil {
			t.Fatal(err)
		}
		h.lead() // another coordinator knows it, too
		if _, err := h.tryDial(away, 1); wire.CodeOf(err) != wire.Code_CODE_REMOVED {
			t.Errorf("it dials: %v, want CODE_REMOVED", err)
		}
	})
}

// A mutex held over a proposal would stop the simulated time here for good.
func TestRemovalsComeOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		first, second := h.worker(2, 1), h.worker(3, 1)
		h.group.set(func() { h.group.took = time.Second })
		begun := time.Now()
		var both sync.WaitGroup
		for _, w := range []*peer{first, second} {
			both.Go(func() {
				if _, err := client.remove(w.id.ID, false); err != nil {
					t.Errorf("removing %s: %v", w.id.ID.Short(), err)
				}
			})
		}
		both.Wait()
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("both took %v, want 1 s each", took)
		}
	})
}

// A device whose handshake is under way when it is removed must not keep the
// session that it gets.
func TestADeviceThatIsRemovedAsItComesIsSentAway(t *testing.T) {
	for range 20 { // either may be first
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t)
			client := h.dial(h.founder, 0)
			worker := h.worker(2, 1)
			if _, err := client.remove(worker.id.ID, false); err != nil {
				t.Fatal(err)
			}
			select {
			case <-worker.ended:
			case <-time.After(5 * time.Second):
				t.Error("the session of a device that was removed lives on")
			}
		})
	}
}

func TestARemovalTellsOfTheInviteThatIsOpenStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		first, second, third := h.worker(2, 1), h.worker(3, 1), h.worker(4, 1)
		invite := client.device(first.id.ID).GetInvitedBy()
		if out, err := client.remove(first.id.ID, false); err != nil || invite == "" || out.GetOpenInvite() != invite {
			t.Errorf("got %q, %v, want the invite %q", out.GetOpenInvite(), err, invite)
		}
		if out, err := client.remove(second.id.ID, true); err != nil || out.GetOpenInvite() != "" {
			t.Errorf("revoked with it: got %q, %v", out.GetOpenInvite(), err)
		}
		if lines := h.said("was revoked"); len(lines) != 1 {
			t.Errorf("%d lines tell of the invite that was revoked", len(lines))
		}
		if out, err := client.remove(third.id.ID, true); err != nil || out.GetOpenInvite() != "" {
			t.Errorf("revoked before: got %q, %v", out.GetOpenInvite(), err)
		}
	})
}

func TestAWorkerThatLeavesMayRevokeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		worker := h.worker(2, 1)
		if _, err := worker.remove(worker.id.ID, true); wire.CodeOf(err) != wire.Code_CODE_DENIED {
			t.Errorf("got %v, want CODE_DENIED", err)
		}
	})
}
