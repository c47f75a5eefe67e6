// WASI preview 1 as a task sees it, with exactly the answers that native devices
// give: node/sandbox/doc.go is the specification, and the vectors beside it test
// both. A host serves one run of one program.

import { sha256 } from "@noble/hashes/sha2";
import { utf8, type Bytes } from "./bytes";

const enum Errno {
  OK = 0,
  BADF = 8,
  FAULT = 21,
  INVAL = 28,
  NOSYS = 52,
  NOTDIR = 54,
  NOTSOCK = 57,
  NOTSUP = 58,
  SPIPE = 70,
}

const stdin = 0;
const stdout = 1;
const stderr = 2;

const clockEpoch = 1_767_225_600_000_000_000n; // 2026-01-01T00:00:00Z
const clockTick = 1_000_000n;
const clockEnd = 1n << 62n; // where the clock stops
const clocks = 4;

const subscriptionSize = 48;
const eventSize = 32;
const maxSubscriptions = 1 << 16;
const never = (1n << 64n) - 1n;

const rightRead = 1 << 1;
const rightWrite = 1 << 6;
const rightPoll = 1 << 27;

/** stderrKept is how much of the end of stderr is kept, in bytes. */
export const stderrKept = 4 << 10;

/** Exit is thrown through a program that calls proc_exit. */
export class Exit {
  constructor(readonly code: number) {}
}

/** OutputBound is thrown through a program that writes more than it may. */
export class OutputBound {}

/** Run is what one run of a program gets. */
export interface Run {
  args: string[];
  env: string[];
  stdin: Uint8Array;
  seed: Uint8Array;
  maxOutput: number;
}

type Answer = Errno;
type Fn = (...args: never[]) => Answer | void;

/** Host implements WASI for one run. memory is set once the program has one. */
export class Host {
  memory: WebAssembly.Memory | undefined;
  private readonly args: Bytes[];
  private readonly env: Bytes[];
  private readonly random: Stream;
  private readonly out = new Sink();
  private readonly err = new Sink();
  private readonly closed = [false, false, false];
  private elapsed = 0n;
  private read = 0; // of stdin
  private cached: DataView | undefined;

  constructor(private readonly run: Run) {
    this.args = run.args.map((s) => utf8(s + "\0"));
    this.env = run.env.map((s) => utf8(s + "\0"));
    this.random = new Stream(run.seed);
  }

  /** stdout is what the program has written there. */
  stdout(): Bytes {
    return this.out.bytes();
  }

  /** stderr is the end of what the program has written there. */
  stderr(): Bytes {
    return this.err.bytes().slice(-stderrKept);
  }

  /** imports are the functions of WASI preview 1, for instantiation. */
  imports(): Record<string, Fn> {
    const always = (answer: Errno) => () => answer;
    const onStream = (answer: Errno) => (fd: number) => (this.open(fd) ? answer : Errno.BADF);
    const u = (f: (...args: number[]) => Answer) => (...args: number[]) => f.apply(this, args.map((a) => a >>> 0));
    return {
      args_get: u((a, b) => this.putStrings(this.args, a, b)),
      args_sizes_get: u((a, b) => this.putSizes(this.args, a, b)),
      environ_get: u((a, b) => this.putStrings(this.env, a, b)),
      environ_sizes_get: u((a, b) => this.putSizes(this.env, a, b)),
      clock_res_get: u(this.clockResGet),
      clock_time_get: (id: number, _precision: bigint, at: number) => this.clockTimeGet(id >>> 0, at >>> 0),
      fd_advise: onStream(Errno.SPIPE),
      fd_allocate: onStream(Errno.SPIPE),
      fd_close: u(this.fdClose),
      fd_datasync: onStream(Errno.OK),
      fd_fdstat_get: u(this.fdFdstatGet),
      fd_fdstat_set_flags: onStream(Errno.OK),
      fd_fdstat_set_rights: onStream(Errno.NOSYS),
      fd_filestat_get: u(this.fdFilestatGet),
      fd_filestat_set_size: onStream(Errno.INVAL),
      fd_filestat_set_times: onStream(Errno.INVAL),
      fd_pread: onStream(Errno.SPIPE),
      fd_prestat_get: always(Errno.BADF),
      fd_prestat_dir_name: always(Errno.BADF),
      fd_pwrite: onStream(Errno.SPIPE),
      fd_read: u(this.fdRead),
      fd_readdir: onStream(Errno.NOTDIR),
      fd_renumber: onStream(Errno.NOTSUP),
      fd_seek: onStream(Errno.SPIPE),
      fd_sync: onStream(Errno.OK),
      fd_tell: onStream(Errno.SPIPE),
      fd_write: u(this.fdWrite),
      path_create_directory: onStream(Errno.NOTDIR),
      path_filestat_get: onStream(Errno.NOTDIR),
      path_filestat_set_times: onStream(Errno.NOTDIR),
      path_link: onStream(Errno.NOTDIR),
      path_open: onStream(Errno.NOTDIR),
      path_readlink: onStream(Errno.NOTDIR),
      path_remove_directory: onStream(Errno.NOTDIR),
      path_rename: onStream(Errno.NOTDIR),
      path_symlink: always(Errno.BADF),
      path_unlink_file: onStream(Errno.NOTDIR),
      poll_oneoff: u(this.pollOneoff),
      proc_exit: (code: number) => {
        throw new Exit(code >>> 0);
      },
      proc_raise: always(Errno.NOSYS),
      random_get: u(this.randomGet),
      sched_yield: always(Errno.OK),
      sock_accept: onStream(Errno.NOTSOCK),
      sock_recv: onStream(Errno.NOTSOCK),
      sock_send: onStream(Errno.NOTSOCK),
      sock_shutdown: onStream(Errno.NOTSOCK),
    };
  }

  /** view is the memory as it is now: growth takes the old one away. */
  private view(): DataView {
    const buffer = this.memory?.buffer ?? new ArrayBuffer(0);
    if (this.cached?.buffer !== buffer) this.cached = new DataView(buffer);
    return this.cached;
  }

  /** bytes is a range of the memory, undefined if it is not all there. */
  private bytes(at: number, size: number): Uint8Array | undefined {
    const view = this.view();
    if (at + size > view.byteLength) return undefined;
    return new Uint8Array(view.buffer, at, size);
  }

  private putU32(at: number, v: number): boolean {
    const view = this.view();
    if (at + 4 > view.byteLength) return false;
    view.setUint32(at, v, true);
    return true;
  }

  private putU64(at: number, v: bigint): boolean {
    const view = this.view();
    if (at + 8 > view.byteLength) return false;
    view.setBigUint64(at, v, true);
    return true;
  }

  private open(fd: number): boolean {
    fd >>>= 0;
    return fd <= stderr && !this.closed[fd];
  }

  /** putSizes writes the number of strings and the bytes that they take. */
  private putSizes(strings: Bytes[], countAt: number, sizeAt: number): Answer {
    const size = strings.reduce((n, s) => n + s.length, 0);
    return this.putU32(countAt, strings.length) && this.putU32(sizeAt, size) ? Errno.OK : Errno.FAULT;
  }

  /** putStrings writes pointers to the strings, and the strings. */
  private putStrings(strings: Bytes[], pointers: number, at: number): Answer {
    if (strings.length > 0 && !this.bytes(pointers, 4 * strings.length)) return Errno.FAULT;
    for (const [i, s] of strings.entries()) {
      const place = this.bytes(at, s.length);
      if (!place) return Errno.FAULT;
      place.set(s);
      this.putU32(pointers + 4 * i, at);
      at = (at + s.length) >>> 0;
    }
    return Errno.OK;
  }

  private now(id: number): bigint {
    return id === 0 ? clockEpoch + this.elapsed : this.elapsed;
  }

  private advance(by: bigint): void {
    const left = clockEnd - this.elapsed;
    this.elapsed += by < left ? by : left;
  }

  private clockResGet(id: number, at: number): Answer {
    if (id >= clocks) return Errno.INVAL;
    return this.putU64(at, clockTick) ? Errno.OK : Errno.FAULT;
  }

  private clockTimeGet(id: number, at: number): Answer {
    if (id >= clocks) return Errno.INVAL;
    const now = this.now(id);
    this.advance(clockTick);
    return this.putU64(at, now) ? Errno.OK : Errno.FAULT;
  }

  private randomGet(at: number, size: number): Answer {
    const place = this.bytes(at, size);
    if (!place && size > 0) return Errno.FAULT;
    if (place) this.random.read(place);
    return Errno.OK;
  }

  private fdClose(fd: number): Answer {
    if (!this.open(fd)) return Errno.BADF;
    this.closed[fd] = true;
    return Errno.OK;
  }

  private fdFdstatGet(fd: number, at: number): Answer {
    if (!this.open(fd)) return Errno.BADF;
    const stat = this.bytes(at, 24);
    if (!stat) return Errno.FAULT;
    stat.fill(0);
    this.putU64(at + 8, BigInt(fd === stdin ? rightRead | rightPoll : rightWrite | rightPoll));
    return Errno.OK;
  }

  private fdFilestatGet(fd: number, at: number): Answer {
    if (!this.open(fd)) return Errno.BADF;
    const stat = this.bytes(at, 64);
    if (!stat) return Errno.FAULT;
    stat.fill(0);
    stat[24] = 1; // one link
    return Errno.OK;
  }

  /** eachBuffer calls f with each buffer of a list, until f returns false. */
  private eachBuffer(list: number, count: number, f: (buffer: Uint8Array) => boolean): Answer {
    if (count * 8 > 0xffff_ffff || (count > 0 && !this.bytes(list, count * 8))) return Errno.FAULT;
    for (let i = 0; i < count; i++) {
      const view = this.view();
      const size = view.getUint32(list + 8 * i + 4, true);
      const buffer = this.bytes(view.getUint32(list + 8 * i, true), size);
      if (size === 0) continue;
      if (!buffer) return Errno.FAULT;
      if (!f(buffer)) break;
    }
    return Errno.OK;
  }

  private fdRead(fd: number, list: number, count: number, at: number): Answer {
    if (fd !== stdin || !this.open(fd)) return Errno.BADF;
    let total = 0;
    const answer = this.eachBuffer(list, count, (buffer) => {
      const part = this.run.stdin.subarray(this.read, this.read + buffer.length);
      buffer.set(part);
      this.read += part.length;
      total += part.length;
      return part.length === buffer.length;
    });
    if (answer !== Errno.OK) return answer;
    return this.putU32(at, total) ? Errno.OK : Errno.FAULT;
  }

  private fdWrite(fd: number, list: number, count: number, at: number): Answer {
    if (fd === stdin || !this.open(fd)) return Errno.BADF;
    let total = 0;
    const answer = this.eachBuffer(list, count, (buffer) => {
      total += buffer.length;
      this.write(fd, buffer);
      return true;
    });
    if (answer !== Errno.OK) return answer;
    return this.putU32(at, total) ? Errno.OK : Errno.FAULT;
  }

  private write(fd: number, buffer: Uint8Array): void {
    if (fd === stdout) {
      if (this.out.size + buffer.length > this.run.maxOutput) throw new OutputBound();
      this.out.write(buffer);
      return;
    }
    this.err.write(buffer.subarray(-stderrKept));
    if (this.err.size > 8 * stderrKept) this.err.keep(stderrKept);
  }

  /** wait is how long a clock's subscription waits. */
  private wait(view: DataView, sub: number): bigint {
    const timeout = view.getBigUint64(sub + 24, true);
    if ((view.getUint16(sub + 40, true) & 1) === 0) return timeout;
    const now = this.now(view.getUint32(sub + 16, true));
    return now < timeout ? timeout - now : 0n;
  }

  private pollOneoff(subs: number, events: number, count: number, at: number): Answer {
    if (count === 0 || count > maxSubscriptions) return Errno.INVAL;
    if (!this.bytes(subs, count * subscriptionSize) || !this.bytes(events, count * eventSize)) return Errno.FAULT;
    const view = this.view();
    let first = never;
    for (let i = 0; i < count; i++) {
      const sub = subs + i * subscriptionSize;
      const kind = view.getUint8(sub + 8);
      if (kind > 2 || (kind === 0 && view.getUint32(sub + 16, true) >= clocks)) return Errno.INVAL;
      const wait = kind === 0 ? this.wait(view, sub) : 0n;
      if (wait < first) first = wait;
    }
    const ready = this.putEvents(subs, events, count, first);
    this.advance(first);
    return this.putU32(at, ready) ? Errno.OK : Errno.FAULT;
  }

  /** putEvents writes an event for each subscription that is due after wait. */
  private putEvents(subs: number, events: number, count: number, wait: bigint): number {
    const view = this.view();
    let ready = 0;
    for (let i = 0; i < count; i++) {
      // A copy: the program may have its events lie over its subscriptions.
      const from = subs + i * subscriptionSize;
      const sub = new DataView(view.buffer.slice(from, from + subscriptionSize));
      const kind = sub.getUint8(8);
      if (kind === 0 && this.wait(sub, 0) > wait) continue;
      const event = events + ready * eventSize;
      new Uint8Array(view.buffer, event, eventSize).fill(0);
      view.setBigUint64(event, sub.getBigUint64(0, true), true);
      view.setUint8(event + 10, kind);
      if (kind !== 0) {
        const fd = sub.getUint32(16, true);
        if (!this.open(fd) || (kind === 1) !== (fd === stdin)) view.setUint8(event + 8, Errno.BADF);
        else view.setBigUint64(event + 16, 1n, true);
      }
      ready++;
    }
    return ready;
  }
}

/** Stream is a task's randomness: SHA-256(seed ‖ 0), SHA-256(seed ‖ 1), … */
class Stream {
  private readonly input: Bytes;
  private block = new Uint8Array(0);
  private counter = 0n;

  constructor(seed: Uint8Array) {
    this.input = new Uint8Array(40);
    this.input.set(seed);
  }

  read(into: Uint8Array): void {
    for (let at = 0; at < into.length; ) {
      if (this.block.length === 0) {
        new DataView(this.input.buffer).setBigUint64(32, this.counter++);
        this.block = sha256(this.input) as Bytes;
      }
      const part = this.block.subarray(0, into.length - at);
      into.set(part, at);
      this.block = this.block.subarray(part.length);
      at += part.length;
    }
  }
}

/** Sink gathers what is written to it. */
class Sink {
  size = 0;
  private buffer = new Uint8Array(1 << 10);

  write(bytes: Uint8Array): void {
    if (this.size + bytes.length > this.buffer.length) {
      const grown = new Uint8Array(Math.max(2 * this.buffer.length, this.size + bytes.length));
      grown.set(this.buffer.subarray(0, this.size));
      this.buffer = grown;
    }
    this.buffer.set(bytes, this.size);
    this.size += bytes.length;
  }

  /** keep forgets all but the last n bytes. */
  keep(n: number): void {
    this.buffer.copyWithin(0, this.size - n, this.size);
    this.size = n;
  }

  bytes(): Bytes {
    return this.buffer.slice(0, this.size);
  }
}
