// The parts of the pages, for tests that drive them one by one in a browser. It
// is no part of what users get.

import { Identity, deviceID, verify } from "./identity";
import { parseCode, parseFragment, inviteKey } from "./invite";
import { confine } from "./module";
import { hex, unhex, utf8 } from "./bytes";
import { inflate } from "./pages";
import { Inbox } from "./stream";
import { Timers } from "./timers";
import type { FromSlot, SlotTask } from "./slotmessages";

interface Outcome {
  failure: number;
  exitCode: number;
  error: string;
  stdout: string;
  stderr: string;
}

/** runTask runs a program once in a slot of its own. */
async function runTask(url: string, memoryMiB: number, task: Partial<SlotTask> & { input?: string }): Promise<Outcome> {
  const program = new Uint8Array(await (await fetch(url)).arrayBuffer());
  const module = await WebAssembly.compile(confine(program, memoryMiB).bytes);
  const worker = new Worker("/web/slot.js");
  const outcome = await new Promise<Outcome>((resolve) => {
    worker.onmessage = ({ data }: MessageEvent<FromSlot>) => {
      if (data.kind !== "result") return;
      const { failure, exitCode, error, stdout, stderr } = data;
      resolve({ failure, exitCode, error, stdout: hex(stdout), stderr: hex(stderr) });
    };
    worker.postMessage({ kind: "program", id: 1, module });
    worker.postMessage({
      kind: "run",
      tasks: [{ number: 1, program: 1, args: ["program"], env: [], stdin: utf8(task.input ?? ""), job: "job", index: 0, maxOutput: 16 << 20, memoryMiB, ...task }],
    });
  });
  worker.terminate();
  return outcome;
}

/** tasksASecond runs a program many times in one slot, with no swarm around it. */
async function tasksASecond(url: string, args: string[], count: number): Promise<number> {
  const program = new Uint8Array(await (await fetch(url)).arrayBuffer());
  const module = await WebAssembly.compile(confine(program, 64).bytes);
  const worker = new Worker("/web/slot.js");
  const seconds = await new Promise<number>((resolve) => {
    let begun = 0;
    let open = count;
    worker.onmessage = ({ data }: MessageEvent<FromSlot>) => {
      if (data.kind === "ready") {
        begun = performance.now();
        worker.postMessage({ kind: "program", id: 1, module });
        const task = { program: 1, args, env: [], stdin: new Uint8Array(0), job: "job", maxOutput: 1 << 20, memoryMiB: 64 };
        worker.postMessage({ kind: "run", tasks: Array.from({ length: count }, (_, i) => ({ ...task, number: i, index: i })) });
      } else if (--open === 0) resolve((performance.now() - begun) / 1000);
    };
  });
  worker.terminate();
  return count / seconds;
}

Object.assign(globalThis, {
  parts: { Identity, deviceID, verify, parseCode, parseFragment, inviteKey, confine, hex, unhex, utf8, inflate, Inbox, Timers, runTask, tasksASecond },
});
