// Invites: the fragment of a link, or a short code that somebody types. What
// they mean is p2p/invite.go's and p2p/inviteparse.go's to say.

import { argon2idAsync } from "@noble/hashes/argon2";
import { sha256 } from "@noble/hashes/sha2";
import { equal, fromBase64URL, join, utf8, type Bytes } from "./bytes";
import { Key } from "./identity";

const secretSize = 16;
const swarmSize = 16;
const codeLength = 10;
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** Invite is an invite in the hands of its bearer. */
export type Invite = { kind: "link"; secret: Bytes; swarm: Bytes } | { kind: "code"; code: string };

/** parseFragment reads what follows # in a link; it throws on what is none. */
export function parseFragment(fragment: string): Invite {
  let raw: Bytes;
  try {
    raw = fromBase64URL(fragment.replace(/\s/g, ""));
  } catch {
    raw = new Uint8Array(0);
  }
  if (raw.length !== secretSize + swarmSize) throw new Error("The link is mangled: a part of it is missing or changed. Copy it whole, or type the short code.");
  return { kind: "link", secret: raw.slice(0, secretSize), swarm: raw.slice(secretSize) };
}

/** parseCode reads a short code as people type it, or a whole link. */
export function parseCode(typed: string): Invite {
  const fragment = /\/join\/?#(.*)$/s.exec(typed.trim());
  if (fragment) return parseFragment(fragment[1] ?? "");
  const code = typed.toUpperCase().replace(/@.*$/s, "").replace(/[\s-]/g, "").replace(/O/g, "0").replace(/[IL]/g, "1");
  if (code.length !== codeLength || [...code].some((c) => !crockford.includes(c))) {
    throw new Error(`That is no short code: it has ${codeLength} letters and digits, none of them U.`);
  }
  return { kind: "code", code };
}

/** isFor reports whether the invite may be for the swarm; of a code nobody can tell. */
export function isFor(invite: Invite, swarm: Uint8Array): boolean {
  return invite.kind === "code" || equal(invite.swarm, swarm);
}

/** inviteKey is the key that the bearer signs with. For a code it takes a while. */
export async function inviteKey(invite: Invite, swarm: Uint8Array): Promise<Key> {
  if (invite.kind === "link") return new Key(sha256(join(utf8("ostrich invite link 1\n"), invite.secret, swarm)));
  const salt = join(utf8("ostrich invite code 1\n"), swarm);
  return new Key(await argon2idAsync(utf8(invite.code), salt, { t: 2, m: 19 << 10, p: 1, dkLen: 32 }));
}
