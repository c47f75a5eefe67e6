package coordinator

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Levels of a log line.
const (
	lineInfo  = "info"
	lineWarn  = "warn"
	lineError = "error"
)

// maxLine bounds the text of a line, in bytes.
const maxLine = 1500

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

// refused is audit for what a device does, which it may do often.
func (c *Coordinator) refused(d *device, format string, args ...any) {
	if d.refusals.Allow() {
		c.audit(d.id, format, args...)
	}
}

// relay tells people what a device says, as its words and within bounds.
func (c *Coordinator) relay(d *device, said *wire.LogLine) {
	if !d.lines.Allow() {
		return
	}
	level := said.GetLevel()
	switch level {
	case lineInfo, lineWarn, lineError:
	default:
		level = lineInfo
	}
	line := c.line(level, d.id, said.GetMessage())
	line.Source = "device"
	c.cfg.Publish(line)
}

// showable makes a text fit for a terminal: what cannot be printed in it becomes
// a space.
func showable(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	if len(text) > maxLine {
		text = strings.ToValidUTF8(text[:maxLine], "")
	}
	return text
}

func (c *Coordinator) line(level string, device wire.DeviceID, text string) *wire.LogLine {
	return &wire.LogLine{
		TimeMs:  time.Now().UnixMilli(),
		Level:   level,
		Source:  "coordinator",
		Device:  string(device),
		Message: showable(text),
	}
}
