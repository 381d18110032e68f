import type { AuditEvent } from './audit/event.ts';
import { completeCoverage, type SaidBefore } from './audit/proxy-coverage.ts';
import type { ProxyCoverageEvent } from './audit/proxy-event.ts';
import { parseAuditQuery } from './audit/question.ts';
import { collectPage } from './audit/search.ts';
import type { Clock } from './clock.ts';
import { publicError } from './errors.ts';
import type { Log } from './log.ts';
import type { Store } from './store/store.ts';

/** Completes counts of proxies with what the log has of them already, see `completeCoverage`. */
export type CompleteCoverage = (events: readonly AuditEvent[]) => Promise<readonly AuditEvent[]>;

/** What was said before is looked for in the log, once for each proxy that an agent, or this server, sees for the first time. */
export function createCoverageCompletion(parts: {
  readonly store: Pick<Store, 'queryAudit'>;
  readonly clock: Clock;
  readonly log: Log;
}): CompleteCoverage {
  return (events) => completeCoverage(events, (event) => findSaidBefore(parts, event));
}

async function findSaidBefore(
  { store, clock, log }: Parameters<typeof createCoverageCompletion>[0],
  event: ProxyCoverageEvent,
): Promise<SaidBefore | undefined> {
  const { destination, started, caller } = event;
  const since = new Date(started.getTime() - startSlackMs).toISOString();
  const where = [
    `caller.pid=${caller.pid}`,
    ...(caller.node === undefined ? [] : [`caller.node=${caller.node}`]),
  ];
  try {
    const question = { types: ['proxy_coverage'], destination, since, where, limit: maxLooked };
    const begun = performance.now();
    const query = parseAuditQuery(question, clock.now());
    const { rows } = await collectPage(store.queryAudit, query, () => performance.now() - begun > lookMs);
    for (const { leaf } of rows) {
      const stored = JSON.parse(leaf) as Stored;
      const startedMs = Date.parse(stored.started);
      const isSame =
        Math.abs(startedMs - started.getTime()) <= startSlackMs &&
        stored.caller.uid === caller.uid &&
        stored.caller.node === caller.node &&
        stored.counted <= event.counted;
      if (isSame) return { counted: stored.counted, to: new Date(stored.to) };
    }
  } catch (error) {
    // Without it more is told as missing than is.
    log.warn(publicError(error), 'what a proxy had counted before could not be looked up');
  }
  return undefined;
}

type Stored = {
  readonly started: string;
  readonly to: string;
  readonly counted: number;
  readonly caller: { readonly uid: number; readonly node?: string };
};

// Uptimes are told in whole seconds, and arrive a little later.
const startSlackMs = 10_000;
const maxLooked = 8;
const lookMs = 1_000;
