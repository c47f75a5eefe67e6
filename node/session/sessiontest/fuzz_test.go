package sessiontest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/session/sessiontest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func FuzzWhateverArrivesTheSessionEndsWithAReason(f *testing.F) {
	for _, frame := range []*wire.Frame{
		{Kind: &wire.Frame_Ping{Ping: &wire.Ping{}}},
		{Kind: &wire.Frame_Goodbye{Goodbye: &wire.Goodbye{Reason: "r", Redial: true}}},
		{Kind: &wire.Frame_Request{Request: &wire.Request{Id: 1, Kind: &wire.Request_ReadPage{ReadPage: &wire.ReadPageRequest{Length: 1}}}}},
		{Kind: &wire.Frame_Results{Results: &wire.Results{JobId: "j", Results: []*wire.TaskResult{{Index: 1, Output: []byte("o")}}}}},
		{Kind: &wire.Frame_Lease{Lease: &wire.Lease{Claim: &wire.LeaseClaim{Indexes: []uint32{1}}}}},
	} {
		bytes, err := wire.AppendMessage(nil, wire.MaxFrame, frame)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, bytes []byte) {
		a, b := net.Pipe()
		pair := sessiontest.Connect(t, a, b)
		outcome := sessiontest.Start(pair.Coordinator, session.Handler{
			Request: func(context.Context, *wire.Request) *wire.Response { return &wire.Response{} },
			Frame:   func(*wire.Frame) error { return nil },
		})
		go io.Copy(io.Discard, a)
		a.Write(bytes)
		a.Close()
		err := <-outcome
		if !errors.Is(err, session.ErrProtocol) && !errors.Is(err, session.ErrGoodbye) && !errors.Is(err, session.ErrBroken) {
			t.Errorf("got %v", err)
		}
	})
}
