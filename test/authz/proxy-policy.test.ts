import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Decision } from '../../src/authz/decision.ts';
import { judgeCall } from '../../src/authz/judge.ts';
import { decideNaively } from '../../src/authz/naive.ts';
import { compileProxyPolicy, parseLeafName } from '../../src/authz/proxy-policy.ts';
import { compileSnapshot, type Snapshot, type SnapshotInput } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { RBAC as HttpRbac } from '../../src/wire/rbac_filter.ts';
import { RBAC as NetworkRbac } from '../../src/wire/rbac_network_filter.ts';
import { evaluateMatcher, verdictOfAction } from './envoy-tree.ts';
import { policies, workloads } from './generated.ts';
import { ledger, meshOf, noon } from './mesh.ts';
import { crowdedPolicies, idOf, ordinaryPolicies, type WorldCall, worldCall } from './proxy-world.ts';

const calls = fc.array(worldCall, { minLength: 20, maxLength: 30 });
type World = { readonly mesh: SnapshotInput; readonly snapshot: Snapshot };

/** What the door would say of a call. */
function judge({ mesh, snapshot }: World, call: WorldCall, protocol: 'http' | 'tcp'): Decision {
  const header = (name: string): string => call.headers.find(([each]) => each === name)?.[1] ?? '';
  const of = { source: idOf(call), destination: ledger, port: call.port ?? 0, context: call.context };
  const http = { method: header(':method'), path: header(':path'), authority: header(':authority') };
  const raw = protocol === 'http' ? { protocol, ...of, ...http } : { protocol, ...of };
  const { decision, request } = judgeCall(snapshot, raw, noon);
  // What was read as a request is judged by the specification too.
  if (request !== undefined) expect(decideNaively(mesh, request, noon).verdict).toBe(decision.verdict);
  return decision;
}

/** What asks whatever the policies say. */
const ofShape: ReadonlySet<string> = new Set(['path', 'host', 'method', 'caller', 'port']);

test.each([
  ['ordinary policies', ordinaryPolicies, 120, 0.9],
  ['policies that name many callers and paths', crowdedPolicies, 100, 0.95],
  ['everything the language has', policies(6), 120, 0.2],
])(
  'a tree says what the engine would, or asks: %s',
  (_, worlds, numRuns, least) => {
    const seen = { allow: 0, deny: 0, ask: 0 };
    let askedByRules = 0;
    fc.assert(
      fc.property(worlds, calls, (list, some) => {
        const mesh = meshOf(list, workloads);
        const snapshot = compileSnapshot(mesh);
        const made = finish(
          compileProxyPolicy({ snapshot, destination: ledger, bannedIds: [], asksAll: null }),
        );
        const matchers = {
          http: HttpRbac.decode(made.http).matcher,
          tcp: NetworkRbac.decode(made.tcp).matcher,
        };
        for (const protocol of ['http', 'tcp'] as const) {
          const matcher = matchers[protocol];
          if (matcher === undefined) throw new Error('a filter without a matcher lets everything pass');
          for (const call of some) {
            const action = evaluateMatcher(matcher, call);
            const verdict = verdictOfAction(action);
            const name = parseLeafName(action?.name ?? '');
            expect(name?.verdict).toBe(verdict);
            seen[verdict] += 1;
            if (verdict === 'ask') {
              if (!ofShape.has(name?.reason ?? '')) askedByRules += 1;
              continue;
            }
            const decision = judge({ mesh, snapshot }, call, protocol);
            expect({ verdict: decision.verdict, leaf: name }).toEqual({ verdict, leaf: name });
            // What must be recorded with the call is asked about.
            expect([decision.audited, decision.breakGlass, decision.shadow]).toEqual(['', '', null]);
            if (verdict === 'allow') {
              expect(list.flatMap(({ rules }) => rules).map((rule) => rule.name)).toContain(name?.rule);
            }
          }
        }
      }),
      { numRuns },
    );
    const decided = seen.allow + seen.deny;
    console.log(seen, 'asked by rules', askedByRules);
    // A tree that asks about everything would be right, and of no use.
    expect(decided / (decided + askedByRules)).toBeGreaterThan(least);
    expect(Math.min(seen.allow, seen.deny)).toBeGreaterThan(20);
  },
  180_000,
);
