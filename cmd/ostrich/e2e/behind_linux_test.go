package e2e

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// farBehind bounds how long a member may take to catch up.
const farBehind = 2 * time.Minute

// fallBehind has a member miss more than the log keeps, and pages, and come back
// while the others work. At full size:
//
//	go run ./cmd/swarmbench -only behind
func fallBehind(o *ordeal) {
	o.nodes = swarm(o.t, 3)
	o.work()
	leader, others := o.agree()
	o.suffer(harm{
		name: "a member falls behind", victims: others[:1],
		begin: func() {
			others[0].stop()
			growLog(leader, 72<<20)
			// Inputs of tasks that nobody can run are kept.
			var in []io.Reader
			for i := range 64 {
				in = append(in, strings.NewReader(strings.Repeat(fmt.Sprintf("%07d\n", i), 1<<17)))
			}
			leader.do(io.MultiReader(in...), "map", "builtin:noop", "--chunk", "1M", "--require", "gpu", "--detach")
		},
		end: func() {
			others[0].up()
			began := time.Now()
			goal, err := leader.ask()
			if err != nil {
				o.t.Fatal(err)
			}
			const slack = 4 << 20 // pages of work in progress
			eventually(o.t, farBehind, others[0].name+" has all entries and pages", func() bool {
				st, err := others[0].ask()
				return err == nil && st.GetQuorum() && st.GetApplied() >= goal.GetApplied() && st.GetPagesMissing() == 0 && st.GetBytesStored()+slack >= goal.GetBytesStored()
			})
			o.t.Logf("%s has caught up %v after it was ready", others[0].name, time.Since(began))
		},
	})
	o.account()
}
