// What a page and the workers that run its tasks say to each other.

import type { FailureKind } from "./p2p/wire/job_pb";

/** SlotTask is one task on its way to a slot. */
export interface SlotTask {
  /** Names the task between page and slot. */
  number: number;
  /** A program that the slot was given before. */
  program: number;
  args: string[];
  env: string[];
  stdin: Uint8Array;
  job: string;
  index: number;
  maxOutput: number;
  memoryMiB: number;
}

/** SlotResult is the outcome of a task. */
export interface SlotResult {
  kind: "result";
  number: number;
  failure: FailureKind;
  exitCode: number;
  error: string;
  stdout: Uint8Array<ArrayBuffer>;
  stderr: Uint8Array<ArrayBuffer>;
  durationUs: number;
}

/** ToSlot is what a page says to a slot. */
export type ToSlot =
  | { kind: "program"; id: number; module: WebAssembly.Module }
  | { kind: "forget"; id: number }
  | { kind: "run"; tasks: SlotTask[] }
  | { kind: "measure" };

/** FromSlot is what a slot says to its page. */
export type FromSlot = { kind: "ready" } | { kind: "score"; score: number } | SlotResult;
