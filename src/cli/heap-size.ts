import { setFlagsFromString } from 'node:v8';

/**
 * Has V8 keep its heaps small, in this thread and in those started later, for a process that rests most of its life. To
 * be called before anything large is loaded.
 */
export function keepHeapsSmall(): void {
  // The young generation stays at the 2 MiB it begins with, where it would grow to 32 MiB in each thread and stay there.
  // Not --max-semi-space-size, which counts only when it is given to a process that starts: whoever installs the
  // program starts it without flags.
  setFlagsFromString('--semi-space-growth-factor=1');
  // The old generation is collected before it is several times as large as what lives in it.
  setFlagsFromString('--optimize-for-size');
}
