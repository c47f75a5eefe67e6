// Timers that go on in a tab in the background: a worker rings them.

/** Cancel takes a timer back. */
export type Cancel = () => void;

/** Timers is what tells the time to everything else. */
export class Timers {
  private readonly worker: Worker;
  private readonly open = new Map<number, () => void>();
  private last = 0;

  constructor(url: string) {
    this.worker = new Worker(url, { name: "clock" });
    this.worker.onmessage = ({ data }: MessageEvent<number>) => {
      const ring = this.open.get(data);
      this.open.delete(data);
      ring?.();
    };
  }

  /** after calls f once, so many milliseconds from now. */
  after(ms: number, f: () => void): Cancel {
    const id = ++this.last;
    this.open.set(id, f);
    this.worker.postMessage({ id, ms });
    return () => this.open.delete(id);
  }

  /** every calls f again and again until it is cancelled. */
  every(ms: number, f: () => void): Cancel {
    let cancel: Cancel;
    const ring = () => {
      cancel = this.after(ms, ring);
      f();
    };
    cancel = this.after(ms, ring);
    return () => cancel();
  }

  /** sleep waits, or until wake is aborted. */
  sleep(ms: number, wake?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (wake?.aborted) return resolve();
      const done = () => {
        cancel();
        wake?.removeEventListener("abort", done);
        resolve();
      };
      const cancel = this.after(ms, done);
      wake?.addEventListener("abort", done);
    });
  }

  /** within gives the promise so much time, and throws after it. */
  within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const cancel = this.after(ms, () => reject(new Error(`${what}: no answer within ${ms / 1000} s`)));
      promise.then(resolve, reject).finally(cancel);
    });
  }
}

/** jitter is a random time between ms/2 and ms. */
export function jitter(ms: number): number {
  return ms / 2 + (Math.random() * ms) / 2;
}
