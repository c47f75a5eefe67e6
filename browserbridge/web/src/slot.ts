// A slot: a worker that runs one task after the other. The page ends it when a
// task breaks a bound; nothing in here has to be able to stop a program.

import { FailureKind } from "./p2p/wire/job_pb";
import { refusedExport } from "./module";
import { score } from "./score";
import { seed } from "./seed";
import type { FromSlot, SlotResult, SlotTask, ToSlot } from "./slotmessages";
import { Exit, Host, OutputBound } from "./wasi";

interface Scope {
  postMessage(message: FromSlot, transfer?: Transferable[]): void;
  onmessage: ((event: MessageEvent<ToSlot>) => void) | null;
}

const scope = self as unknown as Scope;
const programs = new Map<number, WebAssembly.Module>();
const textLimit = 500; // characters of an error that are kept

scope.onmessage = ({ data }) => {
  switch (data.kind) {
    case "program":
      programs.set(data.id, data.module);
      break;
    case "forget":
      programs.delete(data.id);
      break;
    case "run":
      for (const task of data.tasks) {
        const result = run(task);
        scope.postMessage(result, result.stdout.length > 0 ? [result.stdout.buffer] : []);
      }
      break;
    case "measure":
      scope.postMessage({ kind: "score", score: score() });
      break;
  }
};
scope.postMessage({ kind: "ready" });

/** run runs a task to its end. */
function run(task: SlotTask): SlotResult {
  const start = performance.now();
  const host = new Host({ ...task, seed: seed(task.job, task.index) });
  let instance: WebAssembly.Instance | undefined;
  let ending: unknown;
  try {
    const program = programs.get(task.program);
    if (!program) throw new Error("the program is not here");
    instance = new WebAssembly.Instance(program, { wasi_snapshot_preview1: host.imports() });
    host.memory = instance.exports.memory as WebAssembly.Memory;
    (instance.exports._start as () => void)();
  } catch (thrown) {
    ending = thrown;
  }
  const verdict = judge(ending, instance, task);
  const bounded = verdict.failure === FailureKind.OUTPUT || verdict.failure === FailureKind.MEMORY || verdict.failure === FailureKind.INTERNAL;
  return {
    kind: "result",
    number: task.number,
    ...verdict,
    stdout: bounded ? new Uint8Array(0) : host.stdout(),
    stderr: host.stderr(),
    durationUs: Math.round(1000 * (performance.now() - start)),
  };
}

type Verdict = Pick<SlotResult, "failure" | "exitCode" | "error">;

/** judge says how the end of a program counts, in the words of a native device. */
function judge(ending: unknown, instance: WebAssembly.Instance | undefined, task: SlotTask): Verdict {
  const verdict = (failure: FailureKind, error = "", exitCode = 0): Verdict => ({ failure, exitCode, error: error.slice(0, textLimit) });
  if (ending === undefined || (ending instanceof Exit && ending.code === 0)) return verdict(FailureKind.UNSPECIFIED);
  if (ending instanceof OutputBound) return verdict(FailureKind.OUTPUT, `its output passed its bound of ${size(task.maxOutput)}`);
  if (!instance && !(ending instanceof WebAssembly.RuntimeError)) {
    return verdict(FailureKind.INTERNAL, `this browser cannot run the program: ${words(ending)}`);
  }
  const refused = instance?.exports[refusedExport];
  if (refused instanceof WebAssembly.Global && refused.value !== 0) {
    return verdict(FailureKind.MEMORY, `it needed more memory than its bound of ${task.memoryMiB} MiB`);
  }
  if (ending instanceof Exit) return verdict(FailureKind.EXIT, `exit status ${ending.code}`, ending.code);
  return verdict(FailureKind.TRAP, `trap: ${words(ending)}`);
}

function words(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

function size(bytes: number): string {
  if (bytes >= 1 << 20 && bytes % (1 << 20) === 0) return `${bytes / (1 << 20)} MiB`;
  if (bytes >= 1 << 10 && bytes % (1 << 10) === 0) return `${bytes / (1 << 10)} KiB`;
  return `${bytes} bytes`;
}
