import type { DecisionEvent } from '../audit/event.ts';

/** Whether a decision gets a record of its own; the others are counted together. */
export type StrangerLimit = (event: DecisionEvent) => boolean;

/**
 * Holds back records of processes that may not ask at all: anyone who can open the socket could otherwise fill the disk,
 * and crowd out the decisions about calls. Each uid has a budget of records that refills with time; decisions for
 * callers with an identity are never held back.
 * @param burst records of a uid at once
 * @param perSecond records of a uid in the long run
 */
export function createStrangerLimit(burst = 100, perSecond = 1): StrangerLimit {
  const budgets = new Map<number, { left: number; at: number }>();
  return ({ reason, caller, time }) => {
    if (reason !== 'caller_unknown' && reason !== 'destination_forged') return true;
    const now = time.getTime();
    const budget = budgets.get(caller.uid) ?? { left: burst, at: now };
    if (!budgets.has(caller.uid) && budgets.size >= maxUids) return false;
    // A clock that went backwards refills nothing.
    const passedMs = Math.max(0, now - budget.at);
    budget.left = Math.min(burst, budget.left + (passedMs / 1_000) * perSecond);
    budget.at = now;
    budgets.set(caller.uid, budget);
    if (budget.left < 1) return false;
    budget.left -= 1;
    return true;
  };
}

const maxUids = 4_096;
