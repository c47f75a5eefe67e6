package state

import (
	"bytes"
	"crypto/ed25519"
	"math"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxText bounds the bytes of a short text in a snapshot.
const maxText = 4 << 10

// state reads a whole state.
func (d *decoder) state() *State {
	s := New()
	s.pages.begin()
	magic := make([]byte, len(snapshotMagic))
	d.fill(magic)
	d.expect(string(magic) == snapshotMagic, "it does not begin like a snapshot")
	version := d.version("version", 1)
	d.swarm(s, version)
	d.devices(s, version)
	d.removed(s)
	for n := d.limited("the number of invites", maxInvites); n > 0 && d.err == nil; n-- {
		d.invite(s)
	}
	for n := d.limited("the number of programs", maxPrograms); n > 0 && d.err == nil; n-- {
		d.program(s)
	}
	for n := d.limited("the number of jobs", maxJobs); n > 0 && d.err == nil; n-- {
		d.job(s)
	}
	if version >= 2 {
		for n := d.limited("the number of past jobs", maxPast); n > 0 && d.err == nil; n-- {
			d.past(s)
		}
	}
	d.expect(s.Founded() || len(s.devices)+len(s.removed)+len(s.invites)+len(s.programs)+len(s.jobs)+len(s.past) == 0,
		"it has facts of a swarm that is not founded")
	s.pages.end()
	return s
}

// version reads the version of the layout, or the format in use: both are from
// lowest to the newest that this program knows.
func (d *decoder) version(what string, lowest uint32) uint32 {
	v := d.uint()
	if d.err == nil && v > Format {
		d.fail(wire.Errorf(wire.Code_CODE_VERSION, "it has %s %d: this program reads those up to %d", what, v, Format))
	}
	d.expect(v >= uint64(lowest), "its version is none that was ever written")
	return uint32(v)
}

func (d *decoder) swarm(s *State, version uint32) {
	if version >= 2 {
		s.format = d.version("format", version)
	}
	s.rootKey = d.bytes("the root key", ed25519.PublicKeySize)
	s.leaseKey = d.bytes("the lease key", 32)
	s.founder = wire.DeviceID(d.text("the founder", maxActor))
	s.name = d.text("the swarm's name", maxText)
	s.generation = d.uint()
	s.nowMS = int64(d.limited("the time", maxTimeMS))
	s.life.jobs = d.uint()
	for i := range s.life.ended {
		s.life.ended[i] = d.uint()
	}
	s.life.tasks, s.life.completed, s.life.failed = d.uint(), d.uint(), d.uint()
	if d.err != nil {
		return
	}
	if len(s.rootKey) == 0 {
		d.expect(len(s.leaseKey) == 0 && s.founder == "" && s.name == "" && s.generation == 0,
			"it has facts of a swarm that is not founded")
		return
	}
	d.expect(len(s.rootKey) == ed25519.PublicKeySize && len(s.leaseKey) == 32 && s.generation > 0, "the swarm's keys are cut off")
	d.check(checkDeviceID(string(s.founder)))
	d.check(checkText("the swarm's name", s.name, 0, wire.MaxName))
}

func (d *decoder) devices(s *State, version uint32) {
	for n := d.limited("the number of devices", wire.MaxDevices); n > 0 && d.err == nil; n-- {
		v := &Device{ID: wire.DeviceID(d.text("a device's ID", maxActor)), Profile: &wire.DeviceProfile{}}
		d.message("a device's profile", v.Profile, maxProfileSize)
		v.Role = wire.Role(d.limited("a role", math.MaxInt32))
		v.JoinedAtMS = d.time("the time of a join")
		v.InvitedBy = d.text("an invite's ID", maxText)
		v.renamed = d.text("a device's name", maxText)
		v.Online = d.bool()
		v.PresenceAtMS = d.time("the time of a presence")
		v.TasksCompleted = d.uint()
		v.Mode = wire.DeviceMode_DEVICE_MODE_ENABLED
		if version >= 2 {
			v.Mode = wire.DeviceMode(d.limited("the mode of a device", math.MaxInt32))
		}
		if d.err != nil {
			return
		}
		d.check(checkDeviceID(string(v.ID)))
		d.check(checkProfile(v.Profile))
		d.check(checkRole(v.Role))
		d.check(checkMode(v.Mode))
		d.check(checkText("an invite's ID", v.InvitedBy, 0, maxActor))
		d.check(checkText("a device's name", v.renamed, 0, wire.MaxName))
		last := len(s.deviceOrder) - 1
		d.expect(last < 0 || s.deviceOrder[last].ID < v.ID, "devices are out of order")
		v.settleName()
		s.deviceOrder = append(s.deviceOrder, v)
		s.devices[v.ID] = v
	}
}

func (d *decoder) removed(s *State) {
	before := wire.DeviceID("")
	for n := d.limited("the number of removed devices", maxKnown); n > 0 && d.err == nil; n-- {
		id := wire.DeviceID(d.text("a device's ID", maxActor))
		d.check(checkDeviceID(string(id)))
		d.expect(before < id && s.devices[id] == nil, "removed devices are out of order")
		s.removed[id] = struct{}{}
		before = id
	}
}

func (d *decoder) invite(s *State) {
	key := d.hash()
	inv := &Invite{ID: inviteID(key[:]), LinkKey: key[:]}
	code := d.bytes("a code key", ed25519.PublicKeySize)
	inv.Role = wire.Role(d.limited("a role", math.MaxInt32))
	inv.MaxUses = d.u32("the uses of an invite")
	inv.Uses = d.u32("the uses of an invite")
	inv.CreatedAtMS = d.time("the time of an invite")
	inv.ExpiresAtMS = d.time("the time of an invite")
	inv.CreatedBy = wire.DeviceID(d.text("an invite's maker", maxActor))
	inv.Revoked = d.bool()
	if d.err != nil {
		return
	}
	d.check(s.checkInvite(&wire.IssueInvite{LinkKey: key[:], CodeKey: code, Role: inv.Role}))
	d.check(checkText("an invite's maker", string(inv.CreatedBy), 0, maxActor))
	if len(code) > 0 {
		inv.CodeKey = code
	}
	d.expect(s.InviteByKey(inv.LinkKey) == nil && s.InviteByKey(inv.CodeKey) == nil && s.inviteByID(inv.ID) == nil,
		"two invites have one key")
	if d.err == nil {
		s.addInvite(inv)
	}
}

func (d *decoder) program(s *State) {
	p := &program{program: &wire.Program{}}
	d.message("a program", p.program, maxSpecSize)
	p.lastUsedMS = d.time("the last use of a program")
	if d.err != nil {
		return
	}
	if d.check(checkProgram(p.program)); d.err != nil {
		return
	}
	h := programHash(p.program)
	d.expect(s.programs[h] == nil, "two programs have one hash")
	s.programs[h] = p
	each(p.program.GetBlob().GetPages(), s.pages.name)
}

func (d *decoder) job(s *State) {
	j := &Job{id: wire.JobID(d.text("a job's ID", maxText)), seq: s.nextSeq, spec: &wire.JobSpec{}}
	d.message("a job's spec", j.spec, maxSpecSize)
	j.submitter = wire.DeviceID(d.text("a submitter", maxActor))
	j.createdMS = d.time("the time of a job")
	j.touchedMS = d.time("the time of a job")
	j.endedMS = d.time("the time of a job")
	j.phase = Phase(d.limited("the phase of a job", uint64(Cancelled)))
	j.err = d.text("the error of a job", maxText)
	j.closed = d.bool()
	j.digest = wire.Digest(d.hash())
	j.leasedBelow = d.u32("the lease mark of a job")
	j.retriedAt = d.u32("the retry mark of a job")
	d.segments(s, j)
	for n := d.limited("the number of batches", maxNumber); n > 0 && d.err == nil; n-- {
		d.batch(s, j)
	}
	d.failures(j)
	if d.err == nil {
		d.checkJob(s, j)
	}
	if d.err == nil {
		d.keepJob(s, j)
	}
}

// checkJob verifies what the parts of a job say of each other.
func (d *decoder) checkJob(s *State, j *Job) {
	d.check(j.id.Check())
	d.check(checkSpec(j.spec))
	d.check(checkText("a submitter", string(j.submitter), 0, maxActor))
	d.check(checkText("the error of a job", j.err, 0, wire.MaxErrorText))
	if d.err != nil {
		return
	}
	held := s.programs[programHash(j.spec.GetProgram())]
	d.expect(held != nil && sameBlob(held.program.GetBlob(), j.spec.GetProgram().GetBlob()), "a job has no program")
	d.expect(s.jobs[j.id] == nil, "two jobs have one ID")
	d.expect(j.leasedBelow <= j.total && j.retriedAt <= j.next, "a job's marks are beyond its tasks")
	d.expect(j.Ended() || j.endedMS == 0 && j.err == "" && !(j.closed && j.pending() == 0), "a job that has ended is open")
	d.expect(j.phase != Done || j.closed && j.completed == j.total, "a job is done whose tasks are not")
	for i := range j.segments {
		g := &j.segments[i]
		d.expect((g.wire == nil) == (g.completed == g.count), "a segment's bytes do not fit its tasks")
		if g.open() {
			j.openBytes += g.wire.GetBytes()
		}
	}
}

func (d *decoder) keepJob(s *State, j *Job) {
	s.nextSeq++
	s.jobs[j.id] = j
	s.jobOrder = append(s.jobOrder, j)
	s.programs[programHash(j.spec.GetProgram())].jobs++
	if !j.Ended() {
		s.openJobs = append(s.openJobs, j)
	}
	d.expect(len(s.openJobs) <= wire.MaxOpenJobs, "too many jobs are open")
}

func (d *decoder) segments(s *State, j *Job) {
	for n := d.limited("the number of segments", wire.MaxTasks); n > 0 && d.err == nil; n-- {
		g := segment{first: j.total}
		if d.bool() {
			g.wire = &wire.Segment{}
			d.message("a segment", g.wire, maxSegmentSize)
			if d.err == nil {
				d.check(checkSegment(g.wire))
			}
			d.expect(g.wire.GetFirst() == g.first, "segments are out of order")
			g.count = g.wire.GetCount()
		} else {
			g.count = uint32(d.limited("the size of a segment", wire.MaxPackItems))
			g.print = d.uint()
		}
		d.expect(g.count > 0 && j.total <= wire.MaxTasks-g.count, "a job has too many inputs")
		if d.err != nil {
			return
		}
		if g.wire != nil {
			g.print = fingerprint(g.wire)
			eachSegmentPage(g.wire, s.pages.name)
		}
		j.total += g.count
		j.segments = append(j.segments, g)
	}
}

func (d *decoder) failures(j *Job) {
	before := -1
	for n := d.limited("the number of failures", wire.MaxTasks); n > 0 && d.err == nil; n-- {
		i := uint32(d.limited("the index of a task", wire.MaxTasks))
		times := uint16(d.limited("the failures of a task", wire.MaxRetries+1))
		d.expect(int(i) > before && i < j.total && times > 0, "failures are out of order")
		d.expect(!j.TaskDone(i) || j.TaskFailed(i), "a completed task has failures")
		if j.failures == nil {
			j.failures = map[uint32]uint16{}
		}
		j.failures[i] = times
		before = int(i)
	}
}

func (d *decoder) batch(s *State, j *Job) {
	b := &batch{first: j.next, items: uint32(d.limited("the size of a batch", wire.MaxPackItems))}
	if inline := d.bytes("a batch", wire.MaxInline); len(inline) > 0 {
		b.inline = inline
		_, err := checkInline(&wire.Segment{Count: b.items, Inline: inline})
		d.check(err)
	} else {
		b.page = d.hash()
	}
	for n := d.limited("the number of output pages", math.MaxInt32); n > 0 && d.err == nil; n-- {
		b.outputs = append(b.outputs, d.hash())
	}
	count := d.limited("the results of a batch", uint64(b.items))
	codes := d.bytes("the places of a batch", count*maxPlaceSize)
	if d.err != nil {
		return
	}
	d.check(b.places.decode(codes, place{index: j.total, item: b.items}))
	d.expect(count > 0 && b.places.count == uint32(count) && bytes.Equal(codes, b.places.codes), "the places of a batch are not as written")
	d.expect(j.next <= maxNumber-b.places.count, "a job has too many results")
	if d.err != nil {
		return
	}
	number := b.first
	b.places.each(func(at place) {
		d.recorded(j, number, at)
		number++
	})
	s.addBatch(j, b)
}

// recorded notes, as Apply once did, the result of that number.
func (d *decoder) recorded(j *Job, number uint32, at place) {
	if at.failed && number < j.retriedAt {
		return // run again since
	}
	d.expect(!j.TaskDone(at.index), "a task has two results")
	g := &j.segments[j.segmentOf(at.index)]
	value := number + 1
	if at.failed {
		value |= failedBit
		g.failed++
		j.failed++
	} else {
		g.completed++
		j.completed++
	}
	j.numbers.set(at.index, value)
}
