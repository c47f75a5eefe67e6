// Package simulation is a test that runs a whole swarm in simulated time and
// breaks it: the real coordinator, scheduler, replicated state, Raft group,
// pages and workers, on members and devices that are joined by a network in
// memory, inside bubbles of testing/synctest. It holds nothing but tests, and
// nothing imports it.
//
// One run is one swarm: it is founded, clients offer about a hundred tasks a
// second, an operator renames, drains and removes devices, a hostile device
// delivers results of leases that it forged, and all the while members and
// devices are isolated, cut off one way, split in halves, slowed down, killed
// and restarted, alone or all at once, clocks jump forward and back, and the
// power fails. Logs are on disks of the simulation (disk_test.go), which take
// time to sync and lose what they have not synced when the power fails. In the
// end everything is healed, and what was acknowledged is compared with what is
// there. A run prints its seed first, and its figures last. It is red when
//
//   - no election, fault or completion happened, or fewer than a fault a minute,
//     90 tasks offered a second and 25,000 checked operations an hour;
//   - an acknowledged submit, append, close, cancel or completion is lost;
//   - a task was recorded twice, or its result or number changed;
//   - a client sees results out of order, or others when it reads again, or one
//     that no device computed;
//   - two leaders accept in one term, or one of a generation that is past;
//   - the state differs between two members at one index of the log;
//   - a job does not end within a minute after the last fault is healed;
//   - the members do not agree 10 s after that;
//   - a history of one job, one invite or one device of the registry cannot be
//     put in one order (linearizability, checked by porcupine).
//
// The seed fixes the faults and the load, not the order in which goroutines
// run, so that a seed that was red may need a few runs to be so again.
//
// Bytes hardly ever come twice in those swarms. So there are small worlds of their
// own in which all bytes come from five programs and five inputs
// (recurring_test.go): pages are named, given back and put anew all the time, by
// several devices and jobs at one time, over retries, cancels, IDs that are used
// again, restarts, full disks and a disk that loses its pages. After each step the
// disks of the voters are compared with what the state names. A world is red when
//
//   - a page that the state names is not on the disks of most of the voters, the
//     one disk that loses pages apart, or is on none;
//   - a job does not end as its client means it, or a result of one that has ended
//     cannot be read, or is not, byte for byte, what its program gives;
//   - two minutes after the last work some member lacks a page.
//
// CI runs eight swarms of 15 minutes, two of them with five members, and 200 worlds
// of recurring bytes. At full size:
//
//	go test ./node/simulation -run Survives -hours 1000 -timeout 0
//	go test ./node/simulation -run PowerFailures -failures 500 -timeout 0
//	go test ./node/simulation -run RecurringBytes -recurring 10000 -timeout 0
//
// The first runs swarms of 20 minutes, as many at one time as there are
// processors, with seeds that count up from -seed, until 1,000 simulated hours
// are over: about a day on two processors. -members 5 makes the swarms larger.
//
// What the checks are worth is itself tested: each test in sabotage_test.go and
// counterfeit_test.go, and TestDisksThatDoNotSyncAreSeen, breaks one rule and
// must see red.
package simulation
