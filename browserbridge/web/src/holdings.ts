// All that this device holds: jobs, leases, tasks and results. It outlives the
// session: tasks go on while the coordinator is away, and results are kept, and
// sent again, until they are acknowledged. See node/worker/holdings.go, whose
// words these are.

import { create, equals } from "@bufbuild/protobuf";
import {
  FailureKind, JobSpecSchema, TaskResultSchema, TaskStatus, type Blob, type JobSpec, type TaskResult,
} from "./p2p/wire/job_pb";
import {
  LeaseClaimSchema, ResultsSchema,
  type Attempt, type CancelTasks, type Lease, type LeaseClaim, type LeasedInput, type Results, type ResultsAck,
} from "./p2p/wire/session_pb";
import type { Program } from "./programs";

const maxKept = 64 << 20; // bytes of results without acknowledgement, above which no task begins
const maxHeldTasks = 1 << 20;
const maxEarly = 256; // cancellations that came before their lease
const maxClaimBytes = 512 << 10;
const maxResultsBytes = 256 << 10; // of one frame
const errorLimit = 500; // characters
const pageSize = 1 << 20;
const maxProgram = 256 << 20;
const maxBlob = 2 ** 30;

type TaskState = "waiting" | "running" | "ended" | "settled";

/** Task is one task of a lease. */
export interface Task {
  readonly lease: HeldLease;
  readonly index: number;
  state: TaskState;
  input: LeasedInput | undefined; // until it has run
  result: TaskResult | undefined;
  output: Uint8Array | undefined; // that is in pages, until the result is acknowledged: they may have to be written again
  writing: boolean; // it is on its way to pages
}

/** HeldLease is a lease that is held. */
export interface HeldLease {
  readonly claim: LeaseClaim;
  readonly job: HeldJob;
  readonly tasks: Map<number, Task>;
  todo: Task[]; // that wait, in order
  open: number; // tasks that are not settled
}

/** HeldJob is what the tasks of a job have in common. */
export interface HeldJob {
  readonly id: string;
  readonly spec: JobSpec;
  readonly args: string[];
  leases: number;
  program: Program | undefined; // once it is here
  fetching: boolean;
  mean: number; // of the tasks' times in milliseconds; 0 if unknown
}

/** Holdings keeps the books; others run the tasks and send the results. */
export class Holdings {
  running = 0;
  waiting = 0;
  kept = 0; // bytes of results
  private readonly jobs = new Map<string, HeldJob>();
  private readonly leases = new Map<string, HeldLease>();
  private order: HeldLease[] = []; // those with waiting tasks, oldest first
  private early: CancelTasks[] = [];
  private outbox: Task[] = [];
  private outboxBytes = 0;

  /** add takes a lease in; it throws where the coordinator breaks the protocol. */
  add(frame: Lease): HeldJob | undefined {
    const claim = frame.claim;
    if (!claim?.attempt || claim.indexes.length === 0 || claim.indexes.length !== frame.inputs.length) {
      throw new Error("a lease without its tasks");
    }
    if (this.leases.has(name(claim.attempt))) return undefined;
    if (this.waiting + this.running + claim.indexes.length > maxHeldTasks) throw new Error("more is leased to the device than it can hold");
    const job = this.jobOf(claim.jobId, frame.spec);
    const lease: HeldLease = { claim, job, tasks: new Map(), todo: [], open: claim.indexes.length };
    claim.indexes.forEach((index, i) => {
      const input = frame.inputs[i] as LeasedInput;
      if (input.blob) checkBlob(input.blob, maxBlob);
      lease.tasks.set(index, { lease, index, state: "waiting", input, result: undefined, output: undefined, writing: false });
    });
    if (lease.tasks.size !== claim.indexes.length) throw new Error("a lease that names a task twice");
    lease.todo = [...lease.tasks.values()];
    this.leases.set(name(claim.attempt), lease);
    this.waiting += lease.open;
    this.order.push(lease);
    job.leases++;
    this.early = this.early.filter((cancel) => cancel.attempt === undefined || name(cancel.attempt) !== name(claim.attempt as Attempt) || (this.cancelIn(lease, cancel), false));
    return job;
  }

  /** cancel ends work on tasks, and returns those that run now. */
  cancel(frame: CancelTasks): Task[] {
    const lease = frame.attempt && this.leases.get(name(frame.attempt));
    if (lease) return this.cancelIn(lease, frame);
    // It may have come before its lease: leases wait behind other frames.
    this.early = [...this.early, frame].slice(-maxEarly);
    return [];
  }

  private cancelIn(lease: HeldLease, frame: CancelTasks): Task[] {
    const tasks = frame.indexes.length === 0 ? [...lease.tasks.values()] : frame.indexes.flatMap((index) => lease.tasks.get(index) ?? []);
    const running = tasks.filter((task) => task.state === "running");
    for (const task of tasks) this.settle(task);
    this.compact(lease);
    return running;
  }

  /** acknowledge forgets results that are recorded. */
  acknowledge(frame: ResultsAck): void {
    const lease = frame.attempt && this.leases.get(name(frame.attempt));
    for (const index of lease ? frame.indexes : []) {
      const task = lease?.tasks.get(index);
      if (task?.state === "ended") this.settle(task);
    }
  }

  /** rewritten returns the tasks whose outputs an acknowledgement calls lost, and that can be written again. */
  rewritten(frame: ResultsAck): Task[] {
    const lease = frame.attempt && this.leases.get(name(frame.attempt));
    const tasks = frame.lost.flatMap((index) => lease?.tasks.get(index) ?? []);
    return tasks.filter((task) => task.state === "ended" && task.output && !task.writing);
  }

  /** again has a result sent again. */
  again(task: Task): void {
    if (task.state === "ended") this.post(task);
  }

  /** drop forgets all that is not done: the device pauses. */
  drop(): void {
    for (const lease of [...this.leases.values()]) {
      for (const task of lease.tasks.values()) {
        if (task.state !== "ended") this.settle(task);
      }
      lease.todo = [];
    }
    this.order = [];
  }

  /** opened has all results without acknowledgement sent on a new session. */
  opened(): void {
    this.early = [];
    for (const [id, job] of this.jobs) {
      if (job.leases === 0) this.jobs.delete(id); // their specs come again
    }
    this.outbox = [];
    this.outboxBytes = 0;
    for (const lease of this.leases.values()) {
      for (const task of lease.tasks.values()) {
        if (task.state === "ended") this.post(task);
      }
    }
  }

  /** claims prove the leases that are held, as far as a hello has room for them. */
  claims(): LeaseClaim[] {
    const claims: LeaseClaim[] = [];
    let size = 0;
    for (const { claim, tasks } of this.leases.values()) {
      size += 200 + 10 * claim.indexes.length;
      if (size > maxClaimBytes) break;
      const settled = claim.indexes.filter((index) => tasks.get(index)?.state === "settled");
      claims.push(create(LeaseClaimSchema, { jobId: claim.jobId, attempt: claim.attempt, indexes: claim.indexes, token: claim.token, settled }));
    }
    return claims;
  }

  /** take returns the next tasks of one job that may begin: at most count(job). */
  take(count: (job: HeldJob) => number): Task[] {
    if (this.kept >= maxKept) return [];
    for (const lease of this.order) {
      if (!lease.job.program) continue;
      const n = count(lease.job);
      if (n <= 0) return [];
      const tasks = lease.todo.splice(0, firstBlob(lease.todo, n));
      if (lease.todo.length === 0) this.order = this.order.filter((other) => other !== lease);
      for (const task of tasks) task.state = "running";
      this.waiting -= tasks.length;
      this.running += tasks.length;
      return tasks;
    }
    return [];
  }

  /** giveBack puts tasks that did not run back into the queue. */
  giveBack(tasks: Task[]): void {
    for (const task of tasks.reverse()) {
      if (task.state !== "running") continue;
      task.state = "waiting";
      this.running--;
      this.waiting++;
      if (task.lease.todo.length === 0) this.order.unshift(task.lease);
      task.lease.todo.unshift(task);
    }
  }

  /** lost takes all waiting tasks of a job whose program cannot be had. */
  lost(job: HeldJob): Task[] {
    const leases = this.order.filter((l) => l.job === job);
    const tasks = leases.flatMap((lease) => lease.todo);
    for (const lease of leases) {
      lease.todo = [];
      this.compact(lease);
    }
    for (const task of tasks) task.state = "running";
    this.waiting -= tasks.length;
    this.running += tasks.length;
    return tasks;
  }

  /** end notes a task's result, and has it sent. */
  end(task: Task, result: TaskResult): void {
    if (task.state !== "running") return;
    this.running--;
    task.state = "ended";
    task.result = result;
    task.input = undefined;
    this.kept += keptBy(task);
    const { job } = task.lease;
    const took = Number(result.durationUs) / 1000;
    job.mean = job.mean === 0 ? took : job.mean + (took - job.mean) / 8;
    this.post(task);
  }

  /** due reports whether results should be sent now; pending, whether there are any. */
  get due(): boolean {
    return this.outbox.length > 0 && (this.running + this.waiting === 0 || this.outboxBytes >= maxResultsBytes);
  }

  get pending(): boolean {
    return this.outbox.length > 0;
  }

  /** drain takes the results that are to be sent, each message of one lease. */
  drain(): Results[] {
    const all: Results[] = [];
    const open = new Map<HeldLease, { results: Results; size: number }>();
    for (const task of this.outbox) {
      if (!task.result) continue; // settled meanwhile
      const { claim } = task.lease;
      let to = open.get(task.lease);
      if (!to || to.size >= maxResultsBytes) {
        to = { results: create(ResultsSchema, { jobId: claim.jobId, attempt: claim.attempt }), size: 0 };
        open.set(task.lease, to);
        all.push(to.results);
      }
      to.results.results.push(task.result);
      to.size += sizeOf(task.result);
    }
    this.outbox = [];
    this.outboxBytes = 0;
    return all;
  }

  private post(task: Task): void {
    this.outbox.push(task);
    this.outboxBytes += task.result ? sizeOf(task.result) : 0;
  }

  private settle(task: Task): void {
    const { lease } = task;
    switch (task.state) {
      case "settled":
        return;
      case "waiting":
        this.waiting--;
        break;
      case "running":
        this.running--;
        break;
      case "ended":
        this.kept -= keptBy(task);
        break;
    }
    task.state = "settled";
    task.input = task.result = task.output = undefined;
    if (--lease.open > 0) return;
    if (lease.claim.attempt) this.leases.delete(name(lease.claim.attempt));
    lease.job.leases--;
  }

  /** compact takes what does not wait any more out of the queue. */
  private compact(lease: HeldLease): void {
    lease.todo = lease.todo.filter((task) => task.state === "waiting");
    if (lease.todo.length === 0) this.order = this.order.filter((other) => other !== lease);
  }

  /** jobOf returns the job of a lease. One of another spec is another job. */
  private jobOf(id: string, spec: JobSpec | undefined): HeldJob {
    const known = this.jobs.get(id);
    if (known && (!spec || equals(JobSpecSchema, spec, known.spec))) return known;
    if (!spec) throw new Error(`a lease of job ${id}, which this session has not described`);
    const blob = spec.program?.blob;
    if (!spec.program || !blob || blob.hash.length !== 32) throw new Error(`job ${id} has no program`);
    checkBlob(blob, maxProgram);
    const job: HeldJob = { id, spec, args: [base(spec.program.name), ...spec.args], leases: 0, program: undefined, fetching: false, mean: 0 };
    this.jobs.set(id, job);
    return job;
  }
}

/** failed is the result of a task that this device could not run, or that broke a bound. */
export function failed(task: Task, device: string, failure: FailureKind, error: string): TaskResult {
  return create(TaskResultSchema, {
    index: task.index, status: TaskStatus.FAILED, failure, device, error: [...error].slice(0, errorLimit).join(""),
  });
}

function name(attempt: Attempt): string {
  return `${attempt.term}.${attempt.counter}`;
}

/** firstBlob is how many of the next n tasks go together: one with a large input goes alone. */
function firstBlob(todo: Task[], n: number): number {
  const at = todo.slice(0, n).findIndex((task) => task.input?.blob);
  return at < 0 ? n : Math.max(1, at);
}

function checkBlob(blob: Blob, limit: number): void {
  const size = Number(blob.size);
  if (size > limit || blob.pages.length !== Math.ceil(size / pageSize) || blob.pages.some((page) => page.length !== 32)) {
    throw new Error(`a blob of ${size} bytes in ${blob.pages.length} pages`);
  }
}

/** keptBy is what an ended task takes in memory. */
function keptBy(task: Task): number {
  return (task.result ? sizeOf(task.result) : 0) + (task.output?.length ?? 0);
}

function sizeOf(r: TaskResult): number {
  return 160 + r.output.length + r.stderr.length + r.error.length + 34 * (r.outputBlob?.pages.length ?? 0);
}

/** base is the last part of a path, as argv[0] has it. */
function base(path: string): string {
  const parts = path.split("/").filter((part) => part !== "");
  return parts.at(-1) ?? (path === "" ? "." : "/");
}

