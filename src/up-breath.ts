import type { Breathe } from './identity/breath.ts';

/**
 * Shares the turns of the event loop: all long work of the process together gets `shareMs` of a turn, then what else
 * waits is let through.
 */
export function createBreathe(shareMs: number): Breathe {
  let startedAt: number | undefined;
  let next: Promise<void> | undefined;
  return () => {
    const now = performance.now();
    startedAt ??= now;
    next ??= new Promise((resolve) => {
      setImmediate(() => {
        [startedAt, next] = [undefined, undefined];
        resolve();
      });
    });
    return now - startedAt < shareMs ? undefined : next;
  };
}
