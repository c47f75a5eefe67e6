package worker

import (
	"errors"
	"time"

	"github.com/ostrich-legs/ostrich/node/session"
)

const (
	// shortestWait is the least time between two dials, whatever is known.
	shortestWait = 20 * time.Millisecond
	// redialWait is the most that passes before the first dial after a session.
	redialWait = 300 * time.Millisecond
	// longestWait bounds the back-off.
	longestWait = 10 * time.Second
	// shortSession is the life below which a session counts as a failure to
	// dial: who lets us in only to drop us must not be dialled in a loop.
	shortSession = time.Second
	// maxHints is how often in a row a refusal that names the coordinator is
	// followed at once.
	maxHints = 5
)

// pace decides how long to wait before the next dial.
type pace struct {
	failures int // dials in a row that gave no session worth the name
	hints    int // hints followed in a row
}

// next takes the outcome of an attempt, which took so long, and returns the wait
// before the next.
func (p *pace) next(opened bool, err error, took time.Duration) time.Duration {
	var bye *session.GoodbyeError
	var refused *session.Refused
	switch {
	case errors.Is(err, errRedial):
		*p = pace{}
		return shortestWait
	case opened && took >= shortSession:
		*p = pace{}
		if errors.As(err, &bye) && bye.Redial {
			return shortestWait
		}
		return jitter(redialWait)
	case errors.As(err, &refused) && refused.Coordinator() != nil && p.hints < maxHints:
		p.hints++
		return shortestWait
	}
	p.failures++
	return jitter(min(redialWait<<min(p.failures-1, 6), longestWait))
}
