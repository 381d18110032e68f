import { randomFillSync } from 'node:crypto';

/**
 * A number that nobody has used and nobody can guess: 128 random bits, lower-case hex. Drawn from the kernel for many at
 * once, for that costs as much as one.
 */
export function newNonce(): string {
  if (at === pool.length) {
    randomFillSync(pool);
    at = 0;
  }
  at += nonceBytes;
  // Of its own: a slice of one long text would keep all of that, as long as its stream keeps this.
  return pool.toString('hex', at - nonceBytes, at);
}

const nonceBytes = 16;
const pool = Buffer.alloc(256 * nonceBytes);
let at = pool.length;
