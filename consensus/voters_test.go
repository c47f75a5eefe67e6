package consensus

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestTargetVoters(t *testing.T) {
	want := []int{1, 1, 1, 3, 3, 5, 5, 5}
	for members, n := range want {
		if got := TargetVoters(members); got != n {
			t.Errorf("TargetVoters(%d) = %d, want %d", members, got, n)
		}
	}
	if got := TargetVoters(10_000); got != 5 {
		t.Errorf("TargetVoters(10,000) = %d, want 5", got)
	}
}

// parse builds a view: each word is a device, "v" a voter, "s" a standby, "m"
// a member that is no server; "p" lacks pages, "z" is to do no work, "o" is too
// old for what is in the log; "-" absent for long, "=" for a while, "~" silent a little, "?" not
// caught up, "!" not a member, "#" lost its log, "." offline. The first is the leader.
func parse(words ...string) view {
	v := view{absentAfter: absentAfter}
	for i, w := range words {
		id := wire.DeviceID(fmt.Sprintf("%d%c", i, w[0]))
		if i == 0 {
			v.self = Server{ID: id, Voter: true}
		}
		has := func(mark byte) bool { return slices.Contains([]byte(w), mark) }
		if !has('!') {
			v.members = append(v.members, memberView{id: id, online: !has('.'), joinedAtMS: int64(i), complete: !has('p'), idle: has('z'), outdated: has('o')})
		}
		if w[0] == 'm' {
			continue
		}
		s := serverView{id: id, voter: w[0] == 'v', caughtUp: !has('?')}
		if has('#') {
			v.members[len(v.members)-1].replica = "0123456789abcdef"
		}
		if has('~') {
			s.silent = 5 * time.Second
		}
		if has('=') {
			s.silent = newcomerGrace
		}
		if has('-') {
			s.silent = absentAfter
		}
		v.servers = append(v.servers, s)
	}
	return v
}

func TestNextChange(t *testing.T) {
	tests := []struct {
		name string
		view view
		want string
	}{
		{"nothing alone", parse("v"), ""},
		{"a second member becomes a standby", parse("v", "m"), "add standby 1m"},
		{"two members keep one voter", parse("v", "s"), ""},
		{"a third member becomes a standby first", parse("v", "s", "m"), "add standby 2m"},
		{"one ready standby makes no even number", parse("v", "s", "s?"), ""},
		{"two ready standbys are promoted", parse("v", "s", "s"), "promote to voter 1s"},
		{"the second follows", parse("v", "v", "s"), "promote to voter 2s"},
		{"but not while it is away", parse("v", "v", "s~"), ""},
		{"three of four", parse("v", "v", "v", "s"), ""},
		{"five of five", parse("v", "v", "v", "s", "s"), "promote to voter 3s"},
		{"a silent voter is kept for a while", parse("v", "v", "v~", "s"), ""},
		{"an absent voter is replaced", parse("v", "v", "v-", "s"), "promote to voter 3s"},
		{"and then demoted", parse("v", "v", "v-", "v"), "demote to standby 2v"},
		{"an absent voter with no one ready is kept", parse("v", "v", "v-", "s?"), ""},
		{"no promotion that could not commit", parse("v", "v~", "v-", "s"), ""},
		{"a stranger is removed", parse("v", "s!"), "remove server 1s"},
		{"a voter that was removed is removed", parse("v", "v", "v!-"), "remove server 2v"},
		{"a memory that was lost is a stranger", parse("v", "v", "v#-"), "remove server 2v"},
		{"it stays while the others cannot commit that", parse("v", "v~", "v#-"), ""},
		{"the leader never removes itself", parse("v!", "s"), ""},
		{"too many voters: the most silent goes", parse("v", "v", "v~", "v", "v!"), "remove server 4v"},
		{"three voters of two members", parse("v", "v", "v!"), "remove server 2v"},
		{"two voters of two members", parse("v", "v"), "demote to standby 1v"},
		{"an even number with an absent one shrinks", parse("v", "v", "v", "v-", "m"), "demote to standby 3v"},
		{"a third standby is too many", parse("v", "v", "v", "v", "v", "s", "s-", "s"), "remove server 6s"},
		{"an absent standby makes room for one online", parse("v", "v", "v", "v", "v", "s", "s-", "m"), "remove server 6s"},
		{"not one that is absent for a while", parse("v", "v", "v", "v", "v", "s", "s=", "m"), ""},
		{"that too, where votes are wanted", parse("v", "s=", "s", "m"), "remove server 1s"},
		{"but not one that is silent a little", parse("v", "s~", "s", "m"), ""},
		{"but not for one offline", parse("v", "v", "v", "v", "v", "s", "s-", "m."), ""},
		{"those online come first", parse("v", "m.", "m"), "add standby 2m"},
		{"no replacement that lacks pages", parse("v", "v", "v-", "sp"), ""},
		{"one that holds all pages goes before", parse("v", "v", "v-", "sp", "s"), "promote to voter 4s"},
		{"a new vote does not ask for pages", parse("v", "v", "sp"), "promote to voter 2s"},
		{"one that works before one that does not", parse("v", "v", "sz", "s"), "promote to voter 3s"},
		{"one that does not work where no other can", parse("v", "v", "sz"), "promote to voter 2s"},
		{"not while another may become ready", parse("v", "v", "sz", "s?"), ""},
		{"nor while another can be added", parse("v", "v", "v", "sz", "m"), "add standby 4m"},
		{"one that does not work makes room", parse("v", "v", "v", "v", "v", "s", "sz", "m"), "remove server 6s"},
		{"but not for another of its kind", parse("v", "v", "v", "v", "v", "s", "sz", "mz"), ""},
		{"of too many the one that does not work goes", parse("v", "v", "vz", "v"), "demote to standby 2v"},
		{"no vote for one that cannot understand", parse("v", "v", "so"), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			if c, ok := nextChange(test.view); ok {
				got = fmt.Sprintf("%s %s", c.verb, c.server.ID)
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// applyTo does what raft would do.
func (c change) applyTo(v view) view {
	v.servers = slices.Clone(v.servers)
	i := slices.IndexFunc(v.servers, func(s serverView) bool { return s.id == c.server.ID })
	switch c.verb {
	case addStandby:
		v.servers = append(v.servers, serverView{id: c.server.ID, replica: c.server.Replica, caughtUp: true})
	case promote:
		v.servers[i].voter = true
	case demote:
		v.servers[i].voter = false
	case remove:
		v.servers = slices.Delete(v.servers, i, i+1)
	}
	return v
}

// Whatever the view, changes come to an end, each can commit, the leader stays a
// voter, and a swarm whose members all answer gets the voters it wants.
func TestChangesConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 9).Draw(t, "size")
		words := []string{"v"}
		marks := rapid.SampledFrom([]string{"", "", "", "-", "=", "~", "?", "!", "!-"})
		healthy := true
		for i := 1; i < size; i++ {
			mark := marks.Draw(t, "mark")
			healthy = healthy && (mark == "" || mark == "!")
			words = append(words, rapid.SampledFrom([]string{"v", "s", "m"}).Draw(t, "kind")+mark)
		}
		v := parse(words...)
		if !v.commits(serverView{}, 0) {
			t.Skip("a leader without a quorum is none")
		}
		for step := 0; ; step++ {
			c, ok := nextChange(v)
			if !ok {
				break
			}
			if v = c.applyTo(v); !v.commits(serverView{}, 0) {
				t.Fatalf("%v %v leaves voters that cannot commit: %+v", c.verb, c.server.ID, v)
			}
			if step > 40 {
				t.Fatalf("no end of changes from %v", words)
			}
		}
		voters := v.pick(func(s serverView) bool { return s.voter })
		if !slices.ContainsFunc(voters, v.isSelf) {
			t.Fatal("the leader has lost its vote")
		}
		if healthy && len(voters) != TargetVoters(len(v.members)) {
			t.Fatalf("%d voters of %d members, all there (from %v)", len(voters), len(v.members), words)
		}
	})
}
