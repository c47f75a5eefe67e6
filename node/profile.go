package node

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unicode"

	"github.com/pbnjay/memory"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// profile is what this machine says of itself.
func (c Config) profile(name string) *wire.DeviceProfile {
	return &wire.DeviceProfile{
		Name: name,
		Type: deviceType(),
		Capabilities: &wire.Capabilities{
			CpuCores: uint32(min(runtime.NumCPU(), 1024)),
			MemoryGb: memoryGB(),
			Runtime:  "wazero",
		},
		Labels:   c.Labels,
		OpsScore: benchmark(),
		Version:  c.Version,
		Format:   state.Format,
	}
}

// defaultName is the host's name as a device's name.
func defaultName() string {
	host, err := os.Hostname()
	if err != nil {
		return "device"
	}
	host = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, host)
	if wire.CheckName(host) != nil {
		return "device"
	}
	return host
}

// deviceType tells a server from a desktop by whether somebody can look at it.
func deviceType() wire.DeviceType {
	switch {
	case os.Getenv("COLAB_RELEASE_TAG") != "":
		return wire.DeviceType_DEVICE_TYPE_NOTEBOOK
	case runtime.GOOS != "linux":
		return wire.DeviceType_DEVICE_TYPE_DESKTOP
	case graphical():
		return wire.DeviceType_DEVICE_TYPE_DESKTOP
	default:
		return wire.DeviceType_DEVICE_TYPE_SERVER
	}
}

func graphical() bool {
	cards, _ := filepath.Glob("/sys/class/drm/card*-*/status")
	for _, card := range cards {
		if status, err := os.ReadFile(card); err == nil && strings.TrimSpace(string(status)) == "connected" {
			return true
		}
	}
	return false
}

// memoryGB is the machine's memory in GB of 2^30 bytes, to a tenth, within the
// bounds of section 11.
func memoryGB() float64 {
	gb := float64(memory.TotalMemory()) / (1 << 30)
	return min(65536, max(0.125, math.Round(gb*10)/10))
}

// benchmark counts operations a millisecond of a fixed loop on one core, for
// the weight of the device. It takes about 10 ms.
func benchmark() float64 {
	// An operation is ten rounds of the generator, so that a core of 2024 scores
	// about 50,000: halfway to what the weight takes into account.
	const steps, rounds = 100_000, 10
	best := math.Inf(1)
	x := uint64(88172645463325252)
	for range 20 {
		start := time.Now()
		for range steps {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		best = min(best, float64(time.Since(start))/float64(time.Millisecond))
	}
	if x == 0 { // never: it keeps the loop from being optimised away
		return 0
	}
	return math.Round(min(1e12, steps/rounds/max(best, 1e-3)))
}
