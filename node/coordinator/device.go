package coordinator

import (
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus/scheduler"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxGrants bounds the grants that wait for a device's sender.
	maxGrants = 64
	// maxHeld bounds the tasks leased to a device at one time, whatever it says
	// of its slots and speed. Devices take four times as many.
	maxHeld = 1 << 18
	// maxHeldBytes bounds the inputs that a device holds; it takes twice as much.
	maxHeldBytes = 128 << 20
	// What a device may have the log say of it.
	linesPerSecond, lineBurst       = 5, 50
	refusalsPerSecond, refusalBurst = 1, 20
)

// device is one session of a device. The fields below conn are guarded by the
// coordinator's mutex.
type device struct {
	id    wire.DeviceID
	slots int
	conn  *session.Conn
	// grants are tasks leased to it whose inputs are still to be sent.
	grants chan *lease
	staged stagedPages

	profile  *wire.DeviceProfile
	leases   map[*lease]struct{}
	inFlight map[wire.JobID]int // tasks of the leases
	total    int                // sum of inFlight
	// late are tasks that it proved to have had when others had them already:
	// its results of them are welcome while they are open.
	late map[*jobQueue]map[uint32]struct{}
	// inputBytes is what was sent with the leases; room wakes the sender, which
	// waits while that is too much.
	inputBytes int
	room       chan struct{}
	// slowed wakes the reader of its results, which waits while too many of them
	// are to be recorded.
	slowed chan struct{}

	specSent map[incarnation]struct{} // used by its sender only
	// lines and refusals bound what it can make the log say.
	lines, refusals *rate.Limiter

	lastSeen time.Time
	// speed corrects its weight by what it really does; 1 is the swarm's mean.
	speed float64
	// gone is when its link broke; its leases are kept for a while.
	gone time.Time
	// mode is what the registry says of whether it is given work.
	mode wire.DeviceMode
	// unwell is why it can run nothing now, in its own words; "" if it can.
	unwell string
	// profileDue is set until the registry has its profile as this session told
	// it.
	profileDue bool
	// expelled is set when the device was removed: its session ends soon.
	expelled bool
}

func newDevice(conn *session.Conn, hello *wire.Hello, all *staging, u *useless) *device {
	return &device{
		id:       wire.DeviceID(hello.GetDeviceId()),
		slots:    int(hello.GetSlots()),
		conn:     conn,
		grants:   make(chan *lease, maxGrants),
		staged:   stagedPages{all: all, useless: u},
		slowed:   make(chan struct{}, 1),
		profile:  hello.GetProfile(),
		leases:   make(map[*lease]struct{}),
		inFlight: make(map[wire.JobID]int),
		late:     make(map[*jobQueue]map[uint32]struct{}),
		room:     make(chan struct{}, 1),
		specSent: make(map[incarnation]struct{}),
		lines:    rate.NewLimiter(linesPerSecond, lineBurst),
		refusals: rate.NewLimiter(refusalsPerSecond, refusalBurst),
		lastSeen: time.Now(),
		speed:    1,
		mode:     wire.DeviceMode_DEVICE_MODE_ENABLED,
	}
}

// leaving is when and how the last session of a device ended.
type leaving struct {
	at      time.Time
	goodbye bool
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

// expect notes that a late result of a task is welcome.
func (d *device) expect(q *jobQueue, index uint32) {
	if d.late[q] == nil {
		d.late[q] = make(map[uint32]struct{})
	}
	d.late[q][index] = struct{}{}
}

// freed lets its sender go on.
func (d *device) freed() {
	select {
	case d.room <- struct{}{}:
	default:
	}
}

// cancel tells the device to stop working on tasks of a lease; on all of them
// if indexes is nil.
func (d *device) cancel(job wire.JobID, attempt *wire.Attempt, indexes []uint32) {
	d.staged.cancel(attempt, indexes)
	d.conn.Post(&wire.Frame{Kind: &wire.Frame_CancelTasks{CancelTasks: &wire.CancelTasks{
		JobId: string(job), Attempt: attempt, Indexes: indexes,
	}}})
}

// acknowledge tells the device what became of results.
func (d *device) acknowledge(ack *wire.ResultsAck) {
	d.conn.Post(&wire.Frame{Kind: &wire.Frame_ResultsAck{ResultsAck: ack}})
}

// incarnation tells a job from another that had its ID before.
type incarnation struct {
	id        wire.JobID
	createdMS int64
}

// needsSpec reports whether the next lease of a job must describe it. Its sender
// alone calls it.
func (d *device) needsSpec(job incarnation, spec *wire.JobSpec) bool {
	if proto.Size(spec) <= smallSpec {
		return true
	}
	_, sent := d.specSent[job]
	if len(d.specSent) >= maxSpecsSent {
		clear(d.specSent)
	}
	d.specSent[job] = struct{}{}
	return !sent
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
		Barred:    d.mode != wire.DeviceMode_DEVICE_MODE_ENABLED,
		Sick:      d.unwell != "",
		Weight:    weight * d.speed,
		InFlight:  d.inFlight,
	}
}
