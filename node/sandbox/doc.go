// Package sandbox runs one program safely: a WASI preview 1 command module, on
// one input, in a child process with wazero inside, within bounds of time,
// memory and output.
//
// It leaves to others what a task is for, where programs and inputs come from
// and where outputs go. node/worker calls Run for leased tasks; node calls Check
// when a program is submitted; cmd/ostrich calls ChildMain when IsChild says
// that it is a child.
//
// # Children
//
// No limit that wazero keeps within a process holds against a hostile module:
// its checks slow honest loops down several times, do not cover bulk operations
// and plain calls, and a module that loops stops Go's garbage collector, and so
// the whole process, for as long as it likes. A process can be killed. So each
// slot has a warm child, the same binary executed again, which serves one task
// after the other and keeps the last compiled programs.
//
//	Pool                                    child
//	Run ─ program, tasks (sent ahead) ───►  reader ─► queue ─► engine (wazero)
//	    ◄─ compiling, compiled, results ──  outbox ◄──────────────┘
//	watch: kills the child when the task at the head is out of time
//
// What keeps a child in its bounds:
//
//   - time: the pool watches the clock of the task at the head and kills the
//     child; the rest of the batch goes on in another one
//   - memory: the engine refuses growth above the bound, and knows then why a
//     program failed; RLIMIT_DATA (what is in use when the task begins, 768 MiB,
//     and the bound) for what a module can make wazero itself allocate, on Linux
//   - output: counted as it is written
//   - files: none but the input and output that the pool names; RLIMIT_NOFILE,
//     RLIMIT_FSIZE, RLIMIT_CORE
//   - life: a child ends with its node. On Linux the kernel kills it. Everywhere
//     it reads its stdin all the time and exits when that ends, during a busy
//     loop too, which is why its garbage collector runs only where no program
//     is in the way
//
// A child starts each task sound, or is replaced. Address space that Go's heap
// once took counts against RLIMIT_DATA for ever, so who has compiled a large
// program ends, and another loads the compiled code from the folder; so does who
// ran a task that took much. A child that is unsound, because the system gives it
// no memory or something in it panicked, says so and ends, and the task runs
// again in a new one, which counts as nothing. If that breaks too, a tiny program
// of ours judges in a third and a fourth: if it runs, the task is to blame. If
// not, children have broken three times in a row, and the pool is unwell: it says
// why, refuses what it is asked, and tries the tiny program once a minute.
//
// # What a program sees
//
// Equal programs with equal arguments, environment, stdin and seed write equal
// output, byte for byte, on every machine and in every browser, up to the bit
// patterns of NaN. testdata/vectors.txt, printed by testdata/vectors.c under
// Seed("job", 0), tests an implementation of the following.
//
// Modules of WebAssembly 2.0 run (with SIMD), and those with tail calls and
// extended constant expressions. They must export _start and memory and import
// nothing but functions of wasi_snapshot_preview1.
//
// Arguments and environment are those of the task, in its order, and no others.
//
// Time. All clocks (0 time of day, 1 monotonic, 2 and 3 processor time) share
// one counter of nanoseconds, which begins at 0 when the task does. Clock 0
// shows 1,767,225,600,000,000,000 (2026-01-01T00:00:00Z) plus the counter, the
// others show the counter. clock_time_get returns it and then adds 1,000,000;
// nothing else does, save poll_oneoff. The counter stops at 2^62. clock_res_get
// returns 1,000,000. Other clocks: INVAL.
//
// poll_oneoff never waits. First it finds the shortest wait: that of a relative
// clock is its timeout; of an absolute one, the timeout less what its clock
// shows, at least 0, which is no reading; of a descriptor, 0. It returns an
// event for each subscription, in their order, that is a descriptor or a clock
// whose wait is not longer, and then adds the shortest wait to the counter. An
// event of a descriptor has nbytes 1 and no flags; or error BADF and nbytes 0
// if it is not open or not of that direction. No subscriptions, more than
// 65,536, an unknown type or clock: INVAL.
//
// Randomness. random_get takes the next bytes of one stream: the SHA-256 of the
// task's seed and a counter (eight bytes, big endian) from 0 on, one after the
// other. Seed says how the seed is made.
//
// Descriptors. 0 is stdin, 1 stdout, 2 stderr; there are no others, and no
// directories. fd_read fills all buffers unless the input ends; fd_write takes
// all bytes. fd_fdstat_get says: type 0 (unknown), no flags, rights fd_read or
// fd_write and poll_fd_readwrite, nothing inherited. fd_filestat_get says all
// zero but one link. fd_close works. On an open descriptor fd_sync, fd_datasync
// and fd_fdstat_set_flags succeed and do nothing; fd_seek, fd_tell, fd_pread,
// fd_pwrite, fd_advise and fd_allocate return SPIPE; fd_filestat_set_size and
// fd_filestat_set_times INVAL; fd_fdstat_set_rights NOSYS; fd_renumber NOTSUP;
// fd_readdir and what takes a directory NOTDIR; sockets NOTSOCK. On any other
// descriptor all return BADF, and fd_prestat_get and fd_prestat_dir_name always
// do, and path_symlink. proc_raise returns NOSYS, sched_yield succeeds. A pointer
// outside the memory: FAULT.
package sandbox
