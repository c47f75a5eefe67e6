package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	killsFlag = flag.Int("kills", 30, "how often the coordinator is killed; with many, -timeout 0")
	seedFlag  = flag.Uint64("seed", 0, "seed of the moments of the kills; 0 draws one")
)

const (
	// takeoverLimit bounds one takeover on a machine however busy: what is
	// usual is in the log.
	takeoverLimit = 15 * time.Second
	// slowTakeover is when the log says more.
	slowTakeover = 4 * time.Second
	// tasksPerJob is the size of each job that the coordinators are killed
	// under, and tasksLeft what it must have left at a kill. A task takes 1 to
	// 2 ms.
	tasksPerJob, tasksLeft = 12_000, 4_000
	// differentTasks is how many of a job's inputs differ; a prime, so that
	// neighbours in a batch or a page never share an output.
	differentTasks = 997
)

// TestKillingCoordinators kills the coordinator of three members under a job,
// brings it back as a voter, and again. At full size:
//
//	go test ./cmd/ostrich/e2e -run TestKillingCoordinators -kills 1000 -timeout 0
func TestKillingCoordinators(t *testing.T) {
	kills, seed := max(1, *killsFlag), *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	if testing.Short() {
		kills = min(kills, 2)
	}
	t.Logf("seed %d, %d kills", seed, kills)
	k := &killing{t: t, nodes: swarm(t, 3), random: rand.New(rand.NewPCG(seed, 0)), victims: map[string]int{}}
	k.inputs, k.want = smallTiles(t)
	for len(k.takeovers) < kills {
		k.enoughWork()
		k.strike()
	}
	k.finish()
	k.report()
}

// smallTiles are inputs of builtin:render, a line each, which take 1 to 2 ms
// each, and their outputs.
func smallTiles(t *testing.T) (inputs []string, want [][]byte) {
	t.Helper()
	const side, columns = 14, 32
	for i := range differentTasks {
		inputs = append(inputs, fmt.Sprintf("%d %d %d %d %d %d\n", i%columns*side, i/columns*side, side, side, columns*side, columns*side))
	}
	outputs := directly(t, "render", inputs)
	all, want := make([]string, tasksPerJob), make([][]byte, tasksPerJob)
	for i := range all {
		all[i], want[i] = inputs[i%differentTasks], outputs[i%differentTasks]
	}
	return all, want
}

// killing is a swarm whose coordinators are killed.
type killing struct {
	t      *testing.T
	nodes  []*node
	random *rand.Rand
	inputs []string
	want   [][]byte

	job       string // the one in progress; "" for none
	takeovers []time.Duration
	victims   map[string]int
	tasks     int    // recorded
	again     int    // tasks that ran more than once
	leased    uint64 // at the time of a kill, about
}

// any returns one of the nodes.
func (k *killing) any(nodes []*node) *node { return nodes[k.random.IntN(len(nodes))] }

// enoughWork sees to it that a kill finds work in progress.
func (k *killing) enoughWork() {
	k.t.Helper()
	if k.job != "" {
		j := k.any(k.nodes).job(k.job)
		if j.Tasks.Pending+j.Tasks.Active >= tasksLeft {
			return
		}
		k.finish()
	}
	stdin := strings.NewReader(strings.Join(k.inputs, ""))
	k.job = strings.TrimSpace(k.any(k.nodes).do(stdin, "map", "builtin:render", "--detach"))
}

// finish waits for the end of the job and accounts for every task of it, on
// every node.
func (k *killing) finish() {
	k.t.Helper()
	for i, n := range k.nodes {
		r := n.begin("job", "results", "-f", "--json", k.job)
		all := results(k.t, r.stdout)
		sameOutputs(k.t, all, k.want) // first: it says why a task failed
		r.await(0)
		if i > 0 {
			continue
		}
		k.tasks += len(all)
		for _, r := range all {
			if r.Attempts > 1 {
				k.again++
			}
		}
	}
	if k.t.Failed() {
		k.t.FailNow()
	}
	k.job = ""
}

// strike kills the coordinator at some moment of the job, measures until a
// client on another node has a result of its successor's, and brings the dead
// one back. It does nothing if leadership has moved meanwhile, as it may on a
// machine that is too busy.
func (k *killing) strike() {
	k.t.Helper()
	leader, others := coordinator(k.t, k.nodes)
	reader := k.follow(k.any(others))
	defer reader.stop()
	reader.await(0, takeoverLimit)                                   // the work is in progress, and seen
	time.Sleep(time.Duration(k.random.IntN(400)) * time.Millisecond) // the moment is the test's input
	if s := leader.status(); s.Coordinator != s.DeviceID {
		k.t.Logf("leadership has moved away from %s by itself", leader.name)
		return
	}
	k.leased += reader.on.job(k.job).Tasks.Active
	killed := time.Now()
	leader.kill()
	// Whoever answers now is a successor: what it had not recorded before is
	// recorded under it. A few results of its first moments may go uncounted.
	var recorded uint64
	eventually(k.t, takeoverLimit, "another node coordinates", func() bool {
		r := reader.on.try(nil, "job", "show", k.job, "--json")
		var j job
		if r.status != 0 || json.Unmarshal([]byte(r.out), &j) != nil {
			return false
		}
		recorded = j.Tasks.Completed + j.Tasks.Failed
		return true
	})
	answered := time.Since(killed)
	took := reader.await(recorded, takeoverLimit-answered).Sub(killed)
	k.takeovers = append(k.takeovers, took)
	k.victims[leader.name]++
	k.t.Logf("kill %d: %s at %d results; the next one came to %s %v after it (a command was answered after %v)", len(k.takeovers),
		leader.name, recorded, reader.on.name, took.Round(time.Millisecond), answered.Round(time.Millisecond))
	if took > slowTakeover {
		for _, n := range others {
			k.t.Logf("stderr of %s:\n%s", n.name, tail(n.errors.String(), 20))
		}
	}
	k.bringBack(leader)
}

// bringBack starts a dead node and waits until it votes again.
func (k *killing) bringBack(n *node) {
	k.t.Helper()
	n.up()
	eventually(k.t, patience, n.name+" votes again", func() bool {
		s := n.status()
		return s.Quorum && slices.Contains(s.Voters, s.DeviceID)
	})
}

func (k *killing) report() {
	slices.Sort(k.takeovers)
	ms := func(p int) time.Duration {
		return k.takeovers[(len(k.takeovers)*p+99)/100-1].Round(time.Millisecond)
	}
	k.t.Logf("%d takeovers, from the kill to the first result that a client has of the successor's: median %v, p99 %v, max %v; killed: %v",
		len(k.takeovers), ms(50), ms(99), ms(100), k.victims)
	k.t.Logf("%d tasks recorded once each; at the kills %d were leased, and %d show that they ran more than once (each coordinator counts for itself: at least so many)", k.tasks, k.leased, k.again)
}

// arrival is a result that a client has.
type arrival struct {
	number uint64
	at     time.Time
}

// follower is a client that reads the results of a job as they are recorded.
type follower struct {
	on       *node
	r        *running
	arrivals chan arrival
}

// follow begins to read the results that the job has not yet.
func (k *killing) follow(on *node) *follower {
	k.t.Helper()
	from := on.job(k.job).Tasks.Completed
	f := &follower{on: on, arrivals: make(chan arrival, 2*tasksPerJob)}
	f.r = on.begin("job", "results", "-f", "--json", "--unordered", "--from", fmt.Sprint(from), k.job)
	go func() {
		defer close(f.arrivals)
		d := json.NewDecoder(f.r.stdout)
		for {
			var one taskResult
			if d.Decode(&one) != nil {
				return
			}
			f.arrivals <- arrival{uint64(one.Number), time.Now()}
		}
	}()
	return f
}

// await returns when the first result came that has a number, or a higher one.
func (f *follower) await(number uint64, limit time.Duration) time.Time {
	f.on.t.Helper()
	late := time.After(limit)
	for {
		select {
		case a, ok := <-f.arrivals:
			if !ok {
				f.on.t.Fatalf("the results on %s ended before number %d:\n%s", f.on.name, number, f.r.err)
			}
			if a.number >= number {
				return a.at
			}
		case <-late:
			f.on.t.Fatalf("no result with number %d or above came to %s within %v:\n%s", number, f.on.name, limit, f.r.err)
		}
	}
}

// stop ends the client.
func (f *follower) stop() {
	_ = f.r.cmd.Process.Kill()
	for range f.arrivals {
	}
	_ = f.r.cmd.Wait()
}
