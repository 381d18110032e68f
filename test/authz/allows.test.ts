import fc from 'fast-check';
import { expect, test } from 'vitest';
import { allows, allowsUnkept } from '../../src/authz/allows.ts';
import { decide } from '../../src/authz/decide.ts';
import {
  methodsOf,
  namedIn,
  pathsOf,
  type ReadNames,
  tokenSubjectsOf,
} from '../../src/authz/named-values.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { policies, request, workloads } from './generated.ts';
import { call, ledger, meshOf, noon, policyText, readPolicies } from './mesh.ts';

test('both ways of asking whether a call is allowed say what the engine decides', () => {
  const seen = { allow: 0, deny: 0 };
  fc.assert(
    fc.property(
      policies(8),
      fc.array(request, { minLength: 20, maxLength: 30 }),
      fc.boolean(),
      (list, calls, providersAnswer) => {
        const snapshot = compileSnapshot({ ...meshOf(list, workloads), providersAnswer });
        for (const one of calls) {
          // Before anything is remembered of the destination, and after.
          const unkept = finish(allowsUnkept(snapshot, one, noon));
          const { verdict } = decide(snapshot, one, noon);
          seen[verdict] += 1;
          const expected = verdict === 'allow';
          expect(unkept.allowed).toBe(expected);
          expect(unkept.work).toBeGreaterThan(0);
          expect(allows(snapshot, one, noon)).toBe(expected);
          expect(finish(allowsUnkept(snapshot, one, noon)).allowed).toBe(expected);
        }
      },
    ),
    { numRuns: 50 },
  );
  expect(Math.min(seen.allow, seen.deny)).toBeGreaterThan(20);
});

test('a call that an ALLOW rule matches and no other is allowed', () => {
  const snapshot = compileSnapshot(meshOf(readPolicies(policyText('rules: [{}]'))));
  expect(finish(allowsUnkept(snapshot, call(), noon)).allowed).toBe(true);
  expect(allows(snapshot, call(), noon)).toBe(true);
});

const rules = `rules:
  - from: [{ source: { requestPrincipals: [user/alice, 'user/b*', '*/carol', other/dan] } }]
    to: [{ operation: { methods: [GET, 'P*'], paths: [/a/1, '/a/*', '/t/{*}', '*/z'] } }]
    when: [{ key: 'request.auth.claims[sub]', values: [erin, 'f*'] }, { key: 'request.auth.claims[aud]', values: [gus] }]
  - to: [{ operation: { notMethods: [PUT], notPaths: [/a/2] } }]`;
const denials = `action: DENY
rules:
  - from: [{ source: { notRequestPrincipals: [user/hal] } }]
    to: [{ operation: { methods: [DELETE], hosts: [h] } }]`;

test.each<[string, ReadNames, string[]]>([
  ['methods', methodsOf, ['DELETE', 'GET', 'PUT']],
  ['paths', pathsOf, ['/a/1', '/a/2']],
  ['users', tokenSubjectsOf('user'), ['alice', 'erin', 'hal']],
  ['others', tokenSubjectsOf('other'), ['dan', 'erin']],
  ['nobody', tokenSubjectsOf('nobody'), ['erin']],
])('the rules of a destination name %s', (_, read, expected) => {
  const list = readPolicies([policyText(rules), policyText(denials, 'q')].join('---\n'));
  const snapshot = compileSnapshot(meshOf(list));
  expect([...finish(namedIn(finish(snapshot.rulesFor(ledger)), read))].toSorted()).toEqual(expected);
});
