import type { CallsQuery, CallsStep } from '../audit/calls-question.ts';
import {
  decidedTypes,
  joinCalls,
  keyOfCall,
  readRecordedCall,
  type RecordedCalls,
  seenTypes,
} from '../audit/recorded-call.ts';
import { readAuditSize } from './audit-log.ts';
import type { AuditFilters } from './audit-plan.ts';
import { stepBudget } from './audit-query.ts';
import { type WalkBudget, walkLog } from './audit-walk.ts';
import { narrowed } from './audit-window.ts';
import type { Database } from './database.ts';

/**
 * Reads recorded calls, from the newest on, and puts those together that agree in all that a policy can look at. What a step
 * answers is no longer than what it may look at.
 */
export function readRecordedCalls(
  db: Database,
  { of, since, until, destinations, wanted, below }: CallsQuery,
  budget: WalkBudget = callsBudget,
): CallsStep {
  return db.transaction(() => {
    // An index leads to the calls of one service; of several all are looked at.
    const only = destinations?.length === 1 ? destinations[0] || null : null;
    const among = destinations === null || only !== null ? null : new Set(destinations);
    const types = of === 'decided' ? decidedTypes : seenTypes;
    const filters: AuditFilters = { ...anything, types, since, until, destination: only };
    const last = (below ?? readAuditSize(db)) - 1;
    const range = narrowed(db, { since, until }, { first: 0, last });
    const groups = new Map<string, RecordedCalls>();
    const walk = { order: 'newest', budget, fields: ['type', 'hour', 'destination', 'rule'] } as const;
    const { reached } = walkLog(db, filters, range, walk, (found) => {
      const { timeMs, destination } = found.columns;
      if (among !== null && !among.has(destination ?? '')) return true;
      const { call, count, firstMs } = readRecordedCall(found, wanted);
      const places = { firstIndex: found.idx, lastIndex: found.idx };
      const one: RecordedCalls = { call, count, records: 1, firstMs, lastMs: timeMs, ...places };
      const key = keyOfCall(call);
      const before = groups.get(key);
      groups.set(key, before === undefined ? one : joinCalls(before, one));
      return true;
    });
    return { groups: [...groups.values()], next: reached };
  })();
}

const anything = { source: null, verdict: null, serial: null, where: [], text: null } as const;
// What a step answers travels between threads.
const callsBudget: WalkBudget = { ...stepBudget, events: 16_384 };
