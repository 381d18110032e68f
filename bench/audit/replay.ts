import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { compileStoredMesh, createMeshHolder } from '../../src/identity/current-mesh.ts';
import { replayPolicies } from '../../src/identity/policy-replay.ts';
import type { PolicyReplay } from '../../src/identity/replay-answer.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { createBreathe } from '../../src/up-breath.ts';
import { replayPorts } from '../../src/up-replay.ts';
import { printReport, type ReportRow } from '../report.ts';
import { clock, meshOf, numberOf, services, trustDomain } from './auditor.ts';
import { buildLog, service } from './question-log.ts';

/**
 * All recorded calls of a log under other policies, and those of one service: `npm run bench -- audit replay
 * [--events 1000000] [--dir DIR]`. Of a hundred events 91 are records of calls.
 */
export async function measureReplay(args: readonly string[]): Promise<void> {
  const events = numberOf(args, '--events', 1_100_000);
  const seed = numberOf(args, '--seed', 7);
  const kept = args.includes('--dir') ? args[args.indexOf('--dir') + 1] : undefined;
  const dir = kept ?? mkdtempSync(join(tmpdir(), 'countersign-bench-replay-'));
  const dataDir = join(dir, 'data');
  let store: Store | undefined;
  try {
    if (statSync(dataDir, { throwIfNoEntry: false }) === undefined)
      buildLog(dataDir, { events, seed, services });
    store = await openStore({ dataDir, clock, randomBytes });
    const rows: ReportRow[] = [
      { name: `events, seed ${seed}, ${services} services`, value: events, unit: '' },
    ];
    const metrics: Record<string, number> = { events };
    for (const [name, text] of candidates) {
      const { answer, ms, cpuMs, delayMs, grownMiB } = await measure(store, text);
      const { calls, newlyDenied, unknown } = answer.totals;
      rows.push(
        { name: `${name}: all of it`, value: ms / 1_000, unit: 's' },
        { name: `  of which this thread and the reader's, CPU`, value: cpuMs / 1_000, unit: 's' },
        { name: '  the event loop waited at most', value: delayMs, unit: 'ms' },
        { name: '  memory grew by', value: grownMiB, unit: 'MiB' },
        {
          name: '  calls, newly denied, not told',
          value: `${calls}, ${newlyDenied}, ${unknown}${answer.complete ? '' : ' and not all of them'}`,
          unit: '',
        },
      );
      const short = name.replaceAll(' ', '_');
      Object.assign(metrics, {
        [`${short}_s`]: Math.round(ms / 10) / 100,
        [`${short}_loop_ms`]: Math.round(delayMs),
      });
    }
    printReport('audit replay', rows, metrics);
  } finally {
    await store?.close();
    if (kept === undefined) rmSync(dir, { recursive: true, force: true });
  }
}

async function measure(
  store: Store,
  text: string,
): Promise<{ answer: PolicyReplay; ms: number; cpuMs: number; delayMs: number; grownMiB: number }> {
  const [rootNamespace, ttlSeconds] = ['istio-system', 3_600];
  const settings = { trustDomain, rootNamespace, ttlSeconds };
  const holder = createMeshHolder(compileStoredMesh(meshOf(), settings));
  const breathe = createBreathe(turnMs);
  const open = replayPorts({ store, holder, clock, breathe, ...settings }).openReplay(() => false);
  const delay = monitorEventLoopDelay({ resolution: 5 });
  const before = process.memoryUsage().rss;
  let most = before;
  const watch = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss);
  }, 100);
  const [started, cpu] = [performance.now(), process.cpuUsage()];
  delay.enable();
  try {
    const choice = { files: [{ file: 'candidate.yaml', text }], without: [], revision: null };
    const meant = { since: null, until: null, destination: null, namespace: null, mayReadPersonal: true };
    const answer = await replayPolicies(choice, meant, 100, open.ports);
    if (answer === undefined) throw new Error('the replay was left');
    const { user, system } = process.cpuUsage(cpu);
    return {
      answer,
      ms: performance.now() - started,
      cpuMs: (user + system) / 1_000,
      delayMs: delay.max / 1_000_000,
      grownMiB: (most - before) / 1_048_576,
    };
  } finally {
    delay.disable();
    clearInterval(watch);
    open.close();
  }
}

const policy = (name: string, namespace: string, spec: string) =>
  `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: ${name}, namespace: ${namespace} }\nspec: ${spec}\n`;
// The first is about every call, by its path too; the second about those of the busiest service.
const candidates: readonly (readonly [name: string, text: string])[] = [
  [
    'every service',
    policy(
      'no-admin',
      'istio-system',
      "{ action: DENY, rules: [{ to: [{ operation: { paths: ['/api/1*'] } }] }] }",
    ),
  ],
  [
    'one service',
    policy(
      'no-puts',
      new URL(service(0)).pathname.split('/')[2] ?? '',
      '{ selector: { matchLabels: { app: service-0 } }, action: DENY, rules: [{ to: [{ operation: { methods: [PUT] } }] }] }',
    ),
  ],
];
const turnMs = 3;
