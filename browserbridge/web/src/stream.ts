// A data channel as the byte stream of a session: frames go out in pieces of at
// most 16 KiB, as fast as the channel drains, control before bulk.

import type { Bytes } from "./bytes";

/** pieceSize bounds a message: 64 KiB would kill the channel silently. */
const pieceSize = 16 << 10;
const highWater = 1 << 20;
const lowWater = 256 << 10;
/** maxFrame bounds a frame of a session. */
export const maxFrame = 1 << 20;

/** Receiver is told what arrives. */
export interface Receiver {
  frame(body: Uint8Array): void;
  /** broken ends the stream: the other side sent what is no frame. */
  broken(why: string): void;
  closed(): void;
}

/** FrameStream sends and receives frames over a channel. */
export class FrameStream {
  /** heard is when the last bytes came, by performance.now. */
  heard = performance.now();
  private readonly control: Uint8Array[] = [];
  private readonly bulk: Uint8Array[] = [];
  private current: Uint8Array | undefined; // the frame that is on its way
  private sent = 0; // of it
  private readonly waiting: (() => void)[] = [];
  private readonly inbox = new Inbox();
  private over = false;

  constructor(private readonly channel: RTCDataChannel, private readonly receiver: Receiver) {
    channel.binaryType = "arraybuffer";
    channel.bufferedAmountLowThreshold = lowWater;
    channel.onbufferedamountlow = () => this.pump();
    channel.onmessage = ({ data }: MessageEvent<ArrayBuffer>) => this.arrived(new Uint8Array(data));
    channel.onclose = () => this.end();
    channel.onerror = (event) => event.preventDefault();
  }

  /** send queues an encoded frame. */
  send(body: Uint8Array, bulk = false): void {
    if (this.over) return;
    const framed = new Uint8Array(4 + body.length);
    new DataView(framed.buffer).setUint32(0, body.length);
    framed.set(body, 4);
    (bulk ? this.bulk : this.control).push(framed);
    this.pump();
  }

  /** room waits until the bulk queue is empty. */
  async room(): Promise<void> {
    while (this.bulk.length > 0 && !this.over) await new Promise<void>((resolve) => this.waiting.push(resolve));
  }

  /** close ends the stream cleanly: what is queued goes first, as far as the channel takes it. */
  close(): void {
    if (this.over) return;
    this.pump();
    this.channel.close();
    this.end();
  }

  private end(): void {
    if (this.over) return;
    this.over = true;
    this.wake();
    this.receiver.closed();
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }

  private pump(): void {
    while (this.channel.readyState === "open" && this.channel.bufferedAmount < highWater) {
      if (!this.current) {
        this.current = this.control.shift() ?? this.bulk.shift();
        this.sent = 0;
        if (!this.current) break;
      }
      const piece = this.current.subarray(this.sent, this.sent + pieceSize);
      try {
        this.channel.send(piece as Bytes);
      } catch {
        return; // the channel is closing, and says so by its event
      }
      this.sent += piece.length;
      if (this.sent === this.current.length) this.current = undefined;
    }
    if (this.bulk.length === 0) this.wake();
  }

  private arrived(bytes: Uint8Array): void {
    this.heard = performance.now();
    this.inbox.push(bytes);
    try {
      for (let body = this.inbox.next(); body && !this.over; body = this.inbox.next()) this.receiver.frame(body);
    } catch (error) {
      if (this.over) return;
      this.receiver.broken(error instanceof Error ? error.message : String(error));
    }
  }
}

/** Inbox puts frames together from the pieces in which they arrive. */
export class Inbox {
  private pieces: Uint8Array[] = [];
  private size = 0;

  push(piece: Uint8Array): void {
    this.pieces.push(piece);
    this.size += piece.length;
  }

  /** next takes a whole frame out; undefined while there is none. */
  next(): Uint8Array | undefined {
    if (this.size < 4) return undefined;
    const first = this.gather(4);
    const length = new DataView(first.buffer, first.byteOffset).getUint32(0);
    if (length > maxFrame) throw new Error(`a frame of ${length} bytes: at most ${maxFrame} are allowed`);
    if (this.size < 4 + length) return undefined;
    const all = this.gather(4 + length);
    this.pieces = all.length > 4 + length ? [all.subarray(4 + length), ...this.pieces.slice(1)] : this.pieces.slice(1);
    this.size -= 4 + length;
    return all.subarray(4, 4 + length);
  }

  /** gather makes the first piece hold at least n bytes, and returns it. */
  private gather(n: number): Uint8Array {
    let first = this.pieces[0] as Uint8Array;
    if (first.length >= n) return first;
    let size = 0;
    let count = 0;
    while (size < n) size += (this.pieces[count++] as Uint8Array).length;
    const whole = new Uint8Array(size);
    let at = 0;
    for (const piece of this.pieces.splice(0, count)) {
      whole.set(piece, at);
      at += piece.length;
    }
    this.pieces.unshift(whole);
    first = whole;
    return first;
  }
}
