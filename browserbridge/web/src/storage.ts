// What this browser remembers, for this origin: in IndexedDB, or in localStorage
// where there is none, or in nothing but memory where people forbid both.

import type { Timers } from "./timers";

const database = "ostrich";
const facts = "facts";
const programs = "programs";
const openLimit = 3000; // milliseconds; some browsers never answer

/** StoredProgram is a program kept from one visit to the next. */
export interface StoredProgram {
  bytes: Uint8Array<ArrayBuffer>;
  used: number; // milliseconds since 1970
}

/** Storage keeps small facts as text, and programs by their hash. */
export class Storage {
  private constructor(private readonly db: IDBDatabase | undefined) {}

  /** open never fails: what cannot be stored is forgotten with the page. */
  static async open(timers: Timers): Promise<Storage> {
    try {
      const request = indexedDB.open(database, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore(facts);
        request.result.createObjectStore(programs);
      };
      return new Storage(await timers.within(openLimit, "the storage", settled(request)));
    } catch {
      return new Storage(undefined);
    }
  }

  async get(name: string): Promise<string | undefined> {
    try {
      if (this.db) return (await settled(this.store(facts, "readonly").get(name))) as string | undefined;
      return localStorage.getItem(`${database}.${name}`) ?? undefined;
    } catch {
      return undefined;
    }
  }

  async put(name: string, value: string): Promise<void> {
    try {
      if (this.db) await settled(this.store(facts, "readwrite").put(value, name));
      else localStorage.setItem(`${database}.${name}`, value);
    } catch {
      // It is forgotten with the page.
    }
  }

  async remove(name: string): Promise<void> {
    try {
      if (this.db) await settled(this.store(facts, "readwrite").delete(name));
      else localStorage.removeItem(`${database}.${name}`);
    } catch {
      // It was never kept.
    }
  }

  /** programNames lists the programs kept, those used last first, with sizes. */
  async programNames(): Promise<{ name: string; size: number }[]> {
    if (!this.db) return [];
    const list: { name: string; size: number; used: number }[] = [];
    try {
      const request = this.store(programs, "readonly").openCursor();
      await new Promise<void>((resolve, reject) => {
        request.onerror = () => reject(request.error);
        request.onsuccess = () => {
          const cursor = request.result;
          if (!cursor) return resolve();
          const program = cursor.value as StoredProgram;
          list.push({ name: String(cursor.key), size: program.bytes.length, used: program.used });
          cursor.continue();
        };
      });
    } catch {
      return [];
    }
    return list.sort((a, b) => b.used - a.used);
  }

  async getProgram(name: string): Promise<StoredProgram | undefined> {
    if (!this.db) return undefined;
    try {
      return (await settled(this.store(programs, "readonly").get(name))) as StoredProgram | undefined;
    } catch {
      return undefined;
    }
  }

  async putProgram(name: string, program: StoredProgram): Promise<boolean> {
    if (!this.db) return false;
    try {
      await settled(this.store(programs, "readwrite").put(program, name));
      return true;
    } catch {
      return false; // no room
    }
  }

  async removeProgram(name: string): Promise<void> {
    if (!this.db) return;
    try {
      await settled(this.store(programs, "readwrite").delete(name));
    } catch {
      // The next try finds it again.
    }
  }

  private store(name: string, mode: IDBTransactionMode): IDBObjectStore {
    if (!this.db) throw new Error("there is no database");
    return this.db.transaction(name, mode).objectStore(name);
  }
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
