// The link keeps one session with the coordinator alive, for ever: it finds a
// bridge, opens one session after the other on the connection, and goes to
// another bridge when that one is gone.

import { hex, unhex } from "./bytes";
import { connect, type Joiner, type Peer } from "./bridge";
import { Coded, codeOf, words } from "./errors";
import { short, type Identity } from "./identity";
import type { Invite } from "./invite";
import type { Call } from "./pages";
import type { DeviceProfile } from "./p2p/wire/device_pb";
import { Code, type Hello } from "./p2p/wire/session_pb";
import { Ended, Refused, Session } from "./session";
import { jitter, type Timers } from "./timers";

const firstWait = 1000; // between rounds over all bridges; doubles. Milliseconds, as all here
const longestWait = 30_000;
const redialWait = 200; // before the next session on a connection; doubles
const againLimit = 1500; // for a further channel on a connection that stands
const firstHandshake = 10_000;
const furtherHandshake = 4000; // a bridge that is stuck is left soon
const maxRedials = 5; // in a row without a session, before another bridge is tried
const shortSession = 1000;
const firstAsk = 1000; // for a bridge to answer when there may be others
const laterAsk = 3000;
const maxBridges = 16;

/** Membership is what a device remembers of its swarm. */
export interface Membership {
  swarm: string; // in hexadecimal
  name: string;
  generation: number;
  bridges: string[];
}

/** LinkState is what people are shown of the link. */
export type LinkState =
  | { kind: "searching"; bridge: string; why: string }
  | { kind: "connected"; bridge: string; coordinator: string; swarm: string; device: string }
  | { kind: "waiting"; why: string; until: number }
  | { kind: "refused"; code: Code; why: string }
  | { kind: "left" };

/** LinkOwner is what the link needs of the device, and tells it. */
export interface LinkOwner {
  identity: Identity;
  profile: () => DeviceProfile;
  hello: (swarm: Uint8Array, generation: bigint) => Promise<Hello>;
  opened: (session: Session) => void;
  closed: () => void;
  state: (state: LinkState) => void;
  log: (text: string) => void;
}

/** Link finds the coordinator and keeps a session with it. */
export class Link {
  private peer: Peer | undefined;
  private session: Session | undefined;
  private stopped = false;
  private belonged = false; // there was a session
  private outdated = ""; // why a session that is being opened must be opened anew
  private wake = new AbortController();
  private waiting: (() => void)[] = [];

  constructor(
    private readonly owner: LinkOwner,
    private readonly origin: string,
    private readonly timers: Timers,
    private membership: Membership | undefined,
    private invite: Invite | undefined,
    private readonly remembered: (membership: Membership) => void,
  ) {}

  /** run goes on until stop, or until the swarm will not have this device. */
  async run(): Promise<void> {
    let suspect = "";
    for (let round = 0; !this.stopped; ) {
      const found = await this.find(suspect, round === 0 ? firstAsk : laterAsk);
      if (this.stopped) {
        if (!(found instanceof Error)) found.peer.close();
        return;
      }
      if (found instanceof Error) {
        if (this.isFinal(found) || (isNo(found) && !this.belonged)) return this.say({ kind: "refused", code: codeOf(found), why: words(found) });
        await this.rest(round++, found);
        continue;
      }
      const sessions = await this.use(found.peer, found.url);
      suspect = found.url;
      if (sessions instanceof Error) return this.say({ kind: "refused", code: codeOf(sessions), why: words(sessions) });
      if (sessions > 0) round = 0;
      else await this.rest(round++, new Error("The coordinator cannot be reached."));
    }
  }

  /** call asks the coordinator. It waits for a session, and asks again when one is lost. */
  readonly call: Call = async (kind) => {
    for (let attempt = 0; ; attempt++) {
      const session = this.session;
      if (!session) {
        if (this.stopped) throw new Coded(Code.UNAVAILABLE, "this device has left");
        await new Promise<void>((resolve) => this.waiting.push(resolve));
        continue;
      }
      try {
        return await session.call(kind);
      } catch (error) {
        const code = codeOf(error);
        if (code !== Code.UNAVAILABLE && code !== Code.NOT_COORDINATOR && code !== Code.UNKNOWN_OUTCOME) throw error;
        await this.timers.sleep(jitter(Math.min(50 * 2 ** Math.min(attempt, 6), 2000)));
      }
    }
  };

  /** again opens a new session at once, with a new hello. */
  again(why: string): void {
    this.outdated = why;
    this.session?.close(why);
  }

  /** hurry cuts a wait short: the network is back, or somebody looks. */
  hurry(): void {
    this.wake.abort();
    this.wake = new AbortController();
  }

  /** drop closes the connection: the page goes away, and may come back. */
  drop(why: string): void {
    this.session?.close(why);
    this.peer?.close();
  }

  /** stop says goodbye, for good. */
  stop(why: string): void {
    this.drop(why);
    this.say({ kind: "left" });
    this.stopped = true;
    this.hurry();
    this.notify();
  }

  /** say tells how things stand, until stop. */
  private say(state: LinkState): void {
    if (!this.stopped) this.owner.state(state);
  }

  private notify(): void {
    for (const go of this.waiting.splice(0)) go();
  }

  private async rest(round: number, why: Error): Promise<void> {
    const wait = jitter(Math.min(firstWait * 2 ** Math.min(round, 8), longestWait)) + firstWait / 2;
    this.say({ kind: "waiting", why: words(why), until: Date.now() + wait });
    await this.timers.sleep(wait, this.wake.signal);
  }

  /** candidates are all bridges known, the suspect last. */
  private candidates(suspect: string): string[] {
    const secure = this.origin.startsWith("https:"); // such a page may ask no other
    const known = origins([this.origin, ...(this.membership?.bridges ?? [])]).filter((url) => !secure || url.startsWith("https:"));
    return suspect && known.length > 1 ? [...known.filter((url) => url !== suspect), suspect] : known;
  }

  /**
   * find tries each bridge once. If none would have us it returns why: the word
   * of one that could not be reached before that of one that said no.
   */
  private async find(suspect: string, limit: number): Promise<{ peer: Peer; url: string } | Error> {
    let last: Error = new Error("No bridge is known.");
    let silent: Error | undefined;
    for (const url of this.candidates(suspect)) {
      if (this.stopped) break;
      this.say({ kind: "searching", bridge: new URL(url).host, why: "" });
      for (let tries = 0; tries < 2; tries++) {
        try {
          return { peer: await this.reach(url, limit), url };
        } catch (error) {
          last = error instanceof Error ? error : new Error(String(error));
        }
        if (codeOf(last) !== Code.UNKNOWN_OUTCOME && codeOf(last) !== Code.PRECONDITION) break;
      }
      this.owner.log(`${new URL(url).host}: ${words(last)}`);
      if (this.isFinal(last)) return last;
      if (!isNo(last)) silent = last;
    }
    return silent ?? last;
  }

  /** isFinal reports whether no bridge would answer otherwise, however often it is asked. */
  private isFinal(error: Error): boolean {
    switch (codeOf(error)) {
      case Code.DENIED: case Code.REMOVED: case Code.VERSION:
        return true;
      default:
        return this.invite !== undefined && isNo(error);
    }
  }

  private async reach(url: string, limit: number): Promise<Peer> {
    const joiner: Joiner = {
      identity: this.owner.identity,
      profile: this.owner.profile,
      invite: this.invite,
      swarm: this.membership ? unhex(this.membership.swarm) : undefined,
    };
    if (!joiner.invite && !joiner.swarm) throw new Coded(Code.NOT_FOUND, "An invite is needed.");
    const { peer, challenge, response } = await connect(url, joiner, limit, this.timers);
    this.peer = peer;
    const bridges = [...response.bridges, ...challenge.bridges];
    this.remember({
      swarm: hex(challenge.swarmId),
      name: response.admitted?.swarmName || challenge.swarmName,
      generation: Math.max(this.membership?.generation ?? 0, Number(response.admitted?.generation ?? 0n)),
      bridges: origins([...bridges, ...(this.membership?.bridges ?? [])]).slice(0, maxBridges),
    });
    this.invite = undefined;
    return peer;
  }

  private remember(membership: Membership): void {
    this.membership = membership;
    this.remembered(membership);
  }

  /** use keeps sessions on a connection until it is gone, and returns how many there were. */
  private async use(peer: Peer, url: string): Promise<number | Error> {
    let sessions = 0;
    for (let failures = 0; peer.alive && !this.stopped && failures < maxRedials; ) {
      const begun = performance.now();
      try {
        const ended = await this.hold(peer, url, sessions > 0 || failures > 0);
        sessions++;
        this.owner.log(`the session ended: ${ended.message}`);
        if (ended.why !== "closed" && performance.now() - begun < shortSession) failures++;
        else failures = 0;
      } catch (error) {
        failures++;
        if (error instanceof Coded && this.isFinal(error)) {
          peer.close();
          return error;
        }
        if (!(error instanceof Refused)) this.owner.log(`no session: ${words(error)}`);
        if (!(error instanceof Coded) && !(error instanceof Ended)) break; // the channel did not open
      }
      if (peer.alive && !this.stopped) {
        this.say({ kind: "searching", bridge: new URL(url).host, why: "" });
        if (failures > 0) await this.timers.sleep(jitter(redialWait * 2 ** failures));
        else await this.timers.sleep(redialWait / 10);
      }
    }
    peer.close();
    return sessions;
  }

  /** hold opens a session and returns how it ended. */
  private async hold(peer: Peer, url: string, further: boolean): Promise<Ended> {
    const membership = this.membership as Membership;
    this.outdated = "";
    const [channel, hello] = await Promise.all([
      peer.channel(further ? againLimit : undefined),
      this.owner.hello(unhex(membership.swarm), BigInt(membership.generation)),
    ]);
    const session = await Session.open(channel, this.owner.identity, hello, further ? furtherHandshake : firstHandshake, this.timers);
    if (this.stopped || this.outdated) {
      session.close(this.outdated || "this device leaves");
      return session.ended;
    }
    const { welcome, challenge } = session;
    let received = 0;
    session.onping = () => void peer.received().then((bytes) => (received = bytes));
    this.session = session;
    this.belonged = true;
    this.notify();
    this.say({
      kind: "connected", bridge: new URL(url).host, coordinator: short(challenge.coordinatorId),
      swarm: welcome.swarmName || membership.name, device: welcome.deviceName,
    });
    this.owner.opened(session);
    this.remember({
      ...membership, name: welcome.swarmName || membership.name,
      generation: Math.max(membership.generation, Number(challenge.generation)),
    });
    const ended = await session.ended;
    this.session = undefined;
    this.owner.closed();
    // The bridge acknowledges what it gets even while the coordinator is silent.
    if (ended.why === "silent" && (await peer.received()) <= received) peer.close();
    return ended;
  }
}

/** isNo reports whether a bridge refuses this device, as far as it knows. */
function isNo(error: Error): boolean {
  switch (codeOf(error)) {
    case Code.NOT_FOUND: case Code.WRONG_SWARM: case Code.INVALID: case Code.BAD_PROOF: case Code.CONFLICT:
      return true;
    default:
      return false;
  }
}

/** origins are the addresses that may be a bridge's, each once. */
function origins(urls: string[]): string[] {
  const found = new Set<string>();
  for (const url of urls) {
    try {
      const { protocol, origin } = new URL(url);
      if (protocol === "http:" || protocol === "https:") found.add(origin);
    } catch {
      // It is no address.
    }
  }
  return [...found];
}
