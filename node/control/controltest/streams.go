package controltest

import (
	"context"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxPerMessage is the number of results in one message.
const maxPerMessage = 100

// partSize is the size of the parts of a large output.
const partSize = 32 << 10

// PutProgram takes a program that begins as a WebAssembly module does.
func (s *Service) PutProgram(_ context.Context, in *connect.ClientStream[wire.PutProgramRequest]) (*connect.Response[wire.PutProgramResponse], error) {
	var name string
	var want wire.Hash
	var data []byte
	for in.Receive() {
		if name == "" {
			name, want = in.Msg().GetName(), wire.Hash(in.Msg().GetHash())
		}
		data = append(data, in.Msg().GetData()...)
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	return call(s, "PutProgram", func() (*wire.PutProgramResponse, error) {
		h := wire.HashOf(data)
		switch {
		case h != want:
			return nil, wire.Errorf(wire.Code_CODE_INVALID, "the program's hash does not match")
		case len(data) < 4 || string(data[:4]) != "\x00asm":
			return nil, wire.Errorf(wire.Code_CODE_INVALID, "%s is not a WebAssembly module", name)
		}
		return &wire.PutProgramResponse{Program: &wire.Program{Name: name,
			Blob: &wire.Blob{Size: uint64(len(data)), Pages: [][]byte{h[:]}, Hash: h[:]}}}, nil
	})
}

// PutBlob takes a large input. Its one "page" is the whole.
func (s *Service) PutBlob(_ context.Context, in *connect.ClientStream[wire.PutBlobRequest]) (*connect.Response[wire.PutBlobResponse], error) {
	var data []byte
	var size uint64
	for in.Receive() {
		if size += uint64(len(in.Msg().GetData())); !s.Discard {
			data = append(data, in.Msg().GetData()...)
		}
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	return call(s, "PutBlob", func() (*wire.PutBlobResponse, error) {
		h := wire.HashOf(data)
		s.blobs[h] = data
		return &wire.PutBlobResponse{Blob: &wire.Blob{Size: size, Pages: [][]byte{h[:]}}}, nil
	})
}

// cutter sends the messages of a stream until it is cut off.
type cutter struct {
	out  *connect.ServerStream[wire.StreamResultsResponse]
	left int // -1: no limit
}

func (c *cutter) send(m *wire.StreamResultsResponse) error {
	if c.left == 0 {
		return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the stream was cut")
	}
	if c.left > 0 {
		c.left--
	}
	return c.out.Send(m)
}

// StreamResults streams results as the schema says.
func (s *Service) StreamResults(ctx context.Context, r *connect.Request[wire.StreamResultsRequest], out *connect.ServerStream[wire.StreamResultsResponse]) error {
	s.mu.Lock()
	s.calls["StreamResults"]++
	n := s.calls["StreamResults"]
	s.mu.Unlock()
	c := &cutter{out: out, left: -1}
	if s.Before != nil {
		if err := s.Before("StreamResults", n); err != nil {
			return err
		}
	}
	if s.Cut != nil {
		if k := s.Cut(n); k > 0 {
			c.left = k
		}
	}
	from := r.Msg.GetFrom()
	for {
		s.mu.Lock()
		j, err := s.get(r.Msg.GetJobId())
		if err != nil {
			s.mu.Unlock()
			return err
		}
		results, next := j.read(from, r.Msg.GetUnordered())
		end := j.ended() && len(results) == 0
		view, changed := j.view(), s.changed
		s.mu.Unlock()
		if err := s.sendResults(c, results); err != nil {
			return err
		}
		from = next
		if end || len(results) == 0 && !r.Msg.GetFollow() {
			return c.send(&wire.StreamResultsResponse{Job: view, Next: next, End: end})
		}
		if len(results) == 0 {
			if err := wait(ctx, changed); err != nil {
				return err
			}
		}
	}
}

// read returns some results from a place on, and where to read on.
func (j *job) read(from uint32, unordered bool) ([]*wire.TaskResult, uint32) {
	var out []*wire.TaskResult
	for len(out) < maxPerMessage {
		var r *wire.TaskResult
		if unordered {
			if int(from) >= len(j.results) {
				break
			}
			r = j.results[from]
		} else if r = j.byIndex[from]; r == nil && (!j.ended() || int(from) >= len(j.inputs)) {
			break
		}
		from++
		if r != nil {
			out = append(out, r)
		}
	}
	return out, from
}

// sendResults sends results, large outputs in parts after their message.
func (s *Service) sendResults(c *cutter, results []*wire.TaskResult) error {
	for len(results) > 0 {
		n := 1
		for n < len(results) && results[n-1].GetOutputBlob() == nil {
			n++
		}
		if err := c.send(&wire.StreamResultsResponse{Results: results[:n]}); err != nil {
			return err
		}
		if blob := results[n-1].GetOutputBlob(); blob != nil {
			s.mu.Lock()
			data := s.blobs[wire.Hash(blob.GetPages()[0])]
			s.mu.Unlock()
			for len(data) > 0 {
				part := data[:min(partSize, len(data))]
				data = data[len(part):]
				if err := c.send(&wire.StreamResultsResponse{Data: part, LastPart: len(data) == 0}); err != nil {
					return err
				}
			}
		}
		results = results[n:]
	}
	return nil
}

// StreamLogs sends three lines, and with follow waits for the client to go.
func (s *Service) StreamLogs(ctx context.Context, r *connect.Request[wire.StreamLogsRequest], out *connect.ServerStream[wire.StreamLogsResponse]) error {
	for _, line := range s.logs {
		if r.Msg.GetAudit() && !line.GetAudit() {
			continue
		}
		if err := out.Send(&wire.StreamLogsResponse{Line: line}); err != nil {
			return err
		}
	}
	if r.Msg.GetFollow() {
		<-ctx.Done()
	}
	return nil
}
