import { expect, test } from 'vitest';
import { outlook } from '../../src/ca/outlook.ts';
import { rotate } from '../../src/ca/rotation.ts';
import type { RotationEvent } from '../../src/ca/rotation-event.ts';
import {
  activate,
  activated,
  after,
  at,
  evidence,
  first,
  imported,
  intermediate,
  made,
  nobody,
  offlineRoot,
  prepared,
  requested,
  retire,
  retired,
  root,
  show,
  taint,
  tell,
  tick,
} from './rotation-steps.ts';

// The root is kept elsewhere: what it is to sign goes out as a request and comes back by import.
const init: RotationEvent = { kind: 'rotate', scope: 'root', offline: true };
const rotateSigner: RotationEvent = { kind: 'rotate', scope: 'intermediate' };
const rotateRoot: RotationEvent = { kind: 'rotate', scope: 'root' };
const waiting = [requested('i1')];
const begun = [...waiting, imported(offlineRoot('r1'), intermediate('i1', 'r1'))];
const renewing = [...begun, requested('i2')];
const moved = [...renewing, imported(offlineRoot('r2', 1), intermediate('i2', 'r2'))];

test.each<[string, readonly RotationEvent[], RotationEvent, string, readonly string[]]>([
  ['a new directory asks for a key', [], init, ' @0', ['request']],
  ['the key waits', [], requested('i1'), 'i1 waits,  @0', ['i1 requested']],
  ['told twice, it waits once', waiting, requested('i1'), 'i1 waits,  @0', []],
  [
    'a second key does not wait beside it',
    waiting,
    requested('i2'),
    'i1 waits,  @0',
    ['refuse rotation_out_of_order'],
  ],
  ['no second one is asked for', waiting, init, 'i1 waits,  @0', ['refuse rotation_out_of_order']],
  [
    'the first import is in force at once',
    waiting,
    imported(offlineRoot('r1'), intermediate('i1', 'r1')),
    'r1 active, i1 active @1',
    ['r1 created', 'i1 created', 'publish 1', 'sign with i1'],
  ],
  [
    'a certificate for another key is refused',
    waiting,
    imported(offlineRoot('r1'), intermediate('i9', 'r1')),
    'i1 waits,  @0',
    ['refuse csr_not_waiting'],
  ],
  [
    'a certificate nobody waits for is refused',
    begun,
    imported(offlineRoot('r1'), intermediate('i9', 'r1')),
    'r1 active, i1 active @1',
    ['refuse csr_not_waiting'],
  ],
  ['an intermediate is asked for, not made', begun, rotateSigner, 'r1 active, i1 active @1', ['request']],
  ['a root is asked for, not made', begun, rotateRoot, 'r1 active, i1 active @1', ['request']],
  [
    'under the same root it signs at once',
    renewing,
    imported(offlineRoot('r1'), intermediate('i2', 'r1', 1, 31)),
    'r1 active, i1 retiring, i2 active @1',
    ['i2 prepared', 'i2 activated', 'sign with i2'],
  ],
  [
    'under a new root it is prepared and published',
    renewing,
    imported(offlineRoot('r2', 1), intermediate('i2', 'r2')),
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['r2 prepared', 'i2 prepared', 'publish 2'],
  ],
  [
    'it is activated on evidence, as any root',
    moved,
    activate(evidence({ sequence: 1 })),
    'r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['refuse rotation_unproven'],
  ],
  [
    'and with it',
    moved,
    activate(evidence({ sequence: 2 })),
    'r1 retiring, i1 retiring, r2 active, i2 active @2',
    ['r2 activated', 'i2 activated', 'sign with i2', 'reissue i1'],
  ],
  [
    'a third root does not come before the second is in force',
    [...moved, requested('i3')],
    imported(offlineRoot('r3', 1), intermediate('i3', 'r3')),
    'i3 waits, r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['refuse rotation_out_of_order'],
  ],
  [
    'another intermediate under the prepared root takes the place of the first',
    [...moved, requested('i3')],
    imported(offlineRoot('r2', 1), intermediate('i3', 'r2', 2, 32)),
    'r1 active, i1 active, r2 prepared, i2 retired, i3 prepared @2',
    ['i3 prepared', 'i2 retired', 'forget i2'],
  ],
  [
    'one under a root that is on its way out is refused',
    [...moved, activate(), requested('i3')],
    imported(offlineRoot('r1'), intermediate('i3', 'r1')),
    'i3 waits, r1 retiring, i1 retiring, r2 active, i2 active @2',
    ['refuse rotation_out_of_order'],
  ],
  [
    'and one under a root that is gone',
    [...moved, activate(), retire(), requested('i3')],
    imported(offlineRoot('r1'), intermediate('i3', 'r1')),
    'i3 waits, r1 retired, i1 retired, r2 active, i2 active @3',
    ['refuse rotation_out_of_order'],
  ],
  [
    'a key that waits and is tainted goes at once',
    waiting,
    taint('i1'),
    ' @0',
    ['i1 tainted', 'forget i1', 'request'],
  ],
  [
    'a tainted signer is asked for anew',
    begun,
    taint('i1'),
    'r1 active, i1 active! @1',
    ['i1 tainted', 'request'],
  ],
  [
    'once: while one waits there is no second',
    renewing,
    taint('i1'),
    'i2 waits, r1 active, i1 active! @1',
    ['i1 tainted'],
  ],
  [
    'what replaces it re-issues its leaves',
    [...begun, taint('i1'), requested('i2')],
    imported(offlineRoot('r1'), intermediate('i2', 'r1', 1, 31)),
    'r1 active, i1 retiring!, i2 active @1',
    ['i2 prepared', 'i2 activated', 'sign with i2', 'reissue i1'],
  ],
  [
    'a tainted root is asked for anew',
    begun,
    taint('r1'),
    'r1 active!, i1 active @1',
    ['r1 tainted', 'request'],
  ],
  ['from a root kept here to one kept elsewhere', first, init, 'r1 active, i1 active @1', ['request']],
  [
    'a root kept here is still rotated here while a key waits',
    [...first, requested('i9')],
    rotateRoot,
    'i9 waits, r1 active, i1 active @1',
    ['make under a new root'],
  ],
  [
    'and its intermediate renewed here',
    [...first, requested('i9')],
    rotateSigner,
    'i9 waits, r1 active, i1 active @1',
    ['make under r1'],
  ],
  [
    'an import beside a root that was prepared here is refused',
    [...prepared, requested('i9')],
    imported(offlineRoot('r9', 1), intermediate('i9', 'r9')),
    'i9 waits, r1 active, i1 active, r2 prepared, i2 prepared @2',
    ['refuse rotation_out_of_order'],
  ],
  [
    'an import under a root that is kept here is an intermediate like any other',
    [...first, requested('i9')],
    imported(root('r1'), intermediate('i9', 'r1', 1, 31)),
    'r1 active, i1 retiring, i9 active @1',
    ['i9 prepared', 'i9 activated', 'sign with i9'],
  ],
  [
    'keys that were made elsewhere do not come as made here',
    activated,
    made(intermediate('x', 'r9')),
    show(after(...activated)),
    ['refuse rotation_out_of_order'],
  ],
])('%s', (_, before, event, expected, effects) => {
  const [state, told] = rotate(after(...before), event, at(1.5));
  expect(show(state)).toBe(expected);
  expect(told.map(tell)).toEqual(effects);
});

test.each<[string, readonly RotationEvent[], number, readonly string[]]>([
  ['nothing before two thirds of its life', begun, 19, []],
  ['a request at two thirds', begun, 20.5, ['request']],
  ['one only', renewing, 20.5, []],
  ['and none for as long as it waits', renewing, 29, []],
  [
    'also when the root ends with it',
    [...waiting, imported(offlineRoot('r1', 0, 30), intermediate('i1', 'r1'))],
    21,
    ['request'],
  ],
  [
    'at a quarter of the life of the root too',
    [...waiting, imported(offlineRoot('r1', 0, 40), intermediate('i1', 'r1', 0, 40))],
    31,
    ['request'],
  ],
  [
    'for a prepared root whose intermediate grows old',
    [
      ...waiting,
      imported(offlineRoot('r1', 0, 3_650), intermediate('i1', 'r1', 0, 90)),
      requested('i2'),
      imported(offlineRoot('r2', 0), intermediate('i2', 'r2', 0, 30)),
    ],
    21,
    ['request'],
  ],
  ['never for a root that is kept here', retired, 21, ['make under r2']],
])('by the calendar: %s', (_, events, days, effects) => {
  expect(rotate(after(...events), tick(nobody), at(days))[1].map(tell)).toEqual(effects);
});

test.each<[string, readonly RotationEvent[], number, string | null, string | null]>([
  ['nothing waits', begun, 29, null, null],
  ['something waits and there is time', renewing, 15, null, null],
  ['a third is left', renewing, 20.5, 'in 9 days', null],
  ['a day is left', renewing, 29, 'in 24 hours', null],
  ['minutes are left', renewing, 29.98, 'in 28 minutes', null],
  ['none is left', renewing, 29.9999, null, 'ended at'],
  ['it is over', begun, 31, null, 'ended at'],
  ['no CA yet', waiting, 1, null, null],
])('outlook when %s', (_, events, days, warning, ended) => {
  const found = outlook(after(...events), at(days));
  if (warning === null) expect(found.warnings).toEqual([]);
  else expect(found.warnings).toEqual([expect.stringContaining(warning)]);
  if (ended === null) expect(found.ended).toBeNull();
  else expect(found.ended).toContain(ended);
});
