package control

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/node/control/controltest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
	"github.com/ostrich-legs/ostrich/p2p/wire/wireconnect"
)

func start(t *testing.T, dir string) *Server {
	t.Helper()
	s := NewServer(ServerConfig{Service: controltest.New(), DataDir: dir, Listen: "127.0.0.1:0", Hosts: func() []string { return []string{"box.local"} }})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestDoorsAreGuardedInOrder(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	raw, err := os.ReadFile(filepath.Join(dir, "control.token"))
	if err != nil {
		t.Fatal(err)
	}
	bearer := "Bearer " + strings.TrimSpace(string(raw))
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(s.Address(), "http://"))
	tests := []struct {
		name   string
		socket bool
		host   string
		header map[string]string
		want   int
	}{
		{"with the token", false, "", map[string]string{"Authorization": bearer}, 200},
		{"a name of the node", false, "box.local:" + port, map[string]string{"Authorization": bearer}, 200},
		{"no token", false, "", nil, 401},
		{"a wrong token", false, "", map[string]string{"Authorization": bearer + "0"}, 401},
		{"an empty token", false, "", map[string]string{"Authorization": "Bearer "}, 401},
		{"a foreign name", false, "evil.example:" + port, map[string]string{"Authorization": bearer, "Origin": "http://evil.example:" + port}, 421},
		{"a wrong port", false, "127.0.0.1:1", map[string]string{"Authorization": bearer}, 421},
		{"a foreign page", false, "", map[string]string{"Authorization": bearer, "Origin": "http://evil.example"}, 403},
		{"a page without origin", false, "", map[string]string{"Authorization": bearer, "Origin": "null"}, 403},
		{"a page of another site", false, "", map[string]string{"Authorization": bearer, "Sec-Fetch-Site": "cross-site"}, 403},
		{"a page of the same site only", false, "", map[string]string{"Authorization": bearer, "Sec-Fetch-Site": "same-site"}, 403},
		{"the socket", true, "localhost", nil, 200},
		{"the socket by a foreign name", true, "evil.example", nil, 421},
		{"the socket from a page", true, "localhost", map[string]string{"Origin": "https://localhost"}, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := post(t, s, tt.socket, tt.host, wireconnect.ControlGetStatusProcedure, tt.header, strings.NewReader("{}"))
			if res.StatusCode != tt.want {
				t.Errorf("got %s, want %d", res.Status, tt.want)
			}
		})
	}
}

// post calls over HTTP/1.1, as curl does.
func post(t *testing.T, s *Server, socket bool, host, path string, header map[string]string, body io.Reader) *http.Response {
	t.Helper()
	network, address := "tcp", strings.TrimPrefix(s.Address(), "http://")
	if socket {
		network, address = "unix", s.Socket()
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	url := s.Address()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func TestBodiesAreBounded(t *testing.T) {
	s := start(t, t.TempDir())
	big := `{"jobId":"` + strings.Repeat("x", 2<<20) + `"}`
	res := post(t, s, true, "localhost", wireconnect.ControlGetJobProcedure, nil, strings.NewReader(big))
	if res.StatusCode < 400 {
		t.Errorf("2 MiB were taken: %s", res.Status)
	}
	gzip := map[string]string{"Content-Encoding": "gzip"}
	res = post(t, s, true, "localhost", wireconnect.ControlGetJobProcedure, gzip, strings.NewReader("\x1f\x8b"))
	if res.StatusCode < 400 {
		t.Errorf("a compressed body was taken: %s", res.Status)
	}
}

func TestNothingElseIsServed(t *testing.T) {
	s := start(t, t.TempDir())
	if res := post(t, s, true, "localhost", "/", nil, nil); res.StatusCode != http.StatusNotFound {
		t.Errorf("got %s, want 404", res.Status)
	}
}

func TestSocketAndTokenAreForTheirOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	for _, path := range []string{s.Socket(), filepath.Join(dir, "control.token")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s has mode %o, want 600", path, got)
		}
	}
}

func TestSocketOfADeadNodeIsReplacedAndOfALiveOneNot(t *testing.T) {
	dir := t.TempDir()
	dead, err := net.Listen("unix", SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	start(t, dir)
	err = NewServer(ServerConfig{Service: controltest.New(), DataDir: dir, Listen: "127.0.0.1:0"}).Start()
	if wire.CodeOf(err) != wire.Code_CODE_CONFLICT {
		t.Errorf("got %v, want CODE_CONFLICT", err)
	}
	if c, err := Dial(dir); err != nil {
		t.Errorf("the live node was cut off: %v", err)
	} else {
		c.Close()
	}
}

func TestAFileInTheWayIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(SocketPath(dir), []byte("mine"), 0o600)
	if err := NewServer(ServerConfig{Service: controltest.New(), DataDir: dir, Listen: "127.0.0.1:0"}).Start(); err == nil {
		t.Fatal("it started")
	}
	if got, _ := os.ReadFile(SocketPath(dir)); string(got) != "mine" {
		t.Errorf("the file holds %q now", got)
	}
}

func TestAPortInUseIsSaidSo(t *testing.T) {
	s := start(t, t.TempDir())
	err := NewServer(ServerConfig{Service: controltest.New(), DataDir: t.TempDir(), Listen: strings.TrimPrefix(s.Address(), "http://")}).Start()
	if wire.CodeOf(err) != wire.Code_CODE_CONFLICT || !strings.Contains(err.Error(), "--control") {
		t.Errorf("got %v", err)
	}
}

func TestLongPathsLieInTheRuntimeFolder(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 100))
	path := SocketPath(long)
	if len(path) > maxSocketPath || filepath.Dir(path) != runtimeDir() {
		t.Errorf("got %s", path)
	}
	if other := SocketPath(long + "e"); other == path {
		t.Error("two folders share a socket")
	}
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, long)
	c, err := Dial(long)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestCloseEndsOpenStreams(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	c, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := Call(t.Context(), c.SubmitJob, &wire.SubmitJobRequest{JobId: "open", Spec: &wire.JobSpec{}}); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := c.Results(t.Context(), ResultsOptions{JobID: "open", Follow: true, Patience: Patience{Limit: time.Millisecond}}, nil)
		waited <- err
	}()
	for s.config.Service.(*controltest.Service).Calls("StreamResults") == 0 {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	s.Close()
	s.Close()
	if took := time.Since(began); took > stopGrace+stopLimit+time.Second {
		t.Errorf("Close took %v", took)
	}
	if err := <-waited; wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("the stream ended with %v, want CODE_UNAVAILABLE", err)
	}
}
