package coordinator_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func retryOf(job *wire.Job) *wire.Request {
	return &wire.Request{Kind: &wire.Request_RetryJob{RetryJob: &wire.RetryJobRequest{JobId: job.GetId(), EndedAtMs: job.GetEndedAtMs()}}}
}

func TestARetryAskedForTwiceHappensOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 2)
		id := client.submit(4, func(s *wire.JobSpec) { s.KeepGoing, s.Retries = true, 0 })
		worker.do(<-worker.leases, func(i uint32) error {
			if i > 0 {
				return errors.New("exit status 1")
			}
			return nil
		})
		_, ended := client.results(id, true)
		worker.conn.Close("good night", false)
		<-worker.ended
		retry := func(when string) {
			t.Helper()
			if got := client.call(retryOf(ended)).GetRetryJob().GetTasks(); got != 3 {
				t.Errorf("%s: %d tasks run again, want 3", when, got)
			}
		}
		retry("at first")
		retry("asked again at once")
		unseen := &wire.Request{Kind: &wire.Request_RetryJob{RetryJob: &wire.RetryJobRequest{JobId: string(id)}}}
		if got := client.call(unseen).GetRetryJob().GetTasks(); got != 3 {
			t.Errorf("by who has seen no end: %d tasks run again, want 3", got)
		}
		again := h.dial(worker.id, 2)
		time.Sleep(time.Second)
		again.do(<-again.leases, func(uint32) error { return errors.New("exit status 1") })
		_, job := client.results(id, true)
		retry("asked again when it has ended again")
		if after := client.job(id); after.GetEndedAtMs() != job.GetEndedAtMs() || after.GetTasks().GetFailed() != 3 {
			t.Errorf("that opened it once more: %v", after)
		}
		if got := client.call(retryOf(job)).GetRetryJob().GetTasks(); got != 3 {
			t.Errorf("a retry of the second end: %d tasks run again, want 3", got)
		}
		if client.job(id).GetEndedAtMs() != 0 {
			t.Error("a retry of the second end opened nothing")
		}
	})
}

func TestARemovalMeansTheJobThatItsAskerSaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		id := client.submit(1, nil)
		seen := client.job(id)
		removal := &wire.Request{Kind: &wire.Request_RemoveJob{RemoveJob: &wire.RemoveJobRequest{JobId: string(id), CreatedAtMs: seen.GetCreatedAtMs()}}}
		client.call(removal)
		time.Sleep(time.Second)
		client.submitAs(id, [][]byte{[]byte("x")}, seen.GetSpec())
		client.call(removal) // its first answer was lost
		if job := client.job(id); job.GetCreatedAtMs() == seen.GetCreatedAtMs() {
			t.Errorf("the job is %v", job)
		}
		client.call(removeOf(id))
		if _, err := client.conn.Call(t.Context(), readOf(id, 0)); wire.CodeOf(err) != wire.Code_CODE_NOT_FOUND {
			t.Errorf("a removal of whichever there is left it: %v", err)
		}
	})
}

func TestAPageIsCompressedForWhoAsksForItWhereThatHelps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		plain := bytes.Repeat([]byte("all work and no play "), 10_000)
		noise := make([]byte, 5000)
		for i, x := 0, uint32(1); i < len(noise); i++ {
			x = x*1664525 + 1013904223
			noise[i] = byte(x >> 24)
		}
		for name, tt := range map[string]struct {
			page            []byte
			offset, length  uint32
			ask, compressed bool
		}{
			"not asked for":  {plain, 0, 1000, false, false},
			"asked for":      {plain, 0, 1000, true, true},
			"a later range":  {plain, 1_000, wire.MaxChunk, true, true},
			"beyond its end": {plain, 1 << 20, 1000, true, false},
			"noise":          {noise, 0, 5000, true, false},
		} {
			hash, err := h.pages.PutReserved(t.Context(), wire.NewHoldID(), tt.page)
			if err != nil {
				t.Fatal(err)
			}
			client.submitWithPage(hash)
			out := client.call(&wire.Request{Kind: &wire.Request_ReadPage{ReadPage: &wire.ReadPageRequest{
				Hash: hash[:], Offset: tt.offset, Length: tt.length, Deflate: tt.ask,
			}}}).GetReadPage()
			got := out.GetData()
			if out.GetDeflated() != tt.compressed {
				t.Errorf("%s: compressed is %v", name, out.GetDeflated())
			}
			if out.GetDeflated() {
				if got, err = io.ReadAll(flate.NewReader(bytes.NewReader(got))); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			from := min(int(tt.offset), len(tt.page))
			if want := tt.page[from:min(from+int(tt.length), len(tt.page))]; !bytes.Equal(got, want) || int(out.GetSize()) != len(tt.page) {
				t.Errorf("%s: %d bytes of %d came, want %d", name, len(got), out.GetSize(), len(want))
			}
		}
	})
}

// submitWithPage makes a job one of whose inputs lies in a page, which nothing
// reads: no device is there.
func (p *peer) submitWithPage(page wire.Hash) {
	p.h.t.Helper()
	id := p.submit(1, nil)
	spec := p.job(id).GetSpec()
	other := id + "-paged"
	digest := hashOf(string(other))
	p.call(&wire.Request{Kind: &wire.Request_SubmitJob{SubmitJob: &wire.SubmitJobRequest{
		JobId: string(other), Spec: spec, Close: true,
		Inputs: &wire.AppendInputsRequest{
			JobId: string(other), DigestAfter: digest,
			Segments: []*wire.Segment{{Count: 1, Page: page[:], Bytes: 1}},
		},
	}}})
}
