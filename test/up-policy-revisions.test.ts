import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { createMeshHolder, compileStoredMesh } from '../src/identity/current-mesh.ts';
import { policySetId } from '../src/identity/policy-revision.ts';
import { policyKeyId } from '../src/identity/policy-signature.ts';
import { openLog } from '../src/log.ts';
import { TrustDomain } from '../src/spiffe/id.ts';
import type { KeptRevision } from '../src/store/protocol.ts';
import { openStore } from '../src/store/store.ts';
import {
  checkPolicyRevision,
  keepPolicyRevisions,
  oldRevisions,
  openPolicyKey,
} from '../src/up-policy-revisions.ts';
import { eventually } from './harness/eventually.ts';
import { manualClock } from './harness/manual-clock.ts';
import { unsignedRevision } from './harness/policy-signer.ts';
import { createScope } from './harness/scope.ts';
import { makeTempDir } from './harness/temp.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };
const code = (name: string) => expect.objectContaining({ code: name });
const clock = manualClock();

let scope = createScope();
afterEach(async () => {
  await scope.close();
  scope = createScope();
});

const day = 86_400_000;
const kept = (count: number, endedDaysAgo: (number: number) => number, now = clock.now()): KeptRevision[] =>
  Array.from({ length: count }, (_, at) => ({
    number: at + 1,
    endedMs: at + 1 === count ? null : now.getTime() - endedDaysAgo(at + 1) * day,
  }));

describe('revisions that are kept no longer', () => {
  test.each<[string, KeptRevision[], Date | null, number | null]>([
    ['none of none', [], clock.now(), null],
    ['not the one in force', kept(1, () => 0), clock.now(), null],
    ['not the last ten, however old', kept(10, () => 4_000), clock.now(), null],
    ['the old ones before those', kept(12, () => 400), clock.now(), 2],
    ['not what ended within a year', kept(30, (number) => (number <= 5 ? 366 : 364)), clock.now(), 5],
    ['not a thousand', kept(1_000, () => 1), clock.now(), null],
    ['what is over a thousand', kept(1_003, () => 1), clock.now(), 3],
    ['by age too where there are more', kept(1_003, (number) => (number < 500 ? 400 : 1)), clock.now(), 499],
    ['none by age while the time is in doubt', kept(30, () => 400), null, null],
    ['what is over a thousand all the same', kept(1_003, () => 400), null, 3],
    ['none where the clock went back', kept(30, () => -400), clock.now(), null],
  ])('are %s', (_, revisions, now, expected) => {
    expect(oldRevisions(revisions, now)).toBe(expected);
  });
});

async function open() {
  const directory = makeTempDir(scope);
  const store = await openStore({ dataDir: join(directory, 'data'), clock, randomBytes });
  scope.defer(() => store.close());
  const keyDir = join(directory, 'keys');
  mkdirSync(keyDir, { mode: 0o700 });
  const secret = { kind: 'random_key', bytes: randomBytes(32) } as const;
  return { store, keyDir, trustDomain, secret, randomBytes };
}

describe('the key that signs', () => {
  test('is made once', async () => {
    const parts = await open();
    const first = await openPolicyKey(parts);
    expect(await parts.store.readMeta('policy_key')).toBe(policyKeyId(first.publicKey));
    expect((await openPolicyKey(parts)).publicKey).toBe(first.publicKey);
    expect(readdirSync(parts.keyDir)).toHaveLength(1);
  });

  test.each<[string, (file: string) => void, string]>([
    ['is gone', (file) => rmSync(file), 'file_missing'],
    ['is no JSON', (file) => writeFileSync(file, 'x', { mode: 0o600 }), 'key_envelope_invalid'],
    ['is another one', (file) => writeFileSync(file, '{}', { mode: 0o600 }), 'key_envelope_invalid'],
  ])('stops the start when its file %s: agents would refuse another one', async (_, spoil, expected) => {
    const parts = await open();
    await openPolicyKey(parts);
    const [file = ''] = readdirSync(parts.keyDir);
    spoil(join(parts.keyDir, file));
    await expect(openPolicyKey(parts)).rejects.toEqual(code(expected));
  });

  test('does not open with another secret', async () => {
    const parts = await open();
    await openPolicyKey(parts);
    const secret = { kind: 'random_key', bytes: randomBytes(32) } as const;
    await expect(openPolicyKey({ ...parts, secret })).rejects.toEqual(code('key_passphrase_wrong'));
  });
});

test('policies that are not those of their revision stop the start', () => {
  const policy = { key: 'a/b', source: 'x', file: 'f', line: 1, sha256: 'ab'.repeat(32), revision: 1 };
  const policies = new Map([[policy.key, policy]]);
  const { record } = unsignedRevision(undefined, [policy], clock.now());
  const mesh = { revision: 1, entries: new Map(), bans: new Map(), policies };
  checkPolicyRevision(mesh);
  checkPolicyRevision({ ...mesh, policyRevision: record });
  expect(policySetId(new Map())).not.toBe(record.id);
  expect(() => checkPolicyRevision({ ...mesh, policies: new Map(), policyRevision: record })).toThrow(
    code('store_corrupt'),
  );
});

test('what is old is dropped with its texts, which is recorded, and the one in force never is', async () => {
  const { store } = await open();
  let parent;
  for (let number = 1; number <= 12; number++) {
    const source = `text ${number}`;
    const sha256 = number.toString(16).repeat(64).slice(0, 64);
    const policy = { key: 'a/b', source, file: 'f', line: 1, sha256, revision: number };
    const policyRevision = unsignedRevision(parent, [policy], clock.now());
    parent = policyRevision.record;
    await store.commitMesh({
      expectRevision: number - 1,
      revision: number,
      putEntries: [],
      deleteEntries: [],
      putPolicies: [policy],
      deletePolicies: [],
      putBans: [],
      deleteBans: [],
      putAliases: [],
      deleteAliases: [],
      policyRevision,
      events: [],
    });
  }
  const later = { ...clock, now: () => new Date(clock.now().getTime() + 400 * day) };
  const holder = createMeshHolder(
    compileStoredMesh({ ...(await store.loadMesh()), policies: new Map() }, settings),
  );
  const keeping = keepPolicyRevisions({
    store,
    holder,
    clock: later,
    doubt: () => null,
    log: openLog('silent'),
  });
  scope.defer(keeping.close);
  await eventually('the drop', async () => (await store.keptRevisions()).length === 10);
  expect((await store.keptRevisions()).map(({ number }) => number)[0]).toBe(3);
  expect([await store.policyRevision(2), await store.policyOf(2, 'a/b')]).toEqual([null, null]);
  expect(await store.policyOf(3, 'a/b')).toMatchObject({ source: 'text 3' });
  const query = { types: ['policy_revision'], limit: 10, order: 'oldest', cursor: null } as const;
  const { rows } = await store.queryAudit({
    ...query,
    since: null,
    until: null,
    source: null,
    destination: null,
    verdict: null,
    serial: null,
    where: [],
    text: null,
  });
  expect(rows.map(({ leaf }) => JSON.parse(leaf) as object)).toEqual([
    expect.objectContaining({ action: 'dropped', first: 1, number: 2 }),
  ]);
  await expect(store.dropRevisions(12, [])).rejects.toEqual(code('internal'));
  expect(await store.keptRevisions()).toHaveLength(10);
});
