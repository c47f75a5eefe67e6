// Errors that cross the wire keep their code.

import { Code, type Error as WireError } from "./p2p/wire/session_pb";

/** Coded is an error of the other side, in its words. */
export class Coded extends Error {
  constructor(readonly code: Code, text: string) {
    super(text || "no reason given");
  }
}

/** decode makes an error of what came over the wire. */
export function decode(error: WireError): Coded {
  return new Coded(error.code, error.text);
}

/** codeOf is the code of an error; CODE_UNSPECIFIED of one that has none. */
export function codeOf(error: unknown): Code {
  return error instanceof Coded ? error.code : Code.UNSPECIFIED;
}

/** words is an error in words. */
export function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
