package coordinator_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const forged = "that it was never given"

func TestALeaseOfAJobWhoseIDIsUsedAgainIsNoForgery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 2)
		id := client.submit(2, nil)
		lease := <-worker.leases
		worker.link.cut()
		<-worker.ended
		spec := client.job(id).GetSpec()
		client.call(removeOf(id))
		time.Sleep(time.Second)
		client.submitAs(id, [][]byte{[]byte("other"), []byte("inputs")}, spec)
		again := h.dial(worker.id, 2, lease.GetClaim())
		if got := <-again.cancel; !proto.Equal(got.GetAttempt(), lease.GetClaim().GetAttempt()) {
			t.Errorf("it is told %v, want that its lease is over", got)
		}
		if lines := h.said(forged); len(lines) != 0 {
			t.Errorf("an honest device is accused: %v", lines)
		}
		again.serve(nil)
		if results, _ := client.results(id, false); string(results[0].GetOutput()) != "other" {
			t.Errorf("the new job's result is %q", results[0].GetOutput())
		}
	})
}

func TestALeaseOfAnOlderGenerationCountsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, format := range []uint32{1, 2} { // what the voters understood then
			h := newHarness(t)
			h.group.set(func() { h.group.format = format })
			client := h.dial(h.founder, 0)
			worker := h.worker(2, 2)
			client.submit(2, nil)
			lease := <-worker.leases
			h.group.set(func() { h.group.format = 2 })
			h.group.do(t, &wire.Op{Kind: &wire.Op_RaiseGeneration{RaiseGeneration: &wire.RaiseGeneration{Generation: 2}}})
			h.lead()
			again := h.dial(worker.id, 2, lease.GetClaim())
			if again.conn.Generation() != 2 {
				t.Errorf("the session is of generation %d", again.conn.Generation())
			}
			if got := <-again.cancel; !proto.Equal(got.GetAttempt(), lease.GetClaim().GetAttempt()) {
				t.Errorf("it is told %v, want that its lease is over", got)
			}
			if lines := h.said(forged); len(lines) != 0 {
				t.Errorf("format %d: an honest device is accused: %v", format, lines)
			}
			fresh := <-again.leases
			h.lead()
			h.dial(worker.id, 2, fresh.GetClaim())
			synctest.Wait()
			if got := h.inFlight(h.dial(h.founder, 0), worker.id.ID); got != 2 {
				t.Errorf("of a lease of this generation %d tasks were adopted, want 2", got)
			}
			h.end()
		}
	})
}

func TestAForgedClaimIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker, other := h.worker(2, 2), identity(3)
		h.register(other, wire.Role_ROLE_WORKER)
		client.submit(2, nil)
		given := (<-worker.leases).GetClaim()
		for name, change := range map[string]func(*wire.LeaseClaim){
			"no token":           func(c *wire.LeaseClaim) { c.Token = nil },
			"zeros":              func(c *wire.LeaseClaim) { c.Token = make([]byte, 32) },
			"long zeros":         func(c *wire.LeaseClaim) { c.Token = make([]byte, 48) },
			"an odd length":      func(c *wire.LeaseClaim) { c.Token = append(c.Token, 1) },
			"another's":          func(*wire.LeaseClaim) {},
			"another generation": func(c *wire.LeaseClaim) { c.Token[47] = 7 },
			"another job":        func(c *wire.LeaseClaim) { c.Token[39]++ },
			"more tasks":         func(c *wire.LeaseClaim) { c.Indexes = append(c.Indexes, 9) },
			"no attempt":         func(c *wire.LeaseClaim) { c.Attempt = nil },
		} {
			claim := proto.CloneOf(given)
			claim.Token = bytes.Clone(given.GetToken())
			change(claim)
			before := len(h.said(forged))
			p := h.dial(other, 2, claim)
			synctest.Wait()
			if got := len(h.said(forged)); got != before+1 {
				t.Errorf("%s: %d audit lines tell of it", name, got-before)
			}
			p.conn.Close("next", false)
			<-p.ended
		}
	})
}

func TestInASwarmOfMixedVersionsLeasesAreProvedAsBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.group.set(func() { h.group.format = 1 })
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 2)
		client.submit(2, nil)
		lease := <-worker.leases
		if got := len(lease.GetClaim().GetToken()); got != 32 {
			t.Errorf("a token of %d bytes, which a coordinator of yesterday cannot read", got)
		}
		h.group.set(func() { h.group.format = 2 })
		h.lead()
		h.dial(worker.id, 2, lease.GetClaim())
		synctest.Wait()
		if got := h.inFlight(h.dial(h.founder, 0), worker.id.ID); got != 2 {
			t.Errorf("%d tasks were adopted, want 2", got)
		}
	})
}
