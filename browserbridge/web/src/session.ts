// The device's side of a session: the handshake that proves both identities,
// requests and their answers, and signs of life. See node/session.

import { create, fromBinary, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { random } from "./bytes";
import { Coded, decode } from "./errors";
import { verify, type Identity } from "./identity";
import { sessionTranscript } from "./proof";
import {
  Code, FrameSchema, HelloSchema, RequestSchema,
  type Challenge, type Frame, type Hello, type Request, type Response, type Welcome,
} from "./p2p/wire/session_pb";
import { FrameStream } from "./stream";
import type { Cancel, Timers } from "./timers";

const version = 1;
const nonceSize = 32;
const maxOpen = 64; // requests without an answer
/** The other side is pinged after this silence, and taken for dead after that. All times are milliseconds. */
const pingAfter = 1000;
const deadAfter = 3000;
const watchEvery = 250;

/** Ended says why a session ended. */
export class Ended extends Error {
  constructor(readonly why: "goodbye" | "silent" | "broken" | "closed", text: string, readonly redial = false) {
    super(text);
  }
}

/** Refused is a refusal in the handshake. */
export class Refused extends Coded {
  constructor(code: Code, text: string, readonly hint: boolean) {
    super(code, text);
  }
}

type FrameInit = NonNullable<MessageInitShape<typeof FrameSchema>["kind"]>;
type RequestInit = NonNullable<MessageInitShape<typeof RequestSchema>["kind"]>;

/** Session is a session whose handshake is done. */
export class Session {
  welcome!: Welcome;
  challenge!: Challenge;
  /** ended resolves when the session is over. */
  readonly ended: Promise<Ended>;
  /** onping is told of the first ping of a silence. */
  onping: () => void = () => undefined;

  private readonly stream: FrameStream;
  private finish!: (why: Ended) => void;
  private over = false;
  private greeting: ((frame: Frame) => void) | undefined;
  private onframe: ((frame: Frame) => void) | undefined;
  private early: Frame[] = []; // what came before start
  private readonly calls = new Map<bigint, { resolve: (r: Response) => void; reject: (e: unknown) => void }>();
  private readonly queue: (() => void)[] = [];
  private lastCall = 0n;
  private cancelWatch: Cancel = () => undefined;

  private constructor(channel: RTCDataChannel, private readonly timers: Timers) {
    this.ended = new Promise((resolve) => (this.finish = resolve));
    this.stream = new FrameStream(channel, {
      frame: (body) => this.arrived(body),
      broken: (why) => this.end(new Ended("broken", why)),
      closed: () => this.end(new Ended("goodbye", "the stream ended")),
    });
  }

  /** open does the handshake on an open channel, within limit. It fails with Refused, or an error that says what was wrong. */
  static async open(channel: RTCDataChannel, identity: Identity, hello: Hello, limit: number, timers: Timers): Promise<Session> {
    const session = new Session(channel, timers);
    try {
      await timers.within(limit, "the coordinator", session.greet(identity, hello));
    } catch (error) {
      session.end(new Ended("closed", "the handshake was not done"));
      throw error;
    }
    session.watch();
    return session;
  }

  private async greet(identity: Identity, hello: Hello): Promise<void> {
    hello.version = version;
    hello.deviceId = identity.id;
    hello.nonce = random(nonceSize);
    this.post({ case: "hello", value: hello });
    const first = await this.greeted();
    if (first.kind.case !== "challenge") throw new Error("the coordinator sent no challenge");
    const challenge = first.kind.value;
    if (challenge.generation < hello.generation) throw new Coded(Code.WRONG_SWARM, "The coordinator is of an older generation of the swarm.");
    if (challenge.nonce.length !== nonceSize || !verify(challenge.coordinatorId, sessionTranscript("coordinator", hello, challenge), challenge.signature)) {
      throw new Coded(Code.BAD_PROOF, "The coordinator is not the device that it claims to be.");
    }
    const welcome = this.greeted();
    this.post({ case: "proof", value: { signature: identity.key.sign(sessionTranscript("device", hello, challenge)) } });
    const second = await welcome;
    if (second.kind.case !== "welcome") throw new Error("the coordinator sent no welcome");
    this.challenge = challenge;
    this.welcome = second.kind.value;
  }

  /** greeted is the next frame of the handshake. */
  private async greeted(): Promise<Frame> {
    const frame = await Promise.race([
      new Promise<Frame>((resolve) => (this.greeting = resolve)),
      this.ended.then((why) => Promise.reject(why)),
    ]);
    if (frame.kind.case === "refusal") {
      const { error, coordinator } = frame.kind.value;
      throw new Refused(error?.code ?? Code.INTERNAL, error?.text ?? "", coordinator !== undefined);
    }
    return frame;
  }

  /** start hands leases, cancellations and acknowledgements over, from the first on. */
  start(onframe: (frame: Frame) => void): void {
    this.onframe = onframe;
    for (const frame of this.early.splice(0)) onframe(frame);
  }

  /** post queues a frame. */
  post(kind: FrameInit, bulk = false): void {
    this.stream.send(toBinary(FrameSchema, create(FrameSchema, { kind })), bulk);
  }

  /** call sends a request and waits for the answer, whose error it throws. */
  async call(kind: RequestInit): Promise<Response> {
    while (this.calls.size >= maxOpen && !this.over) await new Promise<void>((resolve) => this.queue.push(resolve));
    const bulk = kind.case === "writePage";
    if (bulk) await this.stream.room();
    if (this.over) throw new Coded(Code.UNAVAILABLE, "the session has ended");
    const request: Request = create(RequestSchema, { id: ++this.lastCall, kind });
    const answer = new Promise<Response>((resolve, reject) => this.calls.set(request.id, { resolve, reject }));
    this.post({ case: "request", value: request }, bulk);
    const response = await answer;
    if (response.error) throw decode(response.error);
    return response;
  }

  /** close says goodbye and ends the stream. */
  close(reason: string): void {
    if (this.over) return;
    this.post({ case: "goodbye", value: { reason } });
    this.end(new Ended("closed", reason));
  }

  private end(why: Ended): void {
    if (this.over) return;
    this.over = true;
    this.cancelWatch();
    this.stream.close();
    for (const { reject } of this.calls.values()) reject(new Coded(Code.UNAVAILABLE, `the session has ended: ${why.message}`));
    this.calls.clear();
    for (const go of this.queue.splice(0)) go();
    this.finish(why);
  }

  private arrived(body: Uint8Array): void {
    const frame = fromBinary(FrameSchema, body);
    if (this.greeting) {
      const greet = this.greeting;
      this.greeting = undefined;
      return greet(frame);
    }
    switch (frame.kind.case) {
      case "ping":
        return this.post({ case: "pong", value: {} });
      case "pong":
        return;
      case "goodbye":
        return this.end(new Ended("goodbye", frame.kind.value.reason, frame.kind.value.redial));
      case "response":
        return this.settle(frame.kind.value);
      case "lease":
      case "cancelTasks":
      case "resultsAck":
        return this.onframe ? this.onframe(frame) : void this.early.push(frame);
      default:
        throw new Error("a frame of a kind that is not sent this way");
    }
  }

  private settle(response: Response): void {
    const call = this.calls.get(response.id);
    if (!call) throw new Error("an answer to no open request");
    this.calls.delete(response.id);
    this.queue.shift()?.();
    call.resolve(response);
  }

  /** watch pings when the other side is silent, and ends a session that stays so. */
  private watch(): void {
    let looked = performance.now();
    let pinged = 0;
    this.cancelWatch = this.timers.every(watchEvery, () => {
      const now = performance.now();
      // A page that was stopped must not take its own silence for the other's.
      if (now - looked > 4 * watchEvery) this.stream.heard = Math.max(this.stream.heard, now - pingAfter);
      looked = now;
      const silence = now - this.stream.heard;
      if (silence >= deadAfter) return this.end(new Ended("silent", "no sign of life for 3 s"));
      if (silence >= pingAfter && now - pinged >= pingAfter) {
        if (pinged < this.stream.heard) this.onping();
        pinged = now;
        this.post({ case: "ping", value: {} });
      }
    });
  }
}

/** newHello is a hello that the handshake completes. */
export function newHello(init: MessageInitShape<typeof HelloSchema>): Hello {
  return create(HelloSchema, init);
}
