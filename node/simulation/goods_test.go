package simulation

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/node/worker"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// kinds is how many programs there are in a world of recurring bytes, and how
// many inputs.
const kinds = 5

// goods are all the bytes of a world of recurring bytes. Nobody writes to them.
type goods struct {
	inputs  [kinds][]byte
	outputs [kinds][kinds][]byte // of each program for each input
	program map[wire.Hash]int
	names   map[wire.Hash]string // of the pages of inputs and outputs
}

func newGoods() *goods {
	g := &goods{program: make(map[wire.Hash]int), names: make(map[wire.Hash]string)}
	for i, size := range []int{8, 700, 3000, 6000, 300_000} {
		g.inputs[i] = noise(uint64(i), size)
		g.list(fmt.Sprintf("input %d", i), g.inputs[i])
	}
	half := noise(14, wire.PageSize)
	large := [kinds][]byte{2: noise(12, 100_000), 3: noise(13, 1_200_000), 4: slices.Concat(half, half)}
	for p := range kinds {
		g.program[wire.HashOf(programText(p))] = p
		g.list(fmt.Sprintf("program %d", p), programText(p))
		g.list(fmt.Sprintf("output of program %d", p), large[p])
		for i := range kinds {
			switch g.outputs[p][i] = large[p]; p {
			case 0:
				g.outputs[p][i] = noise(uint64(20+i), 10)
			case 1:
				g.outputs[p][i] = noise(uint64(30+i), 5000)
			}
		}
	}
	return g
}

// noise returns bytes that no compression makes smaller.
func noise(seed uint64, size int) []byte {
	random := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, 0, size+8)
	for len(b) < size {
		x := random.Uint64()
		for range 8 {
			b = append(b, byte(x))
			x >>= 8
		}
	}
	return b[:size:size]
}

func programText(p int) []byte { return fmt.Appendf(nil, "program %d", p) }

// list notes what pages of some bytes are called in reports.
func (g *goods) list(name string, data []byte) {
	for page := range slices.Chunk(data, wire.PageSize) {
		g.names[wire.HashOf(page)] = name
	}
}

// describe says what a page is of.
func (g *goods) describe(h wire.Hash) string {
	if name, ok := g.names[h]; ok {
		return fmt.Sprintf("page %v of %s", h, name)
	}
	return fmt.Sprintf("page %v, a pack", h)
}

// workshop is the sandbox of a machine in a world of recurring bytes.
type workshop struct {
	world  *recurring
	places chan struct{}
}

func (w *recurring) newWorkshop(m *machine) worker.Sandbox {
	return &workshop{world: w, places: make(chan struct{}, m.slots)}
}

func (s *workshop) Run(ctx context.Context, program sandbox.Program, tasks []sandbox.Task, done func(int, sandbox.Result)) error {
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.places }()
	p, ok := s.world.goods.program[program.Hash]
	if !ok {
		s.world.ledger.red("a device is to run %v, which is no program", program.Hash)
	}
	// What a task is said to have taken recurs with the rest of its record.
	took := time.Duration(20+60*p) * time.Millisecond
	for i, t := range tasks {
		if err := sleep(ctx, took); err != nil {
			return err
		}
		result, err := s.world.work(p, t)
		if err != nil {
			return err
		}
		result.Duration = took
		done(i, result)
	}
	return nil
}

// work is one task.
func (w *recurring) work(p int, t sandbox.Task) (r sandbox.Result, err error) {
	name, input := nameOf(t.Env), t.Stdin
	if t.StdinPath != "" {
		if input, err = os.ReadFile(t.StdinPath); err != nil {
			return r, err
		}
	}
	e := w.errand(name.job)
	if e == nil || int(name.index) >= len(e.inputs) || e.program != p || !bytes.Equal(input, w.goods.inputs[e.inputs[name.index]]) {
		w.ledger.red("task %d of job %s ran as program %d with an input of %d bytes that is not its own", name.index, name.job, p, len(input))
		return r, nil
	}
	if e.mustFail(name.index) {
		r.ExitCode = 1
	}
	out := w.goods.outputs[p][e.inputs[name.index]]
	if w.counterfeits {
		out = noise(99, len(out))
	}
	return r, write(&r, t, out)
}
