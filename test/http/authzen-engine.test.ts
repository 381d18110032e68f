import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { CallContext } from '../../src/authz/context.ts';
import { explainCall } from '../../src/authz/judge.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { answerCall } from '../../src/http/authzen-answer.ts';
import { nextToken, type PagePlan, planPage } from '../../src/http/authzen-page.ts';
import { questionBody, readQuestion } from '../../src/http/authzen-question.ts';
import { findAllowed } from '../../src/http/authzen-search.ts';
import { readCallContext } from '../../src/http/call-context.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { policies, workloads } from '../authz/generated.ts';
import { meshOf, noon, policyText, readPolicies, trustDomain } from '../authz/mesh.ts';

const world = { trustDomain, namespace: 'app' };
const parts = {
  isBanned: () => false,
  onFailure: (error: unknown) => {
    throw error;
  },
};

const sources = ['ns/a/sa/x', 'ns/a/sa/y', 'ns/b/sa/x', 'ns/ab/sa/y', 'job'].map(
  (tail) => `spiffe://example.org/${tail}`,
);
const destinations = ['pay/sa/ledger', 'pay/sa/two', 'pay/sa/gate', 'shop/sa/web'].map(
  (tail) => `spiffe://example.org/ns/${tail}`,
);
const methods = ['GET', 'GET', 'POST', 'PUT', 'P', 'CONNECT', 'G T'];
const mostly = <T>(good: readonly T[], bad: readonly T[]) =>
  fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom(...good) },
    { weight: 1, arbitrary: fc.constantFrom(...bad) },
  );
const question = fc.record({
  source: fc.constantFrom(...sources, 'spiffe://other.org/ns/a/sa/x'),
  destination: fc.constantFrom(...destinations, 'spiffe://other.org/ns/pay/sa/l'),
  method: fc.constantFrom(...methods),
  path: mostly(['/', '/a', '/a/', '/a/b?c=d', '/%61', '/b'], ['/a//b', '/a;b', 'a', '']),
  host: mostly(['h', 'x.h:80', 'h.x'], ['a@b', '']),
  port: mostly([0, 80, 81], [70_000, 1.5]),
  context: fc.record(
    {
      headers: fc.array(fc.tuple(fc.constantFrom('x-a', 'X-B'), fc.constantFrom('a', 'b', '')), {
        maxLength: 3,
      }),
      sourceIp: fc.constantFrom('10.1.2.3', '2001:db8::1', 'x'),
      sni: fc.constantFrom('', 'h', 'x.h'),
      claims: fc.constantFrom(null, {}, { iss: 'i', sub: 's', scope: 'a b' }, { groups: ['a'] }),
      metadata: fc.constantFrom({}, { 'envoy.filters.http.f': { k: 'a' } }),
    },
    { requiredKeys: [] },
  ),
});

test('an evaluation says what authz/check says of the same call', () => {
  const seen = new Map<string, number>();
  fc.assert(
    fc.property(policies(8), fc.array(question, { minLength: 20, maxLength: 30 }), (list, questions) => {
      const snapshot = compileSnapshot(meshOf(list, workloads));
      for (const { source, destination, method, path, host, port, context } of questions) {
        const read = readQuestion(
          questionBody.parse({
            subject: { type: 'workload', id: source },
            action: { name: method },
            resource: { type: 'workload', id: destination, properties: { path, host, port } },
            context: { ...context, time: 'now' },
          }),
          world,
        );
        const given = finish(answerCall(snapshot, read, noon, parts));
        const ends = { source: SpiffeId.parse(source), destination: SpiffeId.parse(destination) };
        const told: CallContext = readCallContext(context);
        const asked = { ...ends, method, path, authority: host, port, context: told };
        const checked = explainCall(snapshot, asked, noon);
        expect([given.decision, given.context.reason, given.context.rule ?? '', given.context.why]).toEqual([
          checked.verdict === 'allow',
          checked.reason,
          checked.rule,
          checked.why,
        ]);
        seen.set(checked.reason, (seen.get(checked.reason) ?? 0) + 1);
      }
    }),
    { numRuns: 50 },
  );
  for (const reason of ['allow_rule', 'deny_rule', 'no_allow_rule', 'request_invalid', 'request_ambiguous']) {
    expect([reason, seen.get(reason)]).toEqual([reason, expect.any(Number)]);
  }
});

const denyHosts = 'action: DENY\nrules: [{ to: [{ operation: { hosts: [admin.h] } }] }]';
const anyHost = 'rules: [{ to: [{ operation: { hosts: ["*"] } }] }]';
const otherHosts = 'rules: [{ to: [{ operation: { notHosts: [admin.h] } }] }]';
test.each<[string, readonly string[], string | undefined, boolean]>([
  ['a DENY of hosts', ['rules: [{}]', denyHosts], undefined, false],
  ['a DENY of hosts', ['rules: [{}]', denyHosts], 'admin.h', false],
  ['a DENY of hosts', ['rules: [{}]', denyHosts], 'h', true],
  ['an ALLOW of any host', [anyHost], undefined, false],
  ['an ALLOW of any host', [anyHost], 'h', true],
  ['an ALLOW of other hosts', [otherHosts], undefined, false],
  ['an ALLOW of other hosts', [otherHosts], 'admin.h', false],
  ['an ALLOW of other hosts', [otherHosts], 'h', true],
])('a host that is not told is not known: %s and %o, told %s: %s', (_, specs, host, decision) => {
  const texts = specs.map((spec, i) => policyText(spec, `p${i}`));
  const snapshot = compileSnapshot(meshOf(readPolicies(texts.join('---\n')), workloads));
  const asked = questionBody.parse({
    subject: { type: 'workload', id: sources[0] },
    action: { name: 'GET' },
    resource: { type: 'workload', id: destinations[0], properties: { path: '/', host } },
  });
  expect(finish(answerCall(snapshot, readQuestion(asked, world), noon, parts)).decision).toBe(decision);
});

test('a search finds what evaluations of everything allow, page by page', () => {
  const candidates = new Map(
    [...sources, ...destinations].map((text) => [text, SpiffeId.parse(text)] as const),
  );
  const names = new Map(methods.map((text) => [text, { text }] as const));
  const isBanned = (a: SpiffeId, b: SpiffeId) => a.text === sources[3] || b.text === sources[3];
  const seen = { subject: 0, resource: 0, action: 0, nothing: 0 };
  const questions = fc.array(question, { minLength: 5, maxLength: 10 });
  fc.assert(
    fc.property(policies(8), questions, fc.integer({ min: 1, max: 4 }), (list, several, limit) => {
      const snapshot = compileSnapshot(meshOf(list, workloads));
      for (const [one, what] of several.flatMap((each) =>
        (['subject', 'resource', 'action'] as const).map((kind) => [each, kind] as const),
      )) {
        const { path, host, port, context } = one;
        const callOf = (name: string) =>
          readQuestion(
            questionBody.parse({
              subject: { type: 'workload', id: what === 'subject' ? name : one.source },
              action: { name: what === 'action' ? name : one.method },
              resource: {
                type: 'workload',
                id: what === 'resource' ? name : one.destination,
                properties: { path, host, port },
              },
              context,
            }),
            world,
          );
        const among = what === 'action' ? names : candidates;
        const expected = [...among.keys()]
          .filter((name) => finish(answerCall(snapshot, callOf(name), noon, { ...parts, isBanned })).decision)
          .toSorted();
        const search = { candidates: among, callOf, isWide: what === 'resource', show: (id: string) => id };
        const all: string[] = [];
        for (let plan: PagePlan = planPage({ limit }, one); ;) {
          const { page, results } = finish(findAllowed(snapshot, search, plan, isBanned, noon));
          expect(results.length).toBe(page.count);
          all.push(...results);
          if (page.next_token === '') break;
          // A page that is not the last one is full, and what follows it is not empty.
          expect(results.length).toBe(limit);
          expect(all.length).toBeLessThan(expected.length);
          plan = planPage({ token: page.next_token }, one);
        }
        expect(all).toEqual(expected);
        seen[expected.length > 0 ? what : 'nothing'] += 1;
      }
    }),
    { numRuns: 160 },
  );
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(10);
});

test('a page token goes with its question, whatever the order of its members', () => {
  const plan = planPage({ limit: 3 }, { a: 1, b: { c: [1, 2], d: null } });
  const token = nextToken(plan, 'last');
  expect(planPage({ token }, { b: { d: null, c: [1, 2] }, a: 1 })).toEqual({ ...plan, after: 'last' });
  for (const other of [{ a: 1, b: { c: [2, 1], d: null } }, { a: 1 }, {}, [1]]) {
    expect(() => planPage({ token }, other)).toThrow('the page token is of another question');
  }
});
