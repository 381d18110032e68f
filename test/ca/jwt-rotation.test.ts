import { describe, expect, test } from 'vitest';
import { type JwtKeyEvent, rotateJwtKeys } from '../../src/ca/jwt-rotation.ts';
import { jwtSchedule, maxPublishedJwtKeys } from '../../src/ca/jwt-slot.ts';
import {
  activate,
  activated,
  after,
  at,
  day,
  first,
  made,
  prepared,
  proof,
  replace,
  retire,
  retired,
  rotate,
  show,
  type Story,
  taint,
  tell,
  tick,
} from './jwt-rotation-steps.ts';

type Arrow = readonly [
  what: string,
  from: Story,
  at: number,
  event: JwtKeyEvent,
  to: string,
  effects: string,
];
const doubt = proof({ doubt: 'the clock was moved' });

describe('every arrow', () => {
  test.each<Arrow>([
    ['the first key signs at once', [], 0, made('k1'), 'k1 active @1', 'k1 created; publish 1; sign with k1'],
    ['a first start asks for a key', [], 0, tick(), ' @0', 'make'],
    ['though the clock is in doubt', [], 0, tick(doubt), ' @0', 'make'],
    ['somebody asks for another', first, 10, rotate, 'k1 active @1', 'make'],
    [
      'which is published and signs nothing',
      first,
      10,
      made('k2'),
      'k1 active, k2 prepared @2',
      'k2 prepared; publish 2',
    ],
    ['a key that is made twice is one', first, 10, made('k1'), 'k1 active @1', ''],
    [
      'ten minutes later it may sign',
      prepared,
      1_600,
      activate(),
      'k1 retiring, k2 active @2',
      'k2 activated; sign with k2',
    ],
    [
      'or sooner by force',
      prepared,
      1_001,
      activate(doubt, true),
      'k1 retiring, k2 active @2',
      'k2 forced; sign with k2',
    ],
    [
      'a day later it signs by itself',
      prepared,
      1_000 + day,
      tick(),
      'k1 retiring, k2 active @2',
      'k2 activated; sign with k2',
    ],
    ['and not before', prepared, 999 + day, tick(), 'k1 active, k2 prepared @2', ''],
    [
      'nor when nobody could ask for it since',
      prepared,
      1_000 + day,
      tick(proof({ servedSince: 500 + day })),
      'k1 active, k2 prepared @2',
      '',
    ],
    ['nor when the clock is in doubt', prepared, 9 * day, tick(doubt), 'k1 active, k2 prepared @2', ''],
    [
      'a key without tokens goes ten minutes after it signed last',
      activated,
      2_200,
      retire(),
      'k1 retired, k2 active @3',
      'k1 retired; publish 3; forget k1',
    ],
    [
      'a key with tokens goes a minute after the last has expired',
      activated,
      5_060,
      retire(proof({ expiries: { k1: 5_000 } })),
      'k1 retired, k2 active @3',
      'k1 retired; publish 3; forget k1',
    ],
    [
      'or by itself',
      activated,
      5_060,
      tick(proof({ expiries: { k1: 5_000, k2: 9_000 } })),
      'k1 retired, k2 active @3',
      'k1 retired; publish 3; forget k1',
    ],
    [
      'not while one is valid somewhere',
      activated,
      5_059,
      tick(proof({ expiries: { k1: 5_000 } })),
      'k1 retiring, k2 active @2',
      '',
    ],
    [
      'or at once by force',
      activated,
      1_601,
      retire(proof({ expiries: { k1: 5_000 } }), true),
      'k1 retired, k2 active @3',
      'k1 forced; publish 3; forget k1',
    ],
    ['after 29 days the next one is made', first, 29 * day, tick(), 'k1 active @1', 'make'],
    ['and not before', first, 29 * day - 1, tick(), 'k1 active @1', ''],
    ['nor a second one', prepared, 29 * day, tick(doubt), 'k1 active, k2 prepared @2', ''],
  ])('%s', (_, from, seconds, event, to, effects) => {
    const [state, told] = rotateJwtKeys(after(from), event, at(seconds));
    expect([show(state), told.map(tell).join('; ')]).toEqual([to, effects]);
  });
});

describe('a stolen key', () => {
  test.each<Arrow>([
    [
      'that signs is believed by nobody, before anything else is tried',
      first,
      10,
      taint('k1'),
      'k1 retired @2',
      'k1 tainted; publish 2; forget k1; replace',
    ],
    ['is replaced by a new one', [...first, [10, taint('k1')]], 10, replace, 'k1 retired @2', 'make'],
    [
      'which signs at once',
      [...first, [10, taint('k1')]],
      11,
      made('k2'),
      'k1 retired, k2 active @3',
      'k2 prepared; publish 3; k2 activated; sign with k2',
    ],
    [
      'or by the prepared one, however new',
      [...prepared, [1_001, taint('k1')]],
      1_001,
      replace,
      'k1 retired, k2 active @3',
      'k2 activated; sign with k2',
    ],
    [
      'what a crash left undone the next tick does, in doubt or not',
      [...first, [10, taint('k1')]],
      99,
      tick(doubt),
      'k1 retired @2',
      'make',
    ],
    ['with another that signs nothing more is needed', first, 10, replace, 'k1 active @1', ''],
    [
      'that is prepared goes',
      prepared,
      1_001,
      taint('k2'),
      'k1 active, k2 retired @3',
      'k2 tainted; publish 3; forget k2',
    ],
    [
      'that is retiring goes, with its tokens',
      activated,
      1_601,
      taint('k1'),
      'k1 retired, k2 active @3',
      'k1 tainted; publish 3; forget k1',
    ],
  ])('%s', (_, from, seconds, event, to, effects) => {
    const [state, told] = rotateJwtKeys(after(from), event, at(seconds));
    expect([show(state), told.map(tell).join('; ')]).toEqual([to, effects]);
  });
});

test.each<[string, Story, number, JwtKeyEvent, string]>([
  ['a second key is prepared', prepared, 1_001, rotate, 'rotation_out_of_order'],
  ['a key was made while another was', prepared, 1_001, made('k3'), 'rotation_out_of_order'],
  ['nothing is prepared', first, 10, activate(), 'rotation_out_of_order'],
  ['nothing is prepared, by force', first, 10, activate(proof(), true), 'rotation_out_of_order'],
  ['a validator may not have the key', prepared, 1_599, activate(), 'rotation_unproven'],
  [
    'a validator could not ask for the key',
    prepared,
    1_600,
    activate(proof({ servedSince: 1_200 })),
    'rotation_unproven',
  ],
  ['the clock is in doubt', prepared, 9_999, activate(doubt), 'rotation_unproven'],
  ['the clock was put back', prepared, -9_999, activate(), 'rotation_unproven'],
  ['nothing is retiring', first, 10, retire(), 'rotation_out_of_order'],
  ['nothing is retiring, by force', retired, 9_999, retire(proof(), true), 'rotation_out_of_order'],
  ['the key has only just stopped', activated, 2_199, retire(), 'rotation_unproven'],
  ['a token is valid', activated, 5_059, retire(proof({ expiries: { k1: 5_000 } })), 'rotation_unproven'],
  ['retiring in doubt', activated, 9_999, retire(doubt), 'rotation_unproven'],
  ['nobody knows the key', first, 10, taint('k9'), 'authority_not_found'],
  ['the key is retired', retired, 9_999, taint('k1'), 'rotation_out_of_order'],
])('refused: %s', (_, from, seconds, event, code) => {
  const before = after(from);
  const [state, told] = rotateJwtKeys(before, event, at(seconds));
  expect(state).toBe(before);
  expect(told.map(tell)).toEqual([`refuse ${code}`]);
});

test('keys that are put in force faster than their tokens expire do not pile up', () => {
  let story: Story = first;
  for (let n = 2; n <= maxPublishedJwtKeys; n++) {
    story = [...story, [n, made(`k${n}`)], [n, activate(proof(), true)]];
  }
  const [, told] = rotateJwtKeys(after(story), rotate, at(99));
  expect(told.map(tell)).toEqual(['refuse rotation_out_of_order']);
  const valid = { expiries: Object.fromEntries([1, 2, 3, 4, 5, 6, 7].map((n) => [`k${n}`, 99 * day])) };
  const [, due] = rotateJwtKeys(after(story), tick(proof(valid)), at(40 * day));
  expect(due).toEqual([]);
});

test('the schedule names what comes next, and when', () => {
  const tell2 = (story: Story, evidence = proof()) =>
    jwtSchedule(after(story), evidence).map(
      ({ step, keyId, safeFrom, byItselfAt }) =>
        `${step} ${keyId} ${safeFrom.getTime() - at(0).getTime()} ${byItselfAt.getTime() - at(0).getTime()}`,
    );
  expect(tell2([])).toEqual([]);
  expect(tell2(first)).toEqual([`prepare null 0 ${29 * day * 1_000}`]);
  expect(tell2(prepared)).toEqual([`activate k2 1600000 ${(1_000 + day) * 1_000}`]);
  expect(tell2(activated, proof({ expiries: { k1: 5_000 } }))).toEqual([
    'retire k1 5060000 5060000',
    `prepare null 1600000 ${(1_600 + 29 * day) * 1_000}`,
  ]);
});
