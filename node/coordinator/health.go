package coordinator

// maxUnwell bounds what a device says of its sandbox, in characters.
const maxUnwell = 300

// noteHealth keeps why a device can run nothing now, "" if it can. What it holds
// goes to others at once, which counts as no attempt, and it is given nothing
// until it is well.
func (c *Coordinator) noteHealth(d *device, unwell string) {
	if runes := []rune(showable(unwell)); len(runes) > maxUnwell {
		unwell = string(runes[:maxUnwell])
	} else {
		unwell = string(runes)
	}
	c.mu.Lock()
	before := d.unwell
	if c.devices[d.id] != d || before == unwell {
		c.mu.Unlock()
		return
	}
	d.unwell = unwell
	if unwell != "" {
		c.revoke(d)
	}
	c.wake()
	c.mu.Unlock()
	switch {
	case !d.lines.Allow():
	case before == "":
		c.say(lineWarn, d.id, "device %s is sick, and is given no work: %s", d.id.Short(), unwell)
	case unwell == "":
		c.say(lineInfo, d.id, "device %s is well again", d.id.Short())
	}
}
