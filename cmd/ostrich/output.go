package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// resultWriter puts the results of tasks out, one after the other.
type resultWriter struct {
	out    *bufio.Writer
	err    io.Writer
	json   bool
	raw    bool   // outputs go out as they are, without a newline added
	dir    string // each output goes to a file here instead; "" means stdout
	clean  bool   // stderr is a terminal: nothing may play with it
	aside  func(func() error) error
	failed uint64
	last   *wire.TaskResult // of a failed task
}

// newResultWriter makes the folder of --out, if there is one.
func (a *app) newResultWriter(asJSON bool, dir string) (*resultWriter, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, fmt.Errorf("the folder for the outputs: %w", err)
		}
	}
	return &resultWriter{
		out: bufio.NewWriterSize(a.out, 64<<10), err: a.err, json: asJSON, dir: dir, clean: isTerminal(a.err),
		aside: func(f func() error) error { return f() },
	}, nil
}

// write puts one result out, flushed. A large output is not held in memory.
func (w *resultWriter) write(r *wire.TaskResult, output io.Reader) error {
	return w.aside(func() error {
		if err := w.put(r, output); err != nil {
			return err
		}
		return w.out.Flush()
	})
}

func (w *resultWriter) put(r *wire.TaskResult, output io.Reader) error {
	ok := r.GetStatus() == wire.TaskStatus_TASK_STATUS_OK
	if !ok {
		w.failed++
		w.last = r
		output = bytes.NewReader(nil)
		if !w.json && !w.raw {
			w.complain(r)
		}
	}
	if ok && w.raw && !w.json {
		for _, line := range stderrLines(r) {
			fmt.Fprintln(w.err, w.printable(line))
		}
	}
	if w.dir != "" && ok {
		return w.toFile(r, output)
	}
	switch {
	case w.json:
		return w.object(r, output)
	case !ok || w.dir != "":
		return nil
	case w.raw:
		_, err := io.Copy(w.out, output)
		return err
	}
	end := &lastByte{w: w.out}
	if _, err := io.Copy(end, output); err != nil {
		return err
	}
	if end.b != '\n' {
		return w.out.WriteByte('\n')
	}
	return nil
}

// complain says why a task failed.
func (w *resultWriter) complain(r *wire.TaskResult) {
	prefix := fmt.Sprintf("task %d: ", r.GetIndex())
	for _, line := range stderrLines(r) {
		fmt.Fprintf(w.err, "%s%s\n", prefix, w.printable(line))
	}
	if r.GetError() != "" {
		fmt.Fprintf(w.err, "%s%s\n", prefix, w.printable(r.GetError()))
	}
}

// stderrLines returns what a task wrote on stderr, line by line.
func stderrLines(r *wire.TaskResult) []string {
	if len(r.GetStderr()) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(r.GetStderr()), "\n"), "\n")
}

// printable keeps a program's words from steering the terminal.
func (w *resultWriter) printable(s string) string {
	if !w.clean {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}

// toFile writes an output to DIR/INDEX, which appears when it is complete.
func (w *resultWriter) toFile(r *wire.TaskResult, output io.Reader) error {
	name := strconv.FormatUint(uint64(r.GetIndex()), 10)
	part := filepath.Join(w.dir, fmt.Sprintf(".%s.part-%d", name, os.Getpid()))
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return fmt.Errorf("writing the output of task %s: %w", name, err)
	}
	defer os.Remove(part)
	if w.json {
		err = w.object(r, io.TeeReader(output, f))
	} else {
		_, err = io.Copy(f, output)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(part, filepath.Join(w.dir, name))
	}
	if err != nil {
		return fmt.Errorf("writing the output of task %s: %w", name, err)
	}
	return nil
}

// object writes a result as one object on one line: what comes before the
// output, the output in base64 as it streams, what comes after.
func (w *resultWriter) object(r *wire.TaskResult, output io.Reader) error {
	head, tail := resultView(r)
	first, err := json.Marshal(head)
	if err != nil {
		return err
	}
	second, err := json.Marshal(tail)
	if err != nil {
		return err
	}
	w.out.Write(first[:len(first)-1])
	w.out.WriteString(`,"output":"`)
	encoder := base64.NewEncoder(base64.StdEncoding, w.out)
	if _, err := io.Copy(encoder, output); err != nil {
		return err
	}
	if err := encoder.Close(); err != nil {
		return err
	}
	w.out.WriteString(`",`)
	w.out.Write(second[1:])
	return w.out.WriteByte('\n')
}

// lastByte passes on what is written and remembers its last byte.
type lastByte struct {
	w io.Writer
	b byte
}

// Write writes on.
func (l *lastByte) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.b = p[len(p)-1]
	}
	return l.w.Write(p)
}

// jobOutcome is the status and the words for a job that has ended, or that the
// results of were read while it goes on.
func jobOutcome(job *wire.Job, failed uint64) error {
	id := wire.JobID(job.GetId())
	failed = max(failed, job.GetTasks().GetFailed())
	switch {
	case job.GetState() == wire.JobState_JOB_STATE_CANCELLED:
		reason := job.GetError()
		if reason == "" {
			reason = "somebody cancelled it"
		}
		return fmt.Errorf("job %s was cancelled: %s", id.Short(), reason)
	case failed > 0:
		words := fmt.Sprintf("%d of %d tasks failed", failed, job.GetTasks().GetTotal())
		if job.GetState() == wire.JobState_JOB_STATE_FAILED {
			words += "; run them again with: ostrich job retry " + id.Short()
		}
		return &exitError{exitTasksFailed, errors.New(words)}
	case job.GetState() == wire.JobState_JOB_STATE_FAILED:
		reason := job.GetError()
		if reason == "" {
			reason = "no reason is known"
		}
		return fmt.Errorf("job %s failed: %s", id.Short(), reason)
	}
	return nil
}
