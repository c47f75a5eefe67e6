// The device: takes leases, brings programs and inputs here, has the pool run the
// tasks, and sends results and heartbeats.

import { create } from "@bufbuild/protobuf";
import { words } from "./errors";
import { failed, Holdings, type HeldJob, type Task } from "./holdings";
import { Pages, type Call } from "./pages";
import { FailureKind, TaskResultSchema, TaskStatus, type Blob, type TaskResult } from "./p2p/wire/job_pb";
import { type Frame, type LeaseClaim } from "./p2p/wire/session_pb";
import { Pool, type Assigned } from "./pool";
import { Programs } from "./programs";
import type { Session } from "./session";
import type { SlotResult } from "./slotmessages";
import type { Storage } from "./storage";
import type { Cancel, Timers } from "./timers";

const resultsWait = 5; // how long a result waits for others; milliseconds, as all times here
const batchTime = 40; // what a slot has waiting should take no longer
const maxBatch = 64;
const inlineOutput = 64 << 10; // above it an output goes into pages
const maxInput = 512 << 20; // what a browser takes in memory
const defaultTimeout = 600_000;
const defaultMemory = 256; // MiB
const defaultOutput = 16 << 20;
const shortestBeat = 1000;
const longestBeat = 60_000;
const defaultBeat = 10_000;

/** DeviceState is what people are shown of the work. */
export interface DeviceState {
  slots: number;
  running: string[]; // what runs now, in words
  waiting: number;
  done: number;
  failed: number;
}

/** Device does the work of a session, and outlives it. */
export class Device {
  readonly holdings = new Holdings();
  readonly programs: Programs;
  private readonly pages: Pages;
  private readonly pool: Pool;
  private readonly prepared: { task: Task; stdin: Uint8Array }[] = []; // with large inputs
  private session: Session | undefined;
  private reading = 0;
  private slots = 0;
  private number = 0;
  private done = 0;
  private failures = 0;
  private flush: Cancel | undefined;
  private beat: Cancel | undefined;

  constructor(
    private readonly id: string, slotURL: string, call: Call, storage: Storage,
    private readonly timers: Timers, private readonly changed: () => void, private readonly log: (text: string) => void,
  ) {
    this.pages = new Pages(call, timers);
    this.programs = new Programs(this.pages, storage, timers, (id) => this.pool.forget(id));
    this.pool = new Pool(slotURL, {
      next: (queued) => this.next(queued),
      done: (task, result) => this.ran(task, result),
      overdue: (task) => this.fail(task, FailureKind.TIMEOUT, `it ran longer than its bound of ${seconds(timeoutOf(task))}`),
      crashed: (task, why) => this.fail(task, FailureKind.INTERNAL, `its sandbox ended: ${why}`),
      giveBack: (tasks) => this.holdings.giveBack(tasks),
    }, timers);
  }

  /** resize sets the number of slots, once at least before measure. */
  resize(slots: number): void {
    this.slots = slots;
    this.pool.resize(slots);
    this.changed();
  }

  /** measure runs the benchmark. */
  measure(): Promise<number> {
    return this.pool.measure();
  }

  /** claims and programNames are what a hello says. */
  claims(): LeaseClaim[] {
    return this.holdings.claims();
  }

  /** opened begins to work for a session. */
  opened(session: Session): void {
    this.session = session;
    this.holdings.opened();
    const asked = Number(session.welcome.heartbeatMs) || defaultBeat;
    this.heartbeat(session, Math.min(Math.max(asked, shortestBeat), longestBeat));
    session.start((frame) => this.frame(frame));
    this.send();
    this.changed();
  }

  closed(): void {
    this.session = undefined;
    this.beat?.();
    this.changed();
  }

  /** drop ends all work; results that are not acknowledged stay. */
  drop(): void {
    this.holdings.drop();
    this.prepared.length = 0;
    this.pool.clear();
    this.changed();
  }

  /** state is what the device does. */
  state(): DeviceState {
    const running = this.pool.running().map(({ lease: { job }, index }) => `${job.spec.program?.name ?? "program"} #${index}`);
    return { slots: this.slots, running, waiting: this.holdings.waiting, done: this.done, failed: this.failures };
  }

  private frame(frame: Frame): void {
    switch (frame.kind.case) {
      case "lease": {
        const job = this.holdings.add(frame.kind.value);
        if (job && !job.program && !job.fetching) void this.fetch(job);
        break;
      }
      case "cancelTasks":
        this.pool.stop(this.holdings.cancel(frame.kind.value));
        break;
      case "resultsAck":
        this.holdings.acknowledge(frame.kind.value);
        for (const task of this.holdings.rewritten(frame.kind.value)) void this.rewrite(task);
        break;
    }
    this.pool.feed();
    this.changed();
  }

  /** fetch brings a job's program here; if that cannot be, its tasks fail. */
  private async fetch(job: HeldJob): Promise<void> {
    job.fetching = true;
    try {
      job.program = await this.programs.get(job.spec.program?.blob as Blob, memoryOf(job));
    } catch (error) {
      this.log(`${job.spec.program?.name} cannot run here: ${words(error)}`);
      for (const task of this.holdings.lost(job)) this.fail(task, FailureKind.INTERNAL, `the program cannot run: ${words(error)}`);
    }
    job.fetching = false;
    this.pool.feed();
  }

  /** next returns what a slot should be given that has so many tasks already. */
  private next(queued: number): Assigned[] {
    const assigned: Assigned[] = [];
    while (assigned.length === 0) {
      const ready = queued === 0 ? this.prepared.shift() : undefined;
      if (ready) {
        if (ready.task.state === "running") this.assign(ready.task, ready.stdin, assigned);
        continue;
      }
      if (this.reading > this.slots) break;
      const tasks = this.holdings.take((job) => this.batch(job) - queued);
      if (tasks.length === 0) break;
      for (const task of tasks) {
        if (task.input?.blob) void this.read(task, task.input.blob);
        else this.assign(task, task.input?.inline ?? new Uint8Array(0), assigned);
      }
    }
    return assigned;
  }

  /** batch is how many tasks of a job a slot should have: few enough that all are busy to the end. */
  private batch(job: HeldJob): number {
    if (job.mean === 0) return 1;
    const share = Math.ceil(this.holdings.waiting / (2 * Math.max(1, this.slots)));
    return Math.max(1, Math.min(share, Math.floor(batchTime / job.mean), maxBatch));
  }

  private assign(task: Task, stdin: Uint8Array, to: Assigned[]): void {
    const { job } = task.lease;
    const program = job.program;
    if (!program) return this.holdings.giveBack([task]);
    if (!program.module) {
      const needs = `it needs ${mib(program.minimum)} of memory to begin with, more than its bound of ${memoryOf(job)} MiB`;
      return this.fail(task, FailureKind.MEMORY, needs);
    }
    to.push({
      task, module: program.module, timeout: timeoutOf(task),
      message: {
        number: ++this.number, program: program.id, args: job.args, env: [...job.spec.env, `OSTRICH_INDEX=${task.index}`], stdin,
        job: job.id, index: task.index, maxOutput: Number(job.spec.maxOutputBytes) || defaultOutput, memoryMiB: memoryOf(job),
      },
    });
  }

  /** read fetches a large input. */
  private async read(task: Task, blob: Blob): Promise<void> {
    this.reading++;
    try {
      if (Number(blob.size) > maxInput) throw new Error(`an input of ${mib(Number(blob.size))} is more than this browser takes`);
      this.prepared.push({ task, stdin: await this.pages.read(blob) });
    } catch (error) {
      this.fail(task, FailureKind.INTERNAL, `the input cannot be read: ${words(error)}`);
    }
    this.reading--;
    this.pool.feed();
  }

  /** ran takes what a slot says of a task. */
  private ran(task: Task, said: SlotResult): void {
    if (task.state !== "running") return;
    const ok = said.failure === FailureKind.UNSPECIFIED;
    const result = create(TaskResultSchema, {
      index: task.index, status: ok ? TaskStatus.OK : TaskStatus.FAILED, failure: said.failure, exitCode: said.exitCode,
      output: said.stdout, stderr: said.stderr, error: said.error, device: this.id, durationUs: BigInt(said.durationUs),
    });
    if (said.stdout.length > inlineOutput) void this.store(task, result);
    else this.end(task, result);
  }

  /** store puts a large output into pages first, while the slot goes on. */
  private async store(task: Task, result: TaskResult): Promise<void> {
    try {
      task.output = result.output;
      result.outputBlob = await this.write(task, task.output);
      result.output = new Uint8Array(0);
      this.end(task, result);
    } catch (error) {
      task.output = undefined;
      this.fail(task, FailureKind.INTERNAL, `the output cannot be stored: ${words(error)}`);
    }
  }

  /** rewrite puts an output into pages again that the swarm has lost, and sends its result again. */
  private async rewrite(task: Task): Promise<void> {
    try {
      await this.write(task, task.output as Uint8Array);
      this.holdings.again(task);
      this.send();
    } catch (error) {
      // It is asked for again, unless the task is settled.
      if (task.state === "ended") this.log(`an output that the swarm lost cannot be written again: ${words(error)}`);
    }
  }

  private async write(task: Task, output: Uint8Array): Promise<Blob> {
    const { attempt } = task.lease.claim;
    task.writing = true;
    try {
      return await this.pages.write(output, { attempt, index: task.index, wanted: () => task.state !== "settled" });
    } finally {
      task.writing = false;
    }
  }

  private fail(task: Task, failure: FailureKind, error: string): void {
    this.end(task, failed(task, this.id, failure, error));
  }

  private end(task: Task, result: TaskResult): void {
    if (task.state !== "running") return;
    if (result.status === TaskStatus.OK) this.done++;
    else {
      this.failures++;
      this.log(`task ${task.index} of ${task.lease.job.spec.program?.name}: ${result.error}`);
    }
    this.holdings.end(task, result);
    if (this.holdings.due) this.send();
    else this.flush ??= this.timers.after(resultsWait, () => this.send());
    this.changed();
  }

  /** send sends the results that wait. */
  private send(): void {
    this.flush?.();
    this.flush = undefined;
    if (!this.session || !this.holdings.pending) return;
    for (const results of this.holdings.drain()) this.session.post({ case: "results", value: results });
  }

  private heartbeat(session: Session, interval: number): void {
    this.beat?.();
    this.beat = this.timers.every(interval, () => {
      session.post({ case: "heartbeat", value: { running: this.holdings.running, queued: this.holdings.waiting } });
    });
  }
}

function memoryOf(job: HeldJob): number {
  return Math.min(job.spec.memoryMib || defaultMemory, 4096);
}

function timeoutOf(task: Task): number {
  return Number(task.lease.job.spec.timeoutMs) || defaultTimeout;
}

function mib(bytes: number): string {
  return `${Math.round(bytes / (1 << 20))} MiB`;
}

/** seconds writes a time as Go does: 1.5s, 2m0s. */
function seconds(ms: number): string {
  if (ms < 1000) return `${ms}ms`;
  const minutes = Math.floor(ms / 60_000);
  const rest = `${(ms % 60_000) / 1000}s`;
  if (minutes === 0) return rest;
  return minutes < 60 ? `${minutes}m${rest}` : `${Math.floor(minutes / 60)}h${minutes % 60}m${rest}`;
}
