import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { AuditEvent } from '../../src/audit/event.ts';
import { decide } from '../../src/authz/decide.ts';
import { createPathPatterns } from '../../src/authz/path-pattern.ts';
import { finish } from '../../src/authz/steps.ts';
import { lintInSteps } from '../../src/authz/lint.ts';
import { makeCandidate } from '../../src/identity/replay-candidate.ts';
import type { ReplayPorts } from '../../src/identity/policy-replay.ts';
import { suggestPolicies } from '../../src/identity/policy-suggest.ts';
import type { CallsMeant } from '../../src/identity/replay-answer.ts';
import { policies, request, workloads } from '../authz/generated.ts';
import { readPolicies, trustDomain } from '../authz/mesh.ts';
import { admin, fromWeb, job, ledger, pay, type ReplayWorld, startReplayWorld, web } from './replay-world.ts';

const settings = { trustDomain, rootNamespace: 'istio-system' };
let world: ReplayWorld;
beforeAll(async () => {
  world = await startReplayWorld();
});
beforeEach(() => world.begin());
afterAll(() => world.close());

async function suggest(meant: Partial<CallsMeant> = {}) {
  const open = world.openReplay(() => false);
  const since = world.clock.now();
  const asked = { since, until: null, destination: null, namespace: null, mayReadPersonal: true };
  try {
    const found = await suggestPolicies({ ...asked, ...meant }, open.ports);
    if (found === undefined) throw new Error('left');
    return found;
  } finally {
    open.close();
  }
}

async function candidateOf(ports: ReplayPorts, yaml: string, without: readonly string[]) {
  const parts = {
    settings: ports.settings,
    history: ports.history,
    breathe: ports.breathe,
    now: ports.now(),
  };
  const choice = { files: [{ file: 'new.yaml', text: yaml }], without, revision: null };
  return (await makeCandidate(ports.current(), choice, parts)).mesh.snapshot;
}

/** Its rules, without comments. */
const rulesOf = (yaml: string): string[] =>
  yaml
    .slice(yaml.indexOf('  rules:\n') + 9)
    .split('\n')
    .filter((line) => line !== '' && !/^ *#/.test(line))
    .map((line) => line.slice(4));
const web1 = '["example.org/ns/shop/sa/web"]';
const source = ['- from:', '    - source:', `        principals: ${web1}`];

test.each<[string, readonly string[], (world: ReplayWorld) => readonly AuditEvent[], readonly string[]]>([
  [
    'callers, methods, ports and paths that were seen',
    [
      pay(
        'p',
        "rules: [{ from: [{ source: { namespaces: [shop] } }], to: [{ operation: { paths: ['/a/*', '/b'] } }] }]",
      ),
    ],
    ({ counted }) => [
      counted({ pathPattern: '/a/*' }),
      counted({ pathPattern: '/a/*', method: 'POST' }),
      counted({ pathPattern: '/b', source: job }),
    ],
    [
      ...['- from:', '    - source:', '        principals: ["example.org/ns/shop/sa/job"]'],
      ...[
        '  to:',
        '    - operation:',
        '        methods: ["GET"]',
        '        paths: ["/b"]',
        '        ports: ["8080"]',
      ],
      ...source,
      ...[
        '  to:',
        '    - operation:',
        '        methods: ["GET", "POST"]',
        '        paths: ["/a/*"]',
        '        ports: ["8080"]',
      ],
    ],
  ],
  [
    'callers that do the same, in one rule, and methods of each path apart',
    [pay('p', "rules: [{ to: [{ operation: { paths: ['/a', '/b'] } }] }]")],
    ({ counted }) =>
      [web, job].flatMap((caller) => [
        counted({ source: caller, pathPattern: '/a' }),
        counted({ source: caller, pathPattern: '/b', method: 'PUT' }),
      ]),
    [
      ...[
        '- from:',
        '    - source:',
        '        principals: ["example.org/ns/shop/sa/job", "example.org/ns/shop/sa/web"]',
        '  to:',
      ],
      ...['    - operation:', '        methods: ["GET"]', '        paths: ["/a"]', '        ports: ["8080"]'],
      ...['    - operation:', '        methods: ["PUT"]', '        paths: ["/b"]', '        ports: ["8080"]'],
    ],
  ],
  [
    'what the log does not hold and the rule demands',
    [
      pay(
        'p',
        `rules: [{ from: [{ source: { namespaces: [shop], ipBlocks: ['10.0.0.0/8'] } }], to: [{ operation: { hosts: [ledger], notPaths: ['/admin*'] } }], when: [{ key: 'request.headers[x-a]', notValues: ['*b'] }] }]`,
      ),
    ],
    ({ counted }) => [counted({ pathPattern: '*' })],
    [
      ...[
        ...source,
        '        ipBlocks: ["10.0.0.0/8"]',
        '  to:',
        '    - operation:',
        '        methods: ["GET"]',
      ],
      ...['        ports: ["8080"]', '        hosts: ["ledger"]', '        notPaths: ["/admin*"]'],
      ...['  when:', '    - key: "request.headers[x-a]"', '      notValues: ["*b"]'],
    ],
  ],
  [
    'paths that have a record each, a few of them',
    [pay('p', `rules: [{ ${fromWeb} }]`)],
    ({ decided }) =>
      ['/b', '/a'].map((path) =>
        decided({ verdict: 'allow', reason: 'allow_rule', rule: 'pay/p rule[0]', path: { personal: path } }),
      ),
    [
      ...source,
      '  to:',
      '    - operation:',
      '        methods: ["GET"]',
      '        paths: ["/a", "/b"]',
      '        ports: ["8080"]',
    ],
  ],
  [
    'and many',
    [pay('p', `rules: [{ ${fromWeb} }]`)],
    ({ decided }) =>
      Array.from({ length: 20 }, (_, i) =>
        decided({
          verdict: 'allow',
          reason: 'allow_rule',
          rule: 'pay/p rule[0]',
          path: { personal: `/${i}` },
        }),
      ),
    [...source, '  to:', '    - operation:', '        methods: ["GET"]', '        ports: ["8080"]'],
  ],
  [
    'hosts, although records of single calls hold them',
    [pay('p', `rules: [{ ${fromWeb}, to: [{ operation: { hosts: ['ledger.*'] } }] }]`)],
    ({ decided }) => [
      decided({
        ...{ verdict: 'allow', reason: 'allow_rule', rule: 'pay/p rule[0]' },
        ...{ host: 'ledger.pay', path: { personal: '/a' } },
      }),
    ],
    [
      ...[...source, '  to:', '    - operation:', '        methods: ["GET"]', '        paths: ["/a"]'],
      ...['        ports: ["8080"]', '        hosts: ["ledger.*"]'],
    ],
  ],
  [
    'connections',
    [pay('p', `rules: [{ ${fromWeb} }]`)],
    ({ counted }) => [counted({ protocol: 'tcp', method: '', pathPattern: '*', port: 5_432 })],
    [...source, '  to:', '    - operation:', '        ports: ["5432"]'],
  ],
])('%s', async (_, inForce, events, lines) => {
  await world.apply(...inForce);
  await world.record(events(world));
  const { services } = await suggest();
  const [first] = services;
  expect([services.length, first?.why, first?.destination, first?.replaces]).toEqual([
    1,
    '',
    ledger,
    ['pay/p'],
  ]);
  const yaml = first?.yaml ?? '';
  expect(rulesOf(yaml)).toEqual(lines);
  const without = first?.replaces ?? [];
  const { totals, candidate } = await world.replay({ texts: [yaml], without });
  expect([totals.newlyDenied, totals.newlyAllowed, candidate.refused]).toEqual([0, 0, null]);
  const { findings } = finish(
    lintInSteps({ ...settings, policies: readPolicies(yaml), workloads: null, notes: false, limit: 9 }),
  );
  // What the rule says with a not it goes on to say.
  expect(findings.filter(({ code }) => code !== 'allow_not')).toEqual([]);
  // Nothing was applied.
  expect([...world.mesh.current().policies.keys()]).toEqual(['pay/p']);
});

test('what is not in it is said, with how many calls', async () => {
  const { holder } = world;
  await world.apply(
    pay('p', `rules: [{ ${fromWeb} }]`),
    pay(
      'soon',
      `expiresAt: 2099-01-01T00:00:00Z\n  rules: [{ from: [{ source: { principals: ['*/job'] } }] }]`,
    ),
  );
  expect(holder.current().policies.size).toBe(2);
  const allowed = { verdict: 'allow', reason: 'allow_rule', rule: 'pay/p rule[0]' } as const;
  await world.record([
    world.counted({ pathPattern: '/a', count: 1 }),
    world.counted({ source: job, rule: 'pay/soon rule[0]', count: 2 }),
    world.counted({ source: `${web}2`, count: 3 }),
    world.counted({ source: 'we\u001b[31mb', count: 4 }),
    world.counted({ method: 'G*', count: 5 }),
    world.decided({ ...allowed, breakGlass: 'outage (T-1)' }),
    world.decided({ source: job }),
  ]);
  const [service] = (await suggest()).services;
  expect(service?.calls).toBe(1);
  expect(new Map(service?.left.map(({ why, calls }) => [why, calls]))).toEqual(
    new Map([
      ['a policy that ends by itself allows them', 2],
      ['the policies in force deny them by now', 3],
      ['their records do not say who called, or how', 4],
      ['no value of a policy stands for their method', 5],
      ['a break-glass grant let them pass', 1],
    ]),
  );
  expect(service?.yaml).toContain('# not in it: 5 calls: no value of a policy stands for their method\n');
  expect(service?.yaml).not.toContain('\u001b');
  expect(service?.replaces).toEqual(['pay/p']);
});

test.each<[string, Partial<CallsMeant>, number]>([
  ['of one service', { destination: ledger }, 1],
  ['of another', { destination: web }, 0],
  ['of a namespace', { namespace: 'pay' }, 1],
  ['of another namespace', { namespace: 'shop' }, 0],
  ['of another time', { until: new Date('2020-01-01T00:00:00Z'), since: null }, 0],
])('%s', async (_, meant, count) => {
  await world.apply(pay('p', `rules: [{ ${fromWeb} }]`));
  await world.record([world.counted({ pathPattern: '*' })]);
  expect((await suggest(meant)).services).toHaveLength(count);
});

test('in Istio mode nothing is suggested', async () => {
  const istio = await startReplayWorld('istio');
  const open = istio.openReplay(() => false);
  const meant = { since: null, until: null, destination: null, namespace: null, mayReadPersonal: true };
  await expect(suggestPolicies(meant, open.ports)).rejects.toMatchObject({ code: 'policy_mode_inexact' });
  await istio.close();
});

test('what is suggested denies nothing that was seen, and allows nothing more than is in force', async () => {
  for (const [i, { id, labels }] of workloads.entries()) {
    await world.mesh.createEntry(
      { id: `w${i}`, spiffeId: id.text, selectors: ['unix:uid:7'], labels },
      admin,
    );
  }
  const seen = { services: 0, calls: 0 };
  await fc.assert(
    fc.asyncProperty(
      policies(6),
      fc.array(request, { minLength: 60, maxLength: 60 }),
      async (list, calls) => {
        await world.begin();
        // Most calls are allowed by it, some by others, and some are denied for all that.
        const wide = pay('wide', "rules: [{ from: [{ source: { principals: ['example.org/*'] } }] }]");
        await world.apply(
          ...list
            .filter(({ action, terms }) => action === 'ALLOW' && terms.breakGlass === null)
            .map(({ text }) => text),
          wide,
        );
        const { snapshot } = world.holder.current();
        const patterns = createPathPatterns();
        const now = world.clock.now();
        const events = calls.flatMap((one) => {
          const decision = decide(snapshot, one, now);
          if (decision.verdict !== 'allow') return [];
          const { protocol, method, port } = one;
          const pathPattern = protocol === 'tcp' ? '*' : patterns(snapshot, decision.rule, one.path);
          const ends = { source: one.source?.text ?? '', destination: one.destination.text };
          return [
            world.counted({ ...ends, protocol, method, port, pathPattern, rule: decision.rule, count: 1 }),
          ];
        });
        await world.record(events);
        const { services } = await suggest();
        const written = services.filter(({ yaml }) => yaml !== '');
        seen.services += written.length;
        for (const { destination, yaml, replaces, left } of written) {
          const { totals, edges } = await world.replay({ texts: [yaml], without: replaces }, { destination });
          const lost = left.reduce((sum, one) => sum + one.calls, 0);
          seen.calls += totals.calls;
          // Of conditions that the log does not hold nobody can tell that they are the same.
          expect(totals.newlyDenied, JSON.stringify(edges)).toBeLessThanOrEqual(lost);
          const open = world.openReplay(() => false);
          const candidate = await candidateOf(open.ports, yaml, replaces);
          open.close();
          for (const one of calls) {
            if (one.destination.text !== destination) continue;
            if (decide(candidate, one, now).verdict !== 'allow') continue;
            expect(decide(snapshot, one, now).verdict, yaml).toBe('allow');
          }
        }
      },
    ),
    { numRuns: 5, endOnFailure: true },
  );
  expect(Math.min(seen.services, seen.calls)).toBeGreaterThan(0);
});
