import { sha256 } from "@noble/hashes/sha2";
import { join, utf8 } from "./bytes";

/** seed makes a task's randomness, as node/sandbox's Seed does. */
export function seed(job: string, index: number): Uint8Array {
  const tail = new Uint8Array(5);
  new DataView(tail.buffer).setUint32(1, index);
  return sha256(join(utf8("ostrich seed 1\n" + job), tail));
}
