package coordinator_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// output is a large output in one page.
func output(seed string) []byte { return bytes.Repeat([]byte(seed), 100<<10/len(seed)) }

// write writes the page of an output of a task, as a worker does.
func (p *peer) write(l *wire.Lease, index uint32, page []byte) error {
	hash := wire.HashOf(page)
	_, err := p.conn.Call(p.h.t.Context(), &wire.Request{Kind: &wire.Request_WritePage{WritePage: &wire.WritePageRequest{
		Hash: hash[:], Size: uint32(len(page)), Data: page, Attempt: l.GetClaim().GetAttempt(), Index: index,
	}}})
	return err
}

// name sends the result of a task whose output lies in one page.
func (p *peer) name(l *wire.Lease, index uint32, page []byte) {
	hash := wire.HashOf(page)
	p.send(l, &wire.TaskResult{Index: index, Status: wire.TaskStatus_TASK_STATUS_OK, OutputBlob: &wire.Blob{Size: uint64(len(page)), Pages: [][]byte{hash[:]}}})
}

// acked waits until the task of a lease is acknowledged.
func (p *peer) acked(within time.Duration) *wire.ResultsAck {
	p.h.t.Helper()
	select {
	case a := <-p.acks:
		return a
	case <-time.After(within):
		p.h.t.Fatalf("nothing was acknowledged within %v", within)
		return nil
	}
}

// The second of two equal jobs has its output stored again: that of the first was
// given back with it.
func TestTheSameOutputAgainIsStoredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client, worker := h.dial(h.founder, 0), h.worker(2, 1)
		page := output("again")
		for round := range 3 {
			id := client.submit(1, nil)
			lease := <-worker.leases
			if err := worker.write(lease, 0, page); err != nil {
				t.Fatal(err)
			}
			worker.name(lease, 0, page)
			if _, job := client.results(id, false); job.GetState() != wire.JobState_JOB_STATE_DONE {
				t.Fatalf("job %d is %v", round, job)
			}
			if !h.pages.has(wire.HashOf(page)) {
				t.Fatalf("job %d is done, and its output is nowhere", round)
			}
			client.call(removeOf(id))
			h.pages.lose(wire.HashOf(page))
		}
	})
}

func TestALostOutputIsWrittenAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client, worker := h.dial(h.founder, 0), h.worker(2, 1)
		page := output("lost")
		id := client.submit(1, func(s *wire.JobSpec) { s.Retries = 0 })
		lease := <-worker.leases
		if err := worker.write(lease, 0, page); err != nil {
			t.Fatal(err)
		}
		h.pages.lose(wire.HashOf(page))
		begun := time.Now()
		worker.name(lease, 0, page)
		if a := worker.acked(3 * time.Second); len(a.GetIndexes()) != 0 || len(a.GetLost()) != 1 {
			t.Fatalf("the device is told %v", a)
		}
		time.Sleep(500 * time.Millisecond)
		if err := worker.write(lease, 0, page); err != nil {
			t.Fatalf("writing it anew: %v", err)
		}
		worker.name(lease, 0, page)
		results, _ := client.results(id, false)
		if r := results[0]; r.GetStatus() != wire.TaskStatus_TASK_STATUS_OK || r.GetAttempts() != 1 {
			t.Errorf("recorded was %v", r)
		}
		if took := time.Since(begun); took >= 2*time.Second {
			t.Errorf("it was recorded %v after it had been lost, not when it was written", took)
		}
	})
}

func TestAnOutputThatIsNotWrittenAnewIsAFailureOfItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client, bad := h.dial(h.founder, 0), h.worker(2, 1)
		id := client.submit(1, func(s *wire.JobSpec) { s.Retries = 0 })
		lease := <-bad.leases
		begun := time.Now()
		bad.name(lease, 0, output("never"))
		good := h.worker(3, 1)
		good.serve(nil)
		results, _ := client.results(id, false)
		if r := results[0]; r.GetStatus() != wire.TaskStatus_TASK_STATUS_OK || r.GetDevice() != string(good.id.ID) {
			t.Errorf("recorded was %v", r)
		}
		if took := time.Since(begun); took < time.Minute || took > 70*time.Second {
			t.Errorf("the device had %v to write it anew, want a minute", took)
		}
	})
}

// While most voters do not answer, nobody can tell, and no device is to blame.
func TestTimeWithoutVotersIsNotTheDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client, worker := h.dial(h.founder, 0), h.worker(2, 1)
		page := output("quorum")
		id := client.submit(1, func(s *wire.JobSpec) { s.Retries = 0 })
		lease := <-worker.leases
		if err := worker.write(lease, 0, page); err != nil {
			t.Fatal(err)
		}
		away := func(yes bool) {
			h.pages.mu.Lock()
			defer h.pages.mu.Unlock()
			h.pages.away = yes
		}
		away(true)
		worker.name(lease, 0, page)
		time.Sleep(10 * time.Minute)
		away(false)
		results, _ := client.results(id, false)
		if results[0].GetStatus() != wire.TaskStatus_TASK_STATUS_OK {
			t.Errorf("recorded was %v", results[0])
		}
	})
}

func TestABadResultDelaysNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client, bad := h.dial(h.founder, 0), h.worker(2, 1)
		const tasks = 1024
		spoilt := client.submit(tasks, func(s *wire.JobSpec) { s.Retries = 0; s.KeepGoing = true })
		over := make(chan struct{})
		defer close(over)
		go func() {
			for {
				select {
				case lease := <-bad.leases:
					if lease.GetClaim().GetJobId() != string(spoilt) {
						bad.do(lease, nil) // nobody suspects it
						continue
					}
					for _, index := range lease.GetClaim().GetIndexes() {
						bad.name(lease, index, fmt.Appendf(nil, "nowhere %d", index))
						bad.name(lease, index, fmt.Appendf(nil, "elsewhere %d", index))
					}
				case <-bad.acks:
				case <-over:
					return
				}
			}
		}()
		time.Sleep(time.Second)
		good := h.worker(3, 1)
		good.serve(nil)
		begun := time.Now()
		for range 10 {
			if _, job := client.results(client.submit(20, nil), false); job.GetState() != wire.JobState_JOB_STATE_DONE {
				t.Fatalf("the job of others is %v", job)
			}
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("ten jobs of others took %v", took)
		}
		bad.conn.Close("done harm", false)
		if results, job := client.results(spoilt, false); len(results) != tasks || job.GetTasks().GetFailed() != 0 {
			t.Errorf("the spoilt job has %d results and is %v", len(results), job)
		}
	})
}

// The bytes of a device's results that wait are bounded: it is given no more, and
// others are.
func TestADeviceThatSendsTooMuchIsSlowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client, heavy, light := h.dial(h.founder, 0), h.worker(2, 500), h.worker(3, 1)
		id := client.submit(200, func(s *wire.JobSpec) { s.KeepGoing = true })
		stuck := wire.Errorf(wire.Code_CODE_UNKNOWN_OUTCOME, "the disk is slow")
		time.Sleep(time.Second)
		h.group.setFail(stuck)
		sent := make(chan int, 1)
		go func() {
			n := 0
			for len(heavy.leases) > 0 {
				l := <-heavy.leases
				for _, index := range l.GetClaim().GetIndexes() {
					r := &wire.TaskResult{Index: index, Status: wire.TaskStatus_TASK_STATUS_OK, Output: make([]byte, 200<<10)}
					frame := &wire.Frame{Kind: &wire.Frame_Results{Results: &wire.Results{JobId: string(id), Attempt: l.GetClaim().GetAttempt(), Results: []*wire.TaskResult{r}}}}
					if heavy.conn.Send(t.Context(), frame) != nil {
						break
					}
					n++
				}
			}
			sent <- n
		}()
		time.Sleep(20 * time.Second)
		const most = (8 << 20) / (200 << 10)
		if n := <-sent; n < most || n > most+20 {
			t.Errorf("%d results were taken while none could be recorded, want about %d", n, most)
		}
		light.do(<-light.leases, nil)
		time.Sleep(time.Second)
		h.group.setFail(nil)
		if a := light.acked(time.Second); len(a.GetIndexes()) == 0 {
			t.Errorf("the other device is told %v", a)
		}
		light.serve(nil)
		heavy.serve(nil)
		if results, _ := client.results(id, false); len(results) != 200 {
			t.Errorf("%d results of 200", len(results))
		}
	})
}

func TestHalfWrittenPagesAreForgotten(t *testing.T) {
	begin := func(p *peer, l *wire.Lease, index uint32, seed string) []byte {
		page := bytes.Repeat([]byte(seed), wire.PageSize/len(seed))
		hash := wire.HashOf(page)
		_, err := p.conn.Call(p.h.t.Context(), &wire.Request{Kind: &wire.Request_WritePage{WritePage: &wire.WritePageRequest{
			Hash: hash[:], Size: uint32(len(page)), Data: page[:wire.MaxChunk], Attempt: l.GetClaim().GetAttempt(), Index: index,
		}}})
		if err != nil {
			p.h.t.Fatalf("beginning a page: %v", err)
		}
		return page
	}
	goOn := func(p *peer, page []byte) error {
		hash := wire.HashOf(page)
		_, err := p.conn.Call(p.h.t.Context(), &wire.Request{Kind: &wire.Request_WritePage{WritePage: &wire.WritePageRequest{
			Hash: hash[:], Size: uint32(len(page)), Offset: wire.MaxChunk, Data: page[wire.MaxChunk : 2*wire.MaxChunk],
		}}})
		return err
	}
	test := func(name string, after func(h *harness, client *peer, id wire.JobID), forgotten bool) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				client, worker := h.dial(h.founder, 0), h.worker(2, 2)
				id := client.submit(1, nil)
				page := begin(worker, <-worker.leases, 0, "half")
				other := client.submit(1, nil) // keeps it busy
				<-worker.leases
				after(h, client, id)
				if err := goOn(worker, page); (err != nil) != forgotten {
					t.Errorf("going on with it: %v", err)
				}
				client.call(removeOf(other))
			})
		})
	}
	test("not yet", func(*harness, *peer, wire.JobID) { time.Sleep(29 * time.Second) }, false)
	test("after a while", func(*harness, *peer, wire.JobID) { time.Sleep(32 * time.Second) }, true)
	test("with their task", func(_ *harness, client *peer, id wire.JobID) {
		client.call(&wire.Request{Kind: &wire.Request_CancelJob{CancelJob: &wire.CancelJobRequest{JobId: string(id)}}})
	}, true)
	t.Run("many, and none stands in the way of more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t)
			client, worker := h.dial(h.founder, 0), h.worker(2, 2)
			client.submit(1, nil)
			lease := <-worker.leases
			for i := range 40 {
				begin(worker, lease, 0, fmt.Sprintf("%08d", i))
			}
			if err := worker.write(lease, 0, output("whole")); err != nil {
				t.Errorf("after 40 that were given up: %v", err)
			}
		})
	})
}
