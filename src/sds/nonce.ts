import { randomFillSync } from 'node:crypto';

/**
 * A number that nobody has used and nobody can guess: 128 random bits, lower-case hex. Drawn from the kernel for many at
 * once, for that costs as much as one.
 */
export function newNonce(): string {
  if (at === drawn.length) {
    drawn = randomFillSync(pool).toString('hex');
    at = 0;
  }
  at += nonceLength;
  return drawn.slice(at - nonceLength, at);
}

const nonceLength = 32;
const pool = Buffer.alloc((256 * nonceLength) / 2);
let drawn = '';
let at = 0;
