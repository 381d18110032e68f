/**
 * Makes the IDs of decisions: 24 hexadecimal digits, unique and not to be guessed.
 * @param randomBytes bytes of a CSPRNG; asked for hundreds of IDs at once, as asking costs more than what it answers
 */
export function createDecisionIds(randomBytes: (size: number) => Buffer): () => string {
  let pool: Buffer = Buffer.alloc(0);
  let at = 0;
  return () => {
    if (at >= pool.length) [pool, at] = [randomBytes(idBytes * idsAtOnce), 0];
    const id = pool.toString('hex', at, at + idBytes);
    at += idBytes;
    return id;
  };
}

const idBytes = 12;
const idsAtOnce = 256;
