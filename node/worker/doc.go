// Package worker is the device's role: it finds the coordinator, keeps one
// session with it alive, and runs the tasks that it is leased in its slots.
//
//	coordinator ◀──── session ────▶ Link ◀── Call: the node's own requests
//	                                 │
//	Lease, CancelTasks, ResultsAck ──▶ holdings ──▶ runners ──▶ sandbox
//	Results, Heartbeat ◀── reporter ◀──┘    ▲
//	                                    programs, inputs (pages over the link)
//
// What is held outlives the session: tasks go on running while the coordinator
// is away, and results are kept, and sent again, until they are acknowledged.
//
// It leaves to node/sandbox how a program runs safely, to node/session how
// frames travel, and to its caller, node, which way leads to the coordinator
// (LinkConfig.Dial) and whom to believe (LinkConfig.Trust). Nodes use a Link for
// their clients' requests too.
package worker
