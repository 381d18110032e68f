import { hash } from 'node:crypto';

/** Whether a text can be a seed: 1 to 64 of `A-Za-z0-9._-`. */
export function isSeed(text: string): boolean {
  return /^[A-Za-z0-9._-]{1,64}$/.test(text);
}

/**
 * Where an entry stands in the order that a seed puts entries in: lower-case hex of SHA-256 of `<seed>:<index>`, the index
 * in decimal. A sample of n is the n entries of a population whose ranks are the lowest. Whoever has the
 * seed and the indexes draws it again; who made the entries could not know the seed.
 */
export function sampleRank(seed: string, index: number): string {
  return hash('sha256', `${seed}:${index}`, 'hex');
}

/** Keeps the entries of the lowest ranks while a population goes by. Memory is that of the sample. */
export function createSample<T extends { readonly index: number }>(seed: string, size: number) {
  let kept: { readonly rank: string; readonly item: T }[] = [];
  const lowest = (): typeof kept => kept.toSorted((a, b) => (a.rank < b.rank ? -1 : 1)).slice(0, size);
  return {
    /** Each entry once. */
    take: (item: T): void => {
      kept.push({ rank: sampleRank(seed, item.index), item });
      if (kept.length >= 2 * size + 64) kept = lowest();
    },
    /** By rank, the lowest first. */
    drawn: (): readonly T[] => lowest().map(({ item }) => item),
  };
}
