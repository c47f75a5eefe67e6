//go:build unix

package main

import (
	"bytes"
	"errors"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// demoProcess starts the demo in a process group and a temporary folder of its
// own.
func demoProcess(t *testing.T, out *bytes.Buffer, flags ...string) (cmd *exec.Cmd, temp string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real nodes")
	}
	temp = t.TempDir()
	cmd = exec.Command(os.Args[0], append([]string{"demo"}, flags...)...)
	cmd.Env = append(os.Environ(), actAsOstrich+"=1", "TMPDIR="+temp)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	return cmd, temp
}

// groupEnds reports whether a process group is empty within a moment.
func groupEnds(pgid int) bool {
	for range 100 {
		if errors.Is(syscall.Kill(-pgid, 0), syscall.ESRCH) {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	return false
}

func TestDemoRendersAPictureAndCleansUp(t *testing.T) {
	demoLeavesAPicture(t)
}

func TestTheDemosPictureOutlivesTheCoordinator(t *testing.T) {
	said := demoLeavesAPicture(t, "--kill")
	words := regexp.MustCompile(`(demo-\d) coordinated and was killed after 130 tiles\. (demo-\d) took over: .* done ([0-9.]+) s after the kill`)
	m := words.FindStringSubmatch(said)
	if m == nil || m[1] == m[2] || m[3] == "0.00" {
		t.Fatalf("it does not say who was killed and how long that took:\n%s", said)
	}
	t.Log(m[0])
}

// demoLeavesAPicture runs the demo, and wants it to leave a picture and nothing
// else. It returns what the demo says.
func demoLeavesAPicture(t *testing.T, flags ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd, temp := demoProcess(t, &out, flags...)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v:\n%s", err, out.String())
	}
	if !groupEnds(cmd.Process.Pid) {
		t.Error("a process is left")
	}
	left, _ := collectNames(temp)
	if len(left) != 1 || filepath.Ext(left[0]) != ".png" || !strings.Contains(out.String(), left[0]) {
		t.Fatalf("left: %v; said:\n%s", left, out.String())
	}
	if !strings.Contains(out.String(), "The same, byte for byte") {
		t.Errorf("it does not say that the picture is right:\n%s", out.String())
	}
	f, err := os.Open(left[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if img, err := png.Decode(f); err != nil || img.Bounds().Dx() != pictureWidth || img.Bounds().Dy() != pictureHeight {
		t.Errorf("the picture: %v", err)
	}
	return out.String()
}

func TestAnInterruptedDemoLeavesNothing(t *testing.T) {
	for _, after := range []time.Duration{30 * time.Millisecond, 400 * time.Millisecond, 1500 * time.Millisecond, 4 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			var out bytes.Buffer
			cmd, temp := demoProcess(t, &out)
			time.Sleep(after) // the moment is the test's input
			cmd.Process.Signal(os.Interrupt)
			cmd.Wait()
			if status := cmd.ProcessState.ExitCode(); status != exitInterrupted && after > 100*time.Millisecond {
				t.Errorf("status %d:\n%s", status, out.String())
			}
			if !groupEnds(cmd.Process.Pid) {
				t.Error("a process is left")
			}
			if left, _ := collectNames(temp); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestAKilledDemoTakesItsNodesAlong(t *testing.T) {
	var out bytes.Buffer
	cmd, _ := demoProcess(t, &out)
	time.Sleep(2 * time.Second) // the nodes are up and at work
	cmd.Process.Kill()
	cmd.Wait()
	if !groupEnds(cmd.Process.Pid) {
		t.Error("a process is left")
	}
}
