package scheduler

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// machine returns a device with a slot a core, of the weight that they make.
func machine(id string, cores int) Device {
	return Device{
		ID: wire.DeviceID(id), Slots: cores, Cores: cores, MemoryMiB: 4096,
		Weight: Weight(cores, false, 0), InFlight: map[wire.JobID]int{},
	}
}

func barred(d Device) Device {
	d.Barred = true
	return d
}

// job returns a job of tasks of 100 ms, known on the devices a to d.
func job(id, submitter string, pending int) Job {
	const ms = 100 * time.Millisecond
	return Job{
		ID: wire.JobID(id), Submitter: wire.DeviceID(submitter), Pending: pending,
		TaskTime: map[wire.DeviceID]time.Duration{"a": ms, "b": ms, "c": ms, "d": ms},
	}
}

// granted adds the grants up.
func granted(grants []Grant) map[string]int {
	sum := map[string]int{}
	for _, g := range grants {
		sum[fmt.Sprintf("%s %s", g.Job, g.Device)] += g.Tasks
	}
	return sum
}

func TestPlans(t *testing.T) {
	older := func(j Job, at int64) Job { j.CreatedAtMS = at; return j }
	with := func(j Job, change func(*Job)) Job { change(&j); return j }
	holds := func(d Device, job string, n int) Device {
		d.InFlight = map[wire.JobID]int{wire.JobID(job): n}
		return d
	}
	for name, tc := range map[string]struct {
		view View
		want map[string]int
	}{
		"nothing to do": {View{Devices: []Device{machine("a", 2)}}, map[string]int{}},
		"a device that drains gets nothing": {
			View{Devices: []Device{machine("a", 2), barred(machine("b", 8))}, Jobs: []Job{job("1", "x", 1000)}},
			map[string]int{"1 a": 10},
		},
		"nobody to do it": {View{Jobs: []Job{job("1", "x", 5)}}, map[string]int{}},
		"plenty fills every quota": {
			View{Devices: []Device{machine("a", 2), machine("b", 8)}, Jobs: []Job{job("1", "x", 1000)}},
			map[string]int{"1 a": 10, "1 b": 32},
		},
		"what is scarce is spread by weight": {
			View{Devices: []Device{machine("a", 2), machine("b", 4), machine("c", 2)}, Jobs: []Job{job("1", "x", 8)}},
			map[string]int{"1 a": 2, "1 b": 4, "1 c": 2},
		},
		"one task goes to the heaviest": {
			View{Devices: []Device{machine("a", 2), machine("b", 4), machine("c", 2)}, Jobs: []Job{job("1", "x", 1)}},
			map[string]int{"1 b": 1},
		},
		"what is in flight counts for the spread": {
			View{Devices: []Device{holds(machine("a", 2), "1", 4), machine("b", 2)}, Jobs: []Job{job("1", "x", 4)}},
			map[string]int{"1 b": 4},
		},
		"a full device gets nothing": {
			View{Devices: []Device{holds(machine("a", 2), "1", 10), machine("b", 2)}, Jobs: []Job{job("1", "x", 50)}},
			map[string]int{"1 b": 10},
		},
		"a cap on tasks in flight": {
			View{Devices: []Device{machine("a", 2), machine("b", 2)}, Jobs: []Job{
				with(job("1", "x", 50), func(j *Job) { j.MaxInFlight, j.InFlight = 7, 3 })}},
			map[string]int{"1 a": 2, "1 b": 2},
		},
		"a cap that is passed": {
			View{Devices: []Device{machine("a", 2)}, Jobs: []Job{
				with(job("1", "x", 50), func(j *Job) { j.MaxInFlight, j.InFlight = 7, 9 })}},
			map[string]int{},
		},
		"tasks of unknown length begin with a small batch": {
			View{Devices: []Device{machine("e", 4)}, Jobs: []Job{job("1", "x", 50)}},
			map[string]int{"1 e": 8},
		},
		"priority is strict": {
			View{Devices: []Device{machine("a", 2)}, Jobs: []Job{
				job("1", "x", 50), with(job("2", "y", 8), func(j *Job) { j.Priority = 1 })}},
			map[string]int{"2 a": 8, "1 a": 2},
		},
		"what a lower priority holds is not in the way": {
			View{Devices: []Device{holds(machine("a", 2), "1", 10)}, Jobs: []Job{
				job("1", "x", 50), with(job("2", "y", 50), func(j *Job) { j.Priority = 1 })}},
			map[string]int{"2 a": 10},
		},
		"submitters share": {
			View{Devices: []Device{machine("a", 2), machine("b", 8)}, Jobs: []Job{
				job("1", "x", 500), job("2", "x", 500), job("3", "y", 500)}},
			map[string]int{"1 a": 5, "3 a": 5, "1 b": 16, "3 b": 16},
		},
		"what one leaves goes to the other": {
			View{Devices: []Device{machine("a", 2), machine("b", 8)}, Jobs: []Job{job("1", "x", 500), job("3", "y", 5)}},
			map[string]int{"1 a": 9, "3 a": 1, "1 b": 28, "3 b": 4},
		},
		"age decides within a submitter": {
			View{Devices: []Device{machine("a", 2)}, Jobs: []Job{older(job("1", "x", 50), 20), older(job("2", "x", 6), 10)}},
			map[string]int{"2 a": 6, "1 a": 4},
		},
		"who has least is first to get what cannot be shared": {
			View{Devices: []Device{holds(machine("a", 2), "1", 9)}, Jobs: []Job{job("1", "x", 50), job("2", "y", 50)}},
			map[string]int{"2 a": 1},
		},
		"a device that does not fit gets nothing": {
			View{Devices: []Device{machine("a", 2), machine("b", 2)}, Jobs: []Job{
				with(job("1", "x", 50), func(j *Job) { j.MemoryMiB = 5000 })}},
			map[string]int{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := granted(Plan(tc.view)); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestTinyTasksWaitForABatch(t *testing.T) {
	d := machine("a", 2)
	j := job("1", "x", 10_000)
	j.TaskTime["a"] = time.Millisecond // batches of 100, a quota of 400
	for held, want := range map[int]int{0: 400, 150: 250, 300: 100, 301: 0, 350: 0, 400: 0} {
		d.InFlight["1"] = held
		if got := granted(Plan(View{Devices: []Device{d}, Jobs: []Job{j}}))["1 a"]; got != want {
			t.Errorf("with %d in flight: got %d, want %d", held, got, want)
		}
	}
}

func TestAWeightThatIsNoNumberSpoilsNothing(t *testing.T) {
	var v View
	for i, weight := range []float64{math.NaN(), math.Inf(1), -1, 0, 20} {
		d := machine(string(rune('a'+i)), 2)
		d.Weight = weight
		v.Devices = append(v.Devices, d)
	}
	v.Jobs = []Job{job("1", "x", 12)}
	total := 0
	for _, g := range Plan(v) {
		total += g.Tasks
	}
	if total != 12 {
		t.Errorf("got %d tasks granted, want 12", total)
	}
}

// anyView makes up a view.
func anyView(t *rapid.T) View {
	n := func(low, high int, what string) int { return rapid.IntRange(low, high).Draw(t, what) }
	var v View
	for i := range n(0, 6, "devices") {
		d := Device{
			ID: wire.DeviceID(rune('a' + i)), Slots: n(0, 6, "slots"), Cores: n(1, 6, "cores"), MemoryMiB: n(0, 3, "memory") * 1000,
			Barred: n(0, 5, "barred") == 0, GPU: n(0, 1, "gpu") == 1, Browser: n(0, 1, "browser") == 1, Weight: float64(n(0, 150, "weight")), InFlight: map[wire.JobID]int{},
		}
		v.Devices = append(v.Devices, d)
	}
	for i := range n(0, 6, "jobs") {
		j := Job{
			ID: wire.JobID(rune('1' + i)), Submitter: wire.DeviceID(rune('x' + n(0, 2, "submitter"))), Priority: n(0, 1, "priority"),
			Pending: n(0, 60, "pending"), MaxInFlight: n(0, 30, "max"), MemoryMiB: n(0, 2, "needs") * 1000,
			Require:  &wire.Requirements{Gpu: n(0, 3, "needs gpu") == 0, Native: n(0, 3, "needs native") == 0},
			TaskTime: map[wire.DeviceID]time.Duration{},
		}
		for k := range v.Devices {
			if n(0, 1, "known") == 1 {
				j.TaskTime[v.Devices[k].ID] = time.Duration(n(0, 3000, "ms")) * time.Millisecond
			}
			if held := n(-10, 10, "held"); held > 0 {
				v.Devices[k].InFlight[j.ID] = held
				j.InFlight += held
			}
		}
		v.Jobs = append(v.Jobs, j)
	}
	return v
}

func TestAPlanKeepsWithinAllBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := anyView(rt)
		grants := Plan(v)
		if again := Plan(v); !reflect.DeepEqual(again, grants) {
			rt.Fatalf("one view, two plans: %v and %v", grants, again)
		}
		sum := granted(grants)
		if len(sum) != len(grants) {
			rt.Fatalf("two grants for one device and job: %v", grants)
		}
		for _, j := range v.Jobs {
			total := 0
			for _, d := range v.Devices {
				tasks := sum[fmt.Sprintf("%s %s", j.ID, d.ID)]
				total += tasks
				taskTime, known := j.TaskTime[d.ID]
				if quota := Quota(d, taskTime, known); tasks > 0 && (tasks+d.InFlight[j.ID] > quota || !Eligible(d, j)) {
					rt.Fatalf("device %s gets %d of job %s: quota %d, eligible %v", d.ID, tasks, j.ID, quota, Eligible(d, j))
				}
			}
			if total > j.Pending || j.MaxInFlight > 0 && total > 0 && total+j.InFlight > j.MaxInFlight {
				rt.Fatalf("job %s gets %d of %d, at most %d with %d in flight", j.ID, total, j.Pending, j.MaxInFlight, j.InFlight)
			}
		}
	})
}

// wanted returns how many tasks of j may still be leased after the grants.
func wanted(j Job, sum map[string]int, devices []Device) int {
	left := j.Pending
	if j.MaxInFlight > 0 {
		left = min(left, j.MaxInFlight-j.InFlight)
	}
	for _, d := range devices {
		left -= sum[fmt.Sprintf("%s %s", j.ID, d.ID)]
	}
	return left
}

func TestNothingIsGrantedBelowAJobThatCouldTakeMore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := anyView(rt)
		sum := granted(Plan(v))
		for _, high := range v.Jobs {
			if high.Priority == 0 || wanted(high, sum, v.Devices) <= 0 {
				continue
			}
			for _, d := range v.Devices {
				taskTime, known := high.TaskTime[d.ID]
				quota := Quota(d, taskTime, known)
				held := d.InFlight[high.ID] + sum[fmt.Sprintf("%s %s", high.ID, d.ID)]
				if !Eligible(d, high) || held >= quota || Batch(taskTime, known) > 1 {
					continue
				}
				for _, low := range v.Jobs {
					lowTime, lowKnown := low.TaskTime[d.ID]
					tasks := sum[fmt.Sprintf("%s %s", low.ID, d.ID)]
					part := float64(tasks) / float64(Quota(d, lowTime, lowKnown))
					if low.Priority == 0 && part > 1/float64(quota)+slack {
						rt.Fatalf("device %s gets %d of job %s while job %s waits with room for more", d.ID, tasks, low.ID, high.ID)
					}
				}
			}
		}
	})
}

func TestNoDeviceWithRoomIdlesWhileWorkWaits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := anyView(rt)
		sum := granted(Plan(v))
		for _, d := range v.Devices {
			busy := false
			for _, j := range v.Jobs {
				busy = busy || d.InFlight[j.ID]+sum[fmt.Sprintf("%s %s", j.ID, d.ID)] > 0
			}
			for _, j := range v.Jobs {
				if !busy && Eligible(d, j) && wanted(j, sum, v.Devices) > 0 {
					rt.Fatalf("device %s idles while job %s waits", d.ID, j.ID)
				}
			}
		}
	})
}

func TestSubmittersGetEqualShares(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var v View
		for i := range rapid.IntRange(1, 6).Draw(rt, "devices") {
			v.Devices = append(v.Devices, machine(string(rune('a'+i)), rapid.IntRange(1, 8).Draw(rt, "cores")))
		}
		submitters := rapid.IntRange(1, 4).Draw(rt, "submitters")
		for s := range submitters {
			for k := range rapid.IntRange(1, 3).Draw(rt, "jobs") {
				v.Jobs = append(v.Jobs, job(fmt.Sprintf("%d-%d", s, k), fmt.Sprint("s", s), 1000))
			}
		}
		got := map[wire.DeviceID]int{}
		for _, g := range Plan(v) {
			for _, j := range v.Jobs {
				if j.ID == g.Job {
					got[j.Submitter] += g.Tasks
				}
			}
		}
		for a := range submitters {
			for b := range submitters {
				x, y := got[wire.DeviceID(fmt.Sprint("s", a))], got[wire.DeviceID(fmt.Sprint("s", b))]
				if x-y > len(v.Devices) {
					rt.Fatalf("of equal submitters one gets %d and one %d", x, y)
				}
			}
		}
	})
}

func TestScarceWorkIsSpreadByWeight(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var v View
		weight, room := 0.0, 0
		for i := range rapid.IntRange(1, 8).Draw(rt, "devices") {
			d := machine(string(rune('e'+i)), rapid.IntRange(1, 16).Draw(rt, "cores"))
			v.Devices = append(v.Devices, d)
			weight += d.Weight
			room += 2 * d.Slots
		}
		pending := rapid.IntRange(0, room).Draw(rt, "pending")
		v.Jobs = []Job{job("1", "x", pending)}
		sum, total := granted(Plan(v)), 0
		for _, d := range v.Devices {
			got := sum[fmt.Sprintf("1 %s", d.ID)]
			total += got
			if fair := float64(pending) * d.Weight / weight; float64(got) < fair-1 || float64(got) > fair+1 {
				rt.Fatalf("device %s of weight %v gets %d of %d, its part is %.1f", d.ID, d.Weight, got, pending, fair)
			}
		}
		if total != pending {
			rt.Fatalf("%d of %d are granted", total, pending)
		}
	})
}

func BenchmarkPlan(b *testing.B) {
	for _, pending := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprint("100 devices, 20 jobs, ", pending, " pending"), func(b *testing.B) {
			var v View
			for i := range 100 {
				v.Devices = append(v.Devices, machine(fmt.Sprint("d", i), 1+i%8))
			}
			for i := range 20 {
				v.Jobs = append(v.Jobs, job(fmt.Sprint(i), fmt.Sprint("s", i%4), pending))
			}
			for b.Loop() {
				Plan(v)
			}
		})
	}
}
