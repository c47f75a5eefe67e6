//go:build !ostrich_format1

package state

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const replica = "0123456789abcdef"

func withReplica(r string) *wire.DeviceProfile {
	p := profile("replicated")
	p.Replica = r
	return p
}

func mode(n int, m wire.DeviceMode) *wire.SetDeviceMode {
	return &wire.SetDeviceMode{DeviceId: string(deviceID(n)), Mode: m}
}

// busyFormat2 returns a busy state in which something of each operation of
// format 2 was done.
func busyFormat2(t testing.TB) *State {
	w := &swarm{t: t, s: busy(t), nowMS: startMS + 1}
	w.must(mode(0, wire.DeviceMode_DEVICE_MODE_DRAINING))
	w.must(&wire.UpdateDevice{DeviceId: string(deviceID(1)), Profile: withReplica(replica)})
	w.must(&wire.RaiseGeneration{Generation: 3})
	w.must(submit("acknowledged", true))
	w.must(&wire.PurgeJob{JobId: "acknowledged", KeepRecord: true})
	return w.s
}

// The files of version 1 were written by the program that knew no other.
func TestSnapshotsAreWrittenAsTheyAlwaysWere(t *testing.T) {
	for _, tt := range []struct {
		file   string
		s      *State
		format uint32
	}{
		{"testdata/snapshot-1.golden", busy(t), 1},
		{"testdata/snapshot-2.golden", busyFormat2(t), 2},
	} {
		got := snapshotOf(t, tt.s)
		if *update && tt.format == Format {
			if err := os.WriteFile(tt.file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(tt.file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the state is written otherwise now", tt.file)
		}
		s, err := Restore(bytes.NewReader(want))
		if err != nil {
			t.Errorf("%s: %v", tt.file, err)
			continue
		}
		if s.Hash() != tt.s.Hash() || s.FormatInUse() != tt.format {
			t.Errorf("%s: it comes back otherwise, of format %d", tt.file, s.FormatInUse())
		}
	}
}

func TestAnOperationSaysWhichFormatItNeeds(t *testing.T) {
	for _, tt := range []struct {
		op   any
		want uint32
	}{
		{&wire.Sweep{}, 1},
		{foundOp(), 1},
		{&wire.AdmitDevice{Join: joinRequest(1, 1, 0)}, 1},
		{&wire.UpdateDevice{DeviceId: "x", Name: "y"}, 1},
		{&wire.UpdateDevice{DeviceId: "x", Profile: profile("y")}, 1},
		{&wire.UpdateDevice{DeviceId: "x", Profile: withReplica(replica)}, 2},
		{mode(0, wire.DeviceMode_DEVICE_MODE_ENABLED), 2},
		{&wire.RaiseGeneration{}, 2},
		{&wire.PurgeJob{JobId: "x"}, 1},
		{&wire.PurgeJob{JobId: "x", KeepRecord: true}, 2},
		{nil, 1},
	} {
		if got := FormatOf(wrap(tt.op)); got != tt.want {
			t.Errorf("%T: got %d, want %d", tt.op, got, tt.want)
		}
	}
	if FormatOf(nil) != 1 {
		t.Error("no operation needs more than format 1")
	}
}

func TestAFormatComesIntoUseWithItsFirstOperation(t *testing.T) {
	w := founded(t)
	before := snapshotOf(t, w.s)
	w.refuse(&wire.RaiseGeneration{Generation: 0}, wire.Code_CODE_INVALID)
	stale := command(startMS, &wire.RaiseGeneration{Generation: 2})
	stale.Term = 9
	w.s.Apply(1, stale)
	if w.s.FormatInUse() != 1 || !bytes.Equal(snapshotOf(t, w.s), before) {
		t.Error("a command that was refused brought its format into use")
	}
	w.must(&wire.RaiseGeneration{Generation: 2})
	w.must(&wire.Sweep{})
	if w.s.FormatInUse() != 2 || restored(t, w.s).FormatInUse() != 2 {
		t.Errorf("got %d and %d after a snapshot", w.s.FormatInUse(), restored(t, w.s).FormatInUse())
	}
}

// A program of format 1 knows neither kind, keeps a replica that it does not
// know unread, and its commands must mean the same to us.
func TestACommandOfFormat1MeansWhatItMeantBefore(t *testing.T) {
	w := founded(t)
	for _, op := range []any{mode(0, wire.DeviceMode_DEVICE_MODE_DISABLED), &wire.RaiseGeneration{Generation: 2}} {
		before := w.s.Hash()
		c := command(startMS, op)
		c.Format = 1
		if err := w.s.Apply(1, c).Results[0].Err; wire.CodeOf(err) != wire.Code_CODE_INVALID || w.s.Hash() != before {
			t.Errorf("%T: got %v", op, err)
		}
	}
	for _, r := range []string{replica, "something else"} {
		c := command(startMS, &wire.UpdateDevice{DeviceId: string(deviceID(0)), Profile: withReplica(r)})
		c.Format = 1
		if err := w.s.Apply(1, c).Results[0].Err; err != nil {
			t.Errorf("a profile that says more than programs of format 1 know: %v", err)
		}
		if again := restored(t, w.s); again.Device(deviceID(0)).Profile.GetReplica() != r || w.s.FormatInUse() != 1 {
			t.Errorf("the profile lost what it says")
		}
	}
	if got := w.s.Device(deviceID(0)).Replica(); got != "" {
		t.Errorf("what cannot be a replica is shown as one: %q", got)
	}
}

func TestTheModeOfADevice(t *testing.T) {
	w := founded(t)
	d := w.s.Device(deviceID(0))
	if d.Mode != wire.DeviceMode_DEVICE_MODE_ENABLED || restored(t, w.s).Device(d.ID).Mode != d.Mode {
		t.Errorf("at first: got %v", d.Mode)
	}
	for _, m := range []wire.DeviceMode{wire.DeviceMode_DEVICE_MODE_DISABLED, wire.DeviceMode_DEVICE_MODE_DRAINING, wire.DeviceMode_DEVICE_MODE_ENABLED} {
		w.must(mode(0, m))
		if d.Mode != m || restored(t, w.s).Device(d.ID).Mode != m {
			t.Errorf("got %v, want %v", d.Mode, m)
		}
	}
	w.must(mode(0, wire.DeviceMode_DEVICE_MODE_DRAINING))
	w.must(&wire.UpdateDevice{DeviceId: string(d.ID), Profile: profile("other")})
	if d.Mode != wire.DeviceMode_DEVICE_MODE_DRAINING {
		t.Error("a new profile changed the mode")
	}
	w.refuse(mode(1, wire.DeviceMode_DEVICE_MODE_DRAINING), wire.Code_CODE_NOT_FOUND)
	w.refuse(mode(0, 0), wire.Code_CODE_INVALID)
	w.refuse(mode(0, 4), wire.Code_CODE_INVALID)
}

func TestTheGenerationOnlyRises(t *testing.T) {
	w := founded(t)
	w.must(&wire.RaiseGeneration{Generation: 4})
	w.must(&wire.RaiseGeneration{Generation: 4})
	if got := w.s.Generation(); got != 4 {
		t.Errorf("got %d, want 4", got)
	}
	w.refuse(&wire.RaiseGeneration{Generation: 3}, wire.Code_CODE_INVALID)
	w.refuse(&wire.RaiseGeneration{Generation: 0}, wire.Code_CODE_INVALID)
	w.refuse(&wire.RaiseGeneration{Generation: 1<<64 - 1}, wire.Code_CODE_INVALID)
}

func TestAReplicaIsChecked(t *testing.T) {
	w := founded(t)
	id := string(deviceID(0))
	w.must(&wire.UpdateDevice{DeviceId: id, Profile: withReplica(replica)})
	if got := w.s.Device(deviceID(0)).Replica(); got != replica {
		t.Errorf("got %q, want %q", got, replica)
	}
	for _, r := range []string{"0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg", "0123456 89abcdef"} {
		w.refuse(&wire.UpdateDevice{DeviceId: id, Profile: withReplica(r)}, wire.Code_CODE_INVALID)
	}
}

func TestASnapshotThatContradictsItsFormatIsRefused(t *testing.T) {
	good := snapshotOf(t, busyFormat2(t))
	body := good[:len(good)-32]
	at := len(snapshotMagic) + 1 // the format in use
	for value, want := range map[byte]wire.Code{
		1:          wire.Code_CODE_INVALID,
		Format + 1: wire.Code_CODE_VERSION,
	} {
		bad := bytes.Clone(body)
		bad[at] = value
		if _, err := Restore(bytes.NewReader(sealed(bad))); wire.CodeOf(err) != want {
			t.Errorf("format %d: got %v, want %v", value, err, want)
		}
	}
}

// What a program of format 1 wrote with a replica in it is read by both.
func TestAProfileReadsTheSameWhetherItsReplicaIsKnownOrNot(t *testing.T) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(withReplica(replica))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := proto.MarshalOptions{Deterministic: true}.Marshal(profile("replicated"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, plain) {
		t.Error("a replica is not written after all that older programs know")
	}
}

func TestAnAcknowledgedJobLeavesARecordForADay(t *testing.T) {
	w := founded(t)
	w.must(submit("a", true))
	purge := &wire.PurgeJob{JobId: "a", KeepRecord: true}
	w.must(purge)
	if got, ok := w.s.PastJob("a"); !ok || got.Phase != Done || got.Program != "cat" || w.s.Job("a") != nil {
		t.Errorf("the record is %+v, %v", got, ok)
	}
	before := w.s.Hash()
	w.must(purge)
	if w.s.Hash() != before {
		t.Error("said again it changed something")
	}
	w.refuse(&wire.RetryJob{JobId: "a"}, wire.Code_CODE_PRECONDITION)
	w.must(submit("a", true)) // the ID is free
	if _, ok := w.s.PastJob("a"); ok {
		t.Error("there is a record of the job before, whose ID another has")
	}
	w.must(purge)
	w.must(&wire.PurgeJob{JobId: "a"})
	w.refuse(&wire.PurgeJob{JobId: "a"}, wire.Code_CODE_NOT_FOUND)
	w.must(submit("b", true))
	w.must(&wire.PurgeJob{JobId: "b", KeepRecord: true})
	w.nowMS += dayMS
	w.must(&wire.Sweep{})
	if got := w.s.PastJobs(); len(got) != 0 {
		t.Errorf("a day later there are %+v", got)
	}
}

func TestRecordsOfJobsAreBounded(t *testing.T) {
	w := founded(t)
	for i := range maxPast + 5 {
		id := fmt.Sprint("job-", i)
		w.must(submit(id, true))
		w.must(&wire.PurgeJob{JobId: id, KeepRecord: true})
	}
	if all := w.s.PastJobs(); len(all) != maxPast || all[0].ID != "job-5" {
		t.Errorf("%d records, the first of %s", len(all), all[0].ID)
	}
	if s := restored(t, w.s); s.Hash() != w.s.Hash() {
		t.Error("they come back otherwise")
	}
}
