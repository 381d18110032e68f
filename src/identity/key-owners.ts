import type { SpiffeId } from '../spiffe/id.ts';

/** Which identity each key was first certified for. */
export type KeyOwners = {
  /**
   * Says that a key is to be certified for an identity. False: it belongs to another one.
   * @param spkiSha256 lower-case hex
   */
  readonly claim: (spkiSha256: string, id: SpiffeId) => boolean;
};

/**
 * Remembers the last `capacity` keys, those `known` from before as the oldest. One key under two identities makes each of
 * them as weak as the other, and whoever holds it may act as both.
 */
export function createKeyOwners(
  capacity = 65_536,
  known: readonly (readonly [spkiSha256: string, spiffeId: string])[] = [],
): KeyOwners {
  const owners = new Map(known);
  return {
    claim: (spkiSha256, id) => {
      const owner = owners.get(spkiSha256);
      if (owner !== undefined && owner !== id.text) return false;
      owners.delete(spkiSha256);
      owners.set(spkiSha256, id.text);
      if (owners.size > capacity) {
        for (const oldest of owners.keys()) {
          owners.delete(oldest);
          break;
        }
      }
      return true;
    },
  };
}
