package consensus

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// repeatAfter is how long an error of raft, once logged, is not logged again: a
// member that is switched off would otherwise fill the log.
const repeatAfter = time.Minute

// raftLog passes raft's log on to slog. Raft's errors become warnings, each at
// most once a minute; all else is for debugging only. Raft's own news (who
// leads, who votes) is logged by the Group, in our words.
type raftLog struct {
	hclog.Logger // what raft does not use; discards
	log          *slog.Logger
	recent       *recentErrors
}

// recentErrors remembers when each error was logged. Raft's messages are
// constants, so their number is bounded.
type recentErrors struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func newRaftLog(log *slog.Logger) *raftLog {
	return &raftLog{
		Logger: hclog.NewNullLogger(),
		log:    log,
		recent: &recentErrors{last: make(map[string]time.Time)},
	}
}

func (l *raftLog) Trace(string, ...any) {}

func (l *raftLog) Debug(msg string, args ...any) { l.pass(slog.LevelDebug, msg, args) }

func (l *raftLog) Info(msg string, args ...any) { l.pass(slog.LevelDebug, msg, args) }

func (l *raftLog) Warn(msg string, args ...any) { l.pass(slog.LevelDebug, msg, args) }

func (l *raftLog) Error(msg string, args ...any) {
	if l.recent.seen(msg, time.Now()) {
		l.pass(slog.LevelDebug, msg, args)
		return
	}
	l.pass(slog.LevelWarn, msg, args)
}

// Log passes a message of any level.
func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	if level == hclog.Error {
		l.Error(msg, args...)
		return
	}
	l.pass(slog.LevelDebug, msg, args)
}

// With returns a logger that adds args to each message.
func (l *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{Logger: l.Logger, log: l.log.With(args...), recent: l.recent}
}

// Named returns l: the component says enough.
func (l *raftLog) Named(string) hclog.Logger { return l }

func (l *raftLog) pass(level slog.Level, msg string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "raft: "+msg, args...)
	}
}

// seen reports whether msg was logged within repeatAfter, and if not, notes it.
func (r *recentErrors) seen(msg string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.last[msg]; ok && now.Sub(last) < repeatAfter {
		return true
	}
	r.last[msg] = now
	return false
}
