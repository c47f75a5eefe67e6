package node_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// unpack writes a packed data folder into a folder of the test's own.
func unpack(t *testing.T, name string) string {
	t.Helper()
	packed, err := os.Open(filepath.Join("testdata", name+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	zipped, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for files := tar.NewReader(zipped); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return filepath.Join(dir, name)
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(header.Name))
		if header.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else {
			var data []byte
			if data, err = io.ReadAll(files); err == nil {
				err = os.WriteFile(path, data, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// results reads the ordered outputs of a job that has ended as "map" prints
// them: each ends in a newline.
func (n *testNode) results(t *testing.T, id string) []byte {
	t.Helper()
	var all bytes.Buffer
	_, err := n.client.Results(t.Context(), control.ResultsOptions{JobID: wire.JobID(id), Follow: true},
		func(_ *wire.TaskResult, out io.Reader) error {
			_, err := io.Copy(&all, out)
			if !bytes.HasSuffix(all.Bytes(), []byte("\n")) {
				all.WriteByte('\n')
			}
			return err
		})
	if err != nil {
		t.Fatalf("the results of %s: %v", id, err)
	}
	return all.Bytes()
}

func md5sum(b []byte) string {
	sum := md5.Sum(b)
	return hex.EncodeToString(sum[:])
}

// The folder was made by the program before replicas, device modes and
// recovery (format 1): what it holds must be read as long as there are such
// folders.
func TestAFolderOfFormat1IsReadAndGoesOn(t *testing.T) {
	n := startWith(t, config(unpack(t, "golden-1"), ""))
	if s := n.status(t); s.GetSwarmId() != "eb4182829bf05b3d876be0ddb5dc17f3" || s.GetName() != "alpha the first" || s.GetRole() != wire.Role_ROLE_ADMIN || s.GetView().GetGeneration() != 1 {
		t.Errorf("it is %v", s)
	}
	jobs := map[string]struct {
		state wire.JobState
		tasks uint64
		md5   string
	}{
		"golden-done":   {wire.JobState_JOB_STATE_DONE, 300, "bf4fa7116e26846bba3502a134f9bcba"},
		"golden-second": {wire.JobState_JOB_STATE_DONE, 5, md5sum([]byte("1\n2\n3\n4\n5\n"))},
		"golden-open":   {wire.JobState_JOB_STATE_PENDING, 40, ""},
		"golden-big":    {wire.JobState_JOB_STATE_DONE, 1, "5e17cffdf125891e986823c28aae22db"},
	}
	for id, want := range jobs {
		got, err := control.Call(t.Context(), n.client.GetJob, &wire.GetJobRequest{JobId: id})
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		if j := got.GetJob(); j.GetState() != want.state || j.GetTasks().GetTotal() != want.tasks {
			t.Errorf("%s is %v with %d tasks, want %v with %d", id, j.GetState(), j.GetTasks().GetTotal(), want.state, want.tasks)
		}
		if want.md5 == "" {
			continue
		}
		if sum := md5sum(n.results(t, id)); sum != want.md5 {
			t.Errorf("the outputs of %s have the sum %s, want %s", id, sum, want.md5)
		}
	}
	for i, got := range n.mapLines(t, "upper", []string{"a", "b", "c"}) {
		if want := fmt.Sprintf("%c\n", 'A'+i); got != want {
			t.Errorf("a new job's output %d is %q, want %q", i, got, want)
		}
	}
}

// What is new since needs a log that knows of it: the folder is one from then
// on, and opens again.
func TestAFolderOfFormat1TakesWhatIsNewSince(t *testing.T) {
	n := startWith(t, config(unpack(t, "golden-1"), ""))
	self := n.status(t).GetDeviceId()
	for _, mode := range []wire.DeviceMode{wire.DeviceMode_DEVICE_MODE_DRAINING, wire.DeviceMode_DEVICE_MODE_ENABLED} {
		if _, err := control.Call(t.Context(), n.client.SetDeviceMode, &wire.SetDeviceModeRequest{DeviceId: self, Mode: mode}); err != nil {
			t.Fatal(err)
		}
	}
	n.stop()
	n = startWith(t, config(n.dir, ""))
	b := start(t, filepath.Join(t.TempDir(), "b"), n.invite(t, wire.Role_ROLE_MEMBER))
	eventually(t, "the new member is a standby", func() bool { return len(n.status(t).GetView().GetStandbys()) == 1 })
	if sum := md5sum(b.results(t, "golden-done")); sum != "bf4fa7116e26846bba3502a134f9bcba" {
		t.Errorf("from another member the outputs have the sum %s", sum)
	}
}
