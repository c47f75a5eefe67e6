package simulation

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// recurringFaults are what happens to a world of so many members.
func recurringFaults(members int) []fault {
	all := []fault{
		{"a member crashes", func(s *swarm) func() { return s.crash(pick(s, s.members)) }},
		{"the coordinator crashes", func(s *swarm) func() { return s.crash(s.someCoordinator()) }},
		{"the coordinator stops", func(s *swarm) func() { return s.stop(s.someCoordinator()) }},
		{"a member stops", func(s *swarm) func() { return s.stop(pick(s, s.members)) }},
		{"each machine crashes in turn", (*swarm).crashInTurn},
		{"all members crash", (*swarm).crashAll},
		{"everything crashes", (*swarm).crashEverything},
		{"the power fails", (*swarm).powerFails},
		{"a device is isolated", func(s *swarm) func() { return s.isolate(pick(s, s.devices)) }},
		{"a device crashes", func(s *swarm) func() { return s.crash(pick(s, s.devices)) }},
		{"a device stops", func(s *swarm) func() { return s.stop(pick(s, s.devices)) }},
		{"a disk is full", (*swarm).fillDisk},
		{"the coordinator's clock jumps", func(s *swarm) func() { return s.jump(s.someCoordinator()) }},
		{"a member's clock jumps", func(s *swarm) func() { return s.jump(pick(s, s.members)) }},
		{"everything is late", func(s *swarm) func() { s.net.delay(true); return func() { s.net.delay(false) } }},
	}
	if members == 1 {
		return all
	}
	return append(all,
		fault{"a member is isolated", func(s *swarm) func() { return s.isolate(pick(s, s.members)) }},
		fault{"the coordinator is isolated", func(s *swarm) func() { return s.isolate(s.someCoordinator()) }},
		fault{"one way between two members is cut", (*swarm).oneWay},
		fault{"a disk dies", nil},
		fault{"pages vanish from a disk", nil},
	)
}

// disturb makes faults, one or two at a time, until ctx ends, and returns when all
// is mended. It looks at the disks after each step.
func (w *recurring) disturb(ctx context.Context) {
	all := recurringFaults(len(w.members))
	for i := range all {
		switch all[i].name {
		case "a disk dies":
			all[i].begin = func(*swarm) func() { return w.loseDisk() }
		case "pages vanish from a disk":
			all[i].begin = func(*swarm) func() { return w.losePages() }
		}
	}
	for sleep(ctx, w.duration(500*time.Millisecond, 8*time.Second)) == nil {
		ends := []func(){w.fault(pick(w.swarm, all))}
		if w.random.IntN(4) == 0 {
			time.Sleep(w.duration(0, 2*time.Second))
			ends = append(ends, w.fault(pick(w.swarm, all)))
		}
		for _, end := range ends {
			time.Sleep(w.duration(100*time.Millisecond, 6*time.Second))
			end()
			w.look(false)
		}
	}
}

func (w *recurring) fault(f fault) (end func()) {
	end = f.begin(w.swarm)
	w.ledger.fault(f.name)
	w.look(false)
	return end
}

// crashInTurn restarts one machine after the other.
func (s *swarm) crashInTurn() func() {
	for _, m := range s.machines() {
		m.crash(s.random.IntN(2) == 0)
		time.Sleep(s.duration(50*time.Millisecond, time.Second))
		m.up()
		time.Sleep(s.duration(50*time.Millisecond, time.Second))
	}
	return func() {}
}

// crashEverything ends all processes at once.
func (s *swarm) crashEverything() func() {
	for _, m := range s.machines() {
		m.crash(s.random.IntN(2) == 0)
	}
	return func() {
		for _, m := range s.machines() {
			m.up()
		}
	}
}

// fillDisk leaves little space on a member's disk: none for clients, or none at
// all.
func (s *swarm) fillDisk() func() {
	m := pick(s, s.members)
	m.free.Store([]uint64{300 << 20, 1 << 20}[s.random.IntN(2)])
	return func() { m.free.Store(0) }
}

// shelf is the folder of a machine's pages.
func (m *machine) shelf() string { return filepath.Join(m.dir, "pages") }

// pageFile is where a machine has a page.
func (m *machine) pageFile(h wire.Hash) string {
	name := h.String()
	return filepath.Join(m.shelf(), name[:2], name)
}

// holds reports whether the page is on the machine's disk, whether or not a
// process runs there.
func (m *machine) holds(h wire.Hash) bool {
	_, err := os.Lstat(m.pageFile(h))
	return err == nil
}

// loseDisk kills the member with the bad disk and empties the disk of its pages.
func (w *recurring) loseDisk() func() {
	w.damaged.Store(true)
	w.bad.crash(w.random.IntN(2) == 0)
	if err := os.RemoveAll(w.bad.shelf()); err != nil {
		w.ledger.red("emptying a disk: %v", err)
	}
	return w.bad.up
}

// losePages deletes a few pages under the member with the bad disk.
func (w *recurring) losePages() func() {
	w.damaged.Store(true)
	files, _ := filepath.Glob(filepath.Join(w.bad.shelf(), "[0-9a-f][0-9a-f]", "*")) // the pattern is right
	w.random.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	for _, file := range files[:min(3, len(files))] {
		os.Remove(file) // it may have gone by itself
	}
	return func() {}
}

// lookTries bounds how often a look is begun anew because the state changed.
const lookTries = 20

// look compares what the state names with what lies on the disks of the voters.
// While the damage of the bad disk may not be mended yet, what it lacks counts as
// there, unless strict; but no page may be on no disk at all.
func (w *recurring) look(strict bool) {
	for range lookTries {
		short, ok := w.glance(strict)
		if !ok {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		w.count.looks.Add(1)
		w.mu.Lock()
		for h, text := range short {
			if !w.reported[h] {
				w.reported[h] = true
				w.ledger.red("%s", text)
			}
		}
		w.mu.Unlock()
		return
	}
}

// glance looks once. It reports false if nobody coordinates, if the state changed
// meanwhile, or if it was not the newest: a member that is ahead may have given
// back what this state names.
func (w *recurring) glance(strict bool) (short map[wire.Hash]string, ok bool) {
	m := w.coordinator()
	if m == nil {
		return nil, false
	}
	p := m.member()
	if p == nil {
		return nil, false
	}
	before := p.group.Status()
	if before.Role != "leader" || before.Lag > 0 {
		return nil, false
	}
	var named []wire.Hash
	p.group.Read(func(s *state.State) { named = slices.Collect(s.Pages()) })
	short = w.short(named, p.group.Voters(), strict)
	if after := p.group.Status(); after.Committed != before.Committed || after.Applied != before.Applied {
		return nil, false
	}
	if len(short) == 0 {
		return nil, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return short, p.group.Verify(ctx) == nil
}

// short finds the pages that too few of the voters have, and says so in words.
func (w *recurring) short(named []wire.Hash, voters []wire.DeviceID, strict bool) map[wire.Hash]string {
	short := make(map[wire.Hash]string)
	for _, h := range named {
		have, spared := 0, 0
		for _, m := range w.members {
			switch {
			case !slices.Contains(voters, m.id.ID):
			case m.holds(h):
				have++
			case m == w.bad && w.damaged.Load() && !strict:
				spared = 1
			}
		}
		if have == 0 || have+spared < len(voters)/2+1 {
			short[h] = fmt.Sprintf("the state names %s, and it is on the disks of %d of %d voters", w.goods.describe(h), have, len(voters))
		}
	}
	return short
}

// whole reports whether every member has all pages that its state names, and
// says so.
func (w *recurring) whole() bool { return w.lacking() == "" }

// lacking says what members lack.
func (w *recurring) lacking() (text string) {
	for _, m := range w.members {
		p := m.member()
		if p == nil {
			return fmt.Sprintf("\n\t%s is down", m.name)
		}
		if n := p.pages.Status().Missing; n > 0 {
			text += fmt.Sprintf("\n\t%s says that it lacks %d", m.name, n)
		}
		for _, h := range p.named() {
			if !m.holds(h) {
				text += fmt.Sprintf("\n\t%s lacks %s", m.name, w.goods.describe(h))
			}
		}
	}
	return text
}

// named returns the pages that a member's state names.
func (p *member) named() (all []wire.Hash) {
	p.group.Read(func(s *state.State) { all = slices.Collect(s.Pages()) })
	return all
}

// mustGiveAll has a member give every page that the state names, and looks at the
// bytes on its disk.
func (w *recurring) mustGiveAll(ctx context.Context, m *machine) {
	p := m.member()
	if p == nil {
		w.ledger.red("%s is down in the end", m.name)
		return
	}
	for _, h := range p.named() {
		if _, err := p.pages.Get(ctx, h); err != nil {
			w.ledger.red("%s cannot give %s: %v", m.name, w.goods.describe(h), err)
			continue
		}
		if data, err := os.ReadFile(m.pageFile(h)); err != nil || wire.HashOf(data) != h {
			w.ledger.red("%s has other bytes on its disk, or none, for %s: %v", m.name, w.goods.describe(h), err)
		}
	}
	w.count.left.Add(int64(len(w.unnamed(m))))
}

// unnamed returns the pages that are on a member's disk and that its state does
// not name.
func (w *recurring) unnamed(m *machine) (all []wire.Hash) {
	named := make(map[string]bool)
	if p := m.member(); p != nil {
		for _, h := range p.named() {
			named[h.String()] = true
		}
	}
	files, _ := filepath.Glob(filepath.Join(m.shelf(), "[0-9a-f][0-9a-f]", "*")) // the pattern is right
	for _, file := range files {
		if h, err := wire.ParseHash(filepath.Base(file)); err == nil && !named[h.String()] {
			all = append(all, h)
		}
	}
	return all
}
