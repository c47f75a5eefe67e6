package node_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the path of this module, and root its folder as a test of this
// package sees it.
const (
	module = "github.com/ostrich-legs/ostrich"
	root   = ".."
)

// house is the picture of docs/architecture.md as a table: what each package
// may reach of ours, through others too, and what of the rest it must not
// import itself. A package that is not here, and a line whose package is gone,
// are errors: a new room is drawn first.
var house = []struct {
	pkg   string
	may   []string // of ours; "*" is everything but main programs
	never []string // of the rest: import paths and all below them
	why   string
}{
	{"p2p/wire", nil, network, "the schema is the ground that everything stands on: it encodes, checks and names, and does nothing"},
	{"p2p/wire/wireconnect", []string{"p2p/wire"}, nil, "it is generated from the schema"},
	{"consensus/state", []string{"p2p/wire"}, effects, "the replicated state is pure: the same log must give the same state on every node, so it sees no clock, file, network, randomness, goroutine or log"},
	{"consensus/scheduler", []string{"consensus/state", "p2p/wire"}, effectsButTime, "the scheduler is a pure function of a view, so that a plan can be tested and repeated"},
	{"consensus", []string{"consensus/state", "p2p/wire"}, []string{"github.com/libp2p"}, "the Raft group gets its streams as a raft.StreamLayer, and does not know what an operation or a page means"},
	{"p2p", []string{"p2p/wire"}, []string{"go.etcd.io/bbolt"}, "the host connects devices; what travels in its streams, and who belongs to the swarm, are told to it as functions"},
	{"p2p/blob", []string{"p2p/wire"}, []string{"github.com/libp2p", "github.com/hashicorp"}, "pages know hashes and members; who votes, what is named and how to dial are told to them as functions"},
	{"node/session", []string{"p2p/wire"}, []string{"github.com/libp2p", "github.com/pion", "net"}, "a session is a protocol over any byte stream, so that a bridge can relay it and a browser can speak it; net in particular would tempt it to deadlines and addresses"},
	{"node/session/sessiontest", []string{"node/session", "p2p/wire"}, nil, "the conformance suite knows sessions, not the streams that it is run over"},
	{"node/sandbox", []string{"p2p/wire"}, network, "what runs hostile programs knows bounds and bytes, and nothing of networks, jobs or the swarm"},
	{"node/sandbox/programs", nil, network, "the built-in programs are data"},
	{"node/worker", []string{"node/session", "node/sandbox", "p2p/blob", "p2p/wire"}, []string{"github.com/libp2p", "github.com/hashicorp", "github.com/tetratelabs"}, "a device that works needs a session and a sandbox; the replicated state, Raft and the host are members' business"},
	{"node/coordinator", []string{"node/session", "consensus/scheduler", "consensus/state", "p2p/blob", "p2p/wire"}, []string{"github.com/libp2p", "github.com/hashicorp", "github.com/tetratelabs"}, "the leader's role sees the group, the pages and the peers through small interfaces of its own, so that a test can lead without Raft and a term is one call"},
	{"node/control", []string{"p2p/wire", "p2p/wire/wireconnect"}, []string{"github.com/libp2p", "github.com/hashicorp"}, "the local API guards its doors and carries errors; what the calls do is the node's business"},
	{"node/control/controltest", []string{"p2p/wire", "p2p/wire/wireconnect"}, nil, "a control service in memory stands in for a whole node, so it may not be one"},
	{"browserbridge", []string{"p2p/wire"}, []string{"github.com/libp2p/go-libp2p", "github.com/libp2p/go-libp2p-pubsub", "github.com/hashicorp"}, "a bridge relays what it does not understand: who belongs, where the coordinator is and how to let a device in are told to it as functions"},
	{"browserbridge/gobrowser", []string{"browserbridge", "p2p/wire"}, []string{"github.com/libp2p"}, "it is the browser's side alone: what it says in a session is its user's business"},
	{"browserbridge/web", nil, []string{"github.com"}, "the pages are files with headers; what they talk to is on the other side of the network"},
	{"node", []string{"*"}, nil, "it puts everything together"},
	{"node/simulation", nil, nil, "it is tests alone"},
	{"cmd/ostrich", []string{"*"}, parts, "the command line talks to the local node, by its control API, and starts one; a part that it took for itself would be a second swarm"},
	{"cmd/ostrich/e2e", nil, nil, "it tests the built binary from outside"},
	{"cmd/swarmbench", []string{"*"}, nil, "it measures all parts, and bare wazero beside them"},
}

// network is what reaches other machines.
var network = []string{"net", "github.com/libp2p", "github.com/hashicorp", "connectrpc.com"}

// parts are what a node is made of.
var parts = []string{
	module + "/consensus", module + "/node/coordinator", module + "/node/worker", module + "/node/session", module + "/p2p/blob",
	"github.com/libp2p", "github.com/hashicorp",
}

// effects is what makes a function give another answer the next time.
var effects = append([]string{"time"}, effectsButTime...)

var effectsButTime = append([]string{
	"context", "crypto/rand", "io/fs", "io/ioutil", "log", "math/rand", "os", "runtime", "sync", "syscall",
	"golang.org/x/sync", "golang.org/x/sys", "golang.org/x/time",
}, network...)

// owners says which packages may import a dependency that one part hides from
// the rest.
var owners = []struct {
	dependency string
	only       []string
	why        string
}{
	{"github.com/tetratelabs/wazero", []string{"node/sandbox", "cmd/ostrich", "cmd/swarmbench"}, "programs run in the sandbox's children: no limit of wazero holds inside the node's own process; demo and swarmbench run built-in programs beside it, to compare"},
	{"github.com/libp2p/go-libp2p", []string{"p2p"}, "libp2p stays behind the host, with its gate in front of every stream"},
	{"github.com/libp2p/go-libp2p-pubsub", []string{"p2p"}, "gossip goes through the host"},
	{"github.com/libp2p/go-yamux/v5", []string{"browserbridge"}, "what shares a pipe are the connections of browsers; streams to other devices are libp2p's, behind the host"},
	{"github.com/hashicorp/raft", []string{"consensus", "p2p"}, "Raft stays behind the group; the host alone gives it streams"},
	{"github.com/pion", []string{"browserbridge", "browserbridge/gobrowser"}, "the WebRTC stack is old and will be replaced: one package knows it, in three files and a process of its own, and its test double of a browser"},
	{"rsc.io/qr", []string{"cmd/ostrich"}, "pictures are for people"},
	{"go.etcd.io/bbolt", []string{"consensus"}, "the log's file has one owner"},
	{"github.com/spf13", []string{"cmd/ostrich"}, "flags end where the node's configuration begins"},
	{"connectrpc.com/connect", []string{"node", "node/control", "node/control/controltest", "p2p/wire/wireconnect", "cmd/ostrich"}, "Connect is the local API's way to talk; other parts know the schema only"},
}

// onlyTests are packages that serve tests and nothing else.
var onlyTests = []string{"node/session/sessiontest", "node/control/controltest", "node/simulation", "cmd/ostrich/e2e"}

// imports maps each package of ours, by its path in the module, to what its
// files import, tests apart, for whatever system they are.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string]map[string]bool)
	for _, name := range goFiles(t) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		pkg := path.Dir(name)
		if all[pkg] == nil {
			all[pkg] = make(map[string]bool)
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			all[pkg][imported] = true
		}
	}
	lists := make(map[string][]string)
	for pkg, set := range all {
		lists[pkg] = slices.Sorted(maps.Keys(set))
	}
	return lists
}

// goFiles lists the module's own Go files, with slashes, from its root on;
// folders that the go command passes over are left out.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := entry.Name(); entry.IsDir() && name != root && (base[0] == '.' || base[0] == '_' || base == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".go") {
			relative, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			files = append(files, filepath.ToSlash(relative))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no Go files in %s: is this test where it was?", root)
	}
	return files
}

// ours returns the path in the module of an import of ours.
func ours(imported string) (pkg string, ok bool) {
	return strings.CutPrefix(imported, module+"/")
}

// below reports whether an import is path or lies below it.
func below(imported, path string) bool {
	return imported == path || strings.HasPrefix(imported, path+"/")
}

// reach maps each package of ours that pkg imports, directly or not, to the way
// that leads there.
func reach(pkg string, imports map[string][]string) map[string]string {
	ways := make(map[string]string)
	var follow func(from, way string)
	follow = func(from, way string) {
		for _, imported := range imports[from] {
			to, ok := ours(imported)
			if !ok || ways[to] != "" {
				continue
			}
			ways[to] = way + " → " + to
			follow(to, ways[to])
		}
	}
	follow(pkg, pkg)
	return ways
}

func TestImportsPointOnlyWhereTheArchitectureSays(t *testing.T) {
	imports := imports(t)
	for _, room := range house {
		if _, ok := imports[room.pkg]; !ok {
			t.Errorf("the table of this test has a line for %s, which is not there", room.pkg)
		}
		for to, way := range reach(room.pkg, imports) {
			if !slices.Contains(room.may, "*") && !slices.Contains(room.may, to) {
				t.Errorf("%s must not import %s (%s): %s", room.pkg, to, way, room.why)
			}
		}
		for _, imported := range imports[room.pkg] {
			for _, never := range room.never {
				if below(imported, never) {
					t.Errorf("%s must not import %s: %s", room.pkg, imported, room.why)
				}
			}
		}
	}
}

func TestEveryPackageHasItsPlaceInTheHouse(t *testing.T) {
	known := make(map[string]bool)
	for _, room := range house {
		known[room.pkg] = true
	}
	for pkg := range imports(t) {
		if !known[pkg] {
			t.Errorf("package %s is not in the table of this test: say there what it may import and why, and draw it in docs/architecture.md", pkg)
		}
	}
}

func TestNoArrowRunsBack(t *testing.T) {
	for pkg, list := range imports(t) {
		program := strings.HasPrefix(pkg, "cmd/")
		for _, imported := range list {
			to, ok := ours(imported)
			switch {
			case !ok:
			case strings.HasPrefix(to, "cmd/"):
				t.Errorf("%s must not import %s: main programs are the top of the house", pkg, to)
			case to == "node" && !program:
				t.Errorf("%s must not import node: only node knows every part, so no part may know node; take what is needed as a function or a small interface", pkg)
			case slices.Contains(onlyTests, to) && !slices.Contains(onlyTests, pkg):
				t.Errorf("%s must not import %s outside tests: it exists for tests", pkg, to)
			}
		}
	}
}

func TestDependenciesStayBehindTheirOwners(t *testing.T) {
	for pkg, list := range imports(t) {
		for _, imported := range list {
			for _, owner := range owners {
				if below(imported, owner.dependency) && !slices.Contains(owner.only, pkg) {
					t.Errorf("%s must not import %s, only %s may: %s", pkg, imported, strings.Join(owner.only, ", "), owner.why)
				}
			}
		}
	}
}

// The rules above are worth something only if they see what they forbid.
func TestTheRulesSeeAWayThroughOthers(t *testing.T) {
	made := map[string][]string{
		"a": {module + "/b", "fmt"},
		"b": {module + "/c"},
		"c": {"os"},
	}
	got := fmt.Sprint(reach("a", made))
	if want := "map[b:a → b c:a → b → c]"; got != want {
		t.Errorf("reach of a is %s, want %s", got, want)
	}
	if below("network/x", "net") || !below("net/http", "net") || !below("net", "net") {
		t.Error("below takes a path for one that only begins like it")
	}
}
