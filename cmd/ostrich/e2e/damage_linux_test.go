package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// damageFiles flips bits of files, and cuts files off, in the data folder of a
// member that is down, and starts it.
func damageFiles(o *ordeal) {
	o.nodes = swarm(o.t, 3)
	v := &vandal{ordeal: o, outcomes: map[string]map[string]int{}}
	v.fill()
	o.work()
	for v.damages < o.size {
		leader, others := o.agree()
		victim := leader
		if o.random.IntN(2) > 0 {
			victim = o.any(others)
		}
		before := victim.status()
		o.suffer(v.harm(victim))
		v.check(victim, before)
	}
	o.account()
	v.report()
}

// vandal is an ordeal of damaged files.
type vandal struct {
	*ordeal
	job, want string // an old job, with pages, and its results
	damages   int
	// outcomes counts what became of damages, by the kind of the file.
	outcomes map[string]map[string]int
}

// damaged is a file that was damaged, and what it was before.
type damaged struct {
	kind, path, how string
	good            []byte
	mode            fs.FileMode
}

// fill sees to it that there is a file of every kind: pages, and a snapshot,
// which is taken after 64 MiB of log.
func (v *vandal) fill() {
	v.t.Helper()
	var b strings.Builder
	for i := range 60 {
		size := 20
		if i%3 == 0 {
			size = 30_000
		}
		fmt.Fprintf(&b, "line %d %s\n", i, strings.Repeat(string(rune('a'+i%26)), size))
	}
	v.job, v.want = "kept", strings.ToUpper(b.String())
	v.nodes[1].do(strings.NewReader(b.String()), "map", "builtin:upper", "--detach", "--id", v.job)
	growLog(v.nodes[0], 72<<20)
	for _, n := range v.nodes {
		eventually(v.t, patience, n.name+" has a snapshot", func() bool {
			all, _ := filepath.Glob(filepath.Join(n.dir, "raft", "snapshots", "*", "meta.json"))
			return len(all) > 0
		})
		v.read(n)
	}
}

// growLog has a node submit jobs without inputs, with so much in their
// environment that the log grows by so many bytes. The jobs are gone afterwards.
func growLog(n *node, size int) {
	n.t.Helper()
	const each, clients = 60_000, 16
	c, err := control.Dial(n.dir)
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	module, _ := programs.Get("noop")
	program, err := c.PutProgram(n.t.Context(), "noop", bytes.NewReader(module))
	if err != nil {
		n.t.Fatal(err)
	}
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range size / each / clients {
				err := emptyJob(n.t.Context(), c, program, strings.Repeat("x", each))
				for end := time.Now().Add(streamLimit); err != nil && time.Now().Before(end); {
					time.Sleep(time.Second) // a busy machine may be without a coordinator for a moment
					err = emptyJob(n.t.Context(), c, program, strings.Repeat("x", each))
				}
				if err != nil {
					n.t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if n.t.Failed() {
		n.t.FailNow()
	}
}

// emptyJob is a job that has nothing but its environment.
func emptyJob(ctx context.Context, c *control.Client, program *wire.Program, env string) error {
	job, err := c.Map(ctx, control.MapOptions{
		Spec: &wire.JobSpec{
			Program: program, Env: []string{"X=" + env}, TimeoutMs: wire.DefaultTimeout.Milliseconds(),
			MemoryMib: wire.DefaultMemoryMiB, MaxOutputBytes: wire.DefaultMaxOutput,
		},
		Inputs: func(func(control.Input, error) bool) {},
		Result: func(*wire.TaskResult, io.Reader) error { return nil },
	})
	if err != nil {
		return err
	}
	return c.Acknowledge(ctx, wire.JobID(job.GetId()))
}

// read wants the results of the old job from a node.
func (v *vandal) read(n *node) {
	v.t.Helper()
	if got := n.do(nil, "job", "results", "-f", v.job); got != v.want {
		v.t.Errorf("%s gives %d bytes of results of an old job, want %d", n.name, len(got), len(v.want))
	}
}

// harm is one: the victim goes down, files of its folder are damaged, and it
// starts again. A file without which it does not start, and which it names, is
// put back.
func (v *vandal) harm(victim *node) harm {
	var all []damaged
	return harm{
		name: "damage", victims: []*node{victim}, lasts: v.between(0, 500*time.Millisecond),
		begin: func() {
			if v.random.IntN(2) == 0 {
				victim.stop()
			} else {
				victim.kill()
			}
			kinds := v.kinds(victim.dir)
			names := slices.Sorted(maps.Keys(kinds))
			v.random.Shuffle(len(names), func(i, k int) { names[i], names[k] = names[k], names[i] })
			for _, kind := range names[:min(len(names), 1+v.random.IntN(4))] {
				files := kinds[kind]
				all = append(all, v.damage(kind, files[v.random.IntN(len(files))]))
			}
			for _, d := range all {
				v.damages++
				v.t.Logf("damage %d: %s of %s: %s", v.damages, strings.TrimPrefix(d.path, victim.dir+"/"), victim.name, d.how)
			}
		},
		end: func() { v.start(victim, all) },
	}
}

// kinds lists the files of a data folder that hold anything, by kind.
func (v *vandal) kinds(dir string) map[string][]string {
	all := map[string][]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() == 0 {
			return err
		}
		part := strings.Split(strings.TrimPrefix(path, dir+"/"), "/")
		kind := part[0]
		switch {
		case strings.HasPrefix(kind, "raft."), strings.Contains(path, "damaged"):
			return nil // set aside before
		case kind == "raft":
			kind = "raft " + part[len(part)-1]
		case strings.Contains(kind, ".tmp-"):
			kind = "temporary"
		}
		all[kind] = append(all[kind], path)
		return nil
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return all
}

// damage spoils a file.
func (v *vandal) damage(kind, path string) damaged {
	v.t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		v.t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		v.t.Fatal(err)
	}
	bad, how := spoil(v.random, good)
	if err := os.WriteFile(path, bad, info.Mode()); err != nil {
		v.t.Fatal(err)
	}
	return damaged{kind: kind, path: path, how: how, good: good, mode: info.Mode()}
}

// spoil flips bits, or cuts off.
func spoil(random *rand.Rand, good []byte) (bad []byte, how string) {
	bad = slices.Clone(good)
	at := random.IntN(len(bad))
	switch random.IntN(5) {
	case 0:
		return bad[:at], fmt.Sprintf("cut off at %d of %d", at, len(good))
	case 1:
		return nil, fmt.Sprintf("emptied, of %d", len(good))
	case 2:
		end := min(len(bad), at+512)
		for i := range bad[at:end] {
			bad[at+i] = ^bad[at+i]
		}
		return bad, fmt.Sprintf("%d bytes of %d turned over at %d", end-at, len(good), at)
	default:
		bad[at] ^= 1 << random.IntN(8)
		return bad, fmt.Sprintf("a bit flipped at %d of %d", at, len(good))
	}
}

// start starts a node on damaged files. If it does not start, it must end by
// itself, with a sentence that names one of them, or its folder: that one is put
// back.
func (v *vandal) start(n *node, all []damaged) {
	v.t.Helper()
	left, before := slices.Clone(all), ""
	for {
		n.launch()
		select {
		case <-n.out.seen:
			for _, d := range left {
				v.note(d, n, before+n.errors.String())
			}
			return
		case <-n.ended:
		case <-time.After(readyTime):
			v.t.Fatalf("%s neither starts nor ends:\n%s", n.name, tail(n.errors.String(), 30))
		}
		said := n.errors.String()
		last := said[max(0, strings.LastIndex("\n"+said, "\nostrich: ")):]
		i := slices.IndexFunc(left, func(d damaged) bool { return named(last, n.dir, d) })
		if i < 0 || n.cmd.ProcessState.ExitCode() != 1 || strings.Contains(said, "goroutine ") {
			v.t.Fatalf("%s ended with %v and names no damaged file:\n%s", n.name, n.cmd.ProcessState, tail(said, 30))
		}
		v.count(left[i], "named, does not start")
		before += said
		if err := os.WriteFile(left[i].path, left[i].good, left[i].mode); err != nil {
			v.t.Fatal(err)
		}
		left = slices.Delete(left, i, i+1)
	}
}

// named reports whether a text names a file, or the part of the folder that it
// is in.
func named(text, dir string, d damaged) bool {
	part, _, _ := strings.Cut(strings.TrimPrefix(d.path, dir+"/"), "/")
	return strings.Contains(text, d.path) || strings.Contains(text, filepath.Join(dir, part)) || strings.Contains(text, filepath.Base(d.path))
}

// note counts what became of a damage that a node has started with, by what it
// said.
func (v *vandal) note(d damaged, n *node, said string) {
	outcome := "mended, or harmless"
	if named(said, n.dir, d) {
		outcome = "named, set aside or mended"
	}
	v.count(d, outcome)
	v.t.Logf("%s, %s: %s", strings.TrimPrefix(d.path, n.dir+"/"), d.how, outcome)
}

func (v *vandal) count(d damaged, outcome string) {
	if v.outcomes[d.kind] == nil {
		v.outcomes[d.kind] = map[string]int{}
	}
	v.outcomes[d.kind][outcome]++
}

// check wants a node to be who it was, and to know what it knew.
func (v *vandal) check(n *node, before status) {
	v.t.Helper()
	after := n.status()
	if after.SwarmID != before.SwarmID || after.DeviceID != before.DeviceID || after.Role != before.Role || after.Name != before.Name {
		v.t.Errorf("%s is %+v, and was %+v before: it has used a damaged file", n.name, after, before)
	}
	v.read(n)
	if v.t.Failed() {
		v.t.Fatalf("stderr of %s:\n%s", n.name, tail(n.errors.String(), 30))
	}
}

// report prints what became of the damages.
func (v *vandal) report() {
	v.t.Helper()
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(v.outcomes)) {
		fmt.Fprintf(&b, "%s: %v\n", kind, v.outcomes[kind])
	}
	v.t.Logf("%d damages:\n%s", v.damages, b.String())
}
