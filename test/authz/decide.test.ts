import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { decide, denyDecision } from '../../src/authz/decide.ts';
import { decideNaively } from '../../src/authz/naive.ts';
import { canonicalizeHttp, canonicalizeTcp, isRejection } from '../../src/authz/request.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';
import { call, ledger, meshOf, noon, policyText, readPolicies, trustDomain } from './mesh.ts';

type Vector = {
  readonly name: string;
  readonly policies: readonly string[];
  readonly workloads: readonly { readonly id: string; readonly labels: Record<string, string> }[];
  readonly calls: readonly {
    readonly request: {
      readonly protocol: 'http' | 'tcp';
      readonly source: string | null;
      readonly destination: string;
      readonly method?: string;
      readonly path?: string;
      readonly authority?: string;
      readonly port: number;
    };
    readonly expect: { readonly verdict: string; readonly reason: string; readonly rule: string };
  }[];
};

const file = new URL('../vectors/decisions.json', import.meta.url);
const { vectors } = JSON.parse(readFileSync(file, 'utf8')) as { readonly vectors: readonly Vector[] };

function canonicalize({ source, destination, ...rest }: Vector['calls'][number]['request']) {
  const ids = {
    source: source === null ? null : SpiffeId.parse(source),
    destination: SpiffeId.parse(destination),
  };
  if (rest.protocol === 'tcp') return canonicalizeTcp({ ...ids, port: rest.port });
  const { method = '', path = '', authority = '', port } = rest;
  return canonicalizeHttp({ ...ids, method, path, authority, port });
}

describe('the shared vectors', () => {
  test.each(vectors)('$name', ({ policies, workloads, calls }) => {
    const inventory = workloads.map(({ id, labels }) => ({ id: SpiffeId.parse(id), labels }));
    const mesh = meshOf(policies.flatMap(readPolicies), inventory);
    const snapshot = compileSnapshot(mesh);
    for (const { request, expect: expected } of calls) {
      const made = canonicalize(request);
      const decision = isRejection(made)
        ? denyDecision(made.reason, made.why, 7)
        : decide(snapshot, made, noon);
      const { verdict, reason, rule, revision } = decision;
      expect({ request, verdict, reason, rule }).toEqual({ request, ...expected });
      expect(revision).toBe(7);
      expect(decision.why).toMatch(/^[^A-Z].*[^.]$/);
      if (!isRejection(made)) expect(decideNaively(mesh, made, noon)).toMatchObject(expected);
    }
  });
});

describe('why', () => {
  const decideFor = (spec: string, overrides: Parameters<typeof call>[0] = {}) =>
    decide(compileSnapshot(meshOf(readPolicies(policyText(spec)))), call(overrides), noon);

  test('the nearest rule names the predicate, its place and what the call had', () => {
    const spec = `rules:
  - to: [{ operation: { methods: [GET], paths: ["/other"] } }]
  - from: [{ source: { namespaces: [shop] } }]
    to:
      - operation:
          methods: [PUT, PATCH]
          paths: [/charge]`;
    expect(decideFor(spec)).toMatchObject({
      reason: 'no_allow_rule',
      why: 'no ALLOW rule matched; the nearest is pay/p rule[1], where methods is one of PUT, PATCH, the call used GET',
      nearest: {
        rule: 'pay/p rule[1]',
        place: 'p.yaml:10:22',
        missed: 'methods is one of PUT, PATCH, the call used GET',
      },
    });
  });

  test.each<[string, string, Parameters<typeof call>[0], string]>([
    [
      'principals',
      'from: [{ source: { principals: ["example.org/ns/a/sa/b"] } }]',
      {},
      'principals is example.org/ns/a/sa/b, the caller is example.org/ns/shop/sa/web',
    ],
    ['namespaces', 'from: [{ source: { namespaces: [a] } }]', {}, 'namespaces is a, the caller is in shop'],
    [
      'no namespace',
      'from: [{ source: { namespaces: [a] } }]',
      { source: 'spiffe://example.org/job' },
      "namespaces is a, the caller's ID names no namespace of this trust domain",
    ],
    ['notMethods', 'to: [{ operation: { notMethods: [GET] } }]', {}, 'notMethods is GET, the call used GET'],
    [
      'paths',
      'to: [{ operation: { paths: ["/a", "/b", "/c", "/d", "/e", "/f", "/g"] } }]',
      {},
      'paths is one of /a, /b, /c, /d, /e and 2 more, the call used another path',
    ],
    [
      'notPaths',
      'to: [{ operation: { notPaths: ["/charge"] } }]',
      {},
      'notPaths is /charge, the call used it',
    ],
    [
      'several notPaths',
      'to: [{ operation: { notPaths: ["/a", "/ch*"] } }]',
      {},
      'notPaths is one of /a, /ch*, the call used one of them',
    ],
    ['hosts', 'to: [{ operation: { hosts: [a] } }]', {}, 'hosts is a, the call used ledger.pay:8080'],
    [
      'hosts without a port',
      'to: [{ operation: { hosts: ["ledger.pay:80"] } }]',
      { authority: 'ledger.pay' },
      'hosts is ledger.pay:80, the call used ledger.pay without a port',
    ],
    ['ports', 'to: [{ operation: { ports: ["80"] } }]', {}, 'ports is 80, the call used 8080'],
    [
      'an unknown port',
      'to: [{ operation: { ports: ["80"] } }]',
      { port: 0 },
      'ports is 80, the port is not known',
    ],
  ])('a miss on %s', (_name, rule, overrides, missed) => {
    expect(decideFor(`rules:\n  - ${rule}`, overrides).nearest?.missed).toBe(missed);
  });

  // The words go into the log, of which nothing can be erased.
  test.each(['paths: ["/a"]', 'paths: ["/a"], notPaths: ["/users/*"]', 'notPaths: ["/users/*"]'])(
    'the path of a call is in no word of its denial: %s',
    (operation) => {
      const decision = decideFor(`rules: [{ to: [{ operation: { ${operation} } }] }]`, {
        path: '/users/alice',
      });
      expect(decision.reason).toBe('no_allow_rule');
      expect(JSON.stringify(decision)).not.toContain('alice');
    },
  );

  test('a DENY that holds for want of an attribute says so', () => {
    expect(
      decideFor('action: DENY\nrules: [{ from: [{ source: { namespaces: [dev] } }] }]', {
        source: 'spiffe://example.org/job',
      }),
    ).toMatchObject({
      reason: 'deny_rule',
      why: "denied by pay/p rule[0], which cannot be ruled out: namespaces is dev, the caller's ID names no namespace of this trust domain",
    });
  });

  test('a DENY that holds by what the call is names the rule alone', () => {
    expect(decideFor('action: DENY\nrules: [{}]').why).toBe('denied by pay/p rule[0]');
  });

  test('without an ALLOW rule there is no nearest one', () => {
    expect(decideFor('{}')).toMatchObject({ nearest: null, why: 'no ALLOW rule applies to the destination' });
  });
});

describe('decide is total', () => {
  const snapshot = compileSnapshot(meshOf(readPolicies(policyText('rules: [{}]'))));

  test.each<[string, unknown, unknown, number]>([
    ['no snapshot', undefined, call(), 0],
    ['no request', snapshot, undefined, 7],
    ['an empty request', snapshot, {}, 7],
    ['a request without a destination', snapshot, { ...call(), destination: undefined }, 7],
    [
      'a snapshot that throws',
      Object.defineProperty({}, 'revision', {
        get: () => {
          throw new Error('x');
        },
      }),
      call(),
      0,
    ],
  ])('%s is a denial', (_name, broken, request, revision) => {
    const errors: unknown[] = [];
    const decision = decide(broken as typeof snapshot, request as ReturnType<typeof call>, noon, (error) => {
      errors.push(error);
      throw new Error('the report fails too');
    });
    expect(decision).toMatchObject({ verdict: 'deny', reason: 'engine_failed', rule: '', nearest: null });
    expect(decision.revision).toBe(revision);
    expect(errors.length).toBe(1);
  });
});

// The index once lost such a rule when it was the only one of its shelf.
test.each([1, 2])(
  '%i rules that a request cannot answer deny it, among rules enough for an index',
  (alone) => {
    const others = Array.from(
      { length: 9 },
      (_, i) => `{ from: [{ source: { principals: ["example.org/ns/n/sa/x${i}"] } }] }`,
    );
    const silent = Array.from({ length: alone }, (_, i) => `{ to: [{ operation: { methods: ["M${i}"] } }] }`);
    const mesh = meshOf([
      ...readPolicies(policyText(`action: DENY\nrules: [${[...others, ...silent].join(', ')}]`, 'no')),
      ...readPolicies(policyText('rules: [{}]', 'yes')),
    ]);
    const made = canonicalizeTcp({
      source: SpiffeId.parse('spiffe://example.org/ns/a/sa/x'),
      destination: ledger,
      port: 1,
    });
    if (isRejection(made)) throw new Error('refused');
    expect(decide(compileSnapshot(mesh), made, noon)).toMatchObject({ verdict: 'deny', reason: 'deny_rule' });
  },
);

describe('snapshots', () => {
  test('two policies of one key are refused', () => {
    const twice = [...readPolicies(policyText('{}')), ...readPolicies(policyText('{}'))];
    expect(() => compileSnapshot(meshOf(twice))).toThrow(expect.objectContaining({ code: 'policy_invalid' }));
  });

  test('destinations with the same policies share what was compiled', () => {
    const snapshot = compileSnapshot(meshOf(readPolicies(policyText('rules: [{}]'))));
    const at = (name: string) =>
      snapshot.appliedTo(SpiffeId.parse(`spiffe://${trustDomain.name}/ns/pay/sa/${name}`));
    expect(at('a')).toBe(at('b'));
    expect(at('a')).toBe(at('a'));
  });

  test('what did not change is taken over from the snapshot before, and nothing else', () => {
    const first = readPolicies(policyText('rules: [{}]', 'a'));
    const [same, changed] = [meshOf(first), meshOf(readPolicies(policyText('{}', 'a')))];
    const previous = compileSnapshot(same);
    const applied = previous.appliedTo(ledger);
    const more = readPolicies(policyText('rules: [{}]', 'x', 'aaa'));
    expect(compileSnapshot({ ...same, policies: [...more, ...first], previous }).appliedTo(ledger)).toBe(
      applied,
    );
    const next = compileSnapshot({ ...changed, previous });
    expect(next.appliedTo(ledger)).not.toBe(applied);
    expect(decide(next, call(), noon)).toMatchObject({ reason: 'no_allow_rule' });
  });

  test('rules of many callers and many paths do not multiply in memory', () => {
    const callers = Array.from({ length: 512 }, (_, i) => `"example.org/ns/a/sa/s${i}"`).join(',');
    const paths = Array.from({ length: 512 }, (_, i) => `"/p${i}"`).join(',');
    const hosts = Array.from({ length: 512 }, (_, i) => `h${i}`).join(',');
    const spec = `rules: [{ from: [{ source: { principals: [${callers}] } }], to: [{ operation: { paths: [${paths}], hosts: [${hosts}], methods: [GET] } }] }]`;
    const policies = Array.from({ length: 40 }, (_, i) => readPolicies(policyText(spec, `p${i}`))).flat();
    const usedMs = startCpuWatch();
    const snapshot = compileSnapshot(meshOf(policies));
    const allowed = call({ source: 'spiffe://example.org/ns/a/sa/s1', path: '/p511', authority: 'h7' });
    expect(decide(snapshot, allowed, noon)).toMatchObject({ rule: 'pay/p0 rule[0]' });
    expect(usedMs()).toBeLessThan(10_000);
  });
});
