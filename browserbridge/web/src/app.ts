// The page's one state, and what a person can do to it.

import { create } from "@bufbuild/protobuf";
import { Device, type DeviceState } from "./device";
import { words } from "./errors";
import { parseCode, parseFragment, type Invite } from "./invite";
import { Link, type LinkState, type Membership } from "./link";
import { cores, defaultName, memoryGB, reserved, runtime, slotsAt, WakeLock } from "./machine";
import { CapabilitiesSchema, DeviceProfileSchema, DeviceType, type DeviceProfile } from "./p2p/wire/device_pb";
import { Code, type Hello } from "./p2p/wire/session_pb";
import { newHello } from "./session";
import { Storage } from "./storage";
import { claimTab, newIdentity, session, type Tab } from "./tab";
import { Timers } from "./timers";

const scoreLimit = 300; // how long a hello waits for the benchmark, in milliseconds
const maxLog = 200;
const maxName = 100;
const speedWindow = 10; // seconds
const reloadPause = 60_000;

/** LogEntry is a line of the page's log. */
export interface LogEntry {
  time: Date;
  text: string;
}

/** State is all that the page shows. */
export interface State {
  link: LinkState | { kind: "starting" } | { kind: "uninvited"; why: string };
  device: DeviceState;
  deviceID: string;
  name: string;
  defaultName: string;
  throttle: number; // percent
  paused: boolean;
  cores: number;
  reserved: number;
  speed: number; // tasks a second
  screen: "held" | "free" | "impossible";
  log: LogEntry[];
}

/** App is the page's life. */
export class App {
  private readonly timers = new Timers(script("clock"));
  private storage!: Storage;
  private tab!: Tab;
  private device!: Device;
  private link: Link | undefined;
  private linkState: State["link"] = { kind: "starting" };
  private name = "";
  private throttle = 100;
  private paused = false;
  private score = 0;
  private measured: Promise<void> = Promise.resolve();
  private membership: Membership | undefined;
  private readonly wakeLock = new WakeLock(() => this.changed());
  private readonly log: LogEntry[] = [];
  private readonly samples: { at: number; done: number }[] = []; // of the last seconds

  constructor(private readonly changed: () => void) {}

  /** start joins, with no click, if there is an invite or a swarm to go back to. */
  async start(): Promise<void> {
    const invited = takeFragment();
    this.storage = await Storage.open(this.timers);
    this.tab = await claimTab(this.storage, this.timers);
    await this.recall();
    this.prepare();
    await this.device.programs.load();
    this.listen();
    if (invited instanceof Error) return this.show({ kind: "uninvited", why: words(invited) });
    if (invited) return this.join(invited);
    if (await this.storage.get(this.key("left"))) return this.show({ kind: "left" });
    if (this.membership) return this.join(undefined);
    this.show({ kind: "uninvited", why: "" });
  }

  /** state is what to show now. */
  state(): State {
    const device = this.device?.state() ?? { slots: 0, running: [], waiting: 0, done: 0, failed: 0 };
    return {
      link: this.linkState, device, deviceID: this.tab?.identity.id ?? "", name: this.name, defaultName,
      throttle: this.throttle, paused: this.paused, cores, reserved, speed: this.speed(), log: this.log,
      screen: !this.wakeLock.possible ? "impossible" : this.wakeLock.held ? "held" : "free",
    };
  }

  /** typeCode joins by what somebody typed; it throws what is wrong with it. */
  typeCode(typed: string): void {
    this.join(parseCode(typed));
  }

  setName(name: string): void {
    name = [...name.replace(/\p{C}/gu, " ").trim()].slice(0, maxName).join("");
    if (name === this.name) return;
    this.name = name;
    void this.storage.put(this.key("name"), name);
    this.link?.again("this device has another name");
    this.changed();
  }

  setThrottle(percent: number): void {
    if (percent === this.throttle) return;
    const before = slotsAt(this.throttle);
    this.throttle = percent;
    void this.storage.put("throttle", String(percent));
    if (slotsAt(percent) !== before) {
      this.device.resize(slotsAt(percent));
      if (!this.paused) this.link?.again("this device runs another number of tasks");
    }
    this.changed();
  }

  setPaused(paused: boolean): void {
    if (paused === this.paused) return;
    this.paused = paused;
    void this.storage.put(this.key("paused"), paused ? "yes" : "");
    this.note(paused ? "paused: what ran goes to others" : "goes on");
    if (paused) this.device.drop();
    this.link?.again(paused ? "this device is paused" : "this device goes on");
    this.keepAwake();
    this.changed();
  }

  /** leave says goodbye; the page does not come back by itself. */
  leave(): void {
    void this.storage.put(this.key("left"), "yes");
    this.device.drop();
    this.link?.stop("the person at this device left");
    this.note("left the swarm's work");
  }

  /** rejoin undoes leave. */
  rejoin(): void {
    this.join(undefined);
  }

  /** hurry tries again at once. */
  hurry(): void {
    this.link?.hurry();
  }

  /** second is called once a second while somebody looks. */
  second(): void {
    this.samples.push({ at: performance.now(), done: this.device?.state().done ?? 0 });
    if (this.samples.length > speedWindow + 1) this.samples.shift();
  }

  private speed(): number {
    const first = this.samples[0];
    const last = this.samples.at(-1);
    if (!first || !last || first === last) return 0;
    return ((last.done - first.done) * 1000) / (last.at - first.at);
  }

  /** recall reads what this device remembers. */
  private async recall(): Promise<void> {
    const [name, throttle, paused, membership] = await Promise.all(
      [this.key("name"), "throttle", this.key("paused"), this.key("membership")].map((k) => this.storage.get(k)),
    );
    this.name = name ?? "";
    this.throttle = Math.min(100, Math.max(10, Number(throttle) || 100));
    this.paused = paused === "yes";
    try {
      this.membership = membership ? (JSON.parse(membership) as Membership) : undefined;
    } catch {
      this.membership = undefined;
    }
  }

  private key(name: string): string {
    return `${name}.${this.tab.number}`;
  }

  /** prepare starts the slots, and measures the machine while nothing else goes on. */
  private prepare(): void {
    this.device = new Device(
      this.tab.identity.id, script("slot"), (kind) => this.link ? this.link.call(kind) : Promise.reject(new Error("there is no link")),
      this.storage, this.timers, () => this.changed(), (text) => this.note(text),
    );
    this.device.resize(slotsAt(this.throttle));
    this.measured = this.device.measure().then((score) => void (this.score = score));
  }

  private join(invite: Invite | undefined): void {
    void this.storage.remove(this.key("left"));
    const old = this.link;
    this.link = undefined; // what it says no longer counts
    old?.stop("another link is used");
    const link = new Link(
      {
        identity: this.tab.identity,
        profile: () => this.profile(),
        hello: (swarm, generation) => this.hello(swarm, generation),
        opened: (s) => this.device.opened(s),
        closed: () => this.device.closed(),
        state: (state) => this.link === link && this.follow(state),
        log: (text) => this.note(text),
      },
      location.origin, this.timers, this.membership, invite, (membership) => this.remember(membership),
    );
    this.link = link;
    void link.run();
  }

  private remember(membership: Membership): void {
    this.membership = membership;
    session("invite", null); // it has done its work
    void this.storage.put(this.key("membership"), JSON.stringify(membership));
  }

  /** follow shows what the link does, and draws the conclusions. */
  private follow(state: LinkState): void {
    const before = this.linkState.kind;
    if (state.kind === "connected" && before !== "connected") this.note(`works for ${state.swarm} through ${state.bridge}`);
    if (state.kind === "refused") {
      this.note(state.why);
      session("invite", null);
      if (state.code === Code.REMOVED) void this.startAfresh();
      if (state.code === Code.VERSION) reload();
    }
    this.show(state);
    this.keepAwake();
  }

  /** startAfresh gives a removed device a new key, for a new invite. */
  private async startAfresh(): Promise<void> {
    this.tab.identity = await newIdentity(this.storage, this.tab.number);
    this.membership = undefined;
    await this.storage.remove(this.key("membership"));
    this.device.drop();
    this.device.resize(0);
    this.prepare();
  }

  private profile(): DeviceProfile {
    return create(DeviceProfileSchema, {
      name: this.name || defaultName,
      type: DeviceType.BROWSER,
      capabilities: create(CapabilitiesSchema, { cpuCores: cores, memoryGb: memoryGB, runtime }),
      opsScore: this.score,
    });
  }

  private async hello(swarmId: Uint8Array, generation: bigint): Promise<Hello> {
    await Promise.race([this.measured, this.timers.sleep(scoreLimit)]);
    return newHello({
      swarmId, generation, profile: this.profile(),
      slots: this.paused ? 0 : slotsAt(this.throttle),
      leases: this.device.claims(),
      programs: this.device.programs.names(),
    });
  }

  /** listen minds what happens to the page. */
  private listen(): void {
    addEventListener("pagehide", () => this.link?.drop("the page was closed"));
    addEventListener("pageshow", (event) => event.persisted && this.hurry());
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.hurry());
    addEventListener("hashchange", () => {
      const invited = takeFragment();
      if (invited instanceof Error) this.note(words(invited));
      else if (invited) this.join(invited);
    });
  }

  private keepAwake(): void {
    this.wakeLock.set(this.linkState.kind === "connected" && !this.paused);
  }

  private show(state: State["link"]): void {
    this.linkState = state;
    this.changed();
  }

  private note(text: string): void {
    if (this.log.at(-1)?.text === text) this.log.pop();
    this.log.push({ time: new Date(), text });
    if (this.log.length > maxLog) this.log.shift();
    this.changed();
  }
}

/** script is where a worker's script is: with its version, so that it is in the cache when the bridge is gone. */
function script(name: string): string {
  return document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content ?? `/web/${name}.js`;
}

/** reload gets the page of the node's version, if it did not just do so. */
function reload(): void {
  if (Date.now() - Number(session("reloaded")) < reloadPause) return;
  session("reloaded", String(Date.now()));
  location.reload();
}

/** takeFragment reads the invite in the address and takes it out of the address bar at once. */
function takeFragment(): Invite | Error | undefined {
  const fragment = location.hash.slice(1) || session("invite");
  if (!fragment) return undefined;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    const invite = parseFragment(fragment);
    session("invite", fragment); // for a reload before the join is done
    return invite;
  } catch (error) {
    session("invite", null);
    return error instanceof Error ? error : new Error(String(error));
  }
}
