import { comparePolicies } from '../../src/authz/analysis/compare.ts';
import type { PolicyGround } from '../../src/authz/analysis/destinations.ts';
import { type Invariant, readInvariant } from '../../src/authz/analysis/invariant.ts';
import { provePolicies } from '../../src/authz/analysis/prove.ts';
import type { Workload } from '../../src/authz/attachment.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import type { Policy } from '../../src/authz/policy.ts';
import type { Steps } from '../../src/authz/steps.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { readDocuments } from '../../src/yaml.ts';
import type { ReportRow } from '../report.ts';
import type { Measured } from './engine.ts';

const trustDomain = TrustDomain.parse('example.org');
const now = new Date('2026-11-21T12:00:00Z');
const size = 1_000;

/**
 * What it costs to prove a thousand policies, and to compare them with others: all of one destination, and of two hundred services in
 * twenty namespaces with a DENY for the whole mesh. CPU time of one run each, and the longest step between two pauses.
 */
export function measureAnalysis(): Measured {
  const [rows, metrics]: [ReportRow[], Record<string, number>] = [[], {}];
  for (const [name, { ground, policies, changed }] of Object.entries(meshes())) {
    const question = { policies, invariants, examines: true };
    const runs = {
      prove: () => provePolicies(ground, question, now),
      'prove invariants alone': () => provePolicies(ground, { ...question, examines: false }, now),
      'diff, ten of them changed': () => comparePolicies(ground, policies, changed(10), now),
      'diff, all of them changed': () => comparePolicies(ground, policies, changed(size), now),
    };
    for (const [what, run] of Object.entries(runs)) {
      const { cpuMs, longestMs, result } = time(run());
      const key = `${name}_${what}`.replaceAll(/[^a-z]+/g, '_');
      rows.push({ name: `${name}: ${what}`, value: cpuMs, unit: 'ms' });
      rows.push({ name: `${name}: ${what}, longest step`, value: longestMs, unit: 'ms' });
      metrics[`${key}_ms`] = Math.round(cpuMs);
      metrics[`${key}_longest_ms`] = Math.round(longestMs * 10) / 10;
      if (result.unproven.length > 0)
        throw new Error(`${name}, ${what}: ${JSON.stringify(result.unproven[0])}`);
    }
  }
  return { rows, metrics };
}

function time(steps: Steps<{ readonly unproven: readonly unknown[] }>) {
  const before = process.cpuUsage();
  let longestMs = 0;
  for (;;) {
    const started = threadMs();
    const step = steps.next();
    longestMs = Math.max(longestMs, threadMs() - started);
    if (step.done === true) {
      const { user, system } = process.cpuUsage(before);
      return { cpuMs: (user + system) / 1_000, longestMs, result: step.value };
    }
  }
}

/** Not what others on the machine take. */
function threadMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}

type Mesh = {
  readonly ground: PolicyGround;
  readonly policies: readonly Policy[];
  /** The same with so many of them changed a little. */
  readonly changed: (count: number) => readonly Policy[];
};

function meshes(): Readonly<Record<string, Mesh>> {
  const one = Array.from({ length: size }, (_, i) => ({ name: `p${i}`, namespace: 'pay', spec: ofOne(i) }));
  const many = Array.from({ length: size }, (_, i) => ofMany(i));
  const workloads = Array.from({ length: 200 }, (_, i) => service(i));
  return {
    'one destination': meshOf(one, [{ id: idOf('pay', 'ledger'), labels: {} }]),
    'two hundred services': meshOf(many, workloads),
  };
}

type Made = { readonly name: string; readonly namespace: string; readonly spec: object };

function meshOf(made: readonly Made[], workloads: readonly Workload[]): Mesh {
  const ground = { trustDomain, rootNamespace: 'istio-system', workloads };
  const policies = made.map(parse);
  const changed = (count: number): readonly Policy[] =>
    made.map((one, i) => {
      const policy = policies[i];
      if (i % Math.ceil(size / count) !== 0 || policy === undefined) return policy ?? parse(one);
      const text = JSON.stringify(one.spec).replace('"GET"', '"GET","HEAD"');
      return parse({ ...one, spec: JSON.parse(text) as object });
    });
  return { ground, policies, changed };
}

function parse({ name, namespace, spec }: Made): Policy {
  const text = JSON.stringify({
    ...{ apiVersion: 'security.istio.io/v1', kind: 'AuthorizationPolicy' },
    ...{ metadata: { name, namespace }, spec },
  });
  const [document] = readDocuments({ file: `${name}.yaml`, text });
  if (document === undefined) throw new Error('there is no policy');
  return parsePolicy(document);
}

/** Each tenth denies; callers and paths of their own. */
function ofOne(i: number): object {
  if (i % 10 === 9) {
    return {
      action: 'DENY',
      rules: [{ to: [{ operation: { paths: [`/internal/${i}/*`], methods: ['GET', 'PUT'] } }] }],
    };
  }
  return {
    rules: [
      {
        from: [{ source: { principals: [`example.org/ns/shop/sa/svc-${i}`] } }],
        to: [{ operation: { methods: ['GET', 'POST'], paths: [`/v1/accounts/${i}`, `/v1/orders/${i}/*`] } }],
      },
    ],
  };
}

/** Of a service five: for three callers, for a namespace, for a team with a header, a DENY and one for its health. */
function ofMany(i: number): Made {
  const [of, kind] = [Math.floor(i / 5), i % 5];
  const namespace = `n${of % 20}`;
  const selector = { matchLabels: { app: `s${of}` } };
  const spec = (action: string, rule: object): object => ({ selector, action, rules: [rule] });
  const specs = [
    spec('ALLOW', {
      from: [
        { source: { principals: [1, 2, 3].map((n) => `example.org/ns/n${(of + n) % 20}/sa/s${of + n}`) } },
      ],
      to: [{ operation: { methods: ['GET', 'POST'], paths: ['/api/*'] } }],
    }),
    spec('ALLOW', {
      from: [{ source: { namespaces: [namespace] } }],
      to: [{ operation: { methods: ['GET'], paths: [`/internal/s${of}/*`], ports: ['8080'] } }],
    }),
    spec('ALLOW', {
      from: [{ source: { namespaces: ['team-*'] } }],
      to: [{ operation: { methods: ['GET', 'DELETE'], paths: ['/admin/*'] } }],
      when: [{ key: 'request.headers[x-role]', values: ['admin', 'operator'] }],
    }),
    spec('DENY', { to: [{ operation: { methods: ['GET', 'DELETE'], paths: ['/admin/keys/*'] } }] }),
    spec('ALLOW', { to: [{ operation: { methods: ['GET'], paths: ['/healthz'] } }] }),
  ];
  // One for the whole mesh, in place of a service's.
  if (i === 3) {
    return {
      name: 'no-debug',
      namespace: 'istio-system',
      spec: { action: 'DENY', rules: [{ to: [{ operation: { methods: ['GET'], paths: ['/debug/*'] } }] }] },
    };
  }
  return { name: `p${i}`, namespace, spec: specs[kind] ?? {} };
}

function service(i: number): Workload {
  return { id: idOf(`n${i % 20}`, `s${i}`), labels: { app: `s${i}` } };
}

function idOf(namespace: string, account: string): SpiffeId {
  return SpiffeId.parse(`spiffe://example.org/ns/${namespace}/sa/${account}`);
}

const invariants: readonly Invariant[] = readDocuments({
  file: 'invariants.yaml',
  text: [
    `never: { to: { operation: { paths: ['/debug/*'] } } }`,
    `never: { from: { notNamespaces: ['team-*'] }, to: { namespaces: ['n*'], operation: { paths: ['/admin/*'] } } }`,
    `always: { from: { namespaces: ['monitoring'] }, to: { namespaces: ['n*'], operation: { methods: [GET], paths: [/healthz] } } }`,
    `never: { from: { namespaces: [dev] } }`,
  ]
    .map(
      (spec, i) =>
        `apiVersion: countersign.dev/v1\nkind: PolicyInvariant\nmetadata: { name: i${i} }\nspec: { ${spec} }\n`,
    )
    .join('---\n'),
}).map(readInvariant);
