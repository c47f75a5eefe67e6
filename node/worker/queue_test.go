package worker

import (
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// hold returns holdings with a lease of n tasks whose program is here.
func hold(t *testing.T, slots, n int, mean time.Duration) *holdings {
	t.Helper()
	programs, err := openPrograms(t.TempDir(), maxPrograms, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := newHoldings(slots, programs)
	program := wire.HashOf([]byte("p"))
	programs.here[program] = newVerified(1)
	spec := &wire.JobSpec{Program: &wire.Program{Name: "p", Blob: &wire.Blob{Hash: program[:]}}}
	fetch, err := h.add(newLeaseFrame("job", 1, spec, inputs(0, uint32(n))))
	if err != nil || fetch != nil {
		t.Fatalf("got %v, %v, want a lease whose program is here", fetch, err)
	}
	h.jobs["job"].mean = mean
	return h
}

func TestBatchesKeepTheOrderAndLeaveWorkForAllSlots(t *testing.T) {
	for _, test := range []struct {
		name           string
		slots, n       int
		mean           time.Duration
		first, largest int
	}{
		{"many tiny tasks", 2, 1000, time.Microsecond, 64, 64},
		{"few tasks", 2, 8, 0, 2, 2},
		{"one task", 4, 1, 0, 1, 1},
		{"as many as slots", 4, 4, 0, 1, 1},
		{"tasks of 5 ms", 2, 1000, 5 * time.Millisecond, 4, 4},
		{"long tasks", 2, 1000, time.Second, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := hold(t, test.slots, test.n, test.mean)
			next, largest := int32(0), 0
			for int(next) < test.n {
				b := h.take(t.Context())
				if next == 0 && len(b.places) != test.first {
					t.Errorf("the first batch has %d tasks, want %d", len(b.places), test.first)
				}
				largest = max(largest, len(b.places))
				for _, p := range b.places {
					if p != next {
						t.Fatalf("task %d came where %d was due", p, next)
					}
					next++
				}
				b.cancel()
			}
			if largest != test.largest {
				t.Errorf("the largest batch has %d tasks, want %d", largest, test.largest)
			}
		})
	}
}

func TestALargeInputGoesAlone(t *testing.T) {
	h := hold(t, 1, 64, 0)
	for _, l := range h.leases {
		l.tasks[3].input = &wire.LeasedInput{Blob: &wire.Blob{}}
	}
	var sizes []int
	for range 3 {
		b := h.take(t.Context())
		sizes = append(sizes, len(b.places))
		b.cancel()
	}
	if sizes[0] != 3 || sizes[1] != 1 || sizes[2] <= 1 {
		t.Errorf("got batches of %v, want 3, 1 and more", sizes)
	}
}

func TestMoreThanADeviceCanHoldIsRefused(t *testing.T) {
	h := hold(t, 1, 64, 0)
	var err error
	for i := uint64(2); err == nil && i < 100; i++ {
		lease := newLeaseFrame("job", i, nil, inputs(0, 1))
		for n := uint32(1); n < wire.MaxPackItems; n++ {
			lease.Claim.Indexes = append(lease.Claim.Indexes, n)
			lease.Inputs = append(lease.Inputs, lease.Inputs[0])
		}
		_, err = h.add(lease)
	}
	if wire.CodeOf(err) != wire.Code_CODE_EXHAUSTED || h.waiting > maxHeldTasks {
		t.Errorf("got %v with %d tasks, want CODE_EXHAUSTED with at most %d", err, h.waiting, maxHeldTasks)
	}
}

func newVerified(size int64) *program {
	return &program{size: size, used: time.Now(), verified: true}
}
