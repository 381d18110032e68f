import { afterEach, beforeEach, expect, test } from 'vitest';
import { type ErrorCode, MeshError } from '../../src/errors.ts';
import { noBans } from '../../src/identity/ban-list.ts';
import type { X509Svid } from '../../src/identity/credentials.ts';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import { createKeeper, type Keeper } from '../../src/identity/keeper.ts';
import { renewalSpreadMs } from '../../src/identity/renewal-spread.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { makeShown } from '../node/node-certificates.ts';
import { makeTestAuthority } from '../ca/test-authority.ts';
import { type ManualClock, manualClock, settle } from '../harness/manual-clock.ts';

const attestation = { selectors: [], caller: { pid: 1, uid: 1, gid: 1 } };

let clock: ManualClock;
let keeper: Keeper;
let signer: string;
let issued: { readonly id: string; readonly by: string; readonly atMs: number }[];
let draw: () => number;
let before: X509Svid | undefined;
/** Runs while a certificate is being made. */
let meanwhile: () => void;
/** Whether failures are. */
let expected: boolean;

beforeEach(() => {
  clock = manualClock();
  signer = 'old';
  issued = [];
  draw = () => 0.5;
  before = undefined;
  expected = false;
  meanwhile = () => undefined;
  const startMs = clock.now().getTime();
  keeper = createKeeper({
    issue: async ({ entry: { id, ttlSeconds } }) => {
      const issuerKeyId = signer;
      const now = clock.now();
      issued.push({ id, by: issuerKeyId, atMs: now.getTime() - startMs });
      meanwhile();
      return {
        certificates: [new Uint8Array([issued.length])],
        serial: `${issued.length}`,
        issuerKeyId,
        notBefore: now,
        notAfter: new Date(now.getTime() + ttlSeconds * 1_000),
      };
    },
    generateKeyPair: async () => ({ publicKey: new Uint8Array(1), privateKey: new Uint8Array(1) }),
    bans: () => noBans,
    onChange: () => () => undefined,
    clock,
    random: () => draw(),
    recall: () => before,
    onForgotten: (svid) => {
      before = svid;
    },
    onFailure: (_, error) => {
      if (!expected) throw error;
    },
  });
});

afterEach(() => keeper.close());

function hold(id: string, ttlSeconds: number) {
  const trustDomain = TrustDomain.parse('mesh.test');
  const input = { id, spiffeId: `spiffe://mesh.test/${id}`, selectors: ['unix:uid:1'], ttlSeconds };
  return keeper.hold(parseEntry(input, { trustDomain, ttlSeconds }, 1), attestation, () => undefined);
}

function replace(): void {
  signer = 'new';
  keeper.reissue(['old']);
}

test.each<[string, number, number, number]>([
  ['a long life: within a minute', 3_600, 1, 60_000],
  ['a long life, early in the minute', 3_600, 0.1, 6_000],
  ['a short life: within a tenth of it', 100, 1, 10_000],
  ['at once', 100, 0, 0],
])('%s', async (_, ttlSeconds, drawn, atMs) => {
  hold('web', ttlSeconds);
  await settle();
  draw = () => drawn;
  replace();
  await settle();
  await clock.advance(60_000);
  expect(issued[1]).toEqual({ id: 'web', by: 'new', atMs });
});

test('a certificate that was signed while its CA was replaced is replaced too', async () => {
  meanwhile = () => {
    meanwhile = () => undefined;
    replace();
  };
  hold('web', 100);
  await settle();
  await clock.advance(10_000);
  expect(issued.map(({ by }) => by)).toEqual(['old', 'new']);
});

test.each<[string, ErrorCode, number]>([
  ['a server that is away is asked again soon', 'store_unavailable', 15_000],
  ['one whose proof is not believed is asked every few minutes', 'audit_signature_invalid', 300_000],
  ['one that has no proof likewise', 'issuance_unproven', 300_000],
  ['one whose proof is of something else likewise', 'audit_proof_invalid', 300_000],
  ['one whose proof is no note likewise', 'audit_note_invalid', 300_000],
])('%s: %s', async (_, code, longestMs) => {
  expected = true;
  draw = () => 1;
  meanwhile = () => {
    throw new MeshError(code, 'is refused');
  };
  hold('web', 3_600);
  await settle();
  for (let step = 0; step < 200; step++) await clock.advance(10_000);
  const waits = issued.map(({ atMs }, at) => atMs - (issued[at - 1]?.atMs ?? atMs));
  expect(waits.slice(0, 4)).toEqual([0, 250, 500, 1_000]);
  expect(Math.max(...waits)).toBe(longestMs);
});

test('one of another CA is left alone', async () => {
  signer = 'other';
  hold('web', 100);
  await settle();
  replace();
  await clock.advance(20_000);
  expect(issued.map(({ by }) => by)).toEqual(['other']);
});

test('one that nobody holds is not given to anybody again', async () => {
  const lease = hold('web', 100);
  await settle();
  lease.release();
  await settle();
  replace();
  const again = hold('web', 100);
  expect(again.svid()).toBeUndefined();
  await settle();
  expect(again.svid()?.issuerKeyId).toBe('new');
});

test('many are spread, and all are replaced within the minute', async () => {
  let draws = 0;
  draw = () => (draws++ % 10) / 10;
  for (let i = 0; i < 100; i++) hold(`w${i}`, 3_600);
  await settle();
  replace();
  await clock.advance(30_000);
  expect(issued.filter(({ by }) => by === 'new').length).toBeGreaterThan(30);
  expect(issued.filter(({ by }) => by === 'new').length).toBeLessThan(70);
  await clock.advance(30_000);
  expect(issued.filter(({ by }) => by === 'new')).toHaveLength(100);
});

test('a large fleet asks its CA over a quarter of what is left, and not within a minute', async () => {
  let draws = 0;
  draw = () => (draws++ % 20) / 20;
  for (let i = 0; i < 100; i++) hold(`w${i}`, 3_600);
  await settle();
  signer = 'new';
  keeper.reissue(['old'], { nodes: 10_000 });
  const made = () => issued.filter(({ by }) => by === 'new').length;
  await clock.advance(60_000);
  expect(made()).toBeLessThan(20);
  await clock.advance(840_000);
  expect(made()).toBe(100);
});

test.each([
  [0, 0, 5],
  [1, 0, 5],
  [1, 1_000, 5.06],
  [1, 10_000, 50.06],
  [80, 0, 5],
  [1_000, 0, 60],
  [1_000, 10, 110],
  [10_000, 0, 600],
  [10_000, 10, 1_100],
  [100_000, 10, 3_600],
  [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, 3_600],
])('%d nodes with %d certificates each spread them over %d s', (nodes, certificates, seconds) => {
  expect(renewalSpreadMs(nodes, certificates)).toBe(seconds * 1_000);
});

test.each([
  ['one node is done within seconds', 1, 10, 5_000],
  ['of a thousand nodes each takes its share of a minute, and of what all have', 1_000, 10, 110_000],
])('%s', async (_, nodes, count, withinMs) => {
  for (let i = 0; i < count; i++) hold(`w${i}`, 3_600);
  await settle();
  signer = 'new';
  let draws = 0;
  // The last one draws the end of it.
  draw = () => ++draws / count;
  keeper.reissue(['old'], { nodes });
  await clock.advance(withinMs / 2);
  const made = () => issued.filter(({ by }) => by === 'new').length;
  expect(made()).toBeGreaterThan(count / 3);
  expect(made()).toBeLessThan((count * 2) / 3);
  await clock.advance(withinMs / 2 - 1);
  expect(made()).toBeLessThan(count);
  draw = () => 0.5;
  await clock.advance(1);
  expect(made()).toBe(count);
});

test('what was begun gently is hurried by a taint, and what is hurried stays so', async () => {
  draw = () => 1;
  hold('web', 3_600);
  await settle();
  signer = 'new';
  keeper.reissue(['old'], { nodes: 10_000 });
  await clock.advance(60_000);
  expect(issued).toHaveLength(1);
  keeper.reissue(['old']);
  keeper.reissue(['old'], { nodes: 10_000 });
  await clock.advance(60_000);
  expect(issued.map(({ by }) => by)).toEqual(['old', 'new']);
});

test('saying the same again does not bring it forward', async () => {
  draw = () => 1;
  hold('web', 3_600);
  await settle();
  signer = 'new';
  keeper.reissue(['old'], { nodes: 10_000 });
  draw = () => 0;
  for (let i = 0; i < 50; i++) keeper.reissue(['old'], { nodes: 10_000 });
  await clock.advance(60_000);
  expect(issued).toHaveLength(1);
});

test('what nobody has held for a while is given out, and taken back when its workload is there again', async () => {
  const lease = hold('web', 3_600);
  await settle();
  lease.release();
  await clock.advance(31_000);
  expect(before).toMatchObject({ entryId: 'web', serial: '1' });
});

test('one of an earlier process is replaced, too, when its CA is tainted, however late somebody asks for it', async () => {
  const ours = await makeTestAuthority(new Date(clock.now().getTime() - 86_400_000), {}, 'mesh.test');
  const { certificates } = await makeShown(ours, '/web', clock.now());
  before = {
    id: SpiffeId.parseWorkload('spiffe://mesh.test/web'),
    certificates,
    privateKey: new Uint8Array(1),
    serial: 'a1',
    issuerKeyId: 'old',
    notBefore: clock.now(),
    notAfter: new Date(clock.now().getTime() + 3_600_000),
    hint: '',
    entryId: 'web',
  };
  signer = 'new';
  keeper.reissue(['old']);
  const lease = hold('web', 3_600);
  await settle();
  expect(lease.svid()?.serial).toBe('a1');
  await clock.advance(60_000);
  expect(lease.svid()?.issuerKeyId).toBe('new');
});
