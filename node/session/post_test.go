package session_test

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/session/sessiontest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestPostEndsASessionThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		pair := sessiontest.Connect(t, a, b) // the device reads nothing: its Run is not called
		ended := sessiontest.Start(pair.Coordinator, session.Handler{})
		ack := &wire.Frame{Kind: &wire.Frame_ResultsAck{ResultsAck: &wire.ResultsAck{Indexes: make([]uint32, 100_000)}}}
		for range 100 {
			pair.Coordinator.Post(ack)
		}
		if err := <-ended; !errors.Is(err, session.ErrStalled) {
			t.Errorf("Run ended with %v, want ErrStalled", err)
		}
		pair.Device.Close("the test is over", false)
	})
}
