import { describe, expect, test } from 'vitest';
import type { CandidateCallsEvent } from '../../src/audit/rollout-event.ts';
import { compileStoredMesh } from '../../src/identity/current-mesh.ts';
import {
  createRolloutTally,
  demandNoDenials,
  findEnding,
  maxEdges,
  type RolloutCounts,
} from '../../src/identity/rollout-tally.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { candidateCalls } from '../audit/rollout-events.ts';

const source = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: read, namespace: pay }
spec: { rules: [{}] }
`;
const document = { key: 'pay/read', source, file: 'pay.yaml', line: 1, sha256: '', revision: 1 };
const current = compileStoredMesh(
  { revision: 1, entries: new Map(), bans: new Map(), policies: new Map([[document.key, document]]) },
  { trustDomain: TrustDomain.parse('example.org'), rootNamespace: 'istio-system', ttlSeconds: 3_600 },
);

function tallyOf(...events: Partial<CandidateCallsEvent>[]) {
  const tally = createRolloutTally();
  for (const event of events) tally.add(candidateCalls(event), current);
  return tally.counts();
}

describe('a tally', () => {
  test('adds up calls by edge, with the place of the rule', () => {
    const { edges, ...counts } = tallyOf(
      { count: 3 },
      { count: 2, caller: { pid: 9, uid: 9, gid: 9 }, applied: 'candidate' },
      { count: 1, applied: 'fallback' },
      { count: 4, change: 'newly_allowed', method: 'PUT' },
      { count: 100, change: 'same' },
    );
    expect(counts).toEqual({ judged: 110, newlyDenied: 6, newlyAllowed: 4, denied: 2, fallenBack: 1 });
    expect(edges).toMatchObject([
      { change: 'newly_denied', calls: 6, decided: 2, rule: 'pay/read rule[0]', candidatePlace: '' },
      { change: 'newly_allowed', calls: 4, method: 'PUT' },
    ]);
    expect(edges[0]?.rulePlace).toMatch(/^pay\.yaml:4:/);
  });

  test('holds so many edges, and counts the calls of all', () => {
    const many = Array.from({ length: maxEdges + 5 }, (_, n) => ({ count: 1, method: `M${n}` }));
    const { edges, newlyDenied } = tallyOf(...many);
    expect([edges.length, newlyDenied]).toEqual([maxEdges, maxEdges + 5]);
  });
});

describe('a rollout with a budget of 5', () => {
  const none = tallyOf();
  const after = (denied: number): RolloutCounts => ({ ...none, denied });
  test.each<[string, Partial<CandidateCallsEvent>, number, boolean]>([
    ['goes on after what would be denied in shadow', { applied: 'active' }, 0, false],
    ['goes on after calls that both agree on', { change: 'same' }, 0, false],
    ['goes on after what is newly allowed', { change: 'newly_allowed', applied: 'candidate' }, 0, false],
    ['goes on after denials within the budget', { applied: 'candidate' }, 5, false],
    ['ends after one denial more, on all nodes together', { applied: 'candidate' }, 6, true],
    ['ends after a call that a door has saved', { applied: 'fallback' }, 0, true],
    [
      'goes on after a newly allowed call that fell back',
      { change: 'newly_allowed', applied: 'fallback' },
      0,
      false,
    ],
  ])('%s', (_, event, denied, ends) => {
    const found = findEnding(candidateCalls(event), after(denied), 5, current);
    expect(found !== undefined).toBe(ends);
    if (ends) expect(found).toMatchObject({ rule: 'pay/read rule[0]', isAllowed: true, node: '' });
  });

  test('names the rule of the candidate where one denies, and the node', () => {
    const event = candidateCalls({
      applied: 'fallback',
      candidateRule: 'pay/deny rule[0]',
      caller: { pid: 1, uid: 1, gid: 1, node: 'web-1' },
    });
    expect(findEnding(event, none, 5, current)).toMatchObject({
      rule: 'pay/deny rule[0]',
      isAllowed: false,
      node: 'web-1',
    });
  });
});

describe('a candidate is put in force', () => {
  test('after calls that it judges alike, or newly allows', () => {
    demandNoDenials(tallyOf());
    demandNoDenials(tallyOf({ change: 'same' }, { change: 'newly_allowed' }));
  });

  test('not after newly denied ones, of which three are named', () => {
    const counts = tallyOf(...Array.from({ length: 5 }, (_, n) => ({ method: `M${n}`, count: 9 - n })));
    expect(() => demandNoDenials(counts)).toThrow(
      expect.objectContaining({
        code: 'policy_rollout_denials',
        message: expect.stringMatching(/^35 calls were .* M0 .* M1 .* M2 .*, and 2 more kinds$/),
      }),
    );
  });
});
