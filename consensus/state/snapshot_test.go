package state

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// busy returns a state with something of everything.
func busy(t testing.TB) *State {
	w := founded(t)
	w.must(invite(1, wire.Role_ROLE_MEMBER))
	w.must(&wire.AdmitDevice{Join: joinRequest(1, 1, 0)})
	w.must(&wire.AdmitDevice{Join: joinRequest(2, 2, 0)})
	w.must(&wire.UpdateDevice{DeviceId: string(deviceID(1)), Name: "named"})
	w.must(&wire.SetPresence{DeviceId: string(deviceID(1)), Online: true})
	w.must(&wire.RemoveDevice{DeviceId: string(deviceID(2))})
	w.must(submit("a", false, inlineSegment(0, "x", "y"), pageSegment(2, 200, "p"), blobSegment(202, "b")))
	op := complete("a", map[uint32]byte{5: wire.OutcomeFailed, 6: wire.OutcomeFatal}, 0, 1, 5, 6, 100, 2)
	op.OutputPages = [][]byte{pageHash("out")}
	op.LeasedBelow = 150
	w.must(op)
	w.must(inPage(completeOK("a", 7, 9), "r"))
	w.must(submit("b", true, inlineSegment(0, "z", "z")))
	w.must(complete("b", map[uint32]byte{0: wire.OutcomeFatal}, 0, 1))
	w.must(&wire.RetryJob{JobId: "b"})
	w.must(submit("c", false))
	w.must(&wire.CancelJob{JobId: "c", Reason: "enough"})
	return w.s
}

func snapshotOf(t testing.TB, s *State) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := s.Snapshot(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestASnapshotIsExact(t *testing.T) {
	for name, s := range map[string]*State{"empty": New(), "founded": founded(t).s, "busy": busy(t), "of format 2": busyFormat2(t)} {
		first := snapshotOf(t, s)
		again, err := Restore(iotest.OneByteReader(bytes.NewReader(first)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(snapshotOf(t, again), first) || again.Hash() != s.Hash() {
			t.Errorf("%s: what comes back is not the same", name)
		}
		if again.Stats() != s.Stats() || len(again.Devices()) != len(s.Devices()) || again.SwarmID() != s.SwarmID() {
			t.Errorf("%s: queries answer otherwise", name)
		}
	}
}

func TestADamagedSnapshotIsRefused(t *testing.T) {
	good := snapshotOf(t, busyFormat2(t))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if _, err := Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d of %d was changed, and nobody noticed", i, len(good))
		}
		if _, err := Restore(bytes.NewReader(good[:i])); err == nil {
			t.Fatalf("it was cut at %d of %d, and nobody noticed", i, len(good))
		}
	}
	if _, err := Restore(bytes.NewReader(append(bytes.Clone(good), 0))); err == nil {
		t.Error("a byte more, and nobody noticed")
	}
}

func TestASnapshotOfANewerVersionIsRefusedAsSuch(t *testing.T) {
	s := append([]byte(snapshotMagic), Format+1)
	if _, err := Restore(bytes.NewReader(s)); wire.CodeOf(err) != wire.Code_CODE_VERSION {
		t.Errorf("got %v", err)
	}
	s = append([]byte(snapshotMagic), 0)
	if _, err := Restore(bytes.NewReader(s)); wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("version 0: got %v", err)
	}
}

type fullDisk struct{ left int }

func (d *fullDisk) Write(b []byte) (int, error) {
	if d.left -= len(b); d.left < 0 {
		return 0, errors.New("no space left")
	}
	return len(b), nil
}

func TestAWriteErrorIsReported(t *testing.T) {
	s := busy(t)
	size := len(snapshotOf(t, s))
	for _, room := range []int{0, size - 1} {
		if err := s.Snapshot(&fullDisk{room}); err == nil {
			t.Errorf("%d of %d bytes written, and no error", room, size)
		}
	}
}

// sealed gives a snapshot's body the checksum that fits it.
func sealed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return append(bytes.Clone(body), sum[:]...)
}

func FuzzRestore(f *testing.F) {
	for _, s := range []*State{New(), founded(f).s, busy(f), busyFormat2(f)} {
		b := snapshotOf(f, s)
		f.Add(b[:len(b)-32])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := Restore(bytes.NewReader(sealed(body)))
		if err != nil {
			return
		}
		again := snapshotOf(t, s)
		other, err := Restore(bytes.NewReader(again))
		if err != nil || other.Hash() != s.Hash() {
			t.Fatalf("a snapshot of what was restored: %v", err)
		}
		for _, j := range s.Jobs() {
			for number := range min(j.Results(), 100) {
				j.Result(number)
			}
			s.Apply(1, command(startMS, &wire.RetryJob{JobId: string(j.ID())}, completeOK(string(j.ID()), 0, 1)))
		}
		s.Apply(1, command(maxTimeMS, &wire.Sweep{}))
		restored(t, s)
	})
}

func FuzzApply(f *testing.F) {
	add := func(ops ...any) {
		for _, op := range ops {
			b, err := proto.Marshal(command(startMS+hourMS, op))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	add(foundOp(), invite(3, wire.Role_ROLE_ADMIN), &wire.AdmitDevice{Join: joinRequest(1, 5, 0)},
		&wire.UpdateDevice{DeviceId: string(deviceID(1)), Profile: profile("x"), Name: "y"}, &wire.Sweep{},
		submit("d", true, inlineSegment(0, "x"), pageSegment(1, 9, "p"), blobSegment(10, "b")),
		appendOp("a", "first", "second", inlineSegment(203, "x")), &wire.CloseInputs{JobId: "a", Total: 203},
		completeOK("a", 3, 4, 3), inPage(completeOK("b", 0), "q"), &wire.CancelJob{JobId: "a"}, &wire.RetryJob{JobId: "b"},
		&wire.PurgeJob{JobId: "a"}, &wire.PackResults{JobId: "a", Batches: 1, Page: pageHash("x")},
		&wire.SetDeviceMode{DeviceId: string(deviceID(1)), Mode: wire.DeviceMode_DEVICE_MODE_DRAINING},
		&wire.RaiseGeneration{Generation: 2}, &wire.UpdateDevice{DeviceId: string(deviceID(1)), Profile: withReplica("0123456789abcdef")})
	base := snapshotOf(f, busy(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c, copied wire.Command
		if proto.Unmarshal(b, &c) != nil || proto.Unmarshal(b, &copied) != nil {
			return
		}
		one, err := Restore(bytes.NewReader(base))
		if err != nil {
			t.Fatal(err)
		}
		other := restored(t, one)
		got, want := one.Apply(c.GetTerm(), &c), other.Apply(copied.GetTerm(), &copied)
		if fmt.Sprint(got) != fmt.Sprint(want) || one.Hash() != other.Hash() {
			t.Fatalf("one command, two outcomes:\n%+v\n%+v", got, want)
		}
		if restored(t, one).Hash() != one.Hash() {
			t.Fatal("a snapshot is not exact")
		}
	})
}

// batchOf500 returns the batches of results that complete n tasks of job a.
func batchesOf500(n int) []*wire.Command {
	var list []*wire.Command
	page := wire.Hash{}
	for first := 0; first < n; first += 500 {
		op := &wire.CompleteTasks{JobId: "a", Devices: []string{string(deviceID(0))}, Outcomes: make([]byte, 500), DeviceOf: make([]uint32, 500)}
		for i := range 500 {
			op.Indexes = append(op.Indexes, uint32(first+i))
		}
		page[0], page[1], page[2] = byte(first/500), byte(first/500>>8), 1
		op.Results = &wire.Segment{Count: 500, Page: bytes.Clone(page[:])}
		list = append(list, command(startMS, op))
	}
	return list
}

// withTasks returns a state whose job a has n open tasks, in pages of 50,000.
func withTasks(t testing.TB, n int) *swarm {
	w := founded(t)
	w.must(submit("a", false))
	last := ""
	for first := 0; first < n; first += 50_000 {
		d := fmt.Sprint(first)
		w.must(appendOp("a", last, d, pageSegment(uint32(first), uint32(min(50_000, n-first)), d)))
		last = d
	}
	return w
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestATaskCostsFewBytes(t *testing.T) {
	const tasks = 1_000_000
	batches := batchesOf500(tasks)
	before := heap()
	w := withTasks(t, tasks)
	w.last = Outcome{}
	open := float64(heap()-before) / tasks
	for _, c := range batches {
		w.s.Apply(1, c)
	}
	done := float64(heap()-before) / tasks
	size := float64(len(snapshotOf(t, w.s))) / tasks
	t.Logf("%.2f bytes a task when open, %.2f when done, %.2f in a snapshot", open, done, size)
	if w.s.Job("a").Completed() != tasks || done > 10 || open > 1 || size > 3 {
		t.Errorf("that is too much")
	}
	runtime.KeepAlive(batches)
}

func BenchmarkCompleteTasks(b *testing.B) {
	for _, tasks := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint("queue of ", tasks), func(b *testing.B) {
			batches := batchesOf500(tasks)
			for done := 0; done < b.N; {
				b.StopTimer()
				w := withTasks(b, tasks)
				b.StartTimer()
				for _, c := range batches[:min(len(batches), b.N-done)] {
					w.s.Apply(1, c)
					done++
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/task")
		})
	}
}

func BenchmarkSnapshotOfAMillionTasks(b *testing.B) {
	w := withTasks(b, 1_000_000)
	for _, c := range batchesOf500(1_000_000) {
		w.s.Apply(1, c)
	}
	for b.Loop() {
		snapshotOf(b, w.s)
	}
}
