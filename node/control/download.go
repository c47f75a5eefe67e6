package control

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// ResultsOptions says which results of a job to read.
type ResultsOptions struct {
	JobID wire.JobID
	// Unordered reads them in the order of completion instead of by index.
	Unordered bool
	// From is the first index, or number of completion, to read.
	From uint32
	// Follow waits for results until the job has ended; without it, the call
	// ends with those that are there.
	Follow   bool
	Patience Patience
	// Progress, if not nil, is told how the job stands, now and then.
	Progress func(*wire.Job)
}

// Results calls each for every result, in order, with a reader of its output
// that is valid during the call; what each leaves unread is skipped. A lost
// stream is opened again where it broke, in the middle of an output too. It
// returns the job as the end of the stream had it, or each's error.
func (c *Client) Results(ctx context.Context, o ResultsOptions, each func(*wire.TaskResult, io.Reader) error) (*wire.Job, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &download{c: c, ctx: ctx, o: o, next: o.From, wait: o.Patience.wait()}
	defer d.drop()
	for {
		r, err := d.nextResult()
		if err != nil {
			return d.job, err
		}
		if r == nil {
			break
		}
		if err := d.deliver(r, each); err != nil {
			return d.job, err
		}
	}
	if d.job == nil {
		res, err := Call(ctx, c.GetJob, &wire.GetJobRequest{JobId: string(o.JobID)})
		if err != nil {
			return nil, err
		}
		d.job = res.GetJob()
	}
	return d.job, nil
}

// download is one reading of a job's results.
type download struct {
	c    *Client
	ctx  context.Context
	o    ResultsOptions
	wait *waiter

	stream *connect.ServerStreamForClient[wire.StreamResultsResponse]
	next   uint32             // where a new stream has to begin
	queue  []*wire.TaskResult // came, not delivered
	part   []byte             // of the large output that is being read
	last   bool               // no part follows
	ended  bool               // the server has sent all
	job    *wire.Job
}

// place is a result's place in the order that is read.
func (d *download) place(r *wire.TaskResult) uint32 {
	if d.o.Unordered {
		return r.GetNumber()
	}
	return r.GetIndex()
}

// nextResult returns nil at the end.
func (d *download) nextResult() (*wire.TaskResult, error) {
	for len(d.queue) == 0 {
		if d.ended {
			return nil, nil
		}
		if err := d.receive(); err != nil {
			return nil, err
		}
	}
	r := d.queue[0]
	d.queue = d.queue[1:]
	if d.place(r) < d.next {
		return nil, wire.Errorf(wire.Code_CODE_INTERNAL, "the node sent result %d of job %s out of order", d.place(r), d.o.JobID)
	}
	return r, nil
}

// deliver hands one result on, and moves past it.
func (d *download) deliver(r *wire.TaskResult, each func(*wire.TaskResult, io.Reader) error) error {
	if r.GetOutputBlob() == nil {
		if err := each(r, bytes.NewReader(r.GetOutput())); err != nil {
			return err
		}
		d.next = d.place(r) + 1
		return nil
	}
	d.next = d.place(r)
	out := &largeOutput{d: d, result: r, passed: uint64(len(d.part))}
	if err := each(r, out); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		return err
	}
	d.part, d.last, d.next = nil, false, d.place(r)+1
	return nil
}

// receive takes one message, on a new stream if the one before broke.
func (d *download) receive() error {
	for {
		err := d.receiveOnce()
		if err == nil {
			d.wait.done()
			return nil
		}
		d.drop()
		if !Transient(err) {
			return err
		}
		if err := d.wait.pause(d.ctx, err); err != nil {
			return err
		}
	}
}

func (d *download) receiveOnce() error {
	if d.stream == nil {
		stream, err := d.c.StreamResults(d.ctx, connect.NewRequest(&wire.StreamResultsRequest{
			JobId: string(d.o.JobID), Unordered: d.o.Unordered, From: d.next, Follow: d.o.Follow,
		}))
		if err != nil {
			return err
		}
		d.stream = stream
	}
	if !d.stream.Receive() {
		if err := d.stream.Err(); err != nil {
			return err
		}
		if d.o.Follow {
			return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the node ended the results of job %s before their end", d.o.JobID)
		}
		d.ended = true
		return nil
	}
	msg := d.stream.Msg()
	d.queue = append(d.queue, msg.GetResults()...)
	d.part = msg.GetData()
	d.last = d.last || msg.GetLastPart()
	if msg.GetJob() != nil {
		d.job = msg.GetJob()
		if d.o.Progress != nil {
			d.o.Progress(d.job)
		}
	}
	if msg.GetEnd() {
		d.ended = true
	}
	return nil
}

// drop forgets the stream and what came on it.
func (d *download) drop() {
	if d.stream != nil {
		d.stream.Close()
	}
	d.stream, d.queue, d.part = nil, nil, nil
}

// largeOutput reads an output that comes in parts.
type largeOutput struct {
	d      *download
	result *wire.TaskResult
	read   uint64 // bytes handed out
	passed uint64 // bytes of the present stream's copy gone by
}

// Read reads on, over as many streams as it takes.
func (l *largeOutput) Read(p []byte) (int, error) {
	d := l.d
	for len(d.part) == 0 {
		if d.last {
			return 0, l.complete()
		}
		if err := l.more(); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.part)
	d.part = d.part[n:]
	l.read += uint64(n)
	return n, nil
}

func (l *largeOutput) complete() error {
	if want := l.result.GetOutputBlob().GetSize(); l.read != want {
		return wire.Errorf(wire.Code_CODE_INTERNAL, "the output of task %d has %d bytes, but %d came", l.result.GetIndex(), want, l.read)
	}
	return io.EOF
}

// more takes a message and leaves in d.part what has not been read before.
func (l *largeOutput) more() error {
	d := l.d
	if d.ended {
		return wire.Errorf(wire.Code_CODE_INTERNAL, "the results of job %s ended within the output of task %d", d.o.JobID, l.result.GetIndex())
	}
	before := d.stream
	if err := d.receive(); err != nil {
		return err
	}
	if d.stream != before && d.stream != nil {
		// A new stream begins with the same result again.
		if len(d.queue) == 0 || d.place(d.queue[0]) != d.place(l.result) {
			return fmt.Errorf("the node sent another result instead of the rest of task %d: %w", l.result.GetIndex(),
				wire.Errorf(wire.Code_CODE_INTERNAL, "results out of order"))
		}
		d.queue = d.queue[1:]
		l.passed = 0
	}
	known := min(l.read-min(l.read, l.passed), uint64(len(d.part)))
	l.passed += uint64(len(d.part))
	d.part = d.part[known:]
	return nil
}
