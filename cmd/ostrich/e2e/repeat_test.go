package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var repeatFlag = flag.Int("repeat", 3, "how often TestTheSameJobAgainGivesItsResultsAgain does each job; with many, -timeout 0")

// outputSizes are what there is in the life of an output, in bytes: inside a
// frame and in the log, in the pack of a batch, in a page of its own, in some
// pages, and near the bound that a task has if nobody says otherwise.
var outputSizes = []int{10, 5_000, 100_000, 3_000_000, 15_000_000}

// TestTheSameJobAgainGivesItsResultsAgain has swarms do a job, take its results,
// and do it again: what the first had in pages has the same names as what the
// second has, and is given back while the second needs it. At full size:
//
//	go test ./cmd/ostrich/e2e -run TheSameJobAgain -repeat 30 -timeout 0
func TestTheSameJobAgainGivesItsResultsAgain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		run  func(a *again)
	}{ // the longest first
		{"by a browser", byABrowser},
		{"by three members", byThreeMembers},
		{"by members that are killed", byMembersThatAreKilled},
		{"by a lone member", byALoneMember},
		{"by a remote worker", byARemoteWorker},
		{"by a worker that is killed", byAWorkerThatIsKilled},
		{"by a lone member that is killed", byALoneMemberThatIsKilled},
		{"with --id", withAnID},
		{"with --detach", detached},
		{"after job retry", retried},
		{"side by side", sideBySideTwice},
		{"as many tasks of one job", asManyTasks},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			times := max(1, *repeatFlag)
			if testing.Short() {
				times = min(times, 2)
			}
			tt.run(&again{t: t, times: times, program: testProgram(t, "outputs")})
		})
	}
}

// again is a swarm that does the same jobs again and again.
type again struct {
	t       *testing.T
	times   int
	program string
	members []*node
}

// rounds is how often what does a job at least twice is done.
func (a *again) rounds() int { return (a.times + 1) / 2 }

// found starts the swarm's members.
func (a *again) found(members int, flags ...string) {
	a.t.Helper()
	a.members = swarm(a.t, members, flags...)
}

// sized are the arguments of a map whose outputs have a size.
func (a *again) sized(size int, flags ...string) []string {
	args := append([]string{"map", a.program}, flags...)
	return append(args, "--", strconv.Itoa(size))
}

// inputsOf are as many lines as a job with outputs of that size has.
func inputsOf(size int) []string {
	if size > 10_000_000 {
		return []string{"1\n"}
	}
	return []string{"1\n", "2\n", "3\n"}
}

// outputOf is what testdata/outputs.c makes of an input.
func outputOf(input string, size int) []byte {
	h := fnv.New64a()
	_, _ = io.WriteString(h, input)
	x := h.Sum64()
	out := make([]byte, size)
	for i := range out {
		if i%8 == 0 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		out[i] = byte(x >> (i % 8 * 8))
	}
	out[size-1] = '\n'
	return out
}

// outputsOf are the outputs of a job.
func outputsOf(inputs []string, size int) []byte {
	var all []byte
	for _, input := range inputs {
		all = append(all, outputOf(input, size)...)
	}
	return all
}

// gives runs a command line on a node, and wants it to succeed and to print
// bytes.
func (a *again) gives(on *node, want []byte, stdin []string, args ...string) {
	a.t.Helper()
	r := on.try(strings.NewReader(strings.Join(stdin, "")), args...)
	if r.status != 0 {
		a.t.Fatalf("%s on %s ended with status %d:\n%s", strings.Join(args, " "), on.name, r.status, tail(r.err, 20))
	}
	a.same([]byte(r.out), want, strings.Join(args, " ")+" on "+on.name)
}

// same wants bytes, and says where they differ.
func (a *again) same(got, want []byte, what string) {
	a.t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	a.t.Fatalf("%s gives %d bytes, want %d; they differ from byte %d on", what, len(got), len(want), at)
}

// everySize runs a map of each size again and again, through each member in
// turn.
func (a *again) everySize(flags ...string) {
	a.t.Helper()
	for _, size := range outputSizes {
		began := time.Now()
		inputs := inputsOf(size)
		want := outputsOf(inputs, size)
		for i := range a.times {
			a.gives(a.members[i%len(a.members)], want, inputs, a.sized(size, flags...)...)
		}
		a.t.Logf("%d times %d outputs of %d bytes in %v", a.times, len(inputs), size, time.Since(began).Round(10*time.Millisecond))
		a.well()
	}
}

// keptBytes is more than a member stores between jobs: the program, which stays
// for a day, and once more if it runs it. No output of more than a pack fits
// beside it.
const keptBytes = 64 << 10

// givenBack is how long it may take until what jobs have stored is given back:
// what a coordinator had held outlives its term by a minute, and on a busy machine
// terms change.
const givenBack = 2 * time.Minute

// well waits until no page is missing, doctor finds nothing wrong on any member,
// and all that the jobs have stored is given back.
func (a *again) well() {
	a.t.Helper()
	a.whole()
	var stored map[string]uint64
	for end := time.Now().Add(givenBack); ; time.Sleep(200 * time.Millisecond) { // the swarms beside need the processor
		stored = map[string]uint64{}
		for _, n := range a.members {
			if s := n.status().BytesStored; s > keptBytes {
				stored[n.name] = s
			}
		}
		if len(stored) == 0 {
			return
		}
		if time.Now().After(end) {
			a.t.Errorf("%v after the last of the jobs there are still so many bytes stored by: %v", givenBack, stored)
			return
		}
	}
}

// whole waits until no page is missing and doctor finds nothing wrong on any
// member.
func (a *again) whole() {
	a.t.Helper()
	for _, n := range a.members {
		eventually(a.t, patience, "no page is missing on "+n.name, func() bool {
			s := n.status()
			return s.Quorum && s.PagesMissing == 0
		})
		var r result
		eventually(a.t, patience, "doctor is content on "+n.name, func() bool {
			r = n.try(nil, "doctor")
			return r.status == 0 && !strings.Contains(r.out, "missing") && !strings.Contains(r.out, "not connected")
		})
	}
}

func byALoneMember(a *again) {
	a.found(1)
	a.everySize()
}

func byThreeMembers(a *again) {
	a.found(3)
	a.everySize()
}

func byARemoteWorker(a *again) {
	a.found(1, "--slots", "0")
	a.worker()
	a.everySize()
}

// worker adds a worker to the swarm.
func (a *again) worker() *node {
	a.t.Helper()
	w := newNode(a.t, "w", "--slots", "1").up("--join", a.members[0].invite("worker"))
	a.members[0].online(len(a.members) + 1)
	return w
}

func byABrowser(a *again) {
	a.found(1, "--slots", "0")
	p := newPhone(a.t)
	p.open(a.members[0].link())
	p.connected("")
	a.everySize("--require", "browser")
}

func byMembersThatAreKilled(a *again) {
	a.found(3)
	for i := range a.rounds() {
		a.kill(a.members[(i+1+i/3)%3], a.members[i%3], killSizes[(i+i/3)%3])
	}
}

func byAWorkerThatIsKilled(a *again) {
	a.found(1, "--slots", "0")
	w := a.worker()
	for i := range a.rounds() {
		a.kill(a.members[0], w, killSizes[i%3])
	}
}

func byALoneMemberThatIsKilled(a *again) {
	a.found(1)
	n := a.members[0]
	for i := range a.rounds() {
		a.kill(n, n, killSizes[i%3])
	}
}

// killSizes are the outputs of jobs that a node is killed under.
var killSizes = []int{5_000, 100_000, 2_000_000}

// kill kills a node between two runs of a map through a member, and during the
// next.
func (a *again) kill(on, victim *node, size int) {
	a.t.Helper()
	inputs := []string{"1\n", "2\n", "3\n", "4\n"}
	want := outputsOf(inputs, size)
	a.gives(on, want, inputs, a.sized(size)...)
	victim.kill()
	if on != victim && slices.Contains(a.members, victim) { // others are there for its work
		a.gives(on, want, inputs, a.sized(size)...)
	}
	victim.up()
	a.gives(on, want, inputs, a.sized(size)...)
	a.during(on, victim, inputs, size)
	a.gives(on, want, inputs, a.sized(size)...)
	a.whole()
}

// during kills a node in the middle of a map, of which it has a part of the
// inputs and of the outputs.
func (a *again) during(on, victim *node, inputs []string, size int) {
	a.t.Helper()
	r := on.begin(a.sized(size)...)
	half := len(inputs) / 2
	if _, err := io.WriteString(r.stdin, strings.Join(inputs[:half], "")); err != nil {
		a.t.Fatal(err)
	}
	begun := make([]byte, size)
	if _, err := io.ReadFull(r.stdout, begun); err != nil {
		a.t.Fatalf("the first output: %v\n%s", err, r.err)
	}
	victim.kill()
	go r.feed(strings.Join(inputs[half:], ""))
	victim.up()
	rest, err := io.ReadAll(r.stdout)
	if err != nil {
		a.t.Fatal(err)
	}
	r.await(0)
	a.same(append(begun, rest...), outputsOf(inputs, size), fmt.Sprintf("a map on %s during which %s was killed", on.name, victim.name))
}

// repeatSizes are those of jobs whose results are kept.
var repeatSizes = []int{5_000, 100_000, 3_000_000}

// The same command attaches to the job that there is, from any member, and is
// another job when that was removed.
func withAnID(a *again) {
	a.found(3)
	for _, size := range repeatSizes {
		inputs := inputsOf(size)
		want := outputsOf(inputs, size)
		args := a.sized(size, "--id", "again")
		for i := range a.rounds() {
			for j := range 2 {
				a.gives(a.members[(i+j)%3], want, inputs, args...)
			}
			if jobs := a.members[0].jobs(); len(jobs) != 1 || jobs[0].Tasks.Completed != uint64(len(inputs)) || jobs[0].Tasks.Total != uint64(len(inputs)) {
				a.t.Errorf("after two commands with one ID there are the jobs %+v, want one of %d tasks", jobs, len(inputs))
			}
			a.members[(i+2)%3].do(nil, "job", "rm", "again")
		}
		a.well()
	}
}

// Two jobs have the same results, and the second keeps them when the first is
// removed; so has a map between the two, which takes its results and is gone.
func detached(a *again) {
	a.found(3)
	for _, size := range repeatSizes {
		inputs := inputsOf(size)
		want := outputsOf(inputs, size)
		for i := range a.rounds() {
			on := a.members[i%3]
			first := a.detach(on, inputs, size)
			a.results(first, want)
			a.gives(on, want, inputs, a.sized(size)...)
			second := a.detach(a.members[(i+1)%3], inputs, size)
			on.do(nil, "job", "rm", first)
			a.results(second, want)
			a.gives(on, want, inputs, a.sized(size)...)
			a.results(second, want)
			on.do(nil, "job", "rm", second)
		}
		a.well()
	}
}

// detach begins a job and returns its ID.
func (a *again) detach(on *node, inputs []string, size int, flags ...string) string {
	a.t.Helper()
	stdin := strings.NewReader(strings.Join(inputs, ""))
	return strings.TrimSpace(on.do(stdin, a.sized(size, append(flags, "--detach")...)...))
}

// results wants the results of a job from every member.
func (a *again) results(id string, want []byte) {
	a.t.Helper()
	for _, n := range a.members {
		a.gives(n, want, nil, "job", "results", "-f", id)
	}
}

// What failed fails again, and what did not has the result that it had. In
// between, maps with the same inputs come, fail and go. They go because they are
// removed: a job with failures is kept, so that people may try it again.
func retried(a *again) {
	a.found(3)
	inputs := []string{"1\n", "fail 1\n", "2\n", "fail 2\n", "fail 1\n", "3\n"}
	for _, size := range repeatSizes[:2] {
		id := a.detach(a.members[0], inputs, size, "--keep-going", "--retries", "0")
		first := a.outcome(a.members[0], id, inputs, size)
		for i := range a.rounds() {
			on := a.members[i%3]
			on.do(nil, "job", "retry", id)
			for _, n := range a.members {
				for j, r := range a.outcome(n, id, inputs, size) {
					if r.Status == "ok" && (r.Number != first[j].Number || r.Device != first[j].Device) {
						a.t.Errorf("task %d of a job that was tried again has run again: %d by %s, was %d by %s",
							j, r.Number, r.Device, first[j].Number, first[j].Device)
					}
				}
			}
			r := on.try(strings.NewReader(strings.Join(inputs, "")), a.sized(size, "--keep-going", "--retries", "1", "--id", "beside")...)
			if r.status != 3 {
				a.t.Errorf("a map with failures ends with status %d, want 3:\n%s", r.status, tail(r.err, 20))
			}
			a.same([]byte(r.out), outputsOf([]string{"1\n", "2\n", "3\n"}, size), "a map with failures")
			on.do(nil, "job", "rm", "beside")
		}
		a.members[1].do(nil, "job", "rm", id)
		a.well()
	}
}

// outcome waits for the end of a job with failures and wants each task to have
// the result that its input says.
func (a *again) outcome(on *node, id string, inputs []string, size int) []taskResult {
	a.t.Helper()
	r := on.try(nil, "job", "results", "-f", "--json", id)
	if r.status != 3 {
		a.t.Fatalf("the results of a job with failures end with status %d, want 3:\n%s", r.status, tail(r.err, 20))
	}
	all := results(a.t, strings.NewReader(r.out))
	if len(all) != len(inputs) {
		a.t.Fatalf("%d results, want %d", len(all), len(inputs))
	}
	for i, r := range all {
		if !strings.HasPrefix(inputs[i], "fail") {
			a.same(r.Output, outputOf(inputs[i], size), fmt.Sprintf("task %d on %s (%s %s)", i, on.name, r.Status, r.Error))
		} else if r.Status != "failed" || r.ExitCode != 3 || r.Stderr != "as it was told\n" || len(r.Output) > 0 {
			a.t.Fatalf("task %d on %s is %s, status %d, %q, %s", i, on.name, r.Status, r.ExitCode, r.Stderr, r.Error)
		}
	}
	return all
}

// sideBySideTwice runs the same command several times at one moment, through one
// member and through all.
func sideBySideTwice(a *again) {
	a.found(3)
	for _, size := range repeatSizes {
		inputs := inputsOf(size)
		want := outputsOf(inputs, size)
		for i := range a.rounds() {
			var all []*running
			for j := range 3 {
				// Two through one member, one through another.
				r := a.members[(i+j/2)%3].begin(a.sized(size)...)
				go r.feed(strings.Join(inputs, ""))
				all = append(all, r)
			}
			outs := make([][]byte, len(all))
			var reading sync.WaitGroup
			for j, r := range all {
				reading.Go(func() { outs[j], _ = io.ReadAll(r.stdout) })
			}
			reading.Wait()
			for j, r := range all {
				r.await(0)
				a.same(outs[j], want, fmt.Sprintf("map %d of three side by side, on %s", j, r.n.name))
			}
		}
		a.well()
	}
}

// asManyTasks has one job do the same many times, and be done again.
func asManyTasks(a *again) {
	a.found(3)
	for _, size := range []int{5_000, 100_000, 1_000_000} {
		inputs := slices.Repeat([]string{"x\n"}, 20)
		want := outputsOf(inputs, size)
		for i := range a.rounds() {
			a.gives(a.members[i%3], want, inputs, a.sized(size)...)
		}
		a.well()
	}
}
