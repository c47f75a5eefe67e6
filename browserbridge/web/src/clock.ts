// A worker that tells the time: browsers hold back the timers of pages that
// nobody looks at, those of workers least.

interface Scope {
  postMessage(message: number): void;
  onmessage: ((event: MessageEvent<{ id: number; ms: number }>) => void) | null;
}

const scope = self as unknown as Scope;
scope.onmessage = ({ data }) => {
  setTimeout(() => scope.postMessage(data.id), data.ms);
};
