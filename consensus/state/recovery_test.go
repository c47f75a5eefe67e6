//go:build !ostrich_format1

package state

import (
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestTheMemberThatASwarmGoesOnFromBecomesAnAdmin(t *testing.T) {
	w := founded(t)
	w.must(invite(1, wire.Role_ROLE_MEMBER))
	w.must(invite(3, wire.Role_ROLE_WORKER))
	w.must(&wire.AdmitDevice{Join: joinRequest(1, 1, wire.Role_ROLE_MEMBER)})
	w.must(&wire.AdmitDevice{Join: joinRequest(3, 2, wire.Role_ROLE_WORKER)})
	for _, c := range []struct {
		what       string
		actor      int
		generation uint64
		want       wire.Role
	}{
		{"the same generation again", 1, 1, wire.Role_ROLE_MEMBER},
		{"a worker, which has no memory to go on from", 2, 2, wire.Role_ROLE_WORKER},
		{"a member", 1, 3, wire.Role_ROLE_ADMIN},
		{"an admin", 0, 4, wire.Role_ROLE_ADMIN},
		{"a device that is not there", 9, 5, wire.Role_ROLE_UNSPECIFIED},
	} {
		op := wrap(&wire.RaiseGeneration{Generation: c.generation})
		op.Actor = string(deviceID(c.actor))
		out := w.s.Apply(1, &wire.Command{Format: Format, Term: 1, TimeMs: w.nowMS, Ops: []*wire.Op{op}})
		if err := out.Results[0].Err; err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		role := wire.Role_ROLE_UNSPECIFIED
		if d := w.s.Device(deviceID(c.actor)); d != nil {
			role = d.Role
		}
		if role != c.want || w.s.Generation() != c.generation {
			t.Errorf("%s: generation %d, %v; want %d, %v", c.what, w.s.Generation(), role, c.generation, c.want)
		}
	}
}
