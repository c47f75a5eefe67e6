// Which of this browser's devices a tab is. Each open tab is a device of its
// own; the first one is always the same device, and a reload changes nothing.

import { hex, unhex } from "./bytes";
import { Identity } from "./identity";
import type { Storage } from "./storage";
import type { Timers } from "./timers";

const mostTabs = 64;
const reloadLimit = 500; // for the page before a reload to let go; milliseconds
const answerLimit = 60; // for other tabs to say which they are

/** Tab is the device that this tab is. */
export interface Tab {
  number: number;
  identity: Identity;
}

/** claimTab finds the lowest number that no other open tab has, and its key. */
export async function claimTab(storage: Storage, timers: Timers): Promise<Tab> {
  const before = Number(session("tab") ?? NaN);
  const number = "locks" in navigator ? await byLock(before, timers) : await byAsking(before, timers);
  session("tab", String(number));
  return { number, identity: await loadIdentity(storage, number) };
}

/** newIdentity gives a tab's device another key: the old one was removed from its swarm. */
export async function newIdentity(storage: Storage, number: number): Promise<Identity> {
  const identity = new Identity();
  await storage.put(`key.${number}`, hex(identity.key.seed));
  return identity;
}

async function loadIdentity(storage: Storage, number: number): Promise<Identity> {
  try {
    const seed = unhex((await storage.get(`key.${number}`)) ?? "");
    if (seed.length === 32) return new Identity(seed);
  } catch {
    // A damaged key is no key.
  }
  return newIdentity(storage, number);
}

async function byLock(before: number, timers: Timers): Promise<number> {
  if (before >= 0 && (await lock(before, timers, reloadLimit))) return before;
  for (let n = 0; n < mostTabs; n++) {
    if (await lock(n, timers, 0)) return n;
  }
  return mostTabs;
}

/** lock holds a number as long as the page lives. */
function lock(n: number, timers: Timers, limit: number): Promise<boolean> {
  return new Promise((resolve) => {
    const abort = new AbortController();
    const cancel = limit > 0 ? timers.after(limit, () => abort.abort()) : () => undefined;
    const options: LockOptions = limit > 0 ? { signal: abort.signal } : { ifAvailable: true };
    navigator.locks
      .request(`ostrich.tab.${n}`, options, (held) => {
        cancel();
        resolve(held !== null);
        return held ? new Promise<void>(() => undefined) : undefined;
      })
      .catch(() => resolve(false));
  });
}

/** byAsking has the other tabs say which numbers they have. */
async function byAsking(before: number, timers: Timers): Promise<number> {
  const channel = new BroadcastChannel("ostrich.tabs");
  const taken = new Set<number>();
  let mine = -1;
  channel.onmessage = ({ data }: MessageEvent<number>) => {
    if (data >= 0) taken.add(data);
    else if (mine >= 0) channel.postMessage(mine);
  };
  channel.postMessage(-1);
  await timers.sleep(answerLimit);
  mine = before >= 0 && !taken.has(before) ? before : 0;
  while (taken.has(mine)) mine++;
  return mine;
}

/** session keeps a fact for this tab alone, across reloads. */
export function session(name: string, value?: string | null): string | null {
  try {
    if (value === null) sessionStorage.removeItem(`ostrich.${name}`);
    else if (value !== undefined) sessionStorage.setItem(`ostrich.${name}`, value);
    return sessionStorage.getItem(`ostrich.${name}`);
  } catch {
    return null; // it may be forbidden
  }
}
