import { performance } from 'node:perf_hooks';
import { decide } from '../src/authz/decide.ts';
import type { AuthzRequest } from '../src/authz/decision.ts';
import { decideNaively } from '../src/authz/naive.ts';
import { parsePolicy } from '../src/authz/parse.ts';
import { canonicalizeHttp, isRejection } from '../src/authz/request.ts';
import { compileSnapshot, type SnapshotInput } from '../src/authz/snapshot.ts';
import { systemClock } from '../src/clock.ts';
import { createAdministration } from '../src/identity/administration.ts';
import { compileMesh, createMeshHolder } from '../src/identity/current-mesh.ts';
import { createBreathe } from '../src/up-breath.ts';
import { SpiffeId, TrustDomain } from '../src/spiffe/id.ts';
import { readDocuments } from '../src/yaml.ts';
import { makePolicySigner, noHistory } from '../test/harness/policy-signer.ts';
import { printReport, type ReportRow } from './report.ts';

/**
 * What one decision costs as policies multiply. Every policy applies to the one destination and names a caller, a method
 * and a path of its own, beside a few DENY policies for everybody; a hit is allowed by one of them, a miss by none (and
 * is told its nearest rule). The naive evaluator answers the same requests in the same run.
 */
const sizes = [10, 100, 1_000, 10_000] as const;
const trustDomain = TrustDomain.parse('example.org');
const destination = SpiffeId.parse('spiffe://example.org/ns/pay/sa/ledger');
const batch = 50;
const actor = { kind: 'system' } as const;

const rows: ReportRow[] = [];
const metrics: Record<string, number> = {};

for (const size of sizes) {
  const before = usedHeap();
  const input = makeMesh(size);
  const parsed = usedHeap();
  const snapshot = compileSnapshot(input);
  const started = performance.now();
  decide(snapshot, request(0, size, 'hit'));
  decide(snapshot, request(0, size, 'miss'));
  const compileMs = performance.now() - started;
  const compiled = usedHeap();
  rows.push(
    { name: `${size} policies: first decision`, value: compileMs, unit: 'ms' },
    { name: `${size} policies: heap, parsed policies`, value: (parsed - before) / 1_048_576, unit: 'MiB' },
    { name: `${size} policies: heap, index`, value: (compiled - parsed) / 1_048_576, unit: 'MiB' },
  );
  metrics[`index_mib_${size}`] = round((compiled - parsed) / 1_048_576);
  metrics[`first_decision_ms_${size}`] = round(compileMs);
  for (const kind of ['hit', 'miss'] as const) {
    const requests = Array.from({ length: batch }, (_, i) => request(i * 7_919, size, kind));
    for (const one of requests) agree(input, snapshot, one);
    const { p50, p99 } = time(requests, (one) => decide(snapshot, one), 900);
    rows.push(
      { name: `${size} policies: ${kind} p50`, value: p50, unit: 'us' },
      { name: `${size} policies: ${kind} p99`, value: p99, unit: 'us' },
    );
    metrics[`${kind}_p50_us_${size}`] = round(p50);
    metrics[`${kind}_p99_us_${size}`] = round(p99);
    const naive = time(requests.slice(0, 5), (one) => decideNaively(input, one), 300).p50;
    rows.push({ name: `${size} policies: ${kind} p50, naive evaluator`, value: naive, unit: 'us' });
    metrics[`${kind}_naive_p50_us_${size}`] = round(naive);
  }
}
for (const kind of ['hit', 'miss'] as const) {
  const p50 = (size: number): number => metrics[`${kind}_p50_us_${size}`] ?? Number.NaN;
  const growth = p50(10_000) / p50(100);
  const gain = (metrics[`${kind}_naive_p50_us_10000`] ?? Number.NaN) / p50(10_000);
  rows.push({ name: `${kind}: growth from 100 to 10,000 policies`, value: growth, unit: 'x' });
  rows.push({ name: `${kind}: naive / index at 10,000 policies`, value: gain, unit: 'x' });
  metrics[`${kind}_growth_100_to_10000`] = round(growth);
  metrics[`${kind}_naive_over_index_10000`] = round(gain);
}
for (const size of [1_000, 10_000]) await measureEdits(size);
printReport('authz', rows, metrics);

/**
 * What an edit costs the calls under way: one policy of many on one destination is changed again and again, while calls
 * to it are decided all the time.
 */
async function measureEdits(size: number): Promise<void> {
  const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };
  const policies = new Map(makeMesh(size).policies.map((policy) => [policy.key, policy]));
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
  const calls = [request(0, size, 'hit'), request(0, size, 'miss')];
  const decideAll = (): void => calls.forEach((one) => decide(holder.current().snapshot, one));
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
    const text = policyText(7).replace('GET', i % 2 === 0 ? 'PATCH' : 'GET');
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

function makeMesh(size: number): SnapshotInput {
  const texts = Array.from({ length: size }, (_, i) => policyText(i));
  const policies = texts.flatMap((text, i) => readDocuments({ file: `p${i}.yaml`, text }).map(parsePolicy));
  return {
    revision: 1,
    trustDomain,
    rootNamespace: 'istio-system',
    policies,
    workloads: [{ id: destination, labels: { app: 'ledger' } }],
  };
}

function policyText(i: number): string {
  const deny = i % 10 === 9;
  const head = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p${i}, namespace: pay }
spec:
  action: ${deny ? 'DENY' : 'ALLOW'}
  rules:
`;
  if (deny)
    return `${head}    - to: [{ operation: { paths: ["/internal/${i}/*"], methods: [POST, PUT] } }]\n`;
  return `${head}    - from: [{ source: { principals: ["example.org/ns/team-${i % 97}/sa/svc-${i}"] } }]
      to: [{ operation: { methods: [GET, POST], paths: ["/v1/accounts/${i}", "/v1/orders/${i}/*"] } }]
`;
}

function request(seed: number, size: number, kind: 'hit' | 'miss'): AuthzRequest {
  const i = seed % size;
  const at = i % 10 === 9 ? i - 1 : i;
  const made = canonicalizeHttp({
    source: SpiffeId.parse(`spiffe://example.org/ns/team-${at % 97}/sa/svc-${at}`),
    destination,
    method: kind === 'hit' ? 'GET' : 'DELETE',
    path: `/v1/orders/${at}/items?page=2`,
    authority: 'ledger.pay:8080',
    port: 8_080,
  });
  if (isRejection(made)) throw new Error(made.why);
  return made;
}

function agree(input: SnapshotInput, snapshot: ReturnType<typeof compileSnapshot>, one: AuthzRequest): void {
  const fast = decide(snapshot, one);
  const slow = decideNaively(input, one);
  if (fast.reason !== slow.reason || fast.rule !== slow.rule)
    throw new Error('the index and the naive evaluator differ');
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
