import { performance } from 'node:perf_hooks';
import { untold } from '../../src/authz/context.ts';
import { decide } from '../../src/authz/decide.ts';
import type { AuthzRequest } from '../../src/authz/decision.ts';
import { decideNaively } from '../../src/authz/naive.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import { canonicalizeHttp, isRejection } from '../../src/authz/request.ts';
import { compileSnapshot, type SnapshotInput } from '../../src/authz/snapshot.ts';
import { systemClock } from '../../src/clock.ts';
import { createAdministration } from '../../src/identity/administration.ts';
import { compileMesh, createMeshHolder } from '../../src/identity/current-mesh.ts';
import { createBreathe } from '../../src/up-breath.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { readDocuments } from '../../src/yaml.ts';
import { makePolicySigner, noHistory } from '../../test/harness/policy-signer.ts';
import type { ReportRow } from '../report.ts';
import { type Workload, workloads } from './workloads.ts';

const moment = new Date();
const trustDomain = TrustDomain.parse('example.org');
const destination = SpiffeId.parse('spiffe://example.org/ns/pay/sa/ledger');
const batch = 50;
const actor = { kind: 'system' } as const;

/**
 * What one decision costs as policies multiply, for policies that differ in one thing or another and share the rest. A hit
 * is allowed by one of them, a miss by none (and is told its nearest rule). The naive evaluator answers the same requests
 * in the same run.
 */
export function measureDecisions(): Measured {
  const [rows, metrics]: [ReportRow[], Record<string, number>] = [[], {}];
  const note = (name: string, key: string, value: number, unit: string): void => {
    rows.push({ name, value, unit });
    metrics[key] = Math.round(value * 1_000) / 1_000;
  };
  for (const workload of workloads) {
    for (const size of workload === workloads[0] ? [10, 100, 1_000, 10_000] : [100, 10_000]) {
      const of = `${workload.name}, ${size} policies`;
      const key = (what: string): string => `${workload.name.replaceAll(/[^a-z]+/g, '_')}_${what}_${size}`;
      const before = usedHeap();
      const input = makeMesh(workload, size);
      const parsed = usedHeap();
      const snapshot = compileSnapshot(input);
      const started = performance.now();
      decide(snapshot, request(workload, 0, size, 'hit'), moment);
      decide(snapshot, request(workload, 0, size, 'miss'), moment);
      const compileMs = performance.now() - started;
      const indexed = usedHeap();
      note(`${of}: first decision`, key('first_decision_ms'), compileMs, 'ms');
      if (workload === workloads[0])
        note(`${of}: heap, parsed policies`, key('parsed_mib'), (parsed - before) / 1_048_576, 'MiB');
      note(`${of}: heap, index`, key('index_mib'), (indexed - parsed) / 1_048_576, 'MiB');
      for (const kind of kinds) {
        const requests = Array.from({ length: batch }, (_, i) => request(workload, i * 7_919, size, kind));
        // The naive evaluator takes tens of milliseconds for one.
        for (const one of requests.slice(0, 5)) agree(input, snapshot, one, kind);
        const { p50, p99 } = time(requests, (one) => decide(snapshot, one, moment), 400);
        note(`${of}: ${kind} p50`, key(`${kind}_p50_us`), p50, 'us');
        note(`${of}: ${kind} p99`, key(`${kind}_p99_us`), p99, 'us');
        if (workload !== workloads[0]) continue;
        const naive = time(requests.slice(0, 5), (one) => decideNaively(input, one, moment), 300).p50;
        note(`${of}: ${kind} p50, naive evaluator`, key(`${kind}_naive_p50_us`), naive, 'us');
      }
    }
    for (const kind of kinds) {
      const p50 = (size: number): number =>
        metrics[`${workload.name.replaceAll(/[^a-z]+/g, '_')}_${kind}_p50_us_${size}`] ?? Number.NaN;
      const key = `${workload.name.replaceAll(/[^a-z]+/g, '_')}_${kind}_growth`;
      note(`${workload.name}: ${kind}, growth from 100 to 10,000`, key, p50(10_000) / p50(100), 'x');
    }
  }
  return { rows, metrics };
}

/** Figures for people, and the same for scripts. */
export type Measured = {
  readonly rows: readonly ReportRow[];
  readonly metrics: Readonly<Record<string, number>>;
};

const kinds = ['hit', 'miss'] as const;
type Kind = (typeof kinds)[number];

/** What an edit costs the calls under way, with 1,000 and 10,000 policies. */
export async function measureAllEdits(): Promise<Measured> {
  const [rows, metrics]: [ReportRow[], Record<string, number>] = [[], {}];
  for (const size of [1_000, 10_000]) await measureEdits(size, rows, metrics);
  return { rows, metrics };
}

/**
 * What an edit costs the calls under way: one policy of many on one destination is changed again and again, while calls
 * to it are decided all the time.
 */
async function measureEdits(size: number, rows: ReportRow[], metrics: Record<string, number>): Promise<void> {
  const [workload] = workloads;
  const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };
  const policies = new Map(makeMesh(workload, size).policies.map((policy) => [policy.key, policy]));
  const mesh = { revision: 1, entries: new Map(), policies: new Map(), bans: new Map() };
  const holder = createMeshHolder(compileMesh(mesh, policies, settings));
  const administration = createAdministration({
    holder,
    settings,
    signer: makePolicySigner(),
    history: noHistory,
    commit: async () => undefined,
    latestExpiry: async () => null,
    latestExpiries: async () => [],
    clock: systemClock,
    breathe: createBreathe(3),
  });
  const calls = [request(workload, 0, size, 'hit'), request(workload, 0, size, 'miss')];
  const decideAll = (): void => calls.forEach((one) => decide(holder.current().snapshot, one, moment));
  decideAll();
  const gaps: number[] = [];
  let [running, editing] = [true, false];
  const others = (async () => {
    for (let last = performance.now(); running;) {
      await new Promise((resolve) => setImmediate(resolve));
      decideAll();
      const now = performance.now();
      if (editing) gaps.push(now - last);
      last = now;
    }
  })();
  const [answers, firsts]: [number[], number[]] = [[], []];
  for (let i = 0; i < 12; i++) {
    const text = policyText(workload, 7).replace('GET', i % 2 === 0 ? 'PATCH' : 'GET');
    const began = performance.now();
    editing = true;
    await administration.apply([{ file: `e${i}.yaml`, text }], actor, { dryRun: false });
    const answered = performance.now();
    decideAll();
    const decided = performance.now();
    editing = false;
    // The first edits also warm the engine up.
    if (i < 2) gaps.length = 0;
    else {
      answers.push(answered - began);
      firsts.push(decided - answered);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  running = false;
  await others;
  const first = Math.max(...firsts);
  const turn = [...gaps].sort((a, b) => a - b);
  const p99 = turn[Math.floor(turn.length * 0.99)] ?? Number.NaN;
  rows.push(
    { name: `${size} policies: edit to its answer, median`, value: median(answers), unit: 'ms' },
    { name: `${size} policies: turn under edits, p99`, value: p99, unit: 'ms' },
    { name: `${size} policies: turn under edits, longest`, value: turn.at(-1) ?? 0, unit: 'ms' },
    { name: `${size} policies: first two decisions after an edit, slowest`, value: first, unit: 'ms' },
  );
  metrics[`edit_answer_ms_${size}`] = round(median(answers));
  metrics[`edit_turn_p99_ms_${size}`] = round(p99);
  metrics[`edit_turn_max_ms_${size}`] = round(turn.at(-1) ?? 0);
  metrics[`edit_first_decisions_ms_${size}`] = round(first);
}

function median(samples: readonly number[]): number {
  return [...samples].sort((a, b) => a - b)[Math.floor(samples.length / 2)] ?? Number.NaN;
}

function makeMesh(workload: Workload, size: number): SnapshotInput {
  const texts = Array.from({ length: size }, (_, i) => policyText(workload, i));
  const policies = texts.flatMap((text, i) => readDocuments({ file: `p${i}.yaml`, text }).map(parsePolicy));
  return {
    revision: 1,
    trustDomain,
    rootNamespace: 'istio-system',
    policies,
    workloads: [{ id: destination, labels: { app: 'ledger' } }],
  };
}

function policyText(workload: Workload, i: number): string {
  const { action = 'ALLOW', rule } = workload.policy(i);
  return JSON.stringify({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: `p${i}`, namespace: 'pay' },
    spec: { action, rules: [rule] },
  });
}

function request(workload: Workload, seed: number, size: number, kind: Kind): AuthzRequest {
  const {
    caller = 'web',
    method = 'GET',
    path = '/v1/pay',
    host = 'ledger.pay',
    port = 8_080,
    context,
  } = workload.call(
    // Every tenth policy of some denies.
    seed % 10 === 9 ? (seed % size) - 1 : seed % size,
    kind,
  );
  const made = canonicalizeHttp({
    source: SpiffeId.parse(`spiffe://example.org/ns/shop/sa/${caller}`),
    destination,
    method,
    path,
    authority: `${host}:8080`,
    port,
    context: { ...untold, ...context },
  });
  if (isRejection(made)) throw new Error(made.why);
  return made;
}

function agree(
  input: SnapshotInput,
  snapshot: ReturnType<typeof compileSnapshot>,
  one: AuthzRequest,
  kind: Kind,
): void {
  const fast = decide(snapshot, one, moment);
  const slow = decideNaively(input, one, moment);
  if (fast.reason !== slow.reason || fast.rule !== slow.rule)
    throw new Error('the index and the naive evaluator differ');
  if ((fast.verdict === 'allow') !== (kind === 'hit')) throw new Error(`a ${kind} is ${fast.why}`);
}

/** Percentiles over batches, so that the clock's own cost and step vanish. */
function time(
  requests: readonly AuthzRequest[],
  run: (one: AuthzRequest) => unknown,
  budgetMs: number,
): { p50: number; p99: number } {
  const samples: number[] = [];
  const end = performance.now() + budgetMs;
  const warm = performance.now() + budgetMs / 4;
  while (performance.now() < end) {
    const start = performance.now();
    for (const one of requests) run(one);
    const stop = performance.now();
    if (stop > warm || samples.length === 0) samples.push(((stop - start) * 1_000) / requests.length);
  }
  samples.sort((a, b) => a - b);
  const at = (share: number): number =>
    samples[Math.min(samples.length - 1, Math.floor(samples.length * share))] ?? 0;
  return { p50: at(0.5), p99: at(0.99) };
}

function usedHeap(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}

function round(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}
