/** Whether something gets a record of its own; all else is counted together. */
export type RecordLimit = (owner: string, now: Date) => boolean;

/**
 * Holds back records of what happens too often: a callee that is away makes an error of each call, and all tell the same.
 * Each owner, such as a pair of caller and callee, or a proxy, has a budget of records that refills with time.
 * @param burst records at once
 * @param perSecond records in the long run
 */
export function createRecordLimit(burst = 50, perSecond = 1, maxOwners = 4_096): RecordLimit {
  const budgets = new Map<string, { left: number; atMs: number }>();
  return (owner, now) => {
    const nowMs = now.getTime();
    const known = budgets.get(owner);
    // The longest unused has refilled most.
    budgets.delete(owner);
    for (const oldest of budgets.keys()) {
      if (budgets.size < maxOwners) break;
      budgets.delete(oldest);
    }
    const passedMs = known === undefined ? 0 : Math.max(0, nowMs - known.atMs);
    const left = known === undefined ? burst : Math.min(burst, known.left + (passedMs / 1_000) * perSecond);
    const isOwn = left >= 1;
    budgets.set(owner, { left: isOwn ? left - 1 : left, atMs: nowMs });
    return isOwn;
  };
}
