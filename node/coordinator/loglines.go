package coordinator

import (
	"fmt"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Levels of a log line.
const (
	lineInfo = "info"
	lineWarn = "warn"
)

// say tells people that something happened, about device.
func (c *Coordinator) say(level string, device wire.DeviceID, format string, args ...any) {
	c.cfg.Publish(c.line(level, device, fmt.Sprintf(format, args...)))
}

// audit tells people of a refusal of trust or a change by an actor.
func (c *Coordinator) audit(device wire.DeviceID, format string, args ...any) {
	line := c.line(lineWarn, device, fmt.Sprintf(format, args...))
	line.Audit = true
	c.cfg.Publish(line)
}

func (c *Coordinator) line(level string, device wire.DeviceID, text string) *wire.LogLine {
	return &wire.LogLine{
		TimeMs:  time.Now().UnixMilli(),
		Level:   level,
		Source:  "coordinator",
		Device:  string(device),
		Message: text,
	}
}
