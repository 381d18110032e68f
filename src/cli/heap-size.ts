import { setFlagsFromString } from 'node:v8';

/**
 * Keeps V8's young generation at the 2 MiB it begins with, in this thread and in those started later, where it would grow
 * to 32 MiB in each and stay there. To be called before anything large is loaded.
 */
export function keepYoungGenerationSmall(): void {
  // Not --max-semi-space-size, which counts only when it is given to a process that starts: whoever installs the
  // program starts it without flags.
  setFlagsFromString('--semi-space-growth-factor=1');
}

/**
 * Has V8 collect the old generation before it is several times as large as what lives in it. For a process that rests most
 * of its life: a thousand streams that are opened at once cost half as much again.
 */
export function keepOldGenerationSmall(): void {
  setFlagsFromString('--optimize-for-size');
}
