package sandbox

import (
	"bufio"
	"fmt"
	"io"
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
	if err := c.tell(frameCompiling, ""); err != nil {
		return err
	}
	module, found, err := readModule(path)
	switch {
	case err != nil:
		err = fmt.Errorf("the program cannot be read: %w", err)
	case found != hash:
		err = fmt.Errorf("the program's file %s is damaged: its SHA-256 is %s, not %s", path, found, hash)
	default:
		if c.program, err = c.engine.compile(hash, module); err != nil {
			err = fmt.Errorf("the program cannot run: %w", err)
		}
	}
	if err != nil {
		return c.tell(frameRefused, cut(err.Error(), wire.MaxErrorText))
	}
	return c.tell(frameCompiled, "")
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
	res, inFile := c.engine.run(c.program, &c.task)
	return c.out.add(len(c.frames) == 0, func(b []byte) []byte { return appendResult(b, &res, inFile) })
}

// check compiles a program and says what is wrong with it.
func (c *server) check(path string) error {
	module, hash, err := readModule(path)
	if err == nil && c.engine.kept(hash) == nil {
		_, err = c.engine.compile(hash, module)
	}
	if err != nil {
		return c.tell(frameChecked, cut(err.Error(), wire.MaxErrorText))
	}
	return c.tell(frameChecked, "")
}
