package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestOutputsAreAsWritten(t *testing.T) {
	tests := []struct {
		name   string
		args   string
		status int
	}{
		{"status", "status", 0},
		{"status-json", "status --json", 0},
		{"devices", "devices", 0},
		{"devices-json", "devices --json", 0},
		{"jobs", "jobs", 0},
		{"jobs-json", "jobs --json", 0},
		{"job-show", "job show done-job-0001", 0},
		{"job-show-json", "job show 0001 --json", 0},
		{"job-results", "job results 0001", 3},
		{"job-results-json", "job results 0001 --json --from 1", 3},
		{"job-results-unordered", "job results -f 0001 --unordered --from 2", 3},
		{"logs", "logs", 0},
		{"logs-json", "logs --json --audit", 0},
		{"doctor", "doctor", 0},
		{"doctor-json", "doctor --json", 0},
		{"invite", "invite --role member --ttl 2h --uses 3", 0},
		{"invite-json", "invite --json", 0},
		{"invite-ls", "invite ls", 0},
		{"invite-ls-json", "invite ls --json", 0},
	}
	b := newBox(t)
	b.submit(t, "done-job-0001")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, out, errOut := b.call(t, "", strings.Fields(tt.args)...)
			if status != tt.status {
				t.Errorf("status %d, want %d: %s", status, tt.status, errOut)
			}
			golden(t, tt.name, out)
		})
	}
}

func TestListsOfNothingAreEmptyArrays(t *testing.T) {
	b := newBox(t)
	for _, args := range []string{"jobs --json", "invite ls --json"} {
		if status, out, _ := b.call(t, "", strings.Fields(args)...); status != 0 || strings.TrimSpace(out) != "[]" {
			t.Errorf("%s: status %d, %q", args, status, out)
		}
	}
}

// fields are the names of section 10 of the design: a contract.
var fields = map[string]string{
	"status --json":           "swarmId name deviceId role term generation coordinator quorum members voters addresses runState bytesStored stats resources",
	"devices --json":          "id name type status role labels capabilities opsScore weight totalTasksCompleted lastHeartbeat",
	"jobs --json":             "id program state submitter priority createdAt endedAt tasks waitingFor",
	"job show 0001 --json":    "id program state submitter priority createdAt endedAt tasks waitingFor",
	"job results 0001 --json": "index status exitCode output stderr device attempts durationMs number",
	"invite --json":           "id link code text role uses maxUses createdAt expiresAt createdBy",
	"invite ls --json":        "id link code text role uses maxUses createdAt expiresAt createdBy",
	"logs --json":             "time level source device message audit",
	"doctor --json":           "level subject text mend",
}

func TestJSONHasEveryFieldAndNoNull(t *testing.T) {
	b := newBox(t)
	b.submit(t, "done-job-0001")
	b.call(t, "", "invite")
	for args, names := range fields {
		_, out, _ := b.call(t, "", strings.Fields(args)...)
		dec := json.NewDecoder(strings.NewReader(out))
		var v any
		if err := dec.Decode(&v); err != nil {
			t.Errorf("%s: %v in %s", args, err, out)
			continue
		}
		if all, ok := v.([]any); ok && len(all) > 0 {
			v = all[0]
		}
		object, _ := v.(map[string]any)
		for _, name := range strings.Fields(names) {
			if value, ok := object[name]; !ok || value == nil {
				t.Errorf("%s: %s is %v", args, name, value)
			}
		}
	}
}

func TestTheStateOfAnInvite(t *testing.T) {
	const now = 1000
	for want, i := range map[string]*wire.Invite{
		"open":    {ExpiresAtMs: now + 1, MaxUses: 2, Uses: 1},
		"used up": {ExpiresAtMs: now + 1, MaxUses: 2, Uses: 2},
		"expired": {ExpiresAtMs: now, MaxUses: 0, Uses: 7},
		"revoked": {ExpiresAtMs: now, MaxUses: 1, Uses: 1, Revoked: true},
	} {
		row := inviteRow(i, now)
		if got := row[len(row)-1]; got != want {
			t.Errorf("%v is %q, want %q", i, got, want)
		}
	}
}

func TestWithoutANodeTheWayOutNamesTheFolder(t *testing.T) {
	dir := t.TempDir()
	var out, errOut bytes.Buffer
	status := run(t.Context(), []string{"status", "--data", dir}, strings.NewReader(""), &out, &errOut)
	if want := "ostrich up --data " + dir + "\n"; status != exitNoNode || !strings.HasSuffix(errOut.String(), want) {
		t.Errorf("status %d, %q; want it to end in %q", status, errOut.String(), want)
	}
}

func TestWrongUsageIsRefused(t *testing.T) {
	b := newBox(t)
	lines := []string{
		"nonsense", "help nonsense", "help job nonsense", "top", "ui", "pause", "resume", "stop", "throttle 50", "drain", "doctor extra", "recover extra", "admin", "programs", "load", "bench",
		"device enable", "device disable a b", "device drain", "device remove", "device remove beta", "device throttle x", "device",
		"job", "job nonsense", "job show", "job show a b", "job results", "jobs extra", "status extra", "status --nonsense",
		"up extra", "up --tls-cert x", "up --config x", "up --slots x", "up --slots -1", "up --label novalue", "up --p2p /ip4/1.2.3.4", "up --public nowhere",
		"join", "join a b", "invite --qr x.gif", "invite --role king", "invite --ttl soon", "invite --ttl 0s", "invite --uses -1", "invite nonsense", "invite revoke",
		"map", "map --range 1..2", "map builtin:cat extra", "map builtin:cat --range 5", "map builtin:cat --range 5..1", "map builtin:cat --range 1..99999999",
		"map builtin:cat --chunk 0", "map builtin:cat --chunk 2G", "map builtin:cat --chunk x", "map builtin:cat --files", "map builtin:cat --null --chunk 1K",
		"map builtin:cat --ordered --unordered", "map builtin:cat --retries -1", "map builtin:cat --detach=maybe", "map builtin:cat --priority x", "map builtin:cat --timeout 5", "map builtin:cat --memory 0", "map builtin:cat --memory 5000", "map builtin:cat --retries 1001", "map builtin:cat --timeout 367d", "run builtin:cat --keep 9999d", "run builtin:cat --require native --require browser",
		"map builtin:cat --env novalue", "map builtin:cat --env OSTRICH_INDEX=1", "map builtin:cat --require nonsense", "map builtin:cat --id a/b", "map builtin:cat --verify 2", "map builtin:cat --keep x",
		"map builtin:cat --max-output 2G", "map builtin:cat --detach --json", "run", "run builtin:cat extra", "run builtin:cat --range 1..2", "run builtin:cat --keep-going",
		"completion", "completion tcsh", "version extra", "leave", "down extra", "device rename x", "demo extra", "logs extra", "logs -x",
	}
	for _, line := range lines {
		status, out, errOut := b.call(t, "", strings.Fields(line)...)
		if status != exitUsage || out != "" || !strings.HasPrefix(errOut, "ostrich: ") || strings.Contains(errOut, "strconv") {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want a refusal", line, status, out, errOut)
		}
	}
	for call := range map[string]int{"SubmitJob": 0, "Leave": 0, "CreateInvite": 0, "Stop": 0, "RemoveDevice": 0, "SetDeviceMode": 0} {
		if n := b.service.Calls(call); n != 0 {
			t.Errorf("wrong usage reached the node: %d calls of %s", n, call)
		}
	}
}

func TestFlagsMayStandAnywhereBeforeTheDashes(t *testing.T) {
	b := newBox(t)
	lines := []string{
		"--json status", "status --json", "--json --data " + b.dir + " status",
		"job --json show 0001", "--json job show 0001", "job show --json 0001",
		"--range 1..2 map builtin:cat", "map --range 1..2 builtin:cat --env A=B -- --range", "map --env A=B builtin:cat --range=1..2",
	}
	b.submit(t, "x0001")
	for _, line := range lines {
		if status, out, errOut := b.call(t, "", strings.Fields(line)...); status != 0 && status != 3 || out == "" {
			t.Errorf("%s: status %d, %q %q", line, status, out, errOut)
		}
	}
}

func TestAFlagTakesAValueEverywhereOrNowhere(t *testing.T) {
	kinds := map[string]bool{}
	eachFlag((&app{in: strings.NewReader(""), out: io.Discard, err: io.Discard}).root(), func(f *pflag.Flag) {
		takes := f.NoOptDefVal == ""
		if before, ok := kinds[f.Name]; ok && before != takes {
			t.Errorf("--%s takes a value in some commands only", f.Name)
		}
		kinds[f.Name] = takes
	})
}

func TestHelpListsWhatIsBuiltAndNothingElse(t *testing.T) {
	var help string
	for _, args := range []string{"", "--help", "help", "map --help", "up --help", "invite --help", "device --help", "job results --help", "run --help"} {
		var out bytes.Buffer
		if status := run(t.Context(), strings.Fields(args), strings.NewReader(""), &out, io.Discard); status != 0 || out.Len() == 0 {
			t.Errorf("%q: status %d", args, status)
		}
		help += out.String()
	}
	for _, word := range []string{"--verify", "--config", "throttle"} {
		if strings.Contains(help, word) {
			t.Errorf("the help speaks of %s, which is not built", word)
		}
	}
}

func TestWithoutANodeTheStatusIs4(t *testing.T) {
	dir := t.TempDir()
	for _, args := range []string{"status", "jobs", "devices", "down", "invite", "logs", "leave --yes", "map builtin:cat", "run builtin:cat", "job show x", "device rename a b",
		"device drain a", "device enable a", "device disable a", "device remove a --yes", "recover --yes"} {
		var out, errOut bytes.Buffer
		status := run(t.Context(), append(strings.Fields(args), "--data", dir), strings.NewReader(""), &out, &errOut)
		if status != exitNoNode || !strings.Contains(errOut.String(), "ostrich up") {
			t.Errorf("%s: status %d, %q", args, status, errOut.String())
		}
	}
}

func TestOstrichDataNamesTheNode(t *testing.T) {
	b := newBox(t)
	t.Setenv("OSTRICH_DATA", b.dir)
	var out bytes.Buffer
	if status := run(t.Context(), []string{"status"}, strings.NewReader(""), &out, io.Discard); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestIDsMayBeShortened(t *testing.T) {
	b := newBox(t)
	b.submit(t, "aaa-1")
	b.service.Compute = nil
	for _, id := range []string{"bbb-1", "1"} {
		if status, _, errOut := b.call(t, "x", "map", "builtin:cat", "--detach", "--id", id); status != 0 {
			t.Fatal(errOut)
		}
	}
	tests := []struct {
		args   string
		status int
		want   string
	}{
		{"job show aaa-1", 0, "aaa-1"},
		{"job show b-1", 0, "bbb-1"},
		{"job show 1", 0, "id           1"},
		{"job show -1", exitUsage, ""},
		{"job show nothing", 1, ""},
		{"device rename gamma delta", 0, ""},
		{"device rename 0001 one", 0, ""},
		{"device rename BBBB0002 two", 0, ""},
		{"device rename 002 clash", 1, "may be any of 2 devices"},
	}
	for _, tt := range tests {
		status, out, errOut := b.call(t, "", strings.Fields(tt.args)...)
		if status != tt.status || !strings.Contains(out+errOut, tt.want) {
			t.Errorf("%s: status %d, %q %q; want %d and %q", tt.args, status, out, errOut, tt.status, tt.want)
		}
	}
}

func TestJobActionsReachTheNode(t *testing.T) {
	b := newBox(t)
	b.submit(t, "job-1")
	for _, tt := range []struct{ args, call string }{
		{"job cancel job-1", "CancelJob"}, {"job retry job-1", "RetryJob"}, {"job rm job-1", "RemoveJob"},
	} {
		if status, out, errOut := b.call(t, "", strings.Fields(tt.args)...); status != 0 || out != "" || b.service.Calls(tt.call) == 0 {
			t.Errorf("%s: status %d, %q %q", tt.args, status, out, errOut)
		}
	}
	if b.service.Job("job-1") != nil {
		t.Error("the removed job is still there")
	}
}

func TestInviteRevokeAndRefusals(t *testing.T) {
	b := newBox(t)
	b.call(t, "", "invite")
	if status, _, _ := b.call(t, "", "invite", "revoke", "inv-1"); status != 0 {
		t.Errorf("status %d", status)
	}
	if status, _, errOut := b.call(t, "", "invite", "revoke", "none"); status != 1 || !strings.Contains(errOut, "no invite") {
		t.Errorf("status %d: %s", status, errOut)
	}
	b.service.Before = func(string, int) error {
		return wire.Errorf(wire.Code_CODE_DENIED, "inviting an admin needs the role admin")
	}
	if status, _, errOut := b.call(t, "", "invite", "--role", "admin"); status != 1 || !strings.Contains(errOut, "role admin") {
		t.Errorf("status %d: %s", status, errOut)
	}
}

func TestDownAndLeaveWaitForTheEnd(t *testing.T) {
	for _, args := range [][]string{{"down"}, {"leave", "--yes"}} {
		b := newBox(t)
		ended := make(chan struct{})
		b.service.Stopped = func() {
			go func() {
				b.server.Close()
				close(ended)
			}()
		}
		if status, _, errOut := b.call(t, "", args...); status != 0 {
			t.Errorf("%v: status %d: %s", args, status, errOut)
		}
		select {
		case <-ended:
		default:
			if _, err := os.Stat(b.server.Socket()); err == nil {
				t.Errorf("%v returned before the node had ended", args)
			}
			<-ended
		}
	}
}

func TestLeaveAsksFirst(t *testing.T) {
	b := newBox(t)
	if status, _, errOut := b.call(t, "y\n", "leave"); status != exitUsage || !strings.Contains(errOut, "--yes") {
		t.Errorf("status %d: %s", status, errOut)
	}
	if b.service.Calls("Leave") != 0 {
		t.Error("the node was asked to leave")
	}
}

func TestFollowedLogsEndWithAnInterrupt(t *testing.T) {
	b := newBox(t)
	ctx, stop := context.WithCancelCause(t.Context())
	in, out := io.Pipe()
	go func() {
		buf := make([]byte, 1024)
		in.Read(buf)
		stop(errInterrupted)
		io.Copy(io.Discard, in)
	}()
	if status := run(ctx, []string{"--data", b.dir, "logs", "-f"}, strings.NewReader(""), out, io.Discard); status != exitInterrupted {
		t.Errorf("status %d, want %d", status, exitInterrupted)
	}
	out.Close()
}

func TestVersionAndCompletion(t *testing.T) {
	for _, args := range []string{"version", "completion bash", "completion zsh", "completion fish", "completion powershell"} {
		var out bytes.Buffer
		if status := run(t.Context(), strings.Fields(args), strings.NewReader(""), &out, io.Discard); status != 0 || !strings.Contains(out.String(), "ostrich") {
			t.Errorf("%s: status %d", args, status)
		}
	}
}

func TestUpRefusesAFolderInUseAndAMangledInvite(t *testing.T) {
	b := newBox(t)
	dir := t.TempDir()
	local := "--no-mdns --public 127.0.0.1:0 --p2p 127.0.0.1:0 --control "
	tests := []struct{ args, want string }{
		{local + strings.TrimPrefix(b.server.Address(), "http://") + " up --data " + dir, "--control"},
		{local + "127.0.0.1:0 join nonsense --data " + filepath.Join(dir, "other"), "invite"},
	}
	for _, tt := range tests {
		var out, errOut bytes.Buffer
		if status := run(t.Context(), strings.Fields(tt.args), strings.NewReader(""), &out, &errOut); status != 1 || !strings.Contains(errOut.String(), tt.want) || out.Len() > 0 {
			t.Errorf("%s: status %d, stdout %q, stderr %q", tt.args, status, out.String(), errOut.String())
		}
	}
}
