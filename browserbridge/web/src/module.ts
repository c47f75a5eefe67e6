// A program's module, made to keep its memory bound: the maximum of its memory
// is lowered, and each memory.grow is led through a function of ours that notes
// a refusal, so that a program that then fails can be told from one that has a
// fault of its own.

import { join, joinAll, utf8, type Bytes } from "./bytes";

/** refusedExport is the global that is not 0 once growth was refused. */
export const refusedExport = "ostrich: growth refused";

const wasmPage = 64 << 10;
const maxPages = 1 << 16;

const enum Section {
  Custom = 0,
  Type = 1,
  Import = 2,
  Function = 3,
  Memory = 5,
  Global = 6,
  Export = 7,
  Code = 10,
}

// The order in which sections stand in a module; 12 is the count of data
// segments, 13 are tags.
const order = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11];

/** Confined is a module that keeps to a memory bound. */
export interface Confined {
  bytes: Bytes;
  /** minimum is the memory that the program begins with, in bytes. */
  minimum: number;
}

/** confine rewrites a module. It throws where the bytes are no module. */
export function confine(module: Uint8Array, memoryMiB: number): Confined {
  const sections = split(module);
  const memory = sections.get(Section.Memory);
  if (!memory) throw new Error("the module has no memory");
  const limits = readLimits(memory);
  const most = Math.min((memoryMiB * (1 << 20)) / wasmPage, maxPages);
  const pages = Math.min(most, limits.max ?? maxPages);
  if (limits.min <= pages) {
    sections.set(Section.Memory, join(Uint8Array.of(1, 1), uleb(limits.min), uleb(pages)));
    watchGrowth(sections);
  }
  const parts: Uint8Array[] = [module.subarray(0, 8)];
  for (const id of order) {
    const body = sections.get(id);
    if (body) parts.push(Uint8Array.of(id), uleb(body.length), body);
  }
  return { bytes: joinAll(parts), minimum: limits.min * wasmPage };
}

/** split returns the bodies of a module's sections, without custom ones. */
function split(module: Uint8Array): Map<number, Uint8Array> {
  const sections = new Map<number, Uint8Array>();
  const r = new Reader(module, 8);
  while (r.at < module.length) {
    const id = r.byte();
    const size = r.uint();
    if (r.at + size > module.length) throw new Error("the module is cut short");
    if (id !== Section.Custom) sections.set(id, module.subarray(r.at, r.at + size));
    r.at += size;
  }
  return sections;
}

function readLimits(memory: Uint8Array): { min: number; max?: number } {
  const r = new Reader(memory);
  if (r.uint() !== 1) throw new Error("the module has not one memory");
  const flags = r.byte();
  if (flags > 1) throw new Error("the module has a memory of another kind");
  const min = r.uint();
  return flags === 1 ? { min, max: r.uint() } : { min };
}

/** watchGrowth leads each memory.grow through a new function. */
function watchGrowth(sections: Map<number, Uint8Array>): void {
  const code = sections.get(Section.Code);
  if (!code) return;
  const imported = countImports(sections.get(Section.Import));
  const functions = new Reader(sections.get(Section.Function) ?? Uint8Array.of(0)).uint();
  const types = new Reader(sections.get(Section.Type) ?? Uint8Array.of(0)).uint();
  const globals = new Reader(sections.get(Section.Global) ?? Uint8Array.of(0)).uint() + imported.globals;
  const bodies = redirect(code, imported.functions + functions);
  if (!bodies) return;
  // (func (param i32) (result i32) (local i32)
  //   (local.tee 1 (memory.grow (local.get 0)))
  //   (if (i32.eq (i32.const -1)) (then (global.set $refused (i32.const 1))))
  //   (local.get 1))
  const own = join(
    Uint8Array.of(1, 1, 0x7f, 0x20, 0, 0x40, 0, 0x22, 1, 0x41, 0x7f, 0x46, 0x04, 0x40, 0x41, 1, 0x24),
    uleb(globals),
    Uint8Array.of(0x0b, 0x20, 1, 0x0b),
  );
  append(sections, Section.Type, Uint8Array.of(0x60, 1, 0x7f, 1, 0x7f));
  append(sections, Section.Function, uleb(types));
  append(sections, Section.Global, Uint8Array.of(0x7f, 1, 0x41, 0, 0x0b));
  const name = utf8(refusedExport);
  append(sections, Section.Export, join(uleb(name.length), name, Uint8Array.of(3), uleb(globals)));
  sections.set(Section.Code, joinAll([uleb(functions + 1), ...bodies, uleb(own.length), own]));
}

/** append adds an item at the end of a section that is a list. */
function append(sections: Map<number, Uint8Array>, id: number, item: Uint8Array): void {
  const r = new Reader(sections.get(id) ?? Uint8Array.of(0));
  const count = r.uint();
  sections.set(id, join(uleb(count + 1), r.bytes.subarray(r.at), item));
}

function countImports(section: Uint8Array | undefined): { functions: number; globals: number } {
  const count = { functions: 0, globals: 0 };
  if (!section) return count;
  const r = new Reader(section);
  for (let n = r.uint(); n > 0; n--) {
    r.skip(r.uint());
    r.skip(r.uint());
    if (r.byte() !== 0) throw new Error("the module imports what is no function");
    r.uint();
    count.functions++;
  }
  return count;
}

/**
 * redirect returns the bodies of all functions, with their lengths, in which
 * memory.grow calls target; undefined if there is none, or where an instruction
 * is not known.
 */
function redirect(code: Uint8Array, target: number): Uint8Array[] | undefined {
  const call = join(Uint8Array.of(0x10), uleb(target));
  const bodies: Uint8Array[] = [];
  const r = new Reader(code);
  let found = false;
  for (let n = r.uint(); n > 0; n--) {
    const start = r.at;
    const size = r.uint();
    const end = r.at + size;
    const places = growths(code, r.at, end);
    if (!places) return undefined;
    if (places.length === 0) {
      bodies.push(code.subarray(start, end));
    } else {
      found = true;
      const parts: Uint8Array[] = [];
      let from = r.at;
      for (const place of places) {
        parts.push(code.subarray(from, place), call);
        from = place + 2;
      }
      parts.push(code.subarray(from, end));
      const body = joinAll(parts);
      bodies.push(uleb(body.length), body);
    }
    r.at = end;
  }
  return found ? bodies : undefined;
}

/** growths returns where a body says memory.grow; undefined if it cannot be read. */
function growths(code: Uint8Array, start: number, end: number): number[] | undefined {
  const places: number[] = [];
  const r = new Reader(code, start);
  for (let n = r.uint(); n > 0; n--) {
    r.uint(); // so many locals
    r.byte(); // of a type
  }
  while (r.at < end) {
    const at = r.at;
    const op = r.byte();
    if (op === 0x40) places.push(at);
    if (!skipOperands(r, op)) return undefined;
  }
  return r.at === end ? places : undefined;
}

/** skipOperands passes over what follows an instruction of WebAssembly 2.0. */
function skipOperands(r: Reader, op: number): boolean {
  if (op >= 0x45 && op <= 0xc4) return true; // numeric
  if (op >= 0x28 && op <= 0x3e) return r.uints(2); // loads and stores
  switch (op) {
    case 0x00: case 0x01: case 0x05: case 0x0b: case 0x0f: case 0x1a: case 0x1b: case 0xd1:
      return true;
    case 0x02: case 0x03: case 0x04: // a block and its type
    case 0x0c: case 0x0d: case 0x10: case 0x12:
    case 0x20: case 0x21: case 0x22: case 0x23: case 0x24: case 0x25: case 0x26:
    case 0x3f: case 0x40: case 0x41: case 0x42: case 0xd0: case 0xd2:
      return r.uints(1);
    case 0x11: case 0x13:
      return r.uints(2);
    case 0x0e: // br_table
      return r.uints(r.uint() + 1);
    case 0x1c: // select with types
      return r.skip(r.uint());
    case 0x43:
      return r.skip(4);
    case 0x44:
      return r.skip(8);
    case 0xfc:
      return skipBulk(r, r.uint());
    case 0xfd:
      return skipVector(r, r.uint());
  }
  return false;
}

function skipBulk(r: Reader, op: number): boolean {
  if (op <= 7) return true;
  if (op > 17) return false;
  return r.uints(op === 9 || op === 11 || op === 13 || op >= 15 ? 1 : 2);
}

function skipVector(r: Reader, op: number): boolean {
  if (op <= 11 || op === 92 || op === 93) return r.uints(2);
  if (op === 12 || op === 13) return r.skip(16);
  if (op >= 21 && op <= 34) return r.skip(1);
  if (op >= 84 && op <= 91) return r.uints(2) && r.skip(1);
  return true;
}

/** uleb is a number in unsigned LEB 128. */
function uleb(v: number): Bytes {
  const out: number[] = [];
  do {
    const more = v > 127;
    out.push((v & 127) | (more ? 128 : 0));
    v = Math.floor(v / 128);
  } while (v > 0);
  return Uint8Array.from(out);
}

/** Reader reads a module's numbers. Beyond the end it reads zeros. */
class Reader {
  constructor(readonly bytes: Uint8Array, public at = 0) {}

  byte(): number {
    return this.bytes[this.at++] ?? 0;
  }

  uint(): number {
    let v = 0;
    for (let scale = 1; ; scale *= 128) {
      const b = this.byte();
      v += (b & 127) * scale;
      if (b < 128) return v;
    }
  }

  /** uints passes over n numbers, signed or not. */
  uints(n: number): boolean {
    for (; n > 0 && this.at < this.bytes.length; n--) {
      while (this.byte() >= 128);
    }
    return true;
  }

  skip(n: number): boolean {
    this.at += n;
    return true;
  }
}
