import { expect, test } from 'vitest';
import { rotate } from '../../src/ca/rotation.ts';
import type { RotationEvent } from '../../src/ca/rotation-event.ts';
import { publishedRoots } from '../../src/ca/slot.ts';
import {
  activate,
  activated,
  after,
  at,
  evidence,
  first,
  intermediate,
  made,
  nobody,
  prepared,
  renewed,
  retire,
  retired,
  root,
  show,
  tell,
  tick,
} from './rotation-steps.ts';

test.each<[string, RotationEvent[], RotationEvent, number, string, string[]]>([
  // Nothing yet.
  [
    'the first keys are in force at once',
    [],
    first[0]!,
    1,
    'r1 active, i1 active @1',
    ['r1 created', 'i1 created', 'publish 1', 'sign with i1'],
  ],
  [
    'rotate before there is anything makes the first',
    [],
    { kind: 'rotate', scope: 'intermediate' },
    1,
    ' @0',
    ['make under a new root'],
  ],
  ['tick before there is anything does nothing', [], tick(), 1, ' @0', []],
  ['activate before there is anything', [], activate(), 1, ' @0', ['refuse rotation_out_of_order']],
  ['retire before there is anything', [], retire(), 1, ' @0', ['refuse rotation_out_of_order']],
  // Intermediates.
  [
    'rotate',
    first,
    { kind: 'rotate', scope: 'intermediate' },
    1,
    'r1 active, i1 active @1',
    ['make under r1'],
  ],
  [
    'a new intermediate of the active root signs at once, and the leaves of the old one stay',
    first,
    made(intermediate('i1b', 'r1')),
    1,
    'r1 active, i1 retiring, i1b active @1',
    ['i1b prepared', 'i1b activated', 'sign with i1b'],
  ],
  [
    'a key that was made already changes nothing',
    renewed,
    made(intermediate('i1b', 'r1')),
    1,
    'r1 active, i1 retiring, i1b active @1',
    [],
  ],
  [
    'a key for a root that is gone',
    retired,
    made(intermediate('ix', 'r1')),
    1,
    'r1 retired, i1 retired, r2 active, i2 active @3',
    ['refuse rotation_out_of_order'],
  ],
  [
    'a retiring intermediate stays while a leaf of it lives',
    renewed,
    tick(evidence({})),
    1,
    'r1 active, i1 retiring, i1b active @1',
    [],
  ],
  [
    'and goes when the last one is over',
    renewed,
    tick(evidence({})),
    2.1,
    'r1 active, i1 retired, i1b active @1',
    ['i1 retired', 'forget i1'],
  ],
  [
    'and when its last leaf was replaced',
    renewed,
    tick(evidence({ leaves: [{ issuerKeyId: 'i1b', notAfter: at(9) }] })),
    1,
    'r1 active, i1 retired, i1b active @1',
    ['i1 retired', 'forget i1'],
  ],
  [
    'but not while a leaf of an unknown issuer lives',
    renewed,
    tick(evidence({ leaves: [{ issuerKeyId: '', notAfter: at(9) }] })),
    1,
    'r1 active, i1 retiring, i1b active @1',
    [],
  ],
  // Schedule.
  ['an intermediate before two thirds of its life', first, tick(), 19.9, 'r1 active, i1 active @1', []],
  [
    'an intermediate at two thirds of its life',
    first,
    tick(),
    20,
    'r1 active, i1 active @1',
    ['make under r1'],
  ],
  [
    'a root with a quarter of its life left',
    [made(root('r1', 0, 100), intermediate('i1', 'r1', 70, 100))],
    tick(),
    76,
    'r1 active, i1 active @1',
    ['make under a new root'],
  ],
  [
    'no second one while a new root waits',
    [
      made(root('r1', 0, 100), intermediate('i1', 'r1', 70, 100)),
      made(root('r2', 70), intermediate('i2', 'r2', 70, 170)),
    ],
    tick(),
    76,
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    [],
  ],
  [
    'a waiting intermediate is renewed too',
    [made(root('r1'), intermediate('i1', 'r1', 0, 90)), made(root('r2'), intermediate('i2', 'r2', 0, 30))],
    tick(),
    21,
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['make under r2'],
  ],
  [
    'nothing by a clock that was moved',
    renewed,
    tick({ holders: [], doubt: 'put forward' }),
    3_000,
    'r1 active, i1 retiring, i1b active @1',
    [],
  ],
  // Roots.
  [
    'rotate --root',
    first,
    { kind: 'rotate', scope: 'root' },
    1,
    'r1 active, i1 active @1',
    ['make under a new root'],
  ],
  [
    'a new root is published and signs nothing',
    first,
    made(root('r2'), intermediate('i2', 'r2')),
    1,
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['r2 prepared', 'i2 prepared', 'publish 2'],
  ],
  [
    'rotate --root twice',
    prepared,
    { kind: 'rotate', scope: 'root' },
    1,
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['refuse rotation_out_of_order'],
  ],
  [
    'a third root at once',
    prepared,
    made(root('r3'), intermediate('i3', 'r3')),
    1,
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['refuse rotation_out_of_order'],
  ],
  [
    'a newer intermediate takes the place of the one that waits',
    prepared,
    made(intermediate('i2b', 'r2')),
    1,
    'r1 active, i1 active, r2 prepared, i2 retired, i2b prepared @2',
    ['i2b prepared', 'i2 retired', 'forget i2'],
  ],
  [
    'activate with nothing prepared',
    first,
    activate(),
    1,
    'r1 active, i1 active @1',
    ['refuse rotation_out_of_order'],
  ],
  [
    'activate while one has confirmed only the old bundle',
    prepared,
    activate(evidence({})),
    1,
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['refuse rotation_unproven'],
  ],
  [
    'activate while one has confirmed nothing',
    prepared,
    activate(evidence({ sequence: null })),
    1,
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['refuse rotation_unproven'],
  ],
  [
    'activate by a clock that was moved',
    prepared,
    activate({ holders: [], doubt: 'put forward' }),
    1,
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['refuse rotation_unproven'],
  ],
  [
    'activate an intermediate that is over',
    prepared,
    activate(),
    31,
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['refuse rotation_out_of_order'],
  ],
  [
    'activate when all have confirmed',
    prepared,
    activate(evidence({ sequence: 2 })),
    1,
    'r1 retiring, i1 retiring, r2 active, i2 active @2',
    ['r2 activated', 'i2 activated', 'sign with i2', 'reissue i1'],
  ],
  [
    'activate when whoever has not is over',
    prepared,
    activate(evidence({})),
    2,
    'r1 retiring, i1 retiring, r2 active, i2 active @2',
    ['r2 activated', 'i2 activated', 'sign with i2', 'reissue i1'],
  ],
  [
    'activate --force',
    prepared,
    activate(evidence({}), true),
    1,
    'r1 retiring, i1 retiring, r2 active, i2 active @2',
    ['r2 forced', 'i2 forced', 'sign with i2', 'reissue i1'],
  ],
  [
    'every leaf under the old root is reissued',
    [...renewed, made(root('r2'), intermediate('i2', 'r2'))],
    activate(),
    1,
    'r1 retiring, i1 retiring, i1b retiring, r2 active, i2 active @2',
    ['r2 activated', 'i2 activated', 'sign with i2', 'reissue i1 i1b'],
  ],
  [
    'retire with nothing old',
    first,
    retire(),
    1,
    'r1 active, i1 active @1',
    ['refuse rotation_out_of_order'],
  ],
  [
    'retire before activate',
    prepared,
    retire(),
    1,
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['refuse rotation_out_of_order'],
  ],
  [
    'retire while an old leaf may be presented',
    activated,
    retire(evidence({ sequence: 2 })),
    1,
    'r1 retiring, i1 retiring, r2 active, i2 active @2',
    ['refuse rotation_unproven'],
  ],
  [
    'retire while a leaf of an unknown issuer lives',
    activated,
    retire(evidence({ sequence: 2, leaves: [{ issuerKeyId: '', notAfter: at(2) }] })),
    1,
    'r1 retiring, i1 retiring, r2 active, i2 active @2',
    ['refuse rotation_unproven'],
  ],
  [
    'retire while one does not trust the new root',
    activated,
    retire(evidence({ leaves: [{ issuerKeyId: 'i2', notAfter: at(2) }] })),
    1,
    'r1 retiring, i1 retiring, r2 active, i2 active @2',
    ['refuse rotation_unproven'],
  ],
  [
    'retire by a clock that was moved',
    activated,
    retire({ holders: [], doubt: 'put forward' }),
    1,
    'r1 retiring, i1 retiring, r2 active, i2 active @2',
    ['refuse rotation_unproven'],
  ],
  [
    'retire when nobody needs the old one',
    activated,
    retire(evidence({ sequence: 2, leaves: [{ issuerKeyId: 'i2', notAfter: at(2) }] })),
    1,
    'r1 retired, i1 retired, r2 active, i2 active @3',
    ['r1 retired', 'i1 retired', 'publish 3', 'forget r1 i1'],
  ],
  [
    'retire when the old leaves are over',
    activated,
    retire(evidence({ sequence: 2 })),
    2,
    'r1 retired, i1 retired, r2 active, i2 active @3',
    ['r1 retired', 'i1 retired', 'publish 3', 'forget r1 i1'],
  ],
  [
    'retire --force',
    activated,
    retire(evidence({}), true),
    1,
    'r1 retired, i1 retired, r2 active, i2 active @3',
    ['r1 forced', 'i1 forced', 'publish 3', 'forget r1 i1'],
  ],
  [
    'retire twice',
    retired,
    retire(),
    1,
    'r1 retired, i1 retired, r2 active, i2 active @3',
    ['refuse rotation_out_of_order'],
  ],
])('%s', (_, before, event, days, state, effects) => {
  const [next, told] = rotate(after(...before), event, at(days));
  expect(show(next)).toBe(state);
  expect(told.map(tell)).toEqual(effects);
});

test('a refusal names everybody in the way, and why', () => {
  const proof = evidence(
    {},
    { spiffeId: 'spiffe://mesh.test/orders', node: '', sequence: null, lastSeen: null },
    { spiffeId: 'spiffe://mesh.test/fine', sequence: 2 },
  );
  const [, effects] = rotate(after(...prepared), activate(proof), at(1));
  expect(effects).toEqual([
    {
      kind: 'refuse',
      refusal: {
        code: 'rotation_unproven',
        why: 'not everybody trusts the new root yet',
        laggards: [
          {
            spiffeId: 'spiffe://mesh.test/web',
            node: 'n1',
            lastSeen: at(0),
            why: 'has confirmed bundle 1, not 2',
            until: at(2),
          },
          {
            spiffeId: 'spiffe://mesh.test/orders',
            node: '',
            lastSeen: null,
            why: 'has confirmed no bundle',
            until: at(2),
          },
        ],
      },
    },
  ]);
});

test('no more than eight roots are published', () => {
  let state = after(...first);
  for (let i = 2; i <= 8; i++) {
    [state] = rotate(state, made(root(`r${i}`), intermediate(`i${i}`, `r${i}`)), at(1));
    [state] = rotate(state, activate(nobody, true), at(1));
  }
  expect(publishedRoots(state)).toHaveLength(8);
  const [, effects] = rotate(state, { kind: 'rotate', scope: 'root' }, at(1));
  expect(effects.map(tell)).toEqual(['refuse rotation_out_of_order']);
});
