// Ostrich runs WebAssembly programs over many inputs on all the machines of a
// private swarm. This is its one program: the node ("ostrich up") and the
// command line that talks to the node of this machine.
//
// main does signals and the exit status, run all the rest; each command has a
// file of its own. It leaves everything but flags, files and the shape of
// outputs to the packages node and node/control.
package main

import (
	"context"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/p2p"
)

func main() {
	if sandbox.IsChild() {
		os.Exit(sandbox.ChildMain(os.Args[1:], os.Stdin, os.Stdout))
	}
	if browserbridge.IsChild() {
		os.Exit(browserbridge.ChildMain(os.Stdin, os.Stdout))
	}
	p2p.SetLibraryLog(slog.DiscardHandler)
	log.SetOutput(io.Discard) // some libraries of libp2p's write there
	ctx, stop := context.WithCancelCause(context.Background())
	watchSignals(stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// sameSignal is the time in which further signals are the first one again:
// timeout(1) and others signal a process and then its whole group.
const sameSignal = 500 * time.Millisecond

// watchSignals ends the context at the first signal that asks for it, and the
// process at the next one that is not the same again. A closed pipe becomes an
// error of its write.
func watchSignals(stop context.CancelCauseFunc) {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	asked := make(chan os.Signal, 2)
	signal.Notify(asked, signals...)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		<-asked
		first := time.Now()
		stop(errInterrupted)
		for range asked {
			if time.Since(first) > sameSignal {
				os.Exit(exitInterrupted)
			}
		}
	}()
}
