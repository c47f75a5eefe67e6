// Package coordinator is the leader's role: it keeps the sessions of all
// devices, decides who runs which task, takes their results, and answers what
// clients ask, for one term of leadership.
//
// A Coordinator lives as long as the call of its Run. Whatever it knows beyond
// the replicated state (who is connected, who works on what) is soft, local to
// that call, and rebuilt by the next term from the devices themselves.
//
//	session ──Request──▶ requests ──Op──▶ Group (log)
//	        ◀─Response──
//	session ──Results──▶ recorder ──page──▶ Pages ──Op──▶ Group
//	        ◀─Lease───── dispatcher ◀── scheduler.Plan
//
// It leaves to others: the protocol of a session (node/session), what is
// replicated (consensus/state), who gets how much (consensus/scheduler), where
// bytes lie (p2p/blob), and who leads (consensus). Package node alone calls it.
package coordinator
