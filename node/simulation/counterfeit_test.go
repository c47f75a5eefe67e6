package simulation

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/node/coordinator"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// keepOne lets a client make a job of one task that stays in the swarm.
func (w *recurring) keepOne(program int) *errand {
	e := &errand{id: "watched", name: "watched", program: program, inputs: []int{4}, first: 1, detached: true, turn: make(chan struct{}, 1)}
	w.errands[e.name] = e
	c := &customer{world: w, random: w.random}
	if err := c.submitOnce(w.t.Context(), e); err != nil {
		w.t.Fatal(err)
	}
	job, err := w.read(w.t.Context(), nil, e)
	if err != nil {
		w.ledger.red("job %s: %v", e.name, err)
	}
	e.state = job.GetState()
	w.keep(e)
	return e
}

func TestPagesThatTooFewHaveAreSeen(t *testing.T) {
	stock := newGoods()
	for lost := range 4 {
		w := scene(t, options{seed: 1, members: 3, devices: 1}, stock, func(w *recurring) {
			w.keepOne(2)
			w.settle()
			w.mustBeRightSoFar()
			p := w.coordinator().member()
			for _, m := range w.members[:lost] {
				for _, h := range p.named() {
					if w.goods.names[h] == "output of program 2" {
						os.Remove(m.pageFile(h)) // the look tells
					}
				}
			}
			w.look(false)
		})
		if lost < 2 {
			w.ledger.mustBeRight(t)
			continue
		}
		w.ledger.mustBeRed(t, fmt.Sprintf("output of program 2, and it is on the disks of %d of 3 voters", 3-lost))
	}
}

// mustBeRightSoFar ends a scene in which something was wrong before anything was
// broken.
func (w *recurring) mustBeRightSoFar() {
	for _, red := range w.ledger.failed() {
		w.t.Errorf("nothing was broken yet, and yet: %s", red)
	}
}

func TestOutputsThatAreOthersAreSeen(t *testing.T) {
	stock := newGoods()
	for p := range kinds {
		w := scene(t, options{seed: 1, members: 1, devices: 1}, stock, func(w *recurring) {
			w.counterfeits = true
			w.keepOne(p)
		})
		w.ledger.mustBeRed(t, "has another output")
	}
}

// comeAgain lets a client make a job, give it back, and make the same again.
func (w *recurring) comeAgain(program int) {
	c := &customer{world: w, random: w.random}
	for i := range 2 {
		name := fmt.Sprintf("same-%d", i)
		e := &errand{id: wire.JobID(name), name: name, program: program, inputs: []int{4}, first: 1, turn: make(chan struct{}, 1)}
		w.errands[e.name] = e
		err := c.run(w.t.Context(), e)
		w.look(false)
		if err != nil {
			w.ledger.red("job %s: %v", e.name, err)
		}
		time.Sleep(5 * time.Second) // what nobody needs goes
	}
	w.keepOne(program)
	w.settle()
}

func TestBytesThatWereGivenBackMayComeAgain(t *testing.T) {
	stock := newGoods()
	for _, members := range []int{1, 3} {
		for p := range kinds {
			scene(t, options{seed: 1, members: members, devices: 1}, stock, func(w *recurring) { w.comeAgain(p) }).ledger.mustBeRight(t)
		}
	}
}

// remembering is a coordinator's pages that are not put when they were put before,
// and then are said to be there.
type remembering struct {
	coordinator.Pages
	mu  sync.Mutex
	put map[wire.Hash]bool
}

func (r *remembering) PutReserved(ctx context.Context, hold wire.HoldID, data []byte) (wire.Hash, error) {
	h := wire.HashOf(data)
	if r.knows(h) {
		return h, nil
	}
	_, err := r.Pages.PutReserved(ctx, hold, data)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put[h] = err == nil
	return h, err
}

func (r *remembering) Hold(ctx context.Context, hold wire.HoldID, pages []wire.Hash) error {
	err := r.Pages.Hold(ctx, hold, pages)
	if wire.CodeOf(err) == wire.Code_CODE_NOT_FOUND && !slices.ContainsFunc(pages, func(h wire.Hash) bool { return !r.knows(h) }) {
		return nil
	}
	return err
}

func (r *remembering) knows(h wire.Hash) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.put[h]
}

func TestAMemoryOfWhatWasPutIsSeen(t *testing.T) {
	o := options{seed: 1, members: 3, devices: 1}
	o.wrapPages = func(p coordinator.Pages) coordinator.Pages {
		return &remembering{Pages: p, put: make(map[wire.Hash]bool)}
	}
	w := scene(t, o, newGoods(), func(w *recurring) { w.comeAgain(2) })
	w.ledger.mustBeRed(t, "output of program 2, and it is on the disks of 0 of 3 voters")
}
