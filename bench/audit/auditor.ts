import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.ts';
import { compileStoredMesh, createMeshHolder } from '../../src/identity/current-mesh.ts';
import type { RegistrationEntry } from '../../src/identity/entry.ts';
import type { Mesh, PolicyDocument } from '../../src/identity/mesh.ts';
import { readQuestion } from '../../src/identity/questions/ask.ts';
import { findQuestion } from '../../src/identity/questions/catalogue.ts';
import type { Asking } from '../../src/identity/questions/question.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { auditorPorts } from '../../src/up-questions.ts';
import { replayPorts } from '../../src/up-replay.ts';
import { printReport, type ReportRow } from '../report.ts';
import { buildLog, lastMs, service } from './question-log.ts';

/** A question as an auditor puts it; `n` varies what it asks for. */
type BenchQuestion = {
  readonly name: string;
  readonly fields: (n: number) => Readonly<Record<string, string>>;
  /** Whether it has to count everything in its window. */
  readonly isBroad?: true;
};

/** The fifteen questions, and the graph, of a log of many events: `npm run bench -- audit auditor [--events 10000000]`. */
export async function measureAuditor(args: readonly string[]): Promise<void> {
  const events = numberOf(args, '--events', 1_000_000);
  const seed = numberOf(args, '--seed', 7);
  const kept = args.includes('--dir') ? args[args.indexOf('--dir') + 1] : undefined;
  const dir = kept ?? mkdtempSync(join(tmpdir(), 'countersign-bench-auditor-'));
  const dataDir = join(dir, 'data');
  let store: Store | undefined;
  try {
    if (statSync(dataDir, { throwIfNoEntry: false }) === undefined)
      buildLog(dataDir, { events, seed, services });
    store = await openStore({ dataDir, clock, randomBytes });
    const asking = askingOf(store);
    const rows: ReportRow[] = [
      { name: `events, seed ${seed}, ${services} services`, value: events, unit: '' },
    ];
    const metrics: Record<string, number> = { events };
    let slowest = { name: '', ms: 0 };
    for (const { name, fields, isBroad } of await questionsOf(store)) {
      const times: number[] = [];
      for (let n = 0; n < (isBroad === true ? 5 : 20); n++) {
        const started = performance.now();
        await readQuestion(findQuestion(name), new Map(Object.entries(fields(n))), asking.now())(asking);
        times.push(performance.now() - started);
      }
      const [first = 0] = times;
      times.sort((a, b) => a - b);
      const [p50 = 0, p95 = 0] = [0.5, 0.95].map((part) => times[Math.floor((times.length - 1) * part)] ?? 0);
      if (isBroad !== true && p95 > slowest.ms) slowest = { name, ms: p95 };
      const value = `p50 ${p50.toFixed(1)}  p95 ${p95.toFixed(1)}  first ${first.toFixed(1)}`;
      rows.push({ name: `${name}${isBroad === true ? ' (counts everything)' : ''}`, value, unit: 'ms' });
      metrics[`${name.replaceAll('-', '_')}_p95_ms`] = Math.round(p95 * 10) / 10;
    }
    rows.push({ name: 'the slowest that need not count everything', value: slowest.name, unit: '' });
    rows.push({ name: 'its p95', value: slowest.ms, unit: 'ms' });
    rows.push({ name: 'memory, resident', value: process.memoryUsage().rss / 1_048_576, unit: 'MiB' });
    printReport('audit auditor', rows, metrics);
  } finally {
    await store?.close();
    if (kept === undefined) rmSync(dir, { recursive: true, force: true });
  }
}

async function questionsOf(store: Store): Promise<readonly BenchQuestion[]> {
  const asking = askingOf(store);
  const some = async (type: string): Promise<readonly Record<string, string>[]> =>
    (await asking.read({ types: [type], limit: 20 })).rows.map(
      ({ leaf }) => JSON.parse(leaf) as Record<string, string>,
    );
  const [issued, decided, banned] = [await some('issuance'), await some('decision'), await some('ban')];
  const ago = (n: number): string => new Date(lastMs - (1 + (n % 28)) * 86_400_000).toISOString();
  return [
    { name: 'certificates', fields: (n) => ({ identity: service(n * 7), since: ago(n) }) },
    { name: 'certificate', fields: (n) => ({ serial: issued[n % issued.length]?.['serial'] ?? '' }) },
    { name: 'valid-at', fields: (n) => ({ at: ago(n) }) },
    { name: 'keys', fields: () => ({}) },
    { name: 'policy-changes', fields: (n) => ({ policy: `team-${n % 20}/service-${n}` }), isBroad: true },
    { name: 'decision', fields: (n) => ({ id: decided[n % decided.length]?.['decisionId'] ?? '' }) },
    { name: 'who-can', fields: (n) => ({ destination: service(n), unused: '30d' }), isBroad: true },
    { name: 'denied', fields: (n) => ({ namespace: `team-${n % 20}`, since: '30d' }), isBroad: true },
    { name: 'connections', fields: (n) => ({ namespace: `team-${n % 20}`, since: '30d' }), isBroad: true },
    { name: 'actions', fields: (n) => ({ actor: `oidc:person-${n % 40}` }) },
    { name: 'log-access', fields: (n) => ({ since: ago(n) }) },
    { name: 'proof', fields: (n) => ({ since: ago(n) }) },
    {
      name: 'compromise',
      fields: (n) => ({ ban: banned[n % banned.length]?.['value'] ?? '' }),
      isBroad: true,
    },
    { name: 'sample', fields: (n) => ({ seed: `${n}`, since: '31d' }), isBroad: true },
    { name: 'graph', fields: () => ({ since: '7d' }), isBroad: true },
  ];
}

function askingOf(store: Store): Asking {
  const holder = createMeshHolder(
    compileStoredMesh(meshOf(), { trustDomain, rootNamespace, ttlSeconds: 3_600 }),
  );
  const nodes = { registry: { all: () => [], find: () => undefined, evict: refuse }, presence: refuse };
  const breathe = (): undefined => undefined;
  const parts = { store, holder, trustDomain, rootNamespace, nodes, clock, breathe };
  const ports = auditorPorts({ ...parts, ...replayPorts({ ...parts, ttlSeconds: 3_600 }) });
  const end = performance.now() + longestMs;
  return { ...ports.questionPorts(() => performance.now() > end), may: () => true };
}

/** An entry and a policy for each service. */
export function meshOf(): Mesh {
  const numbers = Array.from({ length: services }, (_, n) => n);
  const entries = numbers.map((n): RegistrationEntry => {
    const [id, namespace] = [`service-${n}`, `team-${n % 20}`];
    const labels = { app: id, namespace, serviceAccount: id };
    const common = { ttlSeconds: 3_600, dnsNames: [], hint: '', expiresAt: null, revision: 1 };
    return {
      ...common,
      id,
      labels,
      spiffeId: SpiffeId.parse(service(n)),
      selectors: [parseSelector(`unix:uid:${n}`)],
    };
  });
  const policies = numbers.map((n): PolicyDocument => {
    const [name, namespace] = [`service-${n}`, `team-${n % 20}`];
    const from = `{ source: { namespaces: [team-${(n + 1) % 20}] } }`;
    const source = `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: ${name}, namespace: ${namespace} }\nspec: { selector: { matchLabels: { app: ${name} } }, rules: [{ from: [${from}] }, { to: [{ operation: { paths: [/open] } }] }] }\n`;
    const sha256 = createHash('sha256').update(source).digest('hex');
    return { key: `${namespace}/${name}`, source, file: 'mesh.yaml', line: 1, sha256, revision: 1 };
  });
  return {
    revision: 1,
    entries: new Map(entries.map((entry) => [entry.id, entry])),
    policies: new Map(policies.map((policy) => [policy.key, policy])),
    bans: new Map(),
  };
}

function refuse(): never {
  throw new Error('there are no nodes');
}

/** The number behind an option. */
export function numberOf(args: readonly string[], name: string, otherwise: number): number {
  const at = args.indexOf(name);
  return at === -1 ? otherwise : Number(args[at + 1]);
}

export const services = 200;
// However slow a question is, the bench ends.
const longestMs = 600_000;
const rootNamespace = 'istio-system';
export const trustDomain = TrustDomain.parse('example.org');
export const clock: Clock = { now: () => new Date(lastMs), sleep: () => Promise.resolve() };
