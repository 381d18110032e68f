import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { RawCall } from '../../src/authz/istio-mode.ts';
import { judgeCall } from '../../src/authz/judge.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import type { PolicyMode } from '../../src/authz/policy-mode.ts';
import { compileSnapshot, type Snapshot } from '../../src/authz/snapshot.ts';
import { concernsDestination, type LiveRollout } from '../../src/identity/candidate.ts';
import { canaryShare, type Rollout } from '../../src/identity/rollout.ts';
import { createRolloutGate } from '../../src/identity/rollout-gate.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { readDocuments } from '../../src/yaml.ts';

const now = new Date('2026-01-31T12:00:00.000Z');
const trustDomain = TrustDomain.parse('mesh.test');
const idOf = (name: string) => SpiffeId.parse(`spiffe://mesh.test/ns/shop/sa/${name}`);
const [web, orders, other] = [idOf('web'), idOf('orders'), idOf('other')];
const rolloutId = 'ab'.repeat(16);
const fail = (error: unknown): never => {
  throw error;
};

/** `ALLOW GET` and the like, a policy each. */
function snapshotOf(specs: readonly string[], mode: PolicyMode = 'strict', previous?: Snapshot): Snapshot {
  const policies = specs.map((spec, at) => {
    const [action, method, app = ''] = spec.split(' ');
    const selector = app === '' ? '' : `selector: { matchLabels: { app: ${app} } }, `;
    const known = previous?.policy(`shop/p${at}`);
    const text = `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p${at}, namespace: shop},
      spec: {${selector}action: ${action}, rules: [{to: [{operation: {methods: [${method}]}}]}]}}`;
    return readDocuments({ file: 'p.yaml', text }).map((document) => {
      const policy = parsePolicy(document);
      const isSame =
        JSON.stringify(known?.rules) === JSON.stringify(policy.rules) && known?.action === action;
      return isSame && known !== undefined ? known : policy;
    });
  });
  return compileSnapshot({
    revision: 3,
    mode,
    trustDomain,
    rootNamespace: 'istio-system',
    policies: policies.flat(),
    workloads: [orders, other].map((id) => ({ id, labels: { app: id.text.split('/').at(-1) ?? '' } })),
    ...(previous === undefined ? {} : { previous }),
  });
}

function live(snapshot: Snapshot, change: Partial<Rollout> = {}): LiveRollout {
  const rollout: Rollout = {
    id: rolloutId,
    base: 1,
    step: 2,
    stage: 'shadow',
    percent: 0,
    maxNewDenials: 0,
    candidate: '',
    time: now,
    recordSha256: '',
    publicKey: '',
    signature: '',
    ...change,
  };
  return { rollout, candidate: { policies: new Map(), snapshot } };
}

const callOf = (method: string, destination = orders, source: SpiffeId | null = web): RawCall => ({
  protocol: 'http',
  source,
  destination,
  port: 8_080,
  method,
  path: '/a',
  authority: 'orders.shop',
});

function judgeWith(active: Snapshot, beside: LiveRollout, gate = createRolloutGate(fail)) {
  return (call: RawCall) => gate.judge(beside, active, call, judgeCall(active, call, now), now).decision;
}

const methods = fc.constantFrom('GET', 'POST', 'PUT');
const specs = fc.array(
  fc.tuple(fc.constantFrom('ALLOW', 'DENY'), methods).map((words) => words.join(' ')),
  { maxLength: 4 },
);
const modes = fc.constantFrom<PolicyMode>('strict', 'istio');
const calls = fc.record({
  method: methods,
  to: fc.constantFrom(orders, other),
  from: fc.constantFrom(web, null),
});

describe('whatever the policies and the call', () => {
  test('a shadow changes no verdict, and tells both', () => {
    fc.assert(
      fc.property(specs, specs, modes, fc.array(calls, { maxLength: 6 }), (before, after, mode, made) => {
        const active = snapshotOf(before, mode);
        const candidate = snapshotOf(after, mode, active);
        const judge = judgeWith(active, live(candidate));
        for (const { method, to, from } of made) {
          const call = callOf(method, to, from);
          const alone = judgeCall(active, call, now).decision;
          const { rollout, ...decision } = judge(call);
          expect(decision).toEqual(alone);
          expect(rollout?.applied).toBe('active');
          expect(rollout?.candidate.verdict).toBe(judgeCall(candidate, call, now).decision.verdict);
        }
      }),
      { numRuns: 60 },
    );
  });

  test('a canary without a budget denies nothing that is allowed', () => {
    fc.assert(
      fc.property(specs, specs, modes, fc.array(calls, { maxLength: 6 }), (before, after, mode, made) => {
        const active = snapshotOf(before, mode);
        const judge = judgeWith(
          active,
          live(snapshotOf(after, mode, active), { stage: 'canary', percent: 100 }),
        );
        for (const { method, to, from } of made) {
          const call = callOf(method, to, from);
          if (judgeCall(active, call, now).decision.verdict === 'allow') {
            expect(judge(call).verdict).toBe('allow');
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  test('a canary decides for exactly its share', () => {
    const active = snapshotOf(['ALLOW GET']);
    const candidate = snapshotOf(['ALLOW GET', 'ALLOW POST'], 'strict', active);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.nat({ max: 999 }), (percent, n) => {
        const destination = idOf(`w${n}`);
        const judge = judgeWith(active, live(candidate, { stage: 'canary', percent }));
        const isIn = canaryShare(rolloutId, destination) < percent;
        expect(judge(callOf('POST', destination)).verdict).toBe(isIn ? 'allow' : 'deny');
      }),
    );
  });
});

describe('of newly denied calls in the canary', () => {
  const active = snapshotOf(['ALLOW GET']);
  const candidate = snapshotOf(['ALLOW POST'], 'strict', active);

  test.each<[number, string[]]>([
    [0, ['fallback allow', 'fallback allow', 'fallback allow', 'fallback allow']],
    [1, ['candidate deny', 'fallback allow', 'fallback allow', 'fallback allow']],
    [3, ['candidate deny', 'candidate deny', 'candidate deny', 'fallback allow']],
  ])('%i are denied, and then what is in force decides', (maxNewDenials, expected) => {
    const judge = judgeWith(active, live(candidate, { stage: 'canary', percent: 100, maxNewDenials }));
    const told = expected.map(() => judge(callOf('GET')));
    expect(told.map(({ verdict, rollout }) => `${rollout?.applied} ${verdict}`)).toEqual(expected);
  });

  test('those of one destination make no other fall back, but the budget is one', () => {
    const judge = judgeWith(active, live(candidate, { stage: 'canary', percent: 100 }));
    expect(judge(callOf('GET', orders)).rollout?.applied).toBe('fallback');
    expect(judge(callOf('POST', orders)).verdict).toBe('deny');
    expect(judge(callOf('POST', other)).verdict).toBe('allow');
    expect(judge(callOf('GET', other)).rollout?.applied).toBe('fallback');
  });

  test('none is counted in shadow, nor outside of the share', () => {
    const gate = createRolloutGate(fail);
    const shadowed = judgeWith(active, live(candidate), gate);
    for (let n = 0; n < 3; n++) expect(shadowed(callOf('GET')).rollout?.applied).toBe('active');
    const judge = judgeWith(
      active,
      live(candidate, { stage: 'canary', percent: 100, maxNewDenials: 1 }),
      gate,
    );
    expect(judge(callOf('GET')).verdict).toBe('deny');
  });

  test('another rollout begins anew', () => {
    const gate = createRolloutGate(fail);
    const at = { stage: 'canary', percent: 100 } as const;
    expect(judgeWith(active, live(candidate, at), gate)(callOf('GET')).rollout?.applied).toBe('fallback');
    const next = live(candidate, { ...at, id: 'cd'.repeat(16), maxNewDenials: 1 });
    expect(judgeWith(active, next, gate)(callOf('GET')).rollout?.applied).toBe('candidate');
  });

  test('what the candidate fails on is none of its denials', () => {
    const broken = new Proxy(candidate, {
      get: (target, name) => {
        if (name === 'appliedTo') throw new Error('broken');
        return Reflect.get(target, name, target) as unknown;
      },
    });
    const errors: unknown[] = [];
    const gate = createRolloutGate((error) => errors.push(error));
    const at = { stage: 'canary', percent: 100, maxNewDenials: 9 } as const;
    expect(judgeWith(active, live(broken, at), gate)(callOf('GET')).verdict).toBe('allow');
    expect(errors).toHaveLength(1);
  });
});

test('a call that was denied before any policy is no candidate matter', () => {
  const active = snapshotOf(['ALLOW GET']);
  const judge = judgeWith(active, live(snapshotOf([], 'strict', active)));
  expect(judge(callOf('GET', orders, null)).rollout?.candidate.reason).toBe('unauthenticated');
  expect(judge({ ...callOf('GET'), path: '/a//../b' } as RawCall).rollout).toBeUndefined();
});

test('a destination that the change is not about is judged once', () => {
  const active = snapshotOf(['ALLOW GET', 'ALLOW POST orders']);
  const candidate = snapshotOf(['ALLOW GET', 'DENY POST orders'], 'strict', active);
  expect(concernsDestination(active, candidate, orders)).toBe(true);
  expect(concernsDestination(active, candidate, other)).toBe(false);
  const judge = judgeWith(active, live(candidate));
  const { rollout } = judge(callOf('GET', other));
  expect(rollout?.candidate).toBe(rollout?.active);
});
