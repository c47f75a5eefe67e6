//go:build unix

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestUpSaysReadyAndEndsWithStatus0(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real nodes")
	}
	dir := t.TempDir()
	ends := map[string]func(*exec.Cmd){
		"interrupt": func(cmd *exec.Cmd) { cmd.Process.Signal(os.Interrupt) },
		"SIGTERM":   func(cmd *exec.Cmd) { cmd.Process.Signal(syscall.SIGTERM) },
		"SIGTERM, to it and to its group, as timeout(1) does": func(cmd *exec.Cmd) {
			cmd.Process.Signal(syscall.SIGTERM)
			time.Sleep(2 * time.Millisecond) // two that wait together are one
			cmd.Process.Signal(syscall.SIGTERM)
		},
		"down": func(*exec.Cmd) {
			if status := run(t.Context(), []string{"down", "--data", dir}, strings.NewReader(""), io.Discard, io.Discard); status != 0 {
				t.Errorf("down: status %d", status)
			}
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "up", "--data", dir, "--no-mdns", "--public", "127.0.0.1:0", "--control", "127.0.0.1:0", "--p2p", "127.0.0.1:0")
			cmd.Env = append(os.Environ(), actAsOstrich+"=1")
			var out, errOut bytes.Buffer
			ready := &readyWriter{ready: make(chan struct{})}
			cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, ready), &errOut
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case <-ready.ready:
			case <-time.After(20 * time.Second):
				cmd.Process.Kill()
				<-ended
				t.Fatalf("not ready:\n%s", errOut.String())
			}
			end(cmd)
			if err := <-ended; err != nil {
				t.Errorf("%v:\n%s", err, errOut.String())
			}
			if out.String() != "ready\n" {
				t.Errorf("stdout is %q", out.String())
			}
		})
	}
}
