// The workers that run tasks: one a slot, and a warm spare that takes the place
// of one that had to be ended.

import type { Task } from "./holdings";
import type { FromSlot, SlotResult, SlotTask, ToSlot } from "./slotmessages";
import type { Cancel, Timers } from "./timers";

const watchEvery = 100; // milliseconds
const measureLimit = 2000;
const startAgain = 1000; // before the next try where a worker does not start; doubles
const startAtLast = 30_000;

/** Assigned is a task that is given to a slot. */
export interface Assigned {
  task: Task;
  message: SlotTask;
  module: WebAssembly.Module;
  timeout: number; // milliseconds
}

/** PoolOwner has the tasks and wants the results. */
export interface PoolOwner {
  /** next returns tasks for a slot that has so many waiting already. */
  next: (queued: number) => Assigned[];
  done: (task: Task, result: SlotResult) => void;
  /** overdue says that a task was ended because its time was up. */
  overdue: (task: Task) => void;
  /** crashed says that a task took its worker with it. */
  crashed: (task: Task, why: string) => void;
  /** giveBack returns tasks that did not begin. */
  giveBack: (tasks: Task[]) => void;
}

interface Slot {
  worker: Worker;
  ready: boolean;
  programs: Set<number>;
  queue: Assigned[]; // the first runs
  low: number; // it is given more when so many are left
  since: number; // when the first began, by performance.now
  late: boolean; // the first was over its time when the watch last looked
}

/** Pool runs tasks in workers. */
export class Pool {
  private slots: Slot[] = [];
  private spare: Slot | undefined;
  private size = 0;
  private watch: Cancel | undefined;
  private stillborn = 0; // workers in a row that did not start
  private onscore: ((score: number) => void) | undefined;

  constructor(private readonly url: string, private readonly owner: PoolOwner, private readonly timers: Timers) {}

  /** resize sets the number of slots. Those too many end once their tasks have. */
  resize(size: number): void {
    this.size = size;
    while (this.slots.length < size) this.slots.push(this.takeSpare());
    this.retire();
    this.feed();
  }

  /** measure has the first slot run the benchmark; 0 if that takes too long. */
  async measure(): Promise<number> {
    const slot = this.slots[0];
    if (!slot) return 0;
    return new Promise((resolve) => {
      const cancel = this.timers.after(measureLimit, () => resolve(0));
      this.onscore = (score) => {
        cancel();
        resolve(score);
      };
      post(slot, { kind: "measure" });
    });
  }

  /** running are the tasks that run now. */
  running(): Task[] {
    return this.slots.flatMap((slot) => slot.queue[0]?.task ?? []);
  }

  /** feed gives waiting tasks to slots that have room. */
  feed(): void {
    for (const slot of this.slots.slice(0, this.size)) {
      if (!slot.ready) continue;
      const more = this.owner.next(slot.queue.length);
      if (more.length > 0) this.assign(slot, more);
    }
    const busy = this.slots.some((slot) => slot.queue.length > 0);
    if (busy && !this.watch) this.watch = this.timers.every(watchEvery, () => this.look());
    if (!busy) {
      this.watch?.();
      this.watch = undefined;
    }
  }

  /** stop ends tasks that run now; those behind them run elsewhere. */
  stop(tasks: Task[]): void {
    for (const slot of [...this.slots]) {
      const head = slot.queue[0];
      if (head && tasks.includes(head.task)) this.replace(slot, 1);
    }
    this.feed();
  }

  /** clear ends all that runs, and gives nothing back. */
  clear(): void {
    for (const slot of [...this.slots]) {
      if (slot.queue.length > 0) this.replace(slot, slot.queue.length);
    }
    this.feed();
  }

  /** forget drops a program. */
  forget(id: number): void {
    for (const slot of [...this.slots, this.spare]) {
      if (slot?.programs.delete(id)) post(slot, { kind: "forget", id });
    }
  }

  private assign(slot: Slot, more: Assigned[]): void {
    for (const { message, module } of more) {
      if (slot.programs.has(message.program)) continue;
      slot.programs.add(message.program);
      post(slot, { kind: "program", id: message.program, module });
    }
    if (slot.queue.length === 0) this.begin(slot);
    slot.queue.push(...more);
    slot.low = slot.queue.length >> 1;
    post(slot, { kind: "run", tasks: more.map(({ message }) => message) });
  }

  private begin(slot: Slot): void {
    slot.since = performance.now();
    slot.late = false;
  }

  private open(): Slot {
    const worker = new Worker(this.url, { name: "slot" });
    const slot: Slot = { worker, ready: false, programs: new Set(), queue: [], low: 0, since: 0, late: false };
    worker.onmessage = ({ data }: MessageEvent<FromSlot>) => this.heard(slot, data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.broke(slot, event.message || "its worker ended");
    };
    return slot;
  }

  private heard(slot: Slot, said: FromSlot): void {
    switch (said.kind) {
      case "ready":
        slot.ready = true;
        this.stillborn = 0;
        // The spare can wait until the slots are there.
        if (!this.spare && slot !== this.spare && this.slots.every((s) => s.ready)) this.spare = this.open();
        return this.feed();
      case "score":
        this.onscore?.(said.score);
        this.onscore = undefined;
        return;
      case "result": {
        const head = slot.queue.shift();
        if (!head || head.message.number !== said.number) return this.broke(slot, "its worker talks nonsense");
        this.begin(slot);
        this.owner.done(head.task, said);
        this.retire();
        if (slot.queue.length <= slot.low) this.feed();
        return;
      }
    }
  }

  /** look ends what is over its time: found late twice, so that a page that was held up blames nobody. */
  private look(): void {
    const now = performance.now();
    for (const slot of [...this.slots]) {
      const head = slot.queue[0];
      if (!head || now - slot.since <= head.timeout) continue;
      if (!slot.late) {
        slot.late = true;
        continue;
      }
      this.replace(slot, 1);
      this.owner.overdue(head.task);
    }
    this.feed();
  }

  private broke(slot: Slot, why: string): void {
    slot.worker.terminate();
    if (!slot.ready) return this.failedToStart(slot);
    if (slot === this.spare) this.spare = undefined;
    if (!this.slots.includes(slot)) return;
    const head = slot.queue[0];
    this.replace(slot, 1);
    if (head) this.owner.crashed(head.task, why);
    this.feed();
  }

  /** failedToStart tries again later: the script, for one, may be out of reach. */
  private failedToStart(slot: Slot): void {
    if (slot === this.spare) this.spare = undefined;
    this.slots = this.slots.filter((other) => other !== slot);
    this.timers.after(Math.min(startAgain * 2 ** this.stillborn++, startAtLast), () => this.resize(this.size));
  }

  /** replace ends a slot's worker. All but the first so many of its tasks are given back. */
  private replace(slot: Slot, gone: number): void {
    slot.worker.terminate();
    const at = this.slots.indexOf(slot);
    if (at < this.size) this.slots[at] = this.takeSpare();
    else this.slots.splice(at, 1);
    this.owner.giveBack(slot.queue.slice(gone).map(({ task }) => task));
  }

  private takeSpare(): Slot {
    const slot = this.spare;
    this.spare = slot ? this.open() : undefined;
    return slot ?? this.open();
  }

  /** retire ends idle workers beyond the number of slots. */
  private retire(): void {
    for (let i = this.slots.length - 1; i >= this.size; i--) {
      const slot = this.slots[i] as Slot;
      if (slot.queue.length > 0) continue;
      slot.worker.terminate();
      this.slots.splice(i, 1);
    }
  }
}

function post(slot: Slot, message: ToSlot): void {
  slot.worker.postMessage(message);
}
