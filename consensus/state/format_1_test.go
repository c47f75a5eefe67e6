//go:build ostrich_format1

package state

import (
	"bytes"
	"os"
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func withReplica(r string) *wire.DeviceProfile {
	p := profile("replicated")
	p.Replica = r
	return p
}

// busyFormat2 stands for the state that this program cannot have.
func busyFormat2(t testing.TB) *State { return busy(t) }

func TestAProgramOfFormat1RefusesWhatCameAfter(t *testing.T) {
	w := founded(t)
	before := w.s.Hash()
	for _, op := range []any{
		&wire.SetDeviceMode{DeviceId: string(deviceID(0)), Mode: wire.DeviceMode_DEVICE_MODE_DRAINING},
		&wire.RaiseGeneration{Generation: 2},
		&wire.UpdateDevice{DeviceId: string(deviceID(0)), Profile: withReplica("0123456789abcdef")},
	} {
		w.refuse(op, wire.Code_CODE_VERSION)
	}
	if w.s.Hash() != before {
		t.Error("the state changed")
	}
	b, err := os.ReadFile("testdata/snapshot-2.golden")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(bytes.NewReader(b)); wire.CodeOf(err) != wire.Code_CODE_VERSION {
		t.Errorf("a snapshot of format 2: got %v", err)
	}
	if b, err = os.ReadFile("testdata/snapshot-1.golden"); err != nil {
		t.Fatal(err)
	}
	if got := snapshotOf(t, busy(t)); !bytes.Equal(got, b) {
		t.Error("it writes another snapshot than it did")
	}
}
