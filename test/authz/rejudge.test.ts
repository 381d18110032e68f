import fc from 'fast-check';
import { expect, test } from 'vitest';
import { untold } from '../../src/authz/context.ts';
import { decide } from '../../src/authz/decide.ts';
import { type Attribute, attributes } from '../../src/authz/document.ts';
import type { RawCall } from '../../src/authz/istio-mode.ts';
import { judgeCall } from '../../src/authz/judge.ts';
import { parsePathPattern } from '../../src/authz/path-cover.ts';
import { policyModes } from '../../src/authz/policy-mode.ts';
import { type CallToRejudge, createRejudge, placeOfRule } from '../../src/authz/rejudge.ts';
import { replayCall } from '../../src/authz/replay.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { policies, request, workloads } from './generated.ts';
import { call, ledger, meshOf, noon, policyText, readPolicies, web } from './mesh.ts';

const hidable = attributes.filter((one) =>
  /^(request\.(headers|auth)|connection|filter|remote|source\.ip)/.test(one),
);

test.each(policyModes)('in %s mode calls are judged as one call is that is explained', (mode) => {
  const seen = { allow: 0, deny: 0, unknown: 0 };
  fc.assert(
    fc.property(
      policies(6),
      fc.array(request, { minLength: 10, maxLength: 20 }),
      fc.subarray(hidable),
      (list, calls, hidden) => {
        const snapshot = compileSnapshot({ ...meshOf(list, workloads), mode });
        const rejudge = createRejudge(snapshot, noon);
        for (const { host, hostPort, ...one } of calls) {
          const authority = hostPort === null ? host : `${host}:${hostPort}`;
          const asked = (one.protocol === 'http' ? { ...one, authority } : one) as RawCall;
          const partly = { call: asked, unknown: new Set(hidden), isHostPortUnknown: false };
          const replay = finish(replayCall(snapshot, partly, noon));
          const found = finish(rejudge.judge({ ...partly, paths: null }));
          seen[found.verdict] += 1;
          expect([found.verdict, found.dependsOn]).toEqual([replay.verdict, replay.dependsOn]);
          if (replay.reason !== null && found.reason !== null) expect(found.reason).toBe(replay.reason);
        }
      },
    ),
    { numRuns: 60 },
  );
  expect(Math.min(seen.allow, seen.deny, seen.unknown)).toBeGreaterThan(5);
});

const patterns = ['/', '/a', '/a/b', '/a*', '/a/*', '*/b', '*b', '*', '/{*}', '/a/{*}', '/{**}', '/{*}/b'];
const tried = ['/', '/a', '/a/', '/a/b', '/a/b/c', '/b', '/ab', '/b/b', '/c/a/b'];

test('what is told of all paths of a pattern holds of each', () => {
  const seen = { allow: 0, deny: 0, unknown: 0 };
  fc.assert(
    fc.property(
      policies(6),
      fc.array(request, { minLength: 6, maxLength: 12 }),
      fc.constantFrom(...patterns),
      fc.constantFrom(...patterns),
      (list, calls, text, wide) => {
        const more = readPolicies(
          policyText(`rules: [{ to: [{ operation: { paths: ['${wide}'] } }] }]`, 'wide'),
        );
        const snapshot = compileSnapshot(meshOf([...list.slice(0, 3), ...more], workloads));
        const rejudge = createRejudge(snapshot, noon);
        const paths = parsePathPattern(text)!;
        const fitting = tried.filter((path) => fits(text, path));
        for (const one of calls) {
          if (one.protocol === 'tcp') continue;
          const authority = one.hostPort === null ? one.host : `${one.host}:${one.hostPort}`;
          const asked = { ...one, authority } as RawCall;
          const partly = { call: asked, unknown: new Set<Attribute>(), isHostPortUnknown: false, paths };
          const found = finish(rejudge.judge(partly));
          seen[found.verdict] += 1;
          if (found.verdict === 'unknown') continue;
          for (const path of fitting) {
            expect(decide(snapshot, { ...one, path }, noon).verdict).toBe(found.verdict);
          }
        }
      },
    ),
    { numRuns: 150 },
  );
  expect(Math.min(seen.allow, seen.deny, seen.unknown)).toBeGreaterThan(5);
});

/** Another way to say it. */
function fits(pattern: string, path: string): boolean {
  const source = pattern
    .split(/(\{\*\*\}|\{\*\}|\*)/)
    .map((part) => ({ '{**}': '.*', '{*}': '[^/]+', '*': '.*' })[part] ?? part);
  return new RegExp(`^${source.join('')}$`).test(path);
}

const counted: Omit<CallToRejudge, 'unknown'> = {
  call: {
    ...{ protocol: 'http', source: web, destination: ledger, method: 'GET', path: '/', authority: 'unknown' },
    ...{ port: 8_080, context: untold },
  },
  isHostPortUnknown: false,
  paths: null,
};
const from = 'from: [{ source: { principals: [example.org/ns/shop/sa/web] } }]';
const byHeader = `${from}, when: [{ key: 'request.headers[x-a]', values: [a] }]`;
const headers: ReadonlySet<Attribute> = new Set(['request.headers']);

test.each<[string, string, boolean | undefined, string, string]>([
  ['an ALLOW rule that matched', `rules: [{ ${byHeader} }]`, true, 'allow', 'pay/p rule[0]'],
  ['an ALLOW rule that did not', `rules: [{ ${byHeader} }]`, false, 'deny', ''],
  ['an ALLOW rule of which nothing is known', `rules: [{ ${byHeader} }]`, undefined, 'unknown', ''],
  ['a DENY rule that matched', `action: DENY\nrules: [{ ${byHeader} }]`, true, 'deny', 'pay/p rule[0]'],
  [
    'a rule of another caller, whatever is said',
    "rules: [{ from: [{ source: { principals: ['*/job'] } }] }]",
    true,
    'deny',
    '',
  ],
  ['a rule that matches, whatever is said', `rules: [{ ${from} }]`, false, 'allow', 'pay/p rule[0]'],
])('a record shows of %s', (_, spec, shown, verdict, rule) => {
  const rejudge = createRejudge(compileSnapshot(meshOf(readPolicies(policyText(spec)))), noon);
  const found = finish(rejudge.judge({ ...counted, unknown: headers }, () => shown));
  expect(found).toMatchObject({ verdict, rule });
});

test.each<[string, string, string | null]>([
  [
    'a method',
    "to: [{ operation: { methods: [POST], paths: ['/'] } }]",
    'methods is POST, the call used GET',
  ],
  ['a header, of which nothing is known', "when: [{ key: 'request.headers[x-a]', values: [a] }]", null],
])('the nearest rule failed on %s', (_, part, missed) => {
  const spec = `rules: [{ ${part} }, { from: [{ source: { principals: ['*/job'] } }], to: [{ operation: { methods: [PUT] } }] }]`;
  const rejudge = createRejudge(compileSnapshot(meshOf(readPolicies(policyText(spec)))), noon);
  const near = finish(rejudge.nearest({ ...counted, unknown: headers }));
  expect(near?.missed ?? null).toBe(missed);
});

test('one call is judged as the door judges it, and rules have places', () => {
  const snapshot = compileSnapshot(meshOf(readPolicies(policyText(`rules: [{ ${from} }]`))));
  const { decision } = judgeCall(snapshot, counted.call, noon);
  expect(decide(snapshot, call(), noon).rule).toBe(decision.rule);
  expect(placeOfRule(snapshot, decision.rule)).toBe('p.yaml:5:11');
  expect(placeOfRule(snapshot, 'pay/p rule[1]')).toBe('');
});
