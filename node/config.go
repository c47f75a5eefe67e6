package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Default addresses: section 9 and 10 of the design.
const (
	DefaultPublic  = "0.0.0.0:7777"
	DefaultControl = control.DefaultListen
	// DefaultP2P means port 7776 of every address, IPv4 and IPv6.
	DefaultP2P = ""
)

// Config says what a node is to be. Flags of "ostrich up" map one to one.
type Config struct {
	// DataDir holds all that the node remembers. One node at a time uses it.
	DataDir string
	// Name is the device's name; "" keeps the one it has, or takes the host's.
	Name string
	// Join is an invite in any of its forms; "" resumes or founds.
	Join string
	// SwarmName names a swarm that is founded; "" takes the device's name.
	SwarmName string
	// Public, Control and P2P are HOST:PORT of the three listeners.
	Public, Control, P2P string
	// TLSCert and TLSKey are PEM files with which the public listener speaks
	// https; "" for http.
	TLSCert, TLSKey string
	// NoMDNS turns discovery by multicast off.
	NoMDNS bool
	// Slots is how many tasks it runs at one time; 0 decides by the cores.
	Slots int
	// Labels are K=V for --require.
	Labels map[string]string
	// Version is the program's.
	Version string
	Log     *slog.Logger
}

// DefaultConfig returns the configuration of a node of this user.
func DefaultConfig() Config {
	dir, err := os.UserConfigDir()
	if err != nil {
		dir = "."
	}
	return Config{
		DataDir: filepath.Join(dir, "ostrich"),
		Public:  DefaultPublic,
		Control: DefaultControl,
		P2P:     DefaultP2P,
		Version: "devel",
		Log:     slog.New(slog.DiscardHandler),
	}
}

// Validate returns every problem of the configuration at once.
func (c Config) Validate() error {
	var problems []error
	if c.DataDir == "" {
		problems = append(problems, errors.New("no data folder: give one with --data"))
	}
	if c.Name != "" {
		if err := wire.CheckName(c.Name); err != nil {
			problems = append(problems, fmt.Errorf("--name: %w", err))
		}
	}
	if err := wire.CheckLabels(c.Labels); err != nil {
		problems = append(problems, fmt.Errorf("--label: %w", err))
	}
	if c.Slots < 0 || c.Slots > 1024 {
		problems = append(problems, fmt.Errorf("--slots %d: 1 to 1024, or 0 to decide by the cores", c.Slots))
	}
	for _, a := range []struct{ flag, address string }{{"--public", c.Public}, {"--control", c.Control}, {"--p2p", c.P2P}} {
		if a.address == "" {
			continue
		}
		if err := p2p.CheckListen(a.address); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", a.flag, err))
		}
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		problems = append(problems, errors.New("--tls-cert and --tls-key: give both or none"))
	}
	if err := errors.Join(problems...); err != nil {
		return wire.Errorf(wire.Code_CODE_INVALID, "%v", err)
	}
	return nil
}

// slots is how many tasks a node of so many cores runs at one time: one core is
// left to its owner, two of more than eight. Source: section 7 of the design.
func (c Config) slots() int {
	if c.Slots > 0 {
		return c.Slots
	}
	cores := runtime.NumCPU()
	reserved := 1
	if cores > 8 {
		reserved = 2
	}
	return max(1, cores-reserved)
}
