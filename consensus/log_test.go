package consensus

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRaftsErrorsAreLoggedOnceAMinuteAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newRaftLog(slog.New(slog.NewTextHandler(&out, nil))).With("id", 1)
		l.Info("noise")
		l.Warn("noise")
		for range 3 {
			l.Error("disk broke", "error", "x")
			l.Named("sub").Error("other")
		}
		time.Sleep(repeatAfter)
		l.Error("disk broke", "error", "x")
		for text, want := range map[string]int{"noise": 0, "disk broke": 2, "other": 1, "id=1": 3} {
			if got := strings.Count(out.String(), text); got != want {
				t.Errorf("%q was logged %d times, want %d:\n%s", text, got, want, out.String())
			}
		}
	})
}
