package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// childVariable marks a child's environment.
const childVariable = "OSTRICH_SANDBOX_CHILD"

// childQueue bounds the frames that wait in a child. A pool sends fewer ahead.
const childQueue = 1024

// IsChild reports whether this process was started by a Pool, and must call
// ChildMain instead of anything else.
func IsChild() bool { return os.Getenv(childVariable) == "1" }

// ChildMain is a child's whole life: it serves the pool at the other end of in
// and out until in ends, when the process exits at once, whatever it is doing.
// Otherwise it returns an exit status. The arguments are of no use to it: they
// are there for those who list processes.
func ChildMain(_ []string, in io.Reader, out io.Writer) int {
	// What a terminal or a service manager sends to all processes of a group is
	// for the node, which ends its children when it wants to.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	// One thread runs the program, one sees to the pipes.
	runtime.GOMAXPROCS(max(2, min(4, runtime.GOMAXPROCS(0))))
	limitProcess()
	r := bufio.NewReaderSize(in, 64<<10)
	first, err := readFrame(r, maxTaskFrame)
	if err != nil || first.kind != frameStart {
		fmt.Fprintln(os.Stderr, "this process serves a sandbox and was not started by one")
		return 1
	}
	e, err := newEngine(string(first.body))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c := &server{engine: e, out: newOutbox(out), frames: make(chan frame, childQueue)}
	if err = c.tell(frameReady, ""); err == nil {
		go c.read(r)
		err = c.serve()
	}
	c.out.close()
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// server is the child's side of the protocol.
type server struct {
	engine  *engine
	out     *outbox
	frames  chan frame
	program *program
	task    task
}

// read reads frames until the pool is gone, and then ends the process. It never
// waits for anything but the pipe, so that it notices at once.
func (c *server) read(r *bufio.Reader) {
	for {
		f, err := readFrame(r, maxTaskFrame)
		if err != nil {
			os.Exit(0)
		}
		select {
		case c.frames <- f:
		default:
			fmt.Fprintln(os.Stderr, "the pool sent too much ahead")
			os.Exit(1)
		}
	}
}

// serve works on frames until the pipe to the pool breaks.
func (c *server) serve() error {
	for f := range c.frames {
		var err error
		switch f.kind {
		case frameProgram:
			err = c.load(f.body)
		case frameTask:
			err = c.run(f.body)
		case frameCheck:
			err = c.check(string(f.body))
		default:
			err = errFrame
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// load makes a program the current one. If it cannot be, there is none, and the
// tasks that follow are dropped.
func (c *server) load(body []byte) error {
	if len(body) < len(wire.Hash{}) {
		return errFrame
	}
	hash, path := wire.Hash(body[:32]), string(body[32:])
	if c.program = c.engine.kept(hash); c.program != nil {
		return nil
	}
	if c.engine.full() {
		return c.spent(errWorn)
	}
	if err := c.tell(frameCompiling, ""); err != nil {
		return err
	}
	module, found, err := readModule(path)
	after := false
	switch {
	case err != nil:
		err = fmt.Errorf("the program cannot be read: %w", err)
	case found != hash:
		err = fmt.Errorf("the program's file %s is damaged: its SHA-256 is %s, not %s", path, found, hash)
	default:
		c.program, after, err = c.engine.compile(hash, module)
		if broken := (*unsound)(nil); errors.As(err, &broken) {
			return c.spent(err)
		}
		if err != nil {
			err = fmt.Errorf("the program cannot run: %w", err)
		}
	}
	if err != nil {
		return c.tell(frameRefused, cut(err.Error(), wire.MaxErrorText))
	}
	return c.tell(frameCompiled, condition(after))
}

// condition is the word for whether a child is worn.
func condition(isWorn bool) string {
	if isWorn {
		return conditionWorn
	}
	return conditionSound
}

// spent says that this child ends, and why; it returns the error that ends it.
func (c *server) spent(why error) error {
	text := ""
	if why != errWorn {
		text = cut(why.Error(), wire.MaxErrorText)
	}
	if err := c.tell(frameSpent, text); err != nil {
		return err
	}
	return why
}

// tell sends a frame at once.
func (c *server) tell(kind byte, body string) error {
	return c.out.add(true, func(b []byte) []byte { return appendFrame(b, kind, body) })
}

// run runs a task of the current program and sends its result, which may wait
// for others while there is more to do.
func (c *server) run(body []byte) error {
	if err := c.task.decode(body); err != nil {
		return err
	}
	if c.program == nil {
		return nil
	}
	res, inFile, err := c.engine.run(c.program, &c.task)
	if err != nil {
		return c.spent(err)
	}
	return c.out.add(len(c.frames) == 0, func(b []byte) []byte { return appendResult(b, &res, inFile) })
}

// check compiles a program and says what is wrong with it.
func (c *server) check(path string) error {
	if path == "" {
		return c.probe()
	}
	module, hash, err := readModule(path)
	if system := (*fs.PathError)(nil); errors.As(err, &system) {
		return c.tell(frameChecked, conditionSound+checkUnread+cut(err.Error(), wire.MaxErrorText))
	}
	after := false
	if err == nil && c.engine.kept(hash) == nil {
		if c.engine.full() {
			return c.spent(errWorn)
		}
		_, after, err = c.engine.compile(hash, module)
	}
	if broken := (*unsound)(nil); errors.As(err, &broken) {
		return c.spent(err)
	}
	if err != nil {
		return c.tell(frameChecked, condition(after)+checkUnfit+cut(err.Error(), wire.MaxErrorText))
	}
	return c.tell(frameChecked, condition(after)+checkFit)
}

// tinyProgram is a command that does nothing, with 16 pages of memory.
const tinyProgram = "\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // a type: no parameters, no results
	"\x03\x02\x01\x00" + "\x05\x03\x01\x00\x10" + // a function, a memory
	"\x07\x13\x02\x06_start\x00\x00\x06memory\x02\x00" + // exports
	"\x0a\x04\x01\x02\x00\x0b" // the function's body

// probe runs a tiny program, as any task runs.
func (c *server) probe() error {
	p, _, err := c.engine.compile(wire.HashOf([]byte(tinyProgram)), []byte(tinyProgram))
	if err != nil {
		return c.spent(err)
	}
	res, _, err := c.engine.run(p, &task{memoryMiB: 16})
	if err == nil && res.Error != "" {
		err = errors.New(res.Error)
	}
	if err != nil {
		return c.spent(err)
	}
	return c.tell(frameChecked, conditionSound+checkFit)
}
