package node

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxLines bounds the log lines that a node remembers.
	maxLines = 1000
	// topicLog is the gossip topic of what happened, for people.
	topicLog = "log"
	// maxLineText bounds the text of a line.
	maxLineText = 2000
	// gossipEvery is the pause between two messages of the log topic, so that
	// many lines share one.
	gossipEvery = 200 * time.Millisecond
)

// logBook remembers what happened in the swarm, and lets readers follow.
type logBook struct {
	mu    sync.Mutex
	lines []*wire.LogLine // the newest maxLines
	first uint64          // number of lines[0] since the start
	more  chan struct{}   // closed, and replaced, at each new line

	outgoing []*wire.LogLine
	wake     chan struct{}
}

func newLogBook() *logBook {
	return &logBook{more: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// auditHandler passes on what a part logs, and notes what it marks as an audit
// event in the book too, which people look at.
type auditHandler struct {
	slog.Handler
	book *logBook
	self wire.DeviceID
}

// Enabled implements slog.Handler: refusals are warnings, and always noted.
func (h auditHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || h.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h auditHandler) Handle(ctx context.Context, r slog.Record) error {
	audit, device := false, ""
	words := []string{r.Message}
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "audit":
			audit = a.Value.Kind() == slog.KindBool && a.Value.Bool()
		case "device":
			device = a.Value.String()
		case "what":
			words = append(words, a.Value.String())
		default:
			words = append(words, a.Key+" "+a.Value.String())
		}
		return true
	})
	if audit {
		h.book.publish(&wire.LogLine{
			TimeMs: r.Time.UnixMilli(), Level: "warn", Source: "node " + h.self.Short(), Device: device,
			Message: shown(strings.Join(words, " ")), Audit: true,
		})
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h auditHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return auditHandler{h.Handler.WithAttrs(attrs), h.book, h.self}
}

// WithGroup implements slog.Handler.
func (h auditHandler) WithGroup(name string) slog.Handler {
	return auditHandler{h.Handler.WithGroup(name), h.book, h.self}
}

// shown is a text as a line may have it: printable and short enough.
func shown(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	if len(text) > maxLineText {
		text = strings.ToValidUTF8(text[:maxLineText], "")
	}
	return text
}

// Levels of the lines that a node writes itself.
const (
	lineInfo = "info"
	lineWarn = "warn"
)

// announce tells people, here and on the other nodes, of something that this
// node did.
func (n *node) announce(level string, audit bool, message string) {
	n.logs.publish(&wire.LogLine{
		TimeMs: time.Now().UnixMilli(), Level: level, Source: "node", Device: string(n.id.ID),
		Message: shown(message), Audit: audit,
	})
	if level == lineWarn {
		n.log.Warn(message)
	} else {
		n.log.Info(message)
	}
}

// note remembers a line.
func (b *logBook) note(line *wire.LogLine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keep(line)
}

func (b *logBook) keep(line *wire.LogLine) {
	b.lines = append(b.lines, line)
	if n := len(b.lines) - maxLines; n > 0 {
		b.lines = append(b.lines[:0:0], b.lines[n:]...)
		b.first += uint64(n)
	}
	close(b.more)
	b.more = make(chan struct{})
}

// publish remembers a line and queues it for the other nodes. Lines beyond the
// bound of the queue stay here only.
func (b *logBook) publish(line *wire.LogLine) {
	b.mu.Lock()
	b.keep(line)
	if len(b.outgoing) < maxLines {
		b.outgoing = append(b.outgoing, line)
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// since returns the lines from a number on, the number to go on with, and a
// channel that closes when there are more.
func (b *logBook) since(number uint64) (lines []*wire.LogLine, next uint64, more <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	skip := uint64(0)
	if number > b.first {
		skip = min(number-b.first, uint64(len(b.lines)))
	}
	lines = append(lines, b.lines[skip:]...)
	return lines, b.first + uint64(len(b.lines)), b.more
}

// gossip sends queued lines to the other nodes until ctx ends, with the term in
// which this one coordinates.
func (b *logBook) gossip(ctx context.Context, term func() uint64, send func(context.Context, string, []byte) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		}
		for _, message := range b.takeOutgoing(term()) {
			// A line that gossip drops is lost to others, not to this node.
			_ = send(ctx, topicLog, message)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(gossipEvery):
		}
	}
}

// takeOutgoing returns the queued lines as messages within the bound.
func (b *logBook) takeOutgoing(term uint64) (messages [][]byte) {
	b.mu.Lock()
	lines := b.outgoing
	b.outgoing = nil
	b.mu.Unlock()
	const perMessage = wire.MaxGossip / (maxLineText + 512)
	for len(lines) > 0 {
		n := min(len(lines), perMessage)
		message, err := proto.Marshal(&wire.GossipLog{Lines: lines[:n], Term: term})
		if err == nil && len(message) <= wire.MaxGossip {
			messages = append(messages, message)
		}
		lines = lines[n:]
	}
	return messages
}

// heard takes a message of the log topic from a member, and returns the term in
// which that coordinates, as it says; 0 where it does not.
func (b *logBook) heard(message []byte) (term uint64) {
	var m wire.GossipLog
	if proto.Unmarshal(message, &m) != nil || len(m.GetLines()) > maxLines {
		return 0
	}
	for _, line := range m.GetLines() {
		if validLine(line) {
			b.note(line)
		}
	}
	return m.GetTerm()
}

// validLine reports whether a line from elsewhere may be shown to people.
func validLine(l *wire.LogLine) bool {
	return len(l.GetMessage()) <= maxLineText &&
		len(l.GetSource()) <= wire.MaxName && len(l.GetLevel()) <= wire.MaxName && len(l.GetDevice()) <= wire.MaxName &&
		wire.CheckText(l.GetMessage(), l.GetSource(), l.GetLevel(), l.GetDevice())
}
