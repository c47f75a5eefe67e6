// The device's key and the ID that it gives: the libp2p peer ID of the key.

import * as ed25519 from "@noble/ed25519";
import { sha512 } from "@noble/hashes/sha2";
import { join, random, type Bytes } from "./bytes";

// The synchronous functions need a hash: crypto.subtle is missing on pages that
// come over plain http.
ed25519.etc.sha512Sync = (...messages) => sha512(ed25519.etc.concatBytes(...messages));

// An identity multihash over the protobuf of an Ed25519 key; see p2p/wire/id.go.
const prefix = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20);
const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/** Key is an Ed25519 key pair. */
export class Key {
  readonly public: Bytes;

  constructor(readonly seed: Uint8Array) {
    this.public = new Uint8Array(ed25519.getPublicKey(seed));
  }

  sign(statement: Uint8Array): Bytes {
    return new Uint8Array(ed25519.sign(statement, this.seed));
  }
}

/** Identity is who this device is. */
export class Identity {
  readonly key: Key;
  readonly id: string;

  constructor(seed: Uint8Array = random(32)) {
    this.key = new Key(seed);
    this.id = deviceID(this.key.public);
  }
}

/** deviceID is the ID of the device that holds the private half of key. */
export function deviceID(key: Uint8Array): string {
  return base58(join(prefix, key));
}

/** verify reports whether the device with the ID signed the statement. */
export function verify(id: string, statement: Uint8Array, signature: Uint8Array): boolean {
  const raw = unbase58(id);
  if (!raw || raw.length !== prefix.length + 32 || !prefix.every((b, i) => b === raw[i])) return false;
  try {
    return ed25519.verify(signature, statement, raw.subarray(prefix.length));
  } catch {
    return false; // a signature or a key that is none
  }
}

/** short is the end of an ID, as lists show it. */
export function short(id: string): string {
  return id.slice(-8);
}

function base58(bytes: Uint8Array): string {
  let v = bytes.reduce((n, b) => n * 256n + BigInt(b), 0n);
  let out = "";
  for (; v > 0n; v /= 58n) out = alphabet[Number(v % 58n)] + out;
  for (let i = 0; bytes[i] === 0; i++) out = "1" + out;
  return out;
}

function unbase58(text: string): Bytes | undefined {
  if (text.length !== 52) return undefined;
  let v = 0n;
  for (const c of text) {
    const digit = alphabet.indexOf(c);
    if (digit < 0) return undefined;
    v = v * 58n + BigInt(digit);
  }
  const out: number[] = [];
  for (; v > 0n; v >>= 8n) out.unshift(Number(v & 255n));
  for (let i = 0; text[i] === "1"; i++) out.unshift(0);
  return Uint8Array.from(out);
}
