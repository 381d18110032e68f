import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decideNaively } from '../../src/authz/naive.ts';
import { judgeCall } from '../../src/authz/judge.ts';
import type { Policy } from '../../src/authz/policy.ts';
import { compileProxyPolicy, parseLeafName } from '../../src/authz/proxy-policy.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { RBAC } from '../../src/wire/rbac_filter.ts';
import { RBAC as NetworkRbac } from '../../src/wire/rbac_network_filter.ts';
import { evaluateMatcher, verdictOfAction } from './envoy-tree.ts';
import { policies, workloads } from './generated.ts';
import { ledger, meshOf, noon } from './mesh.ts';
import { idOf, ordinaryPolicies, type WorldCall, worldCall } from './proxy-world.ts';

const calls = fc.array(worldCall, { minLength: 20, maxLength: 40 });

/** What the door would say of a call. */
function judge(
  mesh: ReturnType<typeof meshOf>,
  list: readonly Policy[],
  call: WorldCall,
  protocol: 'http' | 'tcp',
) {
  const source = idOf(call);
  const header = (name: string): string => call.headers.find(([each]) => each === name)?.[1] ?? '';
  const of = { source, destination: ledger, port: call.port ?? 0, context: call.context };
  const raw =
    protocol === 'http'
      ? { protocol, ...of, method: header(':method'), path: header(':path'), authority: header(':authority') }
      : { protocol, ...of };
  const { decision, request } = judgeCall(compileSnapshot(mesh), raw, noon);
  // What was read as a request is judged by the specification too.
  if (request !== undefined) expect(decideNaively(mesh, request, noon).verdict).toBe(decision.verdict);
  return decision;
}

test.each([
  ['ordinary policies', ordinaryPolicies, 0.8],
  ['everything the language has', policies(6), 0.1],
])('a tree says what the engine would, or asks: %s', (_, worlds, least) => {
  const seen = { allow: 0, deny: 0, ask: 0 };
  const plain = { asked: 0, all: 0 };
  fc.assert(
    fc.property(worlds, calls, (list, some) => {
      const mesh = meshOf(list, workloads);
      const snapshot = compileSnapshot(mesh);
      const made = finish(
        compileProxyPolicy({ snapshot, destination: ledger, bannedIds: [], asksAll: null }),
      );
      for (const protocol of ['http', 'tcp'] as const) {
        const matcher =
          protocol === 'http' ? RBAC.decode(made.http).matcher : NetworkRbac.decode(made.tcp).matcher;
        for (const call of some) {
          const action = evaluateMatcher(matcher!, call);
          const verdict = verdictOfAction(action);
          seen[verdict] += 1;
          if (action !== null && !action.name.startsWith('ask:')) {
            plain.all += 1;
          } else if (
            !['ask:path', 'ask:host', 'ask:method', 'ask:caller', 'ask:port'].includes(action?.name ?? '')
          ) {
            plain.all += 1;
            plain.asked += 1;
          }
          const name = parseLeafName(action?.name ?? '');
          expect(name?.verdict).toBe(verdict);
          if (verdict === 'ask') continue;
          const decision = judge(mesh, list, call, protocol);
          expect(decision.verdict, action?.name).toBe(verdict);
          expect([decision.audited, decision.breakGlass, decision.shadow]).toEqual(['', '', null]);
        }
      }
    }),
    { numRuns: 300 },
  );
  console.log(seen, plain, 1 - plain.asked / plain.all);
  expect(1 - plain.asked / plain.all).toBeGreaterThan(least);
  expect(seen.allow).toBeGreaterThan(100);
  expect(seen.deny).toBeGreaterThan(100);
});
