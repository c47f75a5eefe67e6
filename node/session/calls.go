package session

import (
	"context"
	"sync"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxOpen bounds the requests that one side has open at a time.
const maxOpen = 64

// calls is the requests of this side that have no answer yet.
type calls struct {
	places chan struct{} // a token for each open request

	mu     *sync.Mutex
	lastID uint64
	// open holds whom to tell; nil for a call that was given up, whose place
	// stays taken because the other side still counts it.
	open   map[uint64]chan *wire.Response
	failed bool
}

func newCalls() calls {
	return calls{
		places: make(chan struct{}, maxOpen),
		mu:     new(sync.Mutex),
		open:   make(map[uint64]chan *wire.Response),
	}
}

// Call sends a request, whose id it sets, and waits for the answer until ctx
// ends. The request may not be used otherwise meanwhile. At most 64 are open at
// a time; further calls wait. The answer's error is returned as an error with
// its code; CODE_UNAVAILABLE also says that the session ended, and then it is
// not known what became of the request.
func (c *Conn) Call(ctx context.Context, request *wire.Request) (*wire.Response, error) {
	select {
	case c.calls.places <- struct{}{}:
	case <-c.ended:
		return nil, unavailable(c.reason)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	answer, ok := c.calls.begin(request)
	if !ok {
		return nil, unavailable(c.why())
	}
	err := c.send(ctx, &wire.Frame{Kind: &wire.Frame_Request{Request: request}}, nil)
	if err != nil {
		c.calls.undo(request.GetId())
		return nil, err
	}
	select {
	case response := <-answer:
		if response.GetError() != nil {
			return nil, wire.DecodeError(response.GetError())
		}
		return response, nil
	case <-c.ended:
		return nil, unavailable(c.reason)
	case <-ctx.Done():
		c.calls.giveUp(request.GetId())
		return nil, ctx.Err()
	}
}

// begin numbers the request and notes that it waits for an answer.
func (s *calls) begin(request *wire.Request) (answer chan *wire.Response, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed {
		return nil, false
	}
	s.lastID++
	request.Id = s.lastID
	answer = make(chan *wire.Response, 1)
	s.open[s.lastID] = answer
	return answer, true
}

// undo forgets a call that was not sent. A peer that makes answers up may have
// settled it.
func (s *calls) undo(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[id]; ok {
		s.forget(id)
	}
}

// forget gives an open call's place back. The caller holds mu.
func (s *calls) forget(id uint64) {
	delete(s.open, id)
	<-s.places
}

// giveUp forgets who waits for a call that was sent.
func (s *calls) giveUp(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[id]; ok {
		s.open[id] = nil
	}
}

// settle hands an answer to the call that waits for it.
func (s *calls) settle(response *wire.Response) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer, ok := s.open[response.GetId()]
	if !ok {
		return protocolError("an answer to no open request")
	}
	s.forget(response.GetId())
	if answer != nil {
		answer <- response
	}
	return nil
}

// fail lets no further call begin.
func (s *calls) fail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
}
