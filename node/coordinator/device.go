package coordinator

import (
	"time"

	"github.com/ostrich-legs/ostrich/consensus/scheduler"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxGrants bounds the grants that wait for a device's sender.
const maxGrants = 64

// device is one session of a device. The fields below conn are guarded by the
// coordinator's mutex.
type device struct {
	id    wire.DeviceID
	role  wire.Role
	slots int
	conn  *session.Conn
	// grants are tasks leased to it whose inputs are still to be sent.
	grants chan grant
	staged stagedPages

	profile  *wire.DeviceProfile
	inFlight map[wire.JobID]int
	total    int                     // sum of inFlight
	specSent map[wire.JobID]struct{} // used by its sender only
	lastSeen time.Time
	load     *wire.Heartbeat
	// speed corrects its weight by what it really does; 1 is the swarm's mean.
	speed float64
	// gone is when its link broke; its leases are kept for a while.
	gone time.Time
}

// grant is a set of tasks of one job leased to one device.
type grant struct {
	job     wire.JobID
	indexes []uint32
}

func newDevice(conn *session.Conn, hello *wire.Hello, role wire.Role) *device {
	d := &device{
		id:       wire.DeviceID(hello.GetDeviceId()),
		role:     role,
		slots:    int(hello.GetSlots()),
		conn:     conn,
		grants:   make(chan grant, maxGrants),
		profile:  hello.GetProfile(),
		inFlight: make(map[wire.JobID]int),
		specSent: make(map[wire.JobID]struct{}),
		lastSeen: time.Now(),
		speed:    1,
	}
	return d
}

// hold adds n tasks of a job to what the device has in flight; n may be
// negative.
func (d *device) hold(job wire.JobID, n int) {
	d.inFlight[job] += n
	d.total += n
	if d.inFlight[job] <= 0 {
		delete(d.inFlight, job)
	}
	d.conn.SetBusy(d.total > 0)
}

// schedulable is the device as the scheduler sees it.
func (d *device) schedulable() scheduler.Device {
	can := d.profile.GetCapabilities()
	cores := int(can.GetCpuCores())
	weight := scheduler.Weight(cores, can.GetGpuAvailable(), d.profile.GetOpsScore())
	return scheduler.Device{
		ID:        d.id,
		Slots:     d.slots,
		Cores:     cores,
		MemoryMiB: int(can.GetMemoryGb() * 1024),
		GPU:       can.GetGpuAvailable(),
		Browser:   d.profile.GetType() == wire.DeviceType_DEVICE_TYPE_BROWSER,
		Labels:    d.profile.GetLabels(),
		Weight:    weight * d.speed,
		InFlight:  d.inFlight,
	}
}
