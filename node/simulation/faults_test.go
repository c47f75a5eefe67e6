package simulation

import (
	"context"
	"time"
)

// fault is something that goes wrong for a while. end mends it.
type fault struct {
	name  string
	begin func(s *swarm) (end func())
}

// faults are drawn with equal chances.
func faults() []fault {
	return []fault{
		{"a member is isolated", func(s *swarm) func() { return s.isolate(pick(s, s.members)) }},
		{"the coordinator is isolated", func(s *swarm) func() { return s.isolate(s.someCoordinator()) }},
		{"the coordinator is not heard", func(s *swarm) func() { return s.mute(s.someCoordinator(), true) }},
		{"the coordinator hears nothing", func(s *swarm) func() { return s.mute(s.someCoordinator(), false) }},
		{"one way between two members is cut", (*swarm).oneWay},
		{"two halves", (*swarm).halves},
		{"everything is late", func(s *swarm) func() { s.net.delay(true); return func() { s.net.delay(false) } }},
		{"the coordinator crashes", func(s *swarm) func() { return s.crash(s.someCoordinator()) }},
		{"a member crashes", func(s *swarm) func() { return s.crash(pick(s, s.members)) }},
		{"the coordinator stops", func(s *swarm) func() { return s.stop(s.someCoordinator()) }},
		{"a member stops", func(s *swarm) func() { return s.stop(pick(s, s.members)) }},
		{"a device is isolated", func(s *swarm) func() { return s.isolate(pick(s, s.devices)) }},
		{"a device crashes", func(s *swarm) func() { return s.crash(pick(s, s.devices)) }},
		{"a device stops", func(s *swarm) func() { return s.stop(pick(s, s.devices)) }},
		{"a link flaps", (*swarm).flap},
		{"all members crash", (*swarm).crashAll},
		{"the power fails", (*swarm).powerFails},
		{"the coordinator's clock jumps", func(s *swarm) func() { return s.jump(s.someCoordinator()) }},
		{"a member's clock jumps", func(s *swarm) func() { return s.jump(pick(s, s.members)) }},
	}
}

func pick[T any](s *swarm, list []T) T { return list[s.random.IntN(len(list))] }

// someCoordinator returns the coordinator, or any member while there is none.
func (s *swarm) someCoordinator() *machine {
	if m := s.coordinator(); m != nil {
		return m
	}
	return pick(s, s.members)
}

// cutAll cuts ways, and returns what heals them.
func (s *swarm) cutAll(ways []direction) (heal func()) {
	for _, w := range ways {
		s.net.cut(w.from, w.to, true)
	}
	return func() {
		for _, w := range ways {
			s.net.cut(w.from, w.to, false)
		}
	}
}

// between lists the ways from one group of machines to another.
func between(from, to []*machine) (ways []direction) {
	for _, a := range from {
		for _, b := range to {
			if a != b {
				ways = append(ways, direction{a.id.ID, b.id.ID})
			}
		}
	}
	return ways
}

func (s *swarm) isolate(m *machine) func() {
	one, all := []*machine{m}, s.machines()
	return s.cutAll(append(between(one, all), between(all, one)...))
}

// mute cuts what a machine says, or what it hears.
func (s *swarm) mute(m *machine, says bool) func() {
	one := []*machine{m}
	if says {
		return s.cutAll(between(one, s.machines()))
	}
	return s.cutAll(between(s.machines(), one))
}

func (s *swarm) oneWay() func() {
	a, b := pick(s, s.members), pick(s, s.members)
	return s.cutAll(between([]*machine{a}, []*machine{b}))
}

func (s *swarm) halves() func() {
	var left, right []*machine
	for _, m := range s.machines() {
		if s.random.IntN(2) == 0 {
			left = append(left, m)
		} else {
			right = append(right, m)
		}
	}
	return s.cutAll(append(between(left, right), between(right, left)...))
}

func (s *swarm) crash(m *machine) func() {
	m.crash(s.random.IntN(2) == 0)
	return m.up
}

func (s *swarm) stop(m *machine) func() {
	m.shutdown()
	return m.up
}

func (s *swarm) crashAll() func() {
	for _, m := range s.members {
		m.crash(s.random.IntN(2) == 0)
	}
	return func() {
		for _, m := range s.members {
			m.up()
		}
	}
}

// longestJump is how far a clock is wrong at the most: not so far that invites
// and kept jobs of this run expire.
const longestJump = 20 * time.Minute

// jump sets a member's clock forward or back; end sets it right, which is a jump
// too.
func (s *swarm) jump(m *machine) func() {
	s.ledger.count.jumps.Add(1)
	m.skew.Store(int64(s.duration(-longestJump, longestJump)))
	return func() { m.skew.Store(0) }
}

func (s *swarm) flap() func() {
	m := pick(s, s.machines())
	for range 4 {
		heal := s.isolate(m)
		time.Sleep(time.Duration(50+s.random.IntN(900)) * time.Millisecond)
		heal()
		time.Sleep(time.Duration(50+s.random.IntN(900)) * time.Millisecond)
	}
	return func() {}
}

// harm makes faults, one or two at a time, until ctx ends, and returns when all
// is mended.
func (s *swarm) harm(ctx context.Context) {
	all := s.options.faults
	if all == nil {
		all = faults()
	}
	for ctx.Err() == nil {
		if sleep(ctx, s.duration(2*time.Second, 25*time.Second)) != nil {
			return
		}
		first := pick(s, all)
		end := first.begin(s)
		s.ledger.fault(first.name)
		if s.random.IntN(4) == 0 {
			time.Sleep(s.duration(0, 4*time.Second))
			second := pick(s, all)
			alsoEnd := second.begin(s)
			s.ledger.fault(second.name)
			time.Sleep(s.duration(0, 5*time.Second))
			alsoEnd()
		}
		time.Sleep(s.duration(200*time.Millisecond, 15*time.Second))
		end()
	}
}

func (s *swarm) duration(from, to time.Duration) time.Duration {
	return from + time.Duration(s.random.Int64N(int64(to-from)))
}

// fault counts one.
func (l *ledger) fault(name string) {
	l.count.faults.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults[name]++
}
