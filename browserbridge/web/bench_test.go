package web_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// The benchmarks drive a real browser and a real node. swarmbench runs them, and
// reads what they report by the names of the units.

// BenchmarkMillisecondTasks compares tasks of a millisecond, over a swarm, with
// the same tasks in the same browser without one.
func BenchmarkMillisecondTasks(b *testing.B) {
	const rounds, tasks = "400", 3000
	node := start(b, build(b), "alpha")
	browser := startBrowser(b)
	parts := open(b, browser, partsPage(b)+"/parts")
	for b.Loop() {
		p := open(b, browser, node.invite().Link)
		p.until("the page is ready", func() bool { return p.text("headline") == "Ready" })
		slots := eval[float64](p, `Number(document.getElementById("slots").textContent)`)
		node.ostrich("map", "builtin:spin", "--range", "1..100", "--require", "browser", "--", rounds) // it is warm then, and has the program
		bare := eval[float64](parts, `parts.tasksASecond($0, $1, $2)`, "/sandbox/programs/spin.wasm", []string{"spin", rounds}, tasks) * slots
		begun := time.Now()
		node.ostrich("map", "builtin:spin", "--range", "1..3000", "--require", "browser", "--", rounds)
		b.ReportMetric(tasks/time.Since(begun).Seconds(), "tasks/s")
		b.ReportMetric(bare, "bare-tasks/s")
		p.close()
	}
}

// BenchmarkJoin measures the way from the click to the first finished task, to
// an open data channel, and of a program of 5 MB, each beside what the same
// browser takes for it without a swarm.
func BenchmarkJoin(b *testing.B) {
	node := start(b, build(b), "alpha")
	browser := startBrowser(b)
	url := partsPage(b) + "/parts"
	large := filepath.Join(b.TempDir(), "large.wasm")
	if err := os.WriteFile(large, largeProgram(b), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		bare := open(b, browser, "about:blank") // a person's browser has its window open
		begun := time.Now()
		bare.navigate(url)
		eval[json.RawMessage](bare, `parts.runTask($0, 64, {input: "line"})`, "/sandbox/programs/upper.wasm")
		report(b, begun, "bare-first-task")
		b.ReportMetric(eval[float64](bare, bareChannel), "ms/bare-channel")
		begun = time.Now()
		eval[json.RawMessage](bare, `parts.runTask($0, 64, {input: "line"})`, fileServer(b, large))
		report(b, begun, "bare-program")

		p := open(b, browser, "about:blank")
		p.watchChannel()
		waiting := node.waitingMap()
		link := node.invite().Link
		begun = time.Now()
		loaded := make(chan bool)
		go func() { defer close(loaded); p.navigate(link) }()
		waiting()
		report(b, begun, "first-task")
		<-loaded
		b.ReportMetric(eval[float64](p, `watched.opened - watched.posted`), "ms/channel")
		begun = time.Now()
		if got := node.ostrich("run", large, "--require", "browser"); len(got) != 0 {
			b.Errorf("no input gives %q", got)
		}
		report(b, begun, "program")
		bare.close()
		p.close()
	}
}

// report reports the milliseconds since begun.
func report(b *testing.B, begun time.Time, what string) {
	b.ReportMetric(time.Since(begun).Seconds()*1000, "ms/"+what)
}

// waitingMap gives browsers a task before there is one, and returns what waits
// for its output.
func (m *machine) waitingMap() (wait func()) {
	m.t.Helper()
	cmd := m.command("map", "builtin:upper", "--require", "browser")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("line\n"), &out, &errs
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var jobs []struct{ State, WaitingFor string }
		if err := json.Unmarshal(m.ostrich("jobs", "--json"), &jobs); err != nil {
			m.t.Fatal(err)
		}
		if len(jobs) > 0 && jobs[0].WaitingFor != "" {
			break
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("the job does not wait after %v: %+v", patience, jobs)
		}
	}
	return func() {
		m.t.Helper()
		if err := cmd.Wait(); err != nil || out.String() != "LINE\n" {
			m.t.Fatalf("map: %v, output %q, %s", err, &out, &errs)
		}
	}
}

// watchChannel has the next page of the tab note when it posts its offer and
// when its data channel is open.
func (p *tab) watchChannel() {
	p.t.Helper()
	_, err := chromedp.Call(p.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
		globalThis.watched = {};
		{
			const { fetch } = globalThis, { createDataChannel } = RTCPeerConnection.prototype;
			globalThis.fetch = (url, init) => {
				if (init?.method === "POST") watched.posted = performance.now();
				return fetch(url, init);
			};
			RTCPeerConnection.prototype.createDataChannel = function (...args) {
				const channel = createDataChannel.apply(this, args);
				channel.addEventListener("open", () => (watched.opened = performance.now()));
				return channel;
			};
		}`})
	if err != nil {
		p.t.Fatal(err)
	}
}

// bareChannel is how long a data channel of a page with itself takes to open,
// from the offer on.
const bareChannel = `(async () => {
	const a = new RTCPeerConnection(), b = new RTCPeerConnection();
	a.onicecandidate = ({ candidate }) => b.addIceCandidate(candidate);
	b.onicecandidate = ({ candidate }) => a.addIceCandidate(candidate);
	const channel = a.createDataChannel("session");
	const open = new Promise((resolve) => (channel.onopen = resolve));
	await a.setLocalDescription();
	const begun = performance.now();
	await b.setRemoteDescription(a.localDescription);
	await b.setLocalDescription();
	await a.setRemoteDescription(b.localDescription);
	await open;
	const took = performance.now() - begun;
	a.close();
	b.close();
	return took;
})()`

// fileServer serves one file to pages of all origins.
func fileServer(b *testing.B, path string) (url string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		http.ServeFile(w, r, path)
	}))
	b.Cleanup(server.Close)
	return server.URL
}

// largeProgram is upper with some 5 MB of code that nothing calls.
func largeProgram(b *testing.B) []byte {
	b.Helper()
	upper, err := os.ReadFile("../../node/sandbox/programs/upper.wasm")
	if err != nil {
		b.Fatal(err)
	}
	code, err := os.ReadFile("../../node/sandbox/testdata/wordcount-go.wasm")
	if err != nil {
		b.Fatal(err)
	}
	for len(code) < 5_000_000 {
		code = append(code, code...)
	}
	custom := append([]byte("\x04code"), code[:5_000_000]...)
	return append(binary.AppendUvarint(append(upper, 0), uint64(len(custom))), custom...)
}
