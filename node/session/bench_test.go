package session_test

import (
	"net"
	"testing"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/session/sessiontest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func BenchmarkSmallFrames(b *testing.B) {
	x, y := net.Pipe()
	pair := sessiontest.Connect(b, x, y)
	sessiontest.Start(pair.Device, session.Handler{})
	sessiontest.Start(pair.Coordinator, session.Handler{Frame: func(*wire.Frame) error { return nil }})
	frame := &wire.Frame{Kind: &wire.Frame_Results{Results: &wire.Results{
		JobId: "job", Attempt: &wire.Attempt{Term: 1, Counter: 2},
		Results: []*wire.TaskResult{{Index: 1, Output: make([]byte, 100)}},
	}}}
	b.ReportAllocs()
	for b.Loop() {
		if err := pair.Device.Send(b.Context(), frame); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	x, y := net.Pipe()
	pair := sessiontest.Connect(b, x, y)
	sessiontest.Start(pair.Device, session.Handler{})
	sessiontest.Start(pair.Coordinator, session.Handler{Request: sessiontest.Echo})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := pair.Device.Call(b.Context(), &wire.Request{}); err != nil {
			b.Fatal(err)
		}
	}
}
