import { setFlagsFromString } from 'node:v8';

/**
 * Keeps V8's young generation at the 2 MiB it begins with, in this thread and in those started later, where it would
 * grow to 32 MiB each and stay there: most of what a process that rests would hold. To be called before anything large
 * is loaded.
 */
export function keepYoungGenerationSmall(): void {
  // Not --max-semi-space-size, which counts only when it is given to a process that starts: whoever installs the
  // program starts it without flags.
  setFlagsFromString('--semi-space-growth-factor=1');
}
