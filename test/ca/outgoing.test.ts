import { expect, test } from 'vitest';
import { outgoingIssuers, type RotationState, type Slot } from '../../src/ca/slot.ts';

const now = new Date('2026-01-01T00:00:00Z');

function slot(keyId: string, rootKeyId: string, state: Slot['state'], more: Partial<Slot> = {}): Slot {
  return {
    kind: keyId === rootKeyId ? 'root' : 'intermediate',
    keyId,
    rootKeyId,
    state,
    offline: false,
    tainted: false,
    publishedIn: 1,
    notBefore: new Date('2025-01-01T00:00:00Z'),
    notAfter: new Date('2027-01-01T00:00:00Z'),
    ...more,
  };
}

const active = [slot('r1', 'r1', 'active'), slot('i1', 'r1', 'active')];

test.each<[string, readonly Slot[], readonly string[]]>([
  ['the one that signs is not', active, []],
  ['one that waits for its turn is not', [...active, slot('i2', 'r1', 'prepared')], []],
  [
    'an ordinary successor leaves those before it to the end of their life',
    [...active, slot('i0', 'r1', 'retiring')],
    [],
  ],
  ['a tainted one is, at once', [...active, slot('i0', 'r1', 'retiring', { tainted: true })], ['i0!']],
  [
    'one that signs is not, though tainted: there is nothing in its place yet',
    [slot('r1', 'r1', 'active'), slot('i1', 'r1', 'active', { tainted: true })],
    [],
  ],
  [
    'those of the root before are, in time',
    [...active, slot('r0', 'r0', 'retiring'), slot('i0', 'r0', 'retiring')],
    ['i0'],
  ],
  [
    'those of a tainted root are, at once',
    [...active, slot('r0', 'r0', 'retiring', { tainted: true }), slot('i0', 'r0', 'retiring')],
    ['i0!'],
  ],
  [
    'those of a root that nobody is told to trust are, at once',
    [...active, slot('r0', 'r0', 'retired'), slot('i0', 'r0', 'retired')],
    ['i0!'],
  ],
  [
    'one that has ended is not: nothing it signed is valid',
    [...active, slot('r0', 'r0', 'retired'), slot('i0', 'r0', 'retired', { notAfter: now })],
    [],
  ],
])('of the CAs whose leaves are to be replaced: %s', (_, slots, expected) => {
  const state: RotationState = { slots, requested: null, sequence: 1 };
  const told = outgoingIssuers(state, now).map(({ keyId, urgent }) => `${keyId}${urgent ? '!' : ''}`);
  expect(told).toEqual(expected);
});

test('before the first CA signs nothing is to be replaced', () => {
  expect(outgoingIssuers({ slots: [], requested: null, sequence: 0 }, now)).toEqual([]);
});
