package scheduler

import (
	"math"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestWeight(t *testing.T) {
	for name, tc := range map[string]struct {
		cores int
		gpu   bool
		score float64
		want  float64
	}{
		"cores only":        {4, false, 0, 40},
		"a GPU":             {4, true, 0, 90},
		"a score":           {4, false, 25_000, 65},
		"a score at most":   {1, true, 1e9, 160},
		"a score that lies": {2, false, math.NaN(), 20},
		"a negative score":  {2, false, -5, 20},
		"an infinite score": {2, false, math.Inf(1), 120},
		"nothing":           {0, false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Weight(tc.cores, tc.gpu, tc.score); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestBatch(t *testing.T) {
	for name, tc := range map[string]struct {
		time  time.Duration
		known bool
		want  int
	}{
		"unknown":        {0, false, 2},
		"no time at all": {0, true, 4096},
		"10 µs":          {10 * time.Microsecond, true, 4096},
		"1 ms":           {time.Millisecond, true, 100},
		"30 ms":          {30 * time.Millisecond, true, 3},
		"a minute":       {time.Minute, true, 1},
		"negative":       {-1, true, 4096},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Batch(tc.time, tc.known); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestQuota(t *testing.T) {
	for name, tc := range map[string]struct {
		slots, cores int
		time         time.Duration
		known        bool
		want         int
	}{
		"unknown":                       {4, 4, 0, false, 8},
		"ordinary tasks, few cores":     {2, 2, 100 * time.Millisecond, true, 10},
		"ordinary tasks, many cores":    {8, 8, 100 * time.Millisecond, true, 32},
		"long tasks: 2 s of work":       {2, 2, 500 * time.Millisecond, true, 8},
		"very long tasks: one a slot":   {4, 4, time.Hour, true, 4},
		"tiny tasks: two batches":       {2, 2, time.Millisecond, true, 400},
		"the tiniest":                   {2, 2, 0, true, 4 * 4096},
		"no slots":                      {0, 8, time.Second, true, 0},
		"more slots than four a core":   {50, 2, 40 * time.Millisecond, true, 200},
		"a slow phone with short tasks": {1, 8, 200 * time.Millisecond, true, 10},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Quota(Device{Slots: tc.slots, Cores: tc.cores}, tc.time, tc.known); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestEligibility(t *testing.T) {
	plain := Device{ID: "d", Slots: 2, Cores: 2, MemoryMiB: 1024, Labels: map[string]string{"room": "lab"}}
	browser, gpu, barred, sick := plain, plain, plain, plain
	browser.Browser, gpu.GPU, barred.Barred, sick.Sick = true, true, true, true
	for name, tc := range map[string]struct {
		devices []Device
		job     Job
		want    string // what it waits for
	}{
		"no needs":         {[]Device{plain}, Job{}, ""},
		"memory in reach":  {[]Device{plain}, Job{MemoryMiB: 1024}, ""},
		"too much memory":  {[]Device{plain}, Job{MemoryMiB: 1025}, "a device with 1025 MiB of memory for a task"},
		"no devices":       {nil, Job{}, "a device that runs tasks"},
		"no slots":         {[]Device{{MemoryMiB: 1}}, Job{}, "a device that runs tasks"},
		"all are barred":   {[]Device{barred, barred}, Job{}, "a device that is neither draining nor disabled"},
		"one is not":       {[]Device{barred, plain}, Job{}, ""},
		"all are sick":     {[]Device{sick, sick}, Job{}, "a device that is not sick"},
		"one is well":      {[]Device{sick, plain}, Job{}, ""},
		"native":           {[]Device{browser}, Job{Require: &wire.Requirements{Native: true}}, "a native device"},
		"a browser":        {[]Device{plain}, Job{Require: &wire.Requirements{Browser: true}}, "a browser"},
		"a browser is in":  {[]Device{plain, browser}, Job{Require: &wire.Requirements{Browser: true}}, ""},
		"a GPU":            {[]Device{plain, browser}, Job{Require: &wire.Requirements{Gpu: true}}, "a device with a GPU"},
		"a label":          {[]Device{plain}, Job{Require: &wire.Requirements{Labels: map[string]string{"room": "lab"}}}, ""},
		"another value":    {[]Device{plain}, Job{Require: &wire.Requirements{Labels: map[string]string{"room": "x"}}}, "a device with the label room=x"},
		"an absent label":  {[]Device{plain}, Job{Require: &wire.Requirements{Labels: map[string]string{"x": ""}}}, "a device with the label x="},
		"both in one only": {[]Device{browser, gpu}, Job{Require: &wire.Requirements{Browser: true, Gpu: true}}, "a browser, which is also a device with a GPU"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := WaitingFor(View{Devices: tc.devices}, tc.job); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			some := false
			for _, d := range tc.devices {
				some = some || Eligible(d, tc.job)
			}
			if some != (tc.want == "") {
				t.Errorf("some device is eligible: got %v", some)
			}
		})
	}
}
