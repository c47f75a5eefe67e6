// Programs: fetched once in verified chunks, kept in the browser's storage,
// compiled once for each memory bound.

import { unhex, hex, equal } from "./bytes";
import { confine } from "./module";
import { hash, type Pages } from "./pages";
import type { Blob } from "./p2p/wire/job_pb";
import type { Storage } from "./storage";
import type { Timers } from "./timers";

const maxKept = 512 << 20; // bytes of programs in storage
const maxCompiled = 16;
const maxNamed = 1000;
const compileLimit = 60_000; // milliseconds, and as many for each compileUnit
const compileUnit = 16 << 20; // bytes of a program

/** Program is a program ready to run. */
export interface Program {
  id: number;
  module: WebAssembly.Module | undefined; // undefined if it begins with more memory than its bound
  minimum: number;
}

/** Programs keeps programs. forget is called with the ID of each that is dropped. */
export class Programs {
  private readonly compiled = new Map<string, Promise<Program>>(); // used last is last
  private readonly kept = new Map<string, number>(); // sizes of those in storage, used last first
  private lastID = 0;

  constructor(
    private readonly pages: Pages, private readonly storage: Storage, private readonly timers: Timers, private readonly forget: (id: number) => void,
  ) {}

  /** load finds what an earlier visit has kept. */
  async load(): Promise<void> {
    for (const { name, size } of await this.storage.programNames()) this.kept.set(name, size);
  }

  /** names are the hashes of the programs kept. */
  names(): Uint8Array[] {
    return [...this.kept.keys()].slice(0, maxNamed).map(unhex);
  }

  /** get returns the program, fetched and compiled if need be. */
  async get(blob: Blob, memoryMiB: number): Promise<Program> {
    const key = `${hex(blob.hash)}/${memoryMiB}`;
    let program = this.compiled.get(key);
    this.compiled.delete(key);
    program ??= this.make(blob, memoryMiB);
    this.compiled.set(key, program);
    program.catch(() => this.compiled.delete(key));
    for (const [old, other] of this.compiled) {
      if (this.compiled.size <= maxCompiled) break;
      this.compiled.delete(old);
      void other.then(({ id }) => this.forget(id), () => undefined);
    }
    return program;
  }

  private async make(blob: Blob, memoryMiB: number): Promise<Program> {
    const { bytes, minimum } = confine(await this.fetch(blob), memoryMiB);
    const id = ++this.lastID;
    if (minimum > memoryMiB * (1 << 20)) return { id, module: undefined, minimum };
    const limit = compileLimit * (1 + Math.floor(bytes.length / compileUnit));
    return { id, module: await this.timers.within(limit, "the compiler", WebAssembly.compile(bytes)), minimum };
  }

  private async fetch(blob: Blob): Promise<Uint8Array> {
    const name = hex(blob.hash);
    const stored = await this.storage.getProgram(name);
    if (stored && equal(await hash(stored.bytes), blob.hash)) {
      void this.storage.putProgram(name, { bytes: stored.bytes, used: Date.now() });
      return stored.bytes;
    }
    const bytes = await this.pages.read(blob);
    if (!equal(await hash(bytes), blob.hash)) throw new Error("the program came damaged");
    void this.keep(name, bytes);
    return bytes;
  }

  /** keep stores a program, and lets go of those used longest ago. */
  private async keep(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (!(await this.storage.putProgram(name, { bytes, used: Date.now() }))) return;
    const others = [...this.kept].filter(([other]) => other !== name);
    this.kept.clear();
    let size = bytes.length;
    this.kept.set(name, size);
    for (const [other, otherSize] of others) {
      size += otherSize;
      if (size <= maxKept) this.kept.set(other, otherSize);
      else await this.storage.removeProgram(other);
    }
  }
}
