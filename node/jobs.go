package node

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/p2p/blob"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// readWait is how long one request for results waits at the coordinator,
	// and firstReadWait the first of a stream: a person who waits for a device
	// that is not there soon sees it.
	readWait      = 10 * time.Second
	firstReadWait = 1 * time.Second
	// partSize is the size of the parts in which a large output is streamed.
	partSize = 256 << 10
	// maxPackBytes bounds the payload of a page of inputs.
	maxPackBytes = wire.PageSize - 8
)

// pages returns the exchange, or the refusal that a worker gives. It waits until
// a member that was let in just now, or begins again, knows who votes.
func (s *service) pages(ctx context.Context, what string) (*blob.Exchange, error) {
	if err := s.opened(); err != nil {
		return nil, err
	}
	r := s.node.replica.Load()
	if r == nil {
		return nil, wire.Errorf(wire.Code_CODE_DENIED,
			"%s takes a member of the swarm, and this device is a worker: let an admin make an invite with \"ostrich invite --role member\" and join with it from another data folder", what)
	}
	for end := time.Now().Add(callLimit); len(r.now.Load().Voters()) == 0 && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return r.pages, nil
}

// SubmitJob passes a job on, its inputs packed. On an almost full disk nothing
// new begins; a job that has begun goes on as long as its inputs need no pages.
func (s *service) SubmitJob(ctx context.Context, r *connect.Request[wire.SubmitJobRequest]) (*connect.Response[wire.SubmitJobResponse], error) {
	pages, err := s.pages(ctx, "submitting a job")
	if err != nil {
		return nil, err
	}
	if err := pages.Space(); err != nil {
		return nil, err
	}
	request := r.Msg
	made, err := packInputs(ctx, pages, request.GetInputs())
	if err != nil {
		s.node.spare.add(made...)
		return nil, err
	}
	made = s.node.spare.ride(request.GetInputs(), made)
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_SubmitJob{SubmitJob: request}})
	if err != nil {
		s.node.spare.add(made...)
	}
	return answered(out.GetSubmitJob(), err)
}

// AppendInputs passes inputs on, packed. It waits as long as the client does:
// a job that has too many inputs unprocessed takes no more for a while.
func (s *service) AppendInputs(ctx context.Context, r *connect.Request[wire.AppendInputsRequest]) (*connect.Response[wire.AppendInputsResponse], error) {
	pages, err := s.pages(ctx, "adding inputs")
	if err != nil {
		return nil, err
	}
	made, err := packInputs(ctx, pages, r.Msg)
	if err != nil {
		s.node.spare.add(made...)
		return nil, err
	}
	made = s.node.spare.ride(r.Msg, made)
	out, err := s.node.worker.Link().Call(ctx, &wire.Request{Kind: &wire.Request_AppendInputs{AppendInputs: r.Msg}})
	if err != nil {
		s.node.spare.add(made...)
	}
	return answered(out.GetAppendInputs(), err)
}

// packInputs turns the items of an append into segments, their bytes inline if
// they are few, else in pages on a quorum. made is the hold of those, if there are
// any, after an error too.
func packInputs(ctx context.Context, pages *blob.Exchange, r *wire.AppendInputsRequest) (made [][]byte, err error) {
	p := packer{ctx: ctx, pages: pages, first: r.GetFirst(), hold: wire.NewHoldID()}
	for _, in := range r.GetItems() {
		if err = p.add(in); err != nil {
			break
		}
	}
	if err == nil {
		err = p.flush()
	}
	if p.stored {
		made = [][]byte{p.hold[:]}
	}
	if r != nil {
		r.Items, r.Segments, r.Holds = nil, p.segments, append(p.holds, made...)
	}
	return made, err
}

// packer gathers inputs into segments.
type packer struct {
	ctx      context.Context
	pages    *blob.Exchange
	first    uint32 // index of the first of items
	items    [][]byte
	size     int
	segments []*wire.Segment
	hold     wire.HoldID // of the pages of packs
	stored   bool        // some may be stored
	holds    [][]byte    // of blobs
}

func (p *packer) add(in *wire.Input) error {
	if b := in.GetBlob(); b != nil {
		if err := p.flush(); err != nil {
			return err
		}
		p.segments = append(p.segments, &wire.Segment{First: p.first, Count: 1, Blob: b, Bytes: b.GetSize()})
		if len(in.GetHold()) > 0 {
			p.holds = append(p.holds, in.GetHold())
		}
		p.first++
		return nil
	}
	size := wire.PackItemSize(len(in.GetData()))
	if len(p.items) > 0 && (p.size+size > maxPackBytes || len(p.items) == wire.MaxPackItems) {
		if err := p.flush(); err != nil {
			return err
		}
	}
	p.items = append(p.items, in.GetData())
	p.size += size
	return nil
}

func (p *packer) flush() error {
	if len(p.items) == 0 {
		return nil
	}
	packed := wire.EncodePack(p.items)
	segment := &wire.Segment{First: p.first, Count: uint32(len(p.items))}
	for _, item := range p.items {
		segment.Bytes += uint64(len(item))
	}
	if len(packed) <= wire.MaxInline {
		segment.Inline = packed
	} else {
		p.stored = true
		hash, err := p.pages.Put(p.ctx, p.hold, packed)
		if err != nil {
			return err
		}
		segment.Page = hash[:]
	}
	p.segments = append(p.segments, segment)
	p.first += segment.Count
	p.items, p.size = nil, 0
	return nil
}

// PutProgram stores a program, unless the swarm holds it, after a look whether
// it is one.
func (s *service) PutProgram(ctx context.Context, in *connect.ClientStream[wire.PutProgramRequest]) (*connect.Response[wire.PutProgramResponse], error) {
	pages, err := s.pages(ctx, "submitting a job")
	if err != nil {
		return nil, err
	}
	if !in.Receive() {
		return nil, cmpError(in.Err(), "a program without a first message")
	}
	head := in.Msg()
	name, want := head.GetName(), head.GetHash()
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_HasProgram{HasProgram: &wire.HasProgramRequest{Hash: want}}})
	if err != nil {
		return nil, err
	}
	if known := out.GetHasProgram().GetProgram(); known != nil {
		return connect.NewResponse(&wire.PutProgramResponse{Program: &wire.Program{Name: name, Blob: known.GetBlob()}}), nil
	}
	file, err := s.receiveProgram(in, head)
	if err != nil {
		return nil, fullDisk(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := s.node.pool.Check(ctx, file.Name()); err != nil {
		return nil, err
	}
	// The hold of a program has no command that ends it: its pages stay for a day
	// after its last job anyway.
	stored, err := pages.PutBlob(ctx, wire.NewHoldID(), file, wire.MaxProgram)
	if err != nil {
		return nil, err
	}
	stored.Hash = want
	return connect.NewResponse(&wire.PutProgramResponse{Program: &wire.Program{Name: name, Blob: stored}}), nil
}

// receiveProgram writes a program's bytes to a file and checks them against
// their hash. The file is open at its beginning.
func (s *service) receiveProgram(in *connect.ClientStream[wire.PutProgramRequest], head *wire.PutProgramRequest) (*os.File, error) {
	dir := s.node.folder.path("work")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(dir, "program-*.wasm")
	if err != nil {
		return nil, err
	}
	err = copyProgram(in, head, file)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		os.Remove(file.Name())
		return nil, err
	}
	return file, nil
}

// PutBlob stores one large input.
func (s *service) PutBlob(ctx context.Context, in *connect.ClientStream[wire.PutBlobRequest]) (*connect.Response[wire.PutBlobResponse], error) {
	pages, err := s.pages(ctx, "adding inputs")
	if err != nil {
		return nil, err
	}
	hold := wire.NewHoldID()
	stored, err := pages.PutBlob(ctx, hold, &blobReader{in: in}, wire.MaxBlob)
	if err != nil {
		s.node.spare.add(hold[:])
		return nil, err
	}
	return connect.NewResponse(&wire.PutBlobResponse{Blob: stored, Hold: hold[:]}), nil
}

// blobReader reads the bytes that a client streams.
type blobReader struct {
	in   *connect.ClientStream[wire.PutBlobRequest]
	rest []byte
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if !b.in.Receive() {
			if err := b.in.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		b.rest = b.in.Msg().GetData()
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// StreamResults streams results from a place on until the job has ended and all
// are sent, or, without follow, as far as they are there.
func (s *service) StreamResults(ctx context.Context, r *connect.Request[wire.StreamResultsRequest], out *connect.ServerStream[wire.StreamResultsResponse]) error {
	pages, err := s.pages(ctx, "reading results")
	if err != nil {
		return err
	}
	read := &wire.ReadResultsRequest{JobId: r.Msg.GetJobId(), Unordered: r.Msg.GetUnordered(), From: r.Msg.GetFrom()}
	for wait := firstReadWait; ; wait = readWait {
		if r.Msg.GetFollow() {
			read.WaitMs = wait.Milliseconds()
		}
		limited, cancel := context.WithTimeout(ctx, readWait+callLimit)
		answer, err := s.askFor(ctx, limited, &wire.Request{Kind: &wire.Request_ReadResults{ReadResults: read}})
		cancel()
		if err != nil {
			return err
		}
		batch := answer.GetReadResults()
		if err := sendResults(ctx, pages, out, batch); err != nil {
			return err
		}
		stuck := batch.GetNext() == read.From && len(batch.GetResults()) == 0
		read.From = batch.GetNext()
		if batch.GetEnd() || (stuck && !r.Msg.GetFollow()) {
			return nil
		}
	}
}

// sendResults sends one batch: small outputs with it, each large one in parts
// behind the message that names it.
func sendResults(ctx context.Context, pages *blob.Exchange, out *connect.ServerStream[wire.StreamResultsResponse], batch *wire.ReadResultsResponse) error {
	results := batch.GetResults()
	begin := 0
	for i, result := range results {
		if result.GetOutputBlob() == nil {
			continue
		}
		if err := out.Send(&wire.StreamResultsResponse{Results: results[begin : i+1]}); err != nil {
			return err
		}
		begin = i + 1
		w := &partWriter{out: out}
		if err := pages.ReadBlob(ctx, result.GetOutputBlob(), w); err != nil {
			return lostOutput(result, err)
		}
		if err := out.Send(&wire.StreamResultsResponse{LastPart: true}); err != nil {
			return err
		}
	}
	return out.Send(&wire.StreamResultsResponse{
		Results: results[begin:], Job: batch.GetJob(), Next: batch.GetNext(), End: batch.GetEnd(),
	})
}

// lostOutput says of which task an output cannot be read.
func lostOutput(r *wire.TaskResult, err error) error {
	if !errors.Is(err, blob.ErrMissing) {
		return err
	}
	return wire.Errorf(wire.Code_CODE_NOT_FOUND, "the output of task %d is lost: no member has it any more (%v); \"ostrich job results --from %d\" continues after it",
		r.GetIndex(), err, r.GetIndex()+1)
}

// partWriter sends what is written to it as parts of a large output.
type partWriter struct {
	out *connect.ServerStream[wire.StreamResultsResponse]
}

// Write implements io.Writer.
func (w *partWriter) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		part := p[sent:min(len(p), sent+partSize)]
		if err := w.out.Send(&wire.StreamResultsResponse{Data: part}); err != nil {
			return sent, err
		}
		sent += len(part)
	}
	return len(p), nil
}

// cmpError returns err, or an error with the text if there is none.
func cmpError(err error, text string) error {
	if err != nil {
		return err
	}
	return wire.Errorf(wire.Code_CODE_INVALID, "%s", text)
}
