import { afterEach, beforeEach, expect, test } from 'vitest';
import { MeshError } from '../../src/errors.ts';
import { noBans } from '../../src/identity/ban-list.ts';
import type { WorkloadCredentials } from '../../src/identity/credentials.ts';
import type { RegistrationEntry } from '../../src/identity/entry.ts';
import type { Attestation } from '../../src/identity/evidence.ts';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import type { IssueX509 } from '../../src/identity/issuer.ts';
import { createKeeper, type Keeper } from '../../src/identity/keeper.ts';
import { createNotice } from '../../src/identity/notice.ts';
import { indexEntries } from '../../src/identity/registry.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { createWatch } from '../../src/identity/watch.ts';
import type { TrustBundle } from '../../src/spiffe/bundle.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { type ManualClock, manualClock, settle } from '../harness/manual-clock.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const bundle: TrustBundle = { trustDomain, x509Authorities: [new Uint8Array([1])], sequence: 1 };

let clock: ManualClock;
let keeper: Keeper;
let entries: RegistrationEntry[];
let issued: { entryId: string; pid: number; at: Date }[];
let failing: boolean;
let signer: string;
let failures: unknown[];
let aheadMs: number;
let atOnce: number;
let mostAtOnce: number;
let stop: AbortController;
const changed = createNotice();

const issue: IssueX509 = async ({ entry: { id, ttlSeconds }, attestation }) => {
  atOnce += 1;
  mostAtOnce = Math.max(mostAtOnce, atOnce);
  await new Promise((resolve) => setImmediate(resolve));
  atOnce -= 1;
  if (failing) throw new MeshError('store_unavailable', 'the disk is full');
  const now = clock.now();
  issued.push({ entryId: id, pid: attestation.caller.pid, at: now });
  return {
    certificates: [new Uint8Array([issued.length])],
    serial: `${issued.length}`,
    issuerKeyId: signer,
    notBefore: new Date(now.getTime() + aheadMs),
    notAfter: new Date(now.getTime() + aheadMs + ttlSeconds * 1_000),
  };
};

beforeEach(() => {
  clock = manualClock();
  entries = [];
  issued = [];
  failing = false;
  signer = 'aa';
  failures = [];
  [aheadMs, atOnce, mostAtOnce] = [0, 0, 0];
  stop = new AbortController();
  keeper = createKeeper({
    issue,
    generateKeyPair: async () => ({ publicKey: new Uint8Array(1), privateKey: new Uint8Array(1) }),
    bans: () => noBans,
    onChange: changed.subscribe,
    clock,
    random: () => 0.5,
    onFailure: (_, error) => failures.push(error),
  });
});

afterEach(() => {
  stop.abort();
  keeper.close();
});

function entry(id: string, selectors: readonly string[], change: object = {}): RegistrationEntry {
  return parseEntry(
    { id, spiffeId: `spiffe://mesh.test/${id}`, selectors, ttlSeconds: 100, ...change },
    { trustDomain, ttlSeconds: 100 },
    1,
  );
}

function setEntries(...next: RegistrationEntry[]): Promise<void> {
  entries = next;
  changed.announce();
  return settle();
}

function attested(uid: number, pid = 1): Attestation {
  return { selectors: [parseSelector(`unix:uid:${uid}`)], caller: { pid, uid, gid: uid } };
}

/** Reads a watch as fast as it comes. */
function follow(uid: number, signal = stop.signal, pid = 1): WorkloadCredentials[] {
  const seen: WorkloadCredentials[] = [];
  const watch = createWatch({
    trustDomain,
    registry: () => indexEntries(entries),
    bans: () => noBans,
    bundles: () => new Map([['mesh.test', bundle]]),
    jwtBundles: () => new Map(),
    keeper,
    clock,
    onChange: changed.subscribe,
  });
  void (async () => {
    for await (const credentials of watch(attested(uid, pid), signal)) seen.push(credentials);
  })();
  return seen;
}

const serials = (seen: readonly WorkloadCredentials[]) =>
  seen.map(({ svids }) => svids.map(({ serial }) => serial).join());

test('a caller without an entry gets an empty state, then its certificate when the entry is made', async () => {
  const seen = follow(1);
  await settle();
  expect(serials(seen)).toEqual(['']);
  expect(seen[0]?.bundles.size).toBe(0);
  await setEntries(entry('web', ['unix:uid:1']));
  expect(serials(seen)).toEqual(['', '1']);
  expect(seen[1]?.bundles.get('mesh.test')).toBe(bundle);
});

test('two callers of one entry share its certificate', async () => {
  entries = [entry('web', ['unix:uid:1'])];
  const [first, second] = [follow(1), follow(1)];
  await settle();
  expect([serials(first), serials(second)]).toEqual([['1'], ['1']]);
});

test('renews at half life, and the old certificate stays until the new one is there', async () => {
  entries = [entry('web', ['unix:uid:1'])];
  const seen = follow(1);
  await clock.advance(49_000);
  expect(serials(seen)).toEqual(['1']);
  await clock.advance(2_000);
  expect(serials(seen)).toEqual(['1', '2']);
  await clock.advance(100_000);
  expect(serials(seen)).toEqual(['1', '2', '3', '4']);
});

test('keeps the old certificate while issuing fails, and recovers by itself', async () => {
  entries = [entry('web', ['unix:uid:1'])];
  const seen = follow(1);
  await settle();
  failing = true;
  await clock.advance(90_000);
  expect(serials(seen)).toEqual(['1']);
  expect(failures.length).toBeGreaterThan(2);
  expect(failures.length).toBeLessThan(20);
  failing = false;
  await clock.advance(20_000);
  expect(serials(seen)).toEqual(['1', '2']);
});

test('while issuing fails a certificate is given to its end, and not a moment longer', async () => {
  entries = [entry('web', ['unix:uid:1'])];
  follow(1);
  await settle();
  failing = true;
  await clock.advance(99_990);
  const late = follow(1);
  await settle();
  expect(serials(late)).toEqual(['1']);
  await clock.advance(20);
  expect(keeper.kept()).toEqual([]);
  const tooLate = follow(1);
  await clock.advance(5_000);
  expect(serials(tooLate)).toEqual([]);
});

test.each([
  { what: 'its lifetime', change: { ttlSeconds: 200 }, expected: ['1', '2'] },
  { what: 'its DNS names', change: { dnsNames: ['web.test'] }, expected: ['1', '2'] },
  { what: 'its SPIFFE ID', change: { spiffeId: 'spiffe://mesh.test/other' }, expected: ['1', '2'] },
  { what: 'its labels', change: { labels: { app: 'web' } }, expected: ['1'] },
  { what: 'its selectors, to others', change: { selectors: ['unix:uid:2'] }, expected: ['1', ''] },
])('an entry that changes $what', async ({ change, expected }) => {
  entries = [entry('web', ['unix:uid:1'])];
  const seen = follow(1);
  await settle();
  await setEntries(entry('web', ['unix:uid:1'], change));
  expect(serials(seen)).toEqual(expected);
  const id = seen.at(-1)?.svids[0]?.id.text;
  expect(id).toBe(
    expected.at(-1) === ''
      ? undefined
      : ('spiffeId' in change && change.spiffeId) || 'spiffe://mesh.test/web',
  );
});

test('an entry that expires is withdrawn at that moment', async () => {
  entries = [entry('web', ['unix:uid:1'], { expiresAt: '2026-01-01T00:00:10Z' })];
  const seen = follow(1);
  await clock.advance(9_000);
  expect(serials(seen)).toEqual(['1']);
  await clock.advance(1_000);
  expect(serials(seen)).toEqual(['1', '']);
});

test('a state is whole or is not given: no second identity stands in for a default that is being made', async () => {
  entries = [entry('b-second', ['unix:uid:1'])];
  const seen = follow(1);
  await settle();
  failing = true;
  await setEntries(entry('a-first', ['unix:uid:1']), ...entries);
  await clock.advance(10_000);
  expect(serials(seen)).toEqual(['1']);
  failing = false;
  await clock.advance(20_000);
  expect(seen.at(-1)?.svids.map(({ entryId }) => entryId)).toEqual(['a-first', 'b-second']);
});

test('a certificate nobody holds is not renewed, and is still there for a proxy that restarts', async () => {
  entries = [entry('web', ['unix:uid:1'])];
  const first = new AbortController();
  follow(1, first.signal);
  await settle();
  first.abort();
  await clock.advance(10_000);
  expect(serials(follow(1))).toEqual([]);
  await settle();
  expect(issued).toHaveLength(1);
  stop.abort();
  await clock.advance(60_000);
  expect(keeper.kept()).toEqual([]);
  expect(issued).toHaveLength(1);
});

test('the evidence in an issuance is that of a caller who is still there', async () => {
  entries = [entry('both', ['unix:uid:1'])];
  const first = new AbortController();
  follow(1, first.signal, 7);
  follow(1, stop.signal, 8);
  await settle();
  first.abort();
  await clock.advance(60_000);
  expect(issued.map(({ pid }) => pid)).toEqual([7, 8]);
});

test.each([
  { what: 'ahead of its end', jumpMs: 10_000_000 },
  { what: 'before its beginning', jumpMs: -10_000_000 },
])('a clock that jumps $what has a certificate replaced once, within a minute', async ({ jumpMs }) => {
  entries = [entry('web', ['unix:uid:1'], { ttlSeconds: 3_600 })];
  const seen = follow(1);
  await settle();
  clock.jump(jumpMs);
  await clock.advance(60_000);
  expect(seen.at(-1)?.svids.map(({ serial }) => serial)).toEqual(['2']);
  await clock.advance(600_000);
  expect(issued).toHaveLength(2);
});

test('an issuer whose clock is an hour ahead does not make renewals spin', async () => {
  aheadMs = 3_600_000;
  entries = [entry('web', ['unix:uid:1'], { ttlSeconds: 3_600 })];
  follow(1);
  await clock.advance(600_000);
  expect(issued).toHaveLength(1);
});

test('a first certificate that cannot be made says why, and is tried again', async () => {
  failing = true;
  const told: unknown[] = [];
  const lease = keeper.hold(entry('web', ['unix:uid:1']), attested(1), () => told.push(lease.failure()));
  await settle();
  expect(told).toEqual([expect.objectContaining({ code: 'store_unavailable' })]);
  failing = false;
  await clock.advance(1_000);
  expect([lease.svid()?.serial, lease.failure()]).toEqual(['1', undefined]);
});

test('of 200 entries at once no more than 16 are being issued', async () => {
  entries = Array.from({ length: 200 }, (_, index) => entry(`e${index}`, [`unix:uid:${index}`]));
  const seen = entries.map((_, index) => follow(index));
  await settle();
  await settle();
  expect(seen.every((states) => states.length === 1)).toBe(true);
  expect(mostAtOnce).toBe(16);
});

test('ten thousand watches leave nothing behind', async () => {
  entries = [entry('web', ['unix:uid:1'])];
  let listeners = 0;
  const watch = createWatch({
    trustDomain,
    registry: () => indexEntries(entries),
    bans: () => noBans,
    bundles: () => new Map([['mesh.test', bundle]]),
    jwtBundles: () => new Map(),
    keeper,
    clock,
    onChange: (listener) => {
      listeners += 1;
      const end = changed.subscribe(listener);
      return () => {
        listeners -= 1;
        end();
      };
    },
  });
  for (let round = 0; round < 10_000; round++) {
    for await (const { svids } of watch(attested(1), stop.signal)) {
      expect(svids).toHaveLength(1);
      break;
    }
  }
  expect([listeners, issued.length, keeper.kept().length]).toEqual([0, 1, 1]);
  await clock.advance(60_000);
  expect([keeper.kept().length, clock.sleepers()]).toEqual([0, 0]);
});
