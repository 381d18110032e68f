import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  canaryShare,
  nextRollout,
  type Rollout,
  type RolloutCommand,
  rolloutStatement,
  signRollout,
} from '../../src/identity/rollout.ts';
import { verifyRollout } from '../../src/identity/policy-signature.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const [signer, other] = [makePolicySigner(), makePolicySigner()];
const time = new Date('2026-01-31T12:00:00.000Z');
const [inForce, candidate] = ['11'.repeat(32), '22'.repeat(32)];
const active = { number: 7, id: inForce };
const reason = { author: { kind: 'system' }, message: '', cause: '' } as const;
const stateOf = (change: Partial<Rollout> = {}): Rollout => ({
  id: 'ab'.repeat(16),
  base: 7,
  step: 3,
  stage: 'shadow',
  percent: 0,
  maxNewDenials: 0,
  candidate,
  time,
  recordSha256: '33'.repeat(32),
  publicKey: '',
  signature: '',
  ...change,
});
const shadow = stateOf();
const canary = stateOf({ stage: 'canary', percent: 5, maxNewDenials: 2 });
const ended = stateOf({ stage: 'ended', percent: 0 });
const ofBefore = stateOf({ base: 6, stage: 'canary', percent: 5 });
const stage: RolloutCommand = { kind: 'stage', candidate };
const end: RolloutCommand = { kind: 'end' };
const share = (percent: number, maxNewDenials?: number): RolloutCommand => ({
  kind: 'canary',
  percent,
  maxNewDenials,
});

describe('a step leads', () => {
  test.each<[string, Rollout | undefined, RolloutCommand, Partial<Rollout>]>([
    [
      'from nothing to shadow',
      undefined,
      stage,
      { step: 1, stage: 'shadow', percent: 0, base: 7, candidate },
    ],
    ['from the end of another to shadow', ended, stage, { step: 4, stage: 'shadow' }],
    ['from one beside an earlier revision to shadow', ofBefore, stage, { step: 1, stage: 'shadow' }],
    ['from shadow to canary', shadow, share(5), { step: 4, stage: 'canary', percent: 5, maxNewDenials: 0 }],
    ['from shadow to all of them', shadow, share(100, 9), { percent: 100, maxNewDenials: 9 }],
    [
      'to a larger share, with the same budget',
      canary,
      share(50),
      { step: 4, percent: 50, maxNewDenials: 2 },
    ],
    ['to a smaller share', canary, share(1), { step: 4, percent: 1 }],
    ['to the same share with another budget', canary, share(5, 0), { percent: 5, maxNewDenials: 0 }],
    ['from shadow to the end', shadow, end, { step: 4, stage: 'ended', percent: 0 }],
    ['from canary to the end', canary, end, { step: 4, stage: 'ended', percent: 0 }],
  ])('%s', (_, before, command, expected) => {
    const next = nextRollout(before, active, command, time);
    expect(next).toMatchObject(expected);
    if (command.kind !== 'stage') expect(next.id).toBe(before?.id);
  });

  test.each<[string, Rollout | undefined, RolloutCommand, string]>([
    ['a second beside one in shadow', shadow, stage, 'policy_rollout_active'],
    ['a second beside one in canary', canary, stage, 'policy_rollout_active'],
    ['what is in force already', undefined, { kind: 'stage', candidate: inForce }, 'policy_rollout_invalid'],
    ['a canary of nothing', undefined, share(5), 'policy_rollout_none'],
    ['a canary after the end', ended, share(5), 'policy_rollout_none'],
    ['a canary beside another revision', ofBefore, share(5), 'policy_rollout_none'],
    ['an end of nothing', undefined, end, 'policy_rollout_none'],
    ['an end after the end', ended, end, 'policy_rollout_none'],
    ['an end beside another revision', ofBefore, end, 'policy_rollout_none'],
    ['no share', shadow, share(0), 'policy_rollout_invalid'],
    ['more than all', shadow, share(101), 'policy_rollout_invalid'],
    ['a part of a percent', shadow, share(0.5), 'policy_rollout_invalid'],
    ['no number', shadow, share(Number.NaN), 'policy_rollout_invalid'],
    ['the share that it has', canary, share(5), 'policy_rollout_invalid'],
    ['a budget below none', shadow, share(5, -1), 'policy_rollout_invalid'],
    ['a budget beyond the most', shadow, share(5, 1_000_001), 'policy_rollout_invalid'],
    ['a part of a call', shadow, share(5, 0.5), 'policy_rollout_invalid'],
  ])('nowhere: %s', (_, before, command, code) => {
    expect(() => nextRollout(before, active, command, time)).toThrow(expect.objectContaining({ code }));
  });

  test('and a second of the same candidate has an id of its own', () => {
    const ids = [undefined, ended].map((before) => nextRollout(before, active, stage, time).id);
    expect(new Set(ids).size).toBe(2);
  });
});

describe('the canary', () => {
  const idOf = (n: number) => SpiffeId.parse(`spiffe://mesh.test/ns/shop/sa/w${n}`);
  const rolloutId = fc.nat().map((n) => n.toString(16).padStart(32, '0'));

  test('keeps whom it has when it grows, and has everybody at 100', () => {
    fc.assert(
      fc.property(rolloutId, fc.nat(), fc.integer({ min: 1, max: 100 }), (id, n, percent) => {
        const at = canaryShare(id, idOf(n));
        expect(at).toBeGreaterThanOrEqual(0);
        expect(at).toBeLessThan(100);
        const isIn = (of: number) => at < of;
        if (isIn(percent)) for (let more = percent; more <= 100; more++) expect(isIn(more)).toBe(true);
        expect(canaryShare(id, idOf(n))).toBe(at);
      }),
    );
  });

  test('has the share that was asked for', () => {
    const shares = Array.from({ length: 20_000 }, (_, n) => canaryShare('ab'.repeat(16), idOf(n)));
    for (const percent of [1, 5, 25, 50, 90]) {
      const part = (shares.filter((at) => at < percent).length / shares.length) * 100;
      expect(Math.abs(part - percent)).toBeLessThan(1.5);
    }
  });

  test('of another rollout has others', () => {
    const inBoth = Array.from({ length: 1_000 }, (_, n) => idOf(n)).filter(
      (id) => canaryShare('ab'.repeat(16), id) < 10 && canaryShare('cd'.repeat(16), id) < 10,
    );
    expect(inBoth.length).toBeLessThan(50);
  });
});

describe('the signature', () => {
  const signed = () => signRollout(signer, trustDomain, nextRollout(shadow, active, share(5), time), reason);

  test('is that of the policy key', async () => {
    expect(verifyRollout(trustDomain, await signed())).toBe(true);
    expect(new TextDecoder().decode(rolloutStatement(trustDomain, await signed()))).toMatch(
      /^countersign policy rollout v1\n\{"base":7,/,
    );
  });

  test.each<[string, Partial<Rollout>]>([
    ['another share', { percent: 6 }],
    ['another stage', { stage: 'shadow' }],
    ['another budget', { maxNewDenials: 1 }],
    ['another candidate', { candidate: inForce }],
    ['another revision', { base: 8 }],
    ['another step', { step: 5 }],
    ['another id', { id: 'cd'.repeat(16) }],
    ['another time', { time: new Date(0) }],
    ['another reason', { recordSha256: inForce }],
    ['another key', { publicKey: other.publicKey }],
    ['none', { signature: '' }],
  ])('does not hold for %s', async (_, change) => {
    expect(verifyRollout(trustDomain, { ...(await signed()), ...change })).toBe(false);
  });

  test('does not hold in another trust domain', async () => {
    expect(verifyRollout(TrustDomain.parse('other.test'), await signed())).toBe(false);
  });
});
