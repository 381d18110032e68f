import { expect, test } from 'vitest';
import { rotate } from '../../src/ca/rotation.ts';
import type { RotationEvent } from '../../src/ca/rotation-event.ts';
import {
  activated,
  after,
  at,
  first,
  intermediate,
  made,
  prepared,
  renewed,
  retired,
  show,
  taint,
  tell,
  tick,
} from './rotation-steps.ts';

test.each<[string, RotationEvent[], RotationEvent, number, string, string[]]>([
  [
    'taint what nobody knows',
    first,
    taint('ix'),
    1,
    'r1 active, i1 active @1',
    ['refuse authority_not_found'],
  ],
  [
    'taint what is retired',
    retired,
    taint('i1'),
    1,
    'r1 retired, i1 retired, r2 active, i2 active @3',
    ['refuse rotation_out_of_order'],
  ],
  [
    'taint the intermediate that signs',
    first,
    taint('i1'),
    1,
    'r1 active, i1 active! @1',
    ['i1 tainted', 'make under r1'],
  ],
  [
    'its successor replaces its leaves',
    [...first, taint('i1')],
    made(intermediate('i1b', 'r1')),
    1,
    'r1 active, i1 retiring!, i1b active @1',
    ['i1b prepared', 'i1b activated', 'sign with i1b', 'reissue i1'],
  ],
  [
    'a crash before there is one: tick asks again',
    [...first, taint('i1')],
    tick(),
    1,
    'r1 active, i1 active! @1',
    ['make under r1'],
  ],
  [
    'and so does taint',
    [...first, taint('i1')],
    taint('i1'),
    1,
    'r1 active, i1 active! @1',
    ['make under r1'],
  ],
  [
    'taint a retiring intermediate',
    renewed,
    taint('i1'),
    1,
    'r1 active, i1 retiring!, i1b active @1',
    ['i1 tainted', 'reissue i1'],
  ],
  [
    'taint a waiting intermediate',
    prepared,
    taint('i2'),
    1,
    'r1 active, i1 active, r2 prepared, i2 retired! @2',
    ['i2 tainted', 'i2 retired', 'forget i2', 'make under r2'],
  ],
  [
    'taint a waiting root',
    prepared,
    taint('r2'),
    1,
    'r1 active, i1 active, r2 retired!, i2 retired @3',
    ['r2 tainted', 'r2 retired', 'i2 retired', 'publish 3', 'forget r2 i2'],
  ],
  [
    'taint the active root',
    first,
    taint('r1'),
    1,
    'r1 active!, i1 active @1',
    ['r1 tainted', 'make under a new root'],
  ],
  [
    'taint the active root while another waits',
    prepared,
    taint('r1'),
    1,
    'r1 active!, i1 active, r2 prepared, i2 prepared @2',
    ['r1 tainted'],
  ],
  [
    'taint a retiring root',
    activated,
    taint('r1'),
    1,
    'r1 retiring!, i1 retiring, r2 active, i2 active @2',
    ['r1 tainted'],
  ],
])('%s', (_, before, event, days, state, effects) => {
  const [next, told] = rotate(after(...before), event, at(days));
  expect(show(next)).toBe(state);
  expect(told.map(tell)).toEqual(effects);
});
