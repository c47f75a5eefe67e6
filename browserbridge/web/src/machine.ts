// What can be found out about this browser and its machine.

interface Extras {
  deviceMemory?: number; // GB; missing on plain http and in some browsers
  userAgentData?: { mobile: boolean };
}

const extras = navigator as Extras;

/** cores is how many tasks the machine can run at one time. */
export const cores = Math.min(Math.max(navigator.hardwareConcurrency || 2, 1), 1024);

/** reserved is how many of them are left to the person in front. */
export const reserved = cores > 8 ? 2 : 1;

/** slotsAt is the number of slots at a throttle in percent. */
export function slotsAt(throttle: number): number {
  return Math.max(1, Math.floor(((cores - reserved) * throttle) / 100));
}

const mobile = extras.userAgentData?.mobile ?? /Android|iPhone|iPad|Mobile/.test(navigator.userAgent);

/** memoryGB is the machine's memory, guessed where the browser does not tell. */
export const memoryGB = extras.deviceMemory ?? (mobile ? 2 : 4);

const browsers: [RegExp, string][] = [
  [/Edg(?:A|iOS)?\/(\d+)/, "Edge"],
  [/OPR\/(\d+)/, "Opera"],
  [/SamsungBrowser\/(\d+)/, "Samsung Internet"],
  [/(?:Firefox|FxiOS)\/(\d+)/, "Firefox"],
  [/(?:Chrome|CriOS)\/(\d+)/, "Chrome"],
  [/Version\/(\d+).*Safari/, "Safari"],
];

const systems: [RegExp, string][] = [
  [/Android/, "Android"],
  [/iPhone/, "iPhone"],
  [/iPad/, "iPad"],
  [/CrOS/, "ChromeOS"],
  [/Windows/, "Windows"],
  [/Mac OS X/, "Mac"],
  [/Linux/, "Linux"],
];

function browser(): [string, string] {
  for (const [pattern, name] of browsers) {
    const version = pattern.exec(navigator.userAgent)?.[1];
    if (version) return [name, version];
  }
  return ["Browser", ""];
}

/** runtime is the browser's name and version. */
export const runtime = browser().join(" ").trim();

/** defaultName is what a device is called until somebody gives it a name. */
export const defaultName = `${browser()[0]} on ${systems.find(([pattern]) => pattern.test(navigator.userAgent))?.[1] ?? "a device"}`;

/** WakeLock keeps the screen on while it is wanted, where the browser can. */
export class WakeLock {
  private wanted = false;
  private sentinel: WakeLockSentinel | undefined;

  constructor(private readonly changed: () => void) {
    document.addEventListener("visibilitychange", () => void this.apply());
  }

  /** possible is false on plain http, and in browsers that have none. */
  readonly possible = "wakeLock" in navigator;

  get held(): boolean {
    return this.sentinel !== undefined && !this.sentinel.released;
  }

  set(wanted: boolean): void {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    void this.apply();
  }

  private async apply(): Promise<void> {
    if (!this.possible) return;
    try {
      if (this.wanted && !this.held && document.visibilityState === "visible") {
        this.sentinel = await navigator.wakeLock.request("screen");
        this.sentinel.addEventListener("release", this.changed);
      } else if (!this.wanted) {
        await this.sentinel?.release();
        this.sentinel = undefined;
      }
    } catch {
      this.sentinel = undefined; // a low battery, for one
    }
    this.changed();
  }
}
