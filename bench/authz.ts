import { performance } from 'node:perf_hooks';
import { decide } from '../src/authz/decide.ts';
import type { AuthzRequest } from '../src/authz/decision.ts';
import { decideNaively } from '../src/authz/naive.ts';
import { parsePolicy } from '../src/authz/parse.ts';
import { canonicalizeHttp, isRejection } from '../src/authz/request.ts';
import { compileSnapshot, type SnapshotInput } from '../src/authz/snapshot.ts';
import { SpiffeId, TrustDomain } from '../src/spiffe/id.ts';
import { readDocuments } from '../src/yaml.ts';
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
printReport('authz', rows, metrics);

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
