package session

import "github.com/ostrich-legs/ostrich/p2p/wire"

// Post is Send for a frame that is not bulk, by a caller who cannot wait. A
// session whose queue is full ends with ErrStalled, as soon as it runs: the
// other side takes nothing of what is sent to it.
func (c *Conn) Post(frame *wire.Frame) {
	room, _ := c.out.tryPut(control, frame, nil) // sealed: the session is ending
	if room == nil {
		return
	}
	select {
	case c.stalled <- struct{}{}:
	default:
	}
}
