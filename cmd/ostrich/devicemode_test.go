package main

import (
	"strings"
	"testing"

	"github.com/ostrich-legs/ostrich/node/control/controltest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestDevicesAreDrainedDisabledAndEnabled(t *testing.T) {
	b := newBox(t)
	for _, tt := range []struct{ command, name, want string }{
		{"drain", "alpha", "DRAINING"},
		{"disable", "AAAA0001", "DISABLED"},
		{"enable", controltest.Self, "ENABLED"},
	} {
		status, out, errOut := b.call(t, "", "device", tt.command, tt.name)
		if status != 0 || out != "" || !strings.Contains(errOut, "alpha (AAAA0001)") {
			t.Errorf("device %s %s: status %d, %q %q", tt.command, tt.name, status, out, errOut)
		}
		if _, list, _ := b.call(t, "", "devices", "--json"); !strings.Contains(list, `"mode": "`+tt.want+`"`) {
			t.Errorf("after device %s %s the list has no mode %s: %s", tt.command, tt.name, tt.want, list)
		}
	}
	if status, _, errOut := b.call(t, "", "device", "drain", "nobody"); status != exitFailed || !strings.Contains(errOut, "no device") {
		t.Errorf("draining nobody: status %d, %q", status, errOut)
	}
}

func TestADeviceIsRemovedOnceItIsConfirmed(t *testing.T) {
	b := newBox(t)
	if status, _, errOut := b.call(t, "y\n", "device", "remove", "beta"); status != exitUsage || !strings.Contains(errOut, "--yes") || b.service.Calls("RemoveDevice") != 0 {
		t.Errorf("without a terminal: status %d, %q", status, errOut)
	}
	if status, _, errOut := b.call(t, "", "device", "remove", "gamma", "--yes"); status != exitFailed || !strings.Contains(errOut, "could not commit") {
		t.Errorf("one that cannot be lost: status %d, %q", status, errOut)
	}
	status, out, errOut := b.call(t, "", "device", "remove", "beta", "--yes")
	if status != 0 || out != "" || !strings.Contains(errOut, "is removed") || !strings.Contains(errOut, "ostrich invite revoke inv-1") {
		t.Errorf("status %d, %q %q; want the way to revoke its invite", status, out, errOut)
	}
	status, _, errOut = b.call(t, "", "device", "remove", "alpha", "--yes", "--revoke-invite")
	if status != 0 || strings.Contains(errOut, "inv-1") {
		t.Errorf("with its invite: status %d, %q", status, errOut)
	}
}

func TestARecoveryIsShownAndConfirmed(t *testing.T) {
	b := newBox(t)
	status, out, errOut := b.call(t, "recover\n", "recover")
	if status != exitUsage || !strings.Contains(out, "ends at entry 1234") || !strings.Contains(errOut, "--yes") {
		t.Errorf("without a terminal: status %d, %q %q", status, out, errOut)
	}
	status, out, errOut = b.call(t, "", "recover", "--yes")
	for _, word := range []string{"generation   1, and 2 afterwards", "3", "1 open, 4 ended, 900 results", "2 missing", "beta (BBBB0002) does not answer", "gamma (BBBB1002) answers", "- 2 pages are not on this disk"} {
		if !strings.Contains(out, word) {
			t.Errorf("the plan does not say %q: %s", word, out)
		}
	}
	if status != 0 || !strings.Contains(errOut, "as generation 2") || !strings.Contains(errOut, "/data/raft.generation-1") {
		t.Errorf("status %d, %q", status, errOut)
	}
	b.service.Plan = &wire.RecoveryPlan{Refusal: "the swarm has quorum"}
	if status, out, errOut = b.call(t, "", "recover", "--yes"); status != exitFailed || out != "" || !strings.Contains(errOut, "has quorum") {
		t.Errorf("with quorum: status %d, %q %q", status, out, errOut)
	}
}

func TestTheDoctorsStatusSaysWhetherThereIsAProblem(t *testing.T) {
	b := newBox(t)
	b.service.Findings = append(b.service.Findings, &wire.Finding{Level: "problem", Subject: "disk", Text: "it is full", Mend: "free some space"})
	for _, args := range [][]string{{"doctor"}, {"doctor", "--json"}} {
		status, out, errOut := b.call(t, "", args...)
		if status != exitFailed || !strings.Contains(out, "free some space") || !strings.Contains(errOut, "1 problem was found") {
			t.Errorf("%v: status %d, %q %q", args, status, out, errOut)
		}
	}
	b.server.Close()
	status, out, errOut := b.call(t, "", "doctor")
	if status != exitFailed || !strings.Contains(out, "no node is running") || !strings.Contains(out, "folder") {
		t.Errorf("without a node: status %d, %q %q", status, out, errOut)
	}
}

func TestTheQuestionBeforeLeavingSaysWhatItCosts(t *testing.T) {
	members := []string{controltest.Self, controltest.Other, controltest.Third, "another"}
	for n, want := range map[int]string{1: "only member: without it the swarm is gone", 2: "One member is left", 3: "Two members are left", 4: "Take"} {
		s := &wire.Status{DeviceId: controltest.Self, View: &wire.View{Members: members[:n]}}
		if got := leaveQuestion(s); !strings.HasPrefix(got, want) && !strings.Contains(strings.SplitN(got, "\n", 2)[0], want) {
			t.Errorf("with %d members it asks %q, want %q in it", n, got, want)
		}
	}
	worker := &wire.Status{DeviceId: "w", View: &wire.View{Members: members[:1]}}
	if got := leaveQuestion(worker); !strings.HasPrefix(got, "Take") {
		t.Errorf("a worker is asked %q", got)
	}
}
