/** Things that wait, each for somebody: taken from one owner after the other, and for each in the order they came. */
export type RoundRobin<T> = {
  readonly put: (owner: string, one: T) => void;
  readonly take: () => T | undefined;
  /** Takes out one that is no longer wanted. */
  readonly drop: (owner: string, one: T) => void;
  readonly size: () => number;
  readonly sizeOf: (owner: string) => number;
};

export function createRoundRobin<T>(): RoundRobin<T> {
  // An owner who was served goes to the end of the map. INVARIANT: nobody is in it who has nothing waiting.
  const waiting = new Map<string, T[]>();
  let size = 0;
  return {
    put: (owner, one) => {
      size += 1;
      const own = waiting.get(owner);
      if (own === undefined) waiting.set(owner, [one]);
      else own.push(one);
    },
    take: () => {
      for (const [owner, own] of waiting) {
        const one = own.shift();
        waiting.delete(owner);
        if (own.length > 0) waiting.set(owner, own);
        size -= 1;
        return one;
      }
      return undefined;
    },
    drop: (owner, one) => {
      const own = waiting.get(owner);
      const at = own?.indexOf(one) ?? -1;
      if (own === undefined || at < 0) return;
      own.splice(at, 1);
      size -= 1;
      if (own.length === 0) waiting.delete(owner);
    },
    size: () => size,
    sizeOf: (owner) => waiting.get(owner)?.length ?? 0,
  };
}
