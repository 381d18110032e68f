import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { PolicyMode } from '../../src/authz/policy-mode.ts';
import type { PolicyDocument } from '../../src/identity/mesh.ts';
import {
  policySetId,
  type PolicySigner,
  signRevision,
  withoutReason,
} from '../../src/identity/policy-revision.ts';
import {
  type CandidateChanges,
  type Rollout,
  type RolloutState,
  signRollout,
} from '../../src/identity/rollout.ts';
import { applyDelta, diffViews, type NodeView, withoutRollout } from '../../src/identity/view.ts';
import { createPolicyGuard } from '../../src/node/policy-guard.ts';
import { rolloutFromWire, rolloutToWire } from '../../src/node/rollout-wire.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { PolicyRollout as WireRollout } from '../../src/wire/node.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const [signer, other] = [makePolicySigner(), makePolicySigner()];
const time = new Date('2026-01-31T12:00:00.000Z');
const documentOf = (key: string, source: string): PolicyDocument => ({
  key,
  source,
  file: 'p.yaml',
  line: 1,
  sha256: createHash('sha256').update(source).digest('hex'),
  revision: 1,
});
const [one, two, third] = [
  documentOf('shop/a', 'one'),
  documentOf('shop/a', 'two'),
  documentOf('shop/b', 'x'),
];
const mapOf = (...documents: PolicyDocument[]) => new Map(documents.map((each) => [each.key, each]));
const system = { kind: 'system' } as const;

type Change = {
  readonly number?: number;
  /** Undefined: no rollout. */
  readonly step?: number | undefined;
  readonly state?: Partial<RolloutState>;
  readonly changes?: CandidateChanges;
  readonly by?: PolicySigner;
  readonly tweak?: Partial<Rollout>;
  readonly domain?: TrustDomain;
  readonly mode?: PolicyMode;
};

/** Policies `one` and `third` in force, `two` in place of `one` tried beside them, all signed unless told otherwise. */
async function viewOf(change: Change): Promise<NodeView> {
  const { number = 5, step, changes = { put: [two], deleted: [] }, by = signer, mode = 'strict' } = change;
  const policies = mapOf(one, third);
  const revision = await signRevision(
    signer,
    trustDomain,
    { number, id: policySetId(policies, mode), parent: null, time },
    { author: system, message: '', restores: null },
  );
  const base = {
    revision: 1,
    entries: new Map(),
    bans: new Map(),
    policies,
    policyRevision: withoutReason(revision),
  };
  const bundle = { trustDomain } as never;
  if (step === undefined) return { mesh: base, bundle } as unknown as NodeView;
  const state: RolloutState = {
    id: 'ab'.repeat(16),
    base: number,
    step,
    stage: 'shadow',
    percent: 0,
    maxNewDenials: 0,
    candidate: policySetId(mapOf(two, third), mode),
    time,
    ...change.state,
  };
  const reason = { author: system, message: '', cause: '' };
  const signed = await signRollout(by, change.domain ?? trustDomain, state, reason);
  const rollout = { state: { ...signed, ...change.tweak }, changes };
  return { mesh: { ...base, rollout }, bundle } as unknown as NodeView;
}

async function guardAt(change: Change) {
  const guard = createPolicyGuard();
  const view = await viewOf(change);
  guard.demand(view);
  guard.enforce(view);
  return guard;
}

const ended: Change = { step: 4, state: { stage: 'ended' }, changes: { put: [], deleted: [] } };
const canary: Change = { step: 4, state: { stage: 'canary', percent: 5 } };

describe('after step 3 beside revision 5', () => {
  test.each<[string, Change]>([
    ['the same again', { step: 3 }],
    ['the next', canary],
    ['the end', ended],
    ['a much later step', { step: 300 }],
    ['a later revision without one', { number: 6 }],
    ['a later revision with its first', { number: 6, step: 1 }],
  ])('is taken: %s', async (_, change) => {
    (await guardAt({ step: 3 })).demand(await viewOf(change));
  });

  test.each<[string, string, Change]>([
    ['none', 'policy_replayed', {}],
    ['the step before', 'policy_replayed', { step: 2 }],
    ['another share under the same step', 'policy_replayed', { ...canary, step: 3 }],
    ['an end under the same step', 'policy_replayed', { ...ended, step: 3 }],
    ['an earlier revision with a later step', 'policy_replayed', { number: 4, step: 9 }],
    ['one of another revision', 'policy_revision_invalid', { step: 4, state: { base: 4 } }],
    ['one of a revision to come', 'policy_revision_invalid', { step: 4, state: { base: 6 } }],
    ['one that another key signed', 'policy_revision_invalid', { step: 4, by: other }],
    [
      'one of another key that names ours',
      'policy_revision_invalid',
      { step: 4, by: other, tweak: { publicKey: signer.publicKey } },
    ],
    ['a share that was not signed', 'policy_revision_invalid', { ...canary, tweak: { percent: 100 } }],
    [
      'a stage that was not signed',
      'policy_revision_invalid',
      { step: 4, tweak: { stage: 'canary', percent: 9 } },
    ],
    ['a budget that was not signed', 'policy_revision_invalid', { ...canary, tweak: { maxNewDenials: 9 } }],
    ['an old one under a new step', 'policy_revision_invalid', { step: 2, tweak: { step: 4 } }],
    ['one of another mesh', 'policy_revision_invalid', { step: 4, domain: TrustDomain.parse('other.test') }],
    ['another candidate', 'policy_revision_invalid', { step: 4, changes: { put: [], deleted: ['shop/b'] } }],
    [
      'what is in force as candidate',
      'policy_revision_invalid',
      { step: 4, changes: { put: [], deleted: [] } },
    ],
    [
      'a text that says it is the candidate',
      'policy_revision_invalid',
      { step: 4, changes: { put: [{ ...one, sha256: two.sha256 }], deleted: [] } },
    ],
    [
      'a candidate that is read in another mode',
      'policy_revision_invalid',
      { step: 4, state: { candidate: policySetId(mapOf(two, third), 'istio') } },
    ],
  ])('is refused: %s', async (_, code, change) => {
    const guard = await guardAt({ step: 3 });
    const view = await viewOf(change);
    expect(() => guard.demand(view)).toThrow(expect.objectContaining({ code }));
    guard.demand(await viewOf({ step: 4 }));
  });

  test('once it has ended, the one before is refused too', async () => {
    const guard = await guardAt(ended);
    const view = await viewOf({ step: 3 });
    expect(() => guard.demand(view)).toThrow(expect.objectContaining({ code: 'policy_replayed' }));
  });
});

test('in Istio mode the candidate is read so as well', async () => {
  (await guardAt({ mode: 'istio' })).demand(await viewOf({ mode: 'istio', step: 1 }));
});

describe('in views', () => {
  const settings = { trustDomain: 'mesh.test' } as never;
  const rest = {
    revision: 1,
    bundle: { sequence: 1, trustDomain },
    jwtBundle: { sequence: 1 },
    crls: [],
    outgoing: [],
    settings,
  };
  const whole = async (change: Change) => ({ ...(await viewOf(change)), ...rest }) as unknown as NodeView;

  test('each step is a delta, the candidate is told once, and is the same object until it ends', async () => {
    let held = await whole({});
    for (const change of [{ step: 1 }, { ...canary, step: 2 }, { ...ended, step: 3 }] as Change[]) {
      const next = await whole(change);
      const delta = diffViews(held, next)!;
      expect(delta.rollout?.changes.put.length).toBe(change.step === 1 ? 1 : 0);
      const after = applyDelta(held, delta);
      expect(after.mesh.rollout).toEqual(next.mesh.rollout);
      if (change.step === 2) expect(after.mesh.rollout?.changes).toBe(held.mesh.rollout?.changes);
      held = { ...after, revision: 1 };
    }
    expect(diffViews(held, await whole({ ...ended, step: 3 }))).toBeUndefined();
  });

  test('another revision leaves none', async () => {
    const held = await whole({ step: 1 });
    const delta = diffViews(held, await whole({ number: 6 }))!;
    expect(delta.rollout).toBeUndefined();
    expect(applyDelta(held, delta).mesh.rollout).toBeUndefined();
  });

  test('for agents that do not know of rollouts there is none, and no news of one', async () => {
    const [held, next] = [withoutRollout(await whole({})), withoutRollout(await whole({ step: 1 }))];
    expect([next.mesh.rollout, diffViews(held, next)]).toEqual([undefined, undefined]);
  });
});

describe('on the wire', () => {
  const sent = async (change: Change = canary) => (await viewOf(change)).mesh.rollout!;

  test.each<[string, Change]>([
    ['shadow', { step: 1 }],
    ['canary', canary],
    ['end', ended],
    ['one that lacks a policy', { step: 1, changes: { put: [two], deleted: ['shop/b'] } }],
  ])('%s comes as it went', async (_, change) => {
    const bytes = WireRollout.encode(rolloutToWire(await sent(change))).finish();
    expect(rolloutFromWire(WireRollout.decode(bytes))).toEqual(await sent(change));
  });

  test.each<[string, Partial<WireRollout>]>([
    ['no id', { id: '' }],
    ['an id in capitals', { id: 'AB'.repeat(16) }],
    ['no base', { base: 0n }],
    ['no step', { step: 0n }],
    ['a step below nothing', { step: -1n }],
    ['a stage that there is not', { stage: 'enforced' }],
    ['a share of more than all', { percent: 101n }],
    ['a share of none in canary', { percent: 0n }],
    ['a share in shadow', { stage: 'shadow' }],
    ['a budget that is too large', { maxNewDenials: 1_000_001n }],
    ['no candidate', { candidate: '' }],
    ['no record', { recordSha256: '' }],
    ['a policy that it has and lacks', { deletePolicies: ['shop/a'] }],
    ['an end with a candidate', { stage: 'ended', percent: 0n }],
    ['a time before 1970', { timeMs: -1n }],
  ])('is refused with %s', async (_, change) => {
    const wire = { ...rolloutToWire(await sent()), ...change };
    expect(() => rolloutFromWire(wire)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^(view|message)_invalid$/) }),
    );
  });
});
