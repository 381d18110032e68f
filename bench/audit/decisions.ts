import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { DecisionEvent } from '../../src/audit/event.ts';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { poolRandom } from '../../src/ca/serial.ts';
import { systemClock } from '../../src/clock.ts';
import { createDecisionLog, type DecisionLog, decisionsOfCommit } from '../../src/ext-authz/decision-log.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { type Figure, percentile, printFigures } from '../report.ts';

const perSecond = 10_000;
const seconds = Number(process.env['BENCH_SECONDS'] ?? 5);

/**
 * Whether calls wait for the log: 10,000 decisions a second go into its queue, each with a record of its own; as they are by
 * default, one in ten a denial and the rest counted together; and before a log that is too slow for them. Beside it the same
 * without any log. In the end what was offered is in the log, as decisions, counts and losses, or the bench fails.
 */
export async function measureDecisions(): Promise<void> {
  const figures: Figure[] = [];
  await measure('no log', figures, { windowSeconds: 0, isOff: true });
  await measure('each recorded', figures, { windowSeconds: 0 });
  await measure('by default', figures, { windowSeconds: 1 });
  await measure('a slow disk', figures, { windowSeconds: 0, slowMs: 250, maxQueued: 2_000 });
  figures.push({ name: 'load of the machine', value: loadavg()[0] ?? Number.NaN, unit: '', atMost: null });
  printFigures('audit decisions', figures);
}

type Way = {
  readonly windowSeconds: number;
  readonly isOff?: boolean;
  /** How much longer each commit takes. */
  readonly slowMs?: number;
  readonly maxQueued?: number;
};

async function measure(name: string, figures: Figure[], way: Way): Promise<void> {
  const { windowSeconds, isOff = false, slowMs = 0 } = way;
  const dir = mkdtempSync(join(tmpdir(), 'countersign-bench-decisions-'));
  const random = poolRandom((count) => new Uint8Array(randomBytes(count)));
  const store = await openStore({ dataDir: join(dir, 'data'), clock: systemClock, randomBytes: random });
  try {
    await store.signLog('example.org/audit', generateKeyPairSync('ed25519').privateKey);
    const log = createDecisionLog({
      record: async (events) => {
        if (slowMs > 0) await systemClock.sleep(slowMs);
        return store.recordAtLeisure(events);
      },
      clock: systemClock,
      allowedCallsWindowSeconds: windowSeconds,
      maxBatch: decisionsOfCommit,
      ...(way.maxQueued === undefined ? {} : { maxQueued: way.maxQueued }),
      onError: (error) => {
        throw error;
      },
    });
    const { took, deepest, loop, offered } = await offer(isOff ? null : log);
    const draining = performance.now();
    const { lostInAll } = log.depth();
    await log.close();
    const add = (what: string, value: number, unit: string, atMost: number | null = null): void => {
      figures.push({ name: `${name}: ${what}`, value, unit, atMost });
    };
    add('time of a call in the log, p99', percentile(took, 0.99), 'us');
    add('the same, longest of all', Math.max(...took), 'us');
    add('event-loop delay, p50', loop.percentile(50) / 1e6, 'ms');
    add('event-loop delay, p99', loop.percentile(99) / 1e6, 'ms');
    if (isOff) return;
    add('deepest queue', deepest, '', way.maxQueued ?? 20_000);
    add('written after the last call', performance.now() - draining, 'ms');
    const told = await countTold(store);
    add('offered', offered, '');
    add('recorded one by one', told.decisions, '');
    add('counted together', told.counted, '');
    add('lost, as the log says', told.lost, '');
    add('neither recorded, counted nor lost', offered - told.decisions - told.counted - told.lost, '', 0);
    if (offered !== told.decisions + told.counted + told.lost || told.lost < lostInAll) process.exitCode = 1;
  } finally {
    await store.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Offers decisions at the rate, as Check does it: each in a turn with others, and none waits. */
async function offer(log: DecisionLog | null) {
  const count = seconds * perSecond;
  const took: number[] = [];
  const loop = monitorEventLoopDelay({ resolution: 1 });
  let deepest = 0;
  const begin = performance.now();
  loop.enable();
  for (let at = 0; at < count;) {
    const due = Math.min(count, Math.floor(((performance.now() - begin) * perSecond) / 1_000));
    for (; at < due; at++) {
      const event = decisionOf(at);
      const before = performance.now();
      if (event.verdict === 'allow' && log?.count !== undefined) {
        log.count({ ...event, time: event.time, pathPattern: '/accounts/*' });
      } else {
        log?.push(event);
      }
      took.push((performance.now() - before) * 1_000);
    }
    deepest = Math.max(deepest, log?.depth().queued ?? 0);
    await systemClock.sleep(1);
  }
  loop.disable();
  return { took, deepest, loop, offered: count };
}

function decisionOf(at: number): DecisionEvent {
  const isDenied = at % 10 === 0;
  return {
    type: 'decision',
    time: new Date(),
    decisionId: `d-${at}`,
    verdict: isDenied ? 'deny' : 'allow',
    reason: isDenied ? 'no_allow_rule' : 'allow_rule',
    rule: isDenied ? '' : 'shop/orders rule[0]',
    why: isDenied ? 'no ALLOW rule matched' : '',
    revision: 3,
    source: `spiffe://example.org/ns/shop/sa/web-${at % 200}`,
    destination: `spiffe://example.org/ns/pay/sa/ledger-${at % 50}`,
    protocol: 'http',
    method: 'GET',
    host: 'ledger.pay',
    path: { personal: `/accounts/${at}` },
    port: 8_080,
    sourceSerial: (at % 200).toString(16).padStart(32, '1'),
    sourceAddress: { personal: '192.0.2.7:40000' },
    caller: { pid: 4_711, uid: 1_000, gid: 1_000 },
  };
}

async function countTold(store: Store) {
  let [decisions, counted, lost] = [0, 0, 0];
  for (let cursor: string | null = null; ;) {
    const question = { types: ['decision', 'allowed_calls', 'loss'], limit: 1_000, order: 'oldest' };
    const more = cursor === null ? {} : { cursor };
    const page = await store.queryAudit(parseAuditQuery({ ...question, ...more }, new Date()));
    for (const { leaf } of page.rows) {
      const event = JSON.parse(leaf) as { readonly type: string; readonly count?: number };
      if (event.type === 'decision') decisions += 1;
      else if (event.type === 'allowed_calls') counted += event.count ?? 0;
      else lost += event.count ?? 0;
    }
    cursor = page.next;
    if (cursor === null) return { decisions, counted, lost };
  }
}
