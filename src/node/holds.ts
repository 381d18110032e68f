import { MeshError } from '../errors.ts';

/**
 * Does the work while its owner holds a place for it.
 * @throws MeshError `stream_limit` at once when the owner holds as many as it may
 */
export type Hold = <T>(owner: string, work: () => Promise<T>) => Promise<T>;

/** Bounds what each owner keeps open at once. @param limit 1 or more */
export function createHolds(limit: number): Hold {
  // INVARIANT: nobody is in it who holds nothing.
  const held = new Map<string, number>();
  return async (owner, work) => {
    const before = held.get(owner) ?? 0;
    if (before >= limit) {
      throw new MeshError('stream_limit', `${limit} streams are open already`, { fix: 'close some first' });
    }
    held.set(owner, before + 1);
    try {
      return await work();
    } finally {
      const left = (held.get(owner) ?? 1) - 1;
      if (left > 0) held.set(owner, left);
      else held.delete(owner);
    }
  };
}
