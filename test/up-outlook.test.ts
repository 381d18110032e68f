import { expect, test } from 'vitest';
import { MeshError } from '../src/errors.ts';
import type { X509Svid } from '../src/identity/credentials.ts';
import type { RegistrationEntry } from '../src/identity/entry.ts';
import type { KeptState } from '../src/identity/keeper.ts';
import { SpiffeId } from '../src/spiffe/id.ts';
import { workloadOutlooks } from '../src/up-outlook.ts';

const now = new Date('2027-01-01T00:00:00Z');
const inSeconds = (seconds: number) => new Date(now.getTime() + seconds * 1_000);

test('the first to go dark stands first, with what ends it', () => {
  const outlooks = workloadOutlooks({
    states: [
      state('late', { until: 7_200 }),
      state('soon', { until: 60 }),
      state('entry', { until: 7_200, entryUntil: 600 }),
      state('none', { failure: new MeshError('server_unreachable', 'away') }),
      state('over', { until: -5 }),
    ],
    waiting: [[entry('cached'), svid('cached', 30)]],
    policyUntil: inSeconds(3_600),
    now,
  });
  expect(
    outlooks.map(({ entryId, darkBy, darkInSeconds, failure, serial }) => [
      entryId,
      darkBy,
      darkInSeconds,
      failure,
      serial,
    ]),
  ).toEqual([
    ['over', 'certificate', 0, '', '0a'],
    ['none', 'certificate', 0, 'server_unreachable', ''],
    ['cached', 'certificate', 30, '', '0a'],
    ['soon', 'certificate', 60, '', '0a'],
    ['entry', 'entry', 600, '', '0a'],
    ['late', 'policy', 3_600, '', '0a'],
  ]);
  expect(outlooks.find(({ entryId }) => entryId === 'cached')?.renewsAt).toBeNull();
});

test('our own doors and what nobody waits for are left out', () => {
  const states = [state('countersign.server', { until: 60 }), { ...state('gone', {}), dueAt: null }];
  expect(workloadOutlooks({ states, policyUntil: null, now })).toEqual([]);
});

test('the message of a failure of ours stays inside', () => {
  const [outlook] = workloadOutlooks({
    states: [state('web', { failure: new Error('/secret/path') })],
    policyUntil: null,
    now,
  });
  expect(outlook).toMatchObject({ failure: 'internal', serial: '', expiresAt: null });
});

type Shape = { readonly until?: number; readonly entryUntil?: number; readonly failure?: unknown };

function state(id: string, { until, entryUntil, failure }: Shape): KeptState {
  return {
    entry: { ...entry(id), expiresAt: entryUntil === undefined ? null : inSeconds(entryUntil) },
    svid: until === undefined ? undefined : svid(id, until),
    dueAt: inSeconds(10),
    failure,
  };
}

function entry(id: string): RegistrationEntry {
  return {
    id,
    spiffeId: SpiffeId.parseWorkload(`spiffe://mesh.test/${id}`),
    selectors: [],
    ttlSeconds: 3_600,
    dnsNames: [],
    labels: {},
    hint: '',
    expiresAt: null,
    revision: 1,
  };
}

function svid(id: string, until: number): X509Svid {
  return {
    id: SpiffeId.parseWorkload(`spiffe://mesh.test/${id}`),
    certificates: [],
    privateKey: new Uint8Array(0),
    serial: '0a',
    issuerKeyId: 'ef',
    notBefore: now,
    notAfter: inSeconds(until),
    hint: '',
    entryId: id,
  };
}
