/** Runs work when its turn has come. Rejects with what the work throws. */
export type Turns = <T>(work: () => Promise<T>) => Promise<T>;

/**
 * Lets at most `limit` pieces of work run at once; the others wait, in the order they came.
 * @param limit 1 or more
 */
export function createTurns(limit: number): Turns {
  const waiting: (() => void)[] = [];
  let running = 0;
  return async (work) => {
    if (running < limit) running += 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      // INVARIANT: a turn is handed on, or given back: never both.
      const next = waiting.shift();
      if (next === undefined) running -= 1;
      else next();
    }
  };
}
