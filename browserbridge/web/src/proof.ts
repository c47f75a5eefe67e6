// What is signed, byte for byte as in p2p/wire/proof.go.

import { sha256 } from "@noble/hashes/sha2";
import { join, uint64, utf8 } from "./bytes";
import type { JoinRequest } from "./p2p/wire/device_pb";
import type { SignalRequest } from "./p2p/wire/peer_pb";
import type { Challenge, Hello } from "./p2p/wire/session_pb";

/** statement hashes a label and fields, each with its length. */
function statement(label: string, ...fields: Uint8Array[]): Uint8Array {
  return sha256(join(...[utf8(label), ...fields].flatMap((f) => [uint64(f.length), f])));
}

/** joinStatement is what a joiner signs, with the invite's key and its own. */
export function joinStatement(r: JoinRequest): Uint8Array {
  return statement("ostrich join 1", r.swarmId, r.inviteKey, utf8(r.deviceId), uint64(r.role), r.nonce, r.offerHash);
}

/** sessionTranscript is what a side of a session signs. */
export function sessionTranscript(side: "device" | "coordinator", hello: Hello, challenge: Challenge): Uint8Array {
  return statement(
    "ostrich session 1 " + side,
    hello.swarmId, uint64(hello.generation), utf8(hello.deviceId), hello.nonce, uint64(hello.slots),
    utf8(challenge.coordinatorId), challenge.nonce, uint64(challenge.term), uint64(challenge.generation),
  );
}

/** offerStatement is what this device signs when it asks a bridge to connect. */
export function offerStatement(swarm: Uint8Array, bridge: string, r: SignalRequest): Uint8Array {
  return statement("ostrich offer 1", swarm, utf8(bridge), r.nonce, utf8(r.deviceId), sha256(utf8(r.offer)));
}

/** answerStatement is what the bridge signs when it answers. */
export function answerStatement(swarm: Uint8Array, bridge: string, r: SignalRequest, answer: string): Uint8Array {
  return statement("ostrich answer 1", swarm, utf8(bridge), r.nonce, utf8(r.deviceId), sha256(utf8(r.offer)), sha256(utf8(answer)));
}
