// Blobs over a session: pages of 1 MiB, each verified by its hash, in chunks.

import { create } from "@bufbuild/protobuf";
import { sha256 } from "@noble/hashes/sha2";
import { equal, joinAll, type Bytes } from "./bytes";
import { Coded, codeOf } from "./errors";
import { BlobSchema, type Blob } from "./p2p/wire/job_pb";
import { Code, type Attempt, type Response as Answer } from "./p2p/wire/session_pb";
import type { Session } from "./session";
import { jitter, type Timers } from "./timers";

const pageSize = 1 << 20;
const maxChunk = 256 << 10;
const pagesInFlight = 4;
const tries = 5; // of a page, before a refusal counts as final

/** Call asks the coordinator, through whatever session there is. */
export type Call = (kind: Parameters<Session["call"]>[0]) => Promise<Answer>;

/** Owner is the task whose output is written: once it is not wanted any more the writing ends. */
export interface Owner {
  readonly attempt: Attempt | undefined;
  readonly index: number;
  wanted(): boolean;
}

/** Pages reads and writes blobs. */
export class Pages {
  constructor(private readonly call: Call, private readonly timers: Timers) {}

  /** read fetches a blob whole. The caller has bounded its size. */
  async read(blob: Blob): Promise<Bytes> {
    const size = Number(blob.size);
    const whole = new Uint8Array(size);
    await each(blob.pages.length, async (i) => {
      const at = i * pageSize;
      const name = blob.pages[i] as Uint8Array;
      whole.set(await this.readPage(name, Math.min(pageSize, size - at)), at);
    });
    return whole;
  }

  /** write stores bytes in pages, and returns when they are on a quorum. */
  async write(bytes: Uint8Array, owner: Owner): Promise<Blob> {
    const blob = create(BlobSchema, { size: BigInt(bytes.length) });
    await each(Math.ceil(bytes.length / pageSize), async (i) => {
      const page = bytes.subarray(i * pageSize, (i + 1) * pageSize);
      const name = await hash(page);
      blob.pages[i] = name;
      await this.writePage(name, page, owner);
    });
    return blob;
  }

  private async readPage(name: Uint8Array, size: number): Promise<Uint8Array> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.readPageOnce(name, size);
      } catch (error) {
        if (attempt >= tries) throw error;
        await this.timers.sleep(jitter(200 * 2 ** attempt));
      }
    }
  }

  private async readPageOnce(name: Uint8Array, size: number): Promise<Uint8Array> {
    const ranges: Promise<Uint8Array>[] = [];
    for (let offset = 0; offset < size; offset += maxChunk) ranges.push(this.readRange(name, offset, size));
    const page = joinAll(await Promise.all(ranges));
    if (!equal(await hash(page), name)) throw new Coded(Code.INTERNAL, "a page came damaged");
    return page;
  }

  private async readRange(name: Uint8Array, offset: number, size: number): Promise<Uint8Array> {
    const length = Math.min(maxChunk, size - offset);
    const { kind } = await this.call({ case: "readPage", value: { hash: name, offset, length, deflate: canInflate } });
    if (kind.case !== "readPage" || kind.value.size !== size) throw new Coded(Code.INTERNAL, "a page came with another size");
    const data = kind.value.deflated ? await inflate(kind.value.data, length) : kind.value.data;
    if (data.length !== length) throw new Coded(Code.INTERNAL, "a page came with another size");
    return data;
  }

  /** writePage waits for ever where there is no room. */
  private async writePage(name: Uint8Array, page: Uint8Array, owner: Owner): Promise<void> {
    const { attempt: lease, index } = owner;
    for (let attempt = 1; ; attempt++) {
      try {
        for (let offset = 0; offset < page.length; offset += maxChunk) {
          if (!owner.wanted()) throw new Error("its task was cancelled");
          const data = page.subarray(offset, offset + maxChunk);
          await this.call({ case: "writePage", value: { hash: name, size: page.length, offset, data, attempt: lease, index } });
        }
        return;
      } catch (error) {
        const full = codeOf(error) === Code.NO_SPACE || codeOf(error) === Code.EXHAUSTED;
        if ((attempt >= tries && !full) || !owner.wanted()) throw error;
        await this.timers.sleep(jitter(Math.min(100 * 2 ** attempt, 5000)));
      }
    }
  }
}

/** each runs f for 0 … count-1, a few at a time, and throws the first error. */
async function each(count: number, f: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const run = async () => {
    while (next < count) await f(next++);
  };
  await Promise.all(Array.from({ length: Math.min(pagesInFlight, count) }, run));
}

/** hash is SHA-256, by the browser where it will. */
export async function hash(bytes: Uint8Array): Promise<Bytes> {
  if (globalThis.crypto.subtle) return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Bytes));
  return sha256(bytes) as Bytes;
}

const canInflate = typeof DecompressionStream === "function" && inflates();

function inflates(): boolean {
  try {
    new DecompressionStream("deflate-raw");
    return true;
  } catch {
    return false; // older browsers know deflate with a header alone
  }
}

/** inflate undoes raw DEFLATE, and gives up beyond limit bytes. */
export async function inflate(bytes: Uint8Array, limit: number): Promise<Uint8Array> {
  const stream = new Response(bytes as Bytes).body?.pipeThrough(new DecompressionStream("deflate-raw"));
  if (!stream) throw new Error("there is nothing to inflate");
  const reader = stream.getReader();
  const parts: Uint8Array[] = [];
  for (let size = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return joinAll(parts);
    size += value.length;
    if (size > limit) {
      await reader.cancel();
      throw new Coded(Code.INTERNAL, "a page came with another size");
    }
    parts.push(value);
  }
}
