// Bytes and text: the few helpers that the platform lacks.

export type Bytes = Uint8Array<ArrayBuffer>;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** utf8 encodes text. */
export function utf8(text: string): Bytes {
  return encoder.encode(text);
}

/** text decodes UTF-8; what is not becomes U+FFFD. */
export function text(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** join returns the parts one after the other. */
export function join(...parts: Uint8Array[]): Bytes {
  return joinAll(parts);
}

/** joinAll is join for any number of parts: as arguments, many do not fit on the stack. */
export function joinAll(parts: Uint8Array[]): Bytes {
  const whole = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** copy returns the bytes in memory of their own. */
export function copy(bytes: Uint8Array): Bytes {
  return new Uint8Array(bytes);
}

/** equal compares byte for byte. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** hex writes bytes in hexadecimal. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

/** unhex reads what hex wrote; throws on anything else. */
export function unhex(digits: string): Bytes {
  if (digits.length % 2 !== 0 || /[^0-9a-f]/.test(digits)) throw new Error("not hexadecimal");
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** fromBase64URL reads base64url without padding; throws on anything else. */
export function fromBase64URL(encoded: string): Bytes {
  if (/[^A-Za-z0-9_-]/.test(encoded)) throw new Error("not base64url");
  const plain = atob(encoded.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(plain, (c) => c.charCodeAt(0));
}

/** uint64 is v in eight bytes, big endian. */
export function uint64(v: bigint | number): Bytes {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(v));
  return out;
}

/** random returns n random bytes. */
export function random(n: number): Bytes {
  return crypto.getRandomValues(new Uint8Array(n));
}
