// The way to a bridge: one exchange over HTTP, and a WebRTC connection whose
// channels each carry one session.

import { create, fromJson, toJson, type JsonValue } from "@bufbuild/protobuf";
import { sha256 } from "@noble/hashes/sha2";
import { equal, utf8 } from "./bytes";
import { Coded, decode } from "./errors";
import { verify, type Identity } from "./identity";
import { inviteKey, isFor, type Invite } from "./invite";
import { answerStatement, joinStatement, offerStatement } from "./proof";
import { JoinRequestSchema, type DeviceProfile, type JoinRequest } from "./p2p/wire/device_pb";
import {
  SignalChallengeSchema, SignalRequestSchema, SignalResponseSchema,
  type SignalChallenge, type SignalRequest, type SignalResponse,
} from "./p2p/wire/peer_pb";
import { Code } from "./p2p/wire/session_pb";
import type { Timers } from "./timers";

const version = 1;
const label = "session";
const answerLimit = 15_000; // milliseconds, as all times here
const openLimit = 8000;

/** Joiner is who asks a bridge to connect. */
export interface Joiner {
  identity: Identity;
  profile: () => DeviceProfile;
  invite: Invite | undefined;
  /** swarm is the one this device belongs to; undefined before it has joined. */
  swarm: Uint8Array | undefined;
}

/** Connected is what a bridge said on the way. */
export interface Connected {
  peer: Peer;
  challenge: SignalChallenge;
  response: SignalResponse;
}

/**
 * connect makes a connection by the bridge at url, and joins the swarm by it where
 * that is needed. The bridge has so many milliseconds to say who it is.
 */
export async function connect(url: string, joiner: Joiner, limit: number, timers: Timers): Promise<Connected> {
  const peer = new Peer(timers);
  try {
    const [challenge, offer] = await Promise.all([ask(url, limit, timers), peer.offer()]);
    checkSwarm(challenge, joiner);
    const request = await sign(challenge, offer, joiner);
    const response = await post(url, request, timers);
    if (response.error) throw decode(response.error);
    if (!verify(challenge.bridgeId, answerStatement(challenge.swarmId, challenge.bridgeId, request, response.answer), response.signature)) {
      throw new Coded(Code.BAD_PROOF, "The bridge is not the device that it claims to be.");
    }
    await peer.accept(response.answer);
    return { peer, challenge, response };
  } catch (error) {
    peer.close();
    throw error;
  }
}

function checkSwarm(challenge: SignalChallenge, joiner: Joiner): void {
  if (challenge.version !== version) throw new Coded(Code.VERSION, "This page is of another version than the node: reload it.");
  if (joiner.invite ? !isFor(joiner.invite, challenge.swarmId) : joiner.swarm && !equal(joiner.swarm, challenge.swarmId)) {
    throw new Coded(Code.WRONG_SWARM, "The node here belongs to another swarm than the invite is for: ask for a new invite.");
  }
}

/** sign makes the request, and the join request in it for whoever has an invite. */
async function sign(challenge: SignalChallenge, offer: string, joiner: Joiner): Promise<SignalRequest> {
  const { identity } = joiner;
  const request = create(SignalRequestSchema, { version, nonce: challenge.nonce, deviceId: identity.id, offer });
  if (joiner.invite) request.join = await signJoin(challenge, offer, joiner, joiner.invite);
  request.signature = identity.key.sign(offerStatement(challenge.swarmId, challenge.bridgeId, request));
  return request;
}

async function signJoin(challenge: SignalChallenge, offer: string, joiner: Joiner, invite: Invite): Promise<JoinRequest> {
  const key = await inviteKey(invite, challenge.swarmId);
  const join = create(JoinRequestSchema, {
    swarmId: challenge.swarmId,
    inviteKey: key.public,
    deviceId: joiner.identity.id,
    nonce: challenge.nonce,
    profile: joiner.profile(),
    offerHash: sha256(utf8(offer)),
  });
  const statement = joinStatement(join);
  join.inviteSignature = key.sign(statement);
  join.deviceSignature = joiner.identity.key.sign(statement);
  return join;
}

async function ask(url: string, limit: number, timers: Timers): Promise<SignalChallenge> {
  const json = await exchange(url, { method: "GET" }, limit, timers);
  return fromJson(SignalChallengeSchema, json, { ignoreUnknownFields: true });
}

async function post(url: string, request: SignalRequest, timers: Timers): Promise<SignalResponse> {
  const json = await exchange(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(toJson(SignalRequestSchema, request)),
  }, answerLimit, timers);
  return fromJson(SignalResponseSchema, json, { ignoreUnknownFields: true });
}

async function exchange(url: string, init: RequestInit, limit: number, timers: Timers): Promise<JsonValue> {
  const abort = new AbortController();
  const cancel = timers.after(limit, () => abort.abort());
  try {
    const response = await fetch(`${url}/signal`, { ...init, mode: "cors", credentials: "omit", cache: "no-store", signal: abort.signal });
    return (await response.json()) as JsonValue;
  } catch {
    throw new Coded(Code.UNAVAILABLE, `No answer from ${new URL(url).host}.`);
  } finally {
    cancel();
  }
}

/** Peer is a connection to a bridge. */
export class Peer {
  /** lost resolves when the connection is gone. */
  readonly lost: Promise<void>;
  private readonly pc = new RTCPeerConnection();
  private first: RTCDataChannel | undefined;
  private over = false;
  private gone!: () => void;

  constructor(private readonly timers: Timers) {
    this.lost = new Promise((resolve) => (this.gone = resolve));
    this.pc.onconnectionstatechange = () => {
      if (this.pc.connectionState === "failed" || this.pc.connectionState === "closed") this.close();
    };
  }

  /** offer is what to send to the bridge. It needs no candidates of ours. */
  async offer(): Promise<string> {
    this.first = this.pc.createDataChannel(label);
    const offer = await this.pc.createOffer();
    await this.pc.setLocalDescription(offer);
    return offer.sdp ?? "";
  }

  async accept(answer: string): Promise<void> {
    await this.pc.setRemoteDescription({ type: "answer", sdp: answer });
    const sctp = this.pc.sctp?.transport;
    if (sctp) {
      sctp.onstatechange = () => {
        if (sctp.state === "closed" || sctp.state === "failed") this.close();
      };
    }
  }

  /** channel is an open channel for the next session. */
  async channel(limit = openLimit): Promise<RTCDataChannel> {
    if (this.over) throw new Error("the connection is gone");
    const channel = this.first ?? this.pc.createDataChannel(label);
    this.first = undefined;
    if (channel.readyState === "open") return channel;
    const opened = new Promise<RTCDataChannel>((resolve, reject) => {
      channel.onopen = () => resolve(channel);
      channel.onclose = () => reject(new Error("the channel was closed"));
      channel.onerror = (event) => event.preventDefault();
      void this.lost.then(() => reject(new Error("the connection is gone")));
    });
    return this.timers.within(limit, "the bridge", opened);
  }

  /** alive reports whether the connection stands, as far as the browser knows. */
  get alive(): boolean {
    return !this.over;
  }

  /** received is how many bytes have come over the connection so far. */
  async received(): Promise<number> {
    let bytes = 0;
    if (this.over) return bytes;
    for (const report of (await this.pc.getStats()).values() as Iterable<{ type: string; bytesReceived?: number }>) {
      if (report.type === "transport") bytes += report.bytesReceived ?? 0;
    }
    return bytes;
  }

  close(): void {
    if (this.over) return;
    this.over = true;
    this.pc.close();
    this.gone();
  }
}
