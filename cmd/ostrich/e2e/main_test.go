package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// ostrich is the built program, and scratch the folder that it lies in, with
// all that the tests make beside it. TestMain sets both.
var ostrich, scratch string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	// Short, for the sockets in it.
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	scratch, ostrich = dir, filepath.Join(dir, "ostrich")
	if runtime.GOOS == "windows" {
		ostrich += ".exe"
	}
	build := exec.Command("go", "build", "-o", ostrich, "github.com/ostrich-legs/ostrich/cmd/ostrich")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// folder makes a folder with a short name that is gone after the test.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Nobody looks at it: a node may have left files of a moment ago.
		_ = os.RemoveAll(dir)
	})
	return dir
}
