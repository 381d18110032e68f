import { randomBytes as cryptoRandomBytes, X509Certificate } from 'node:crypto';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { AuditEvent } from '../src/audit/event.ts';
import { readChain } from '../src/ca/chain.ts';
import { readCsr } from '../src/ca/csr.ts';
import { parseProfile } from '../src/ca/profile.ts';
import type { MeshError } from '../src/errors.ts';
import { noBans } from '../src/identity/ban-list.ts';
import { parseEntry } from '../src/identity/entry-parse.ts';
import { createIssuer, type IssuedX509 } from '../src/identity/issuer.ts';
import { TrustDomain } from '../src/spiffe/id.ts';
import { openStore, type Store } from '../src/store/store.ts';
import { type AuthorityParts, type KeptAuthority, openAuthority } from '../src/up-authority.ts';
import { createFileCustody } from '../src/up-keys.ts';
import { days, type ForgedCa, forgeCa, now as forgedNow } from './ca/forged-chain.ts';
import { makeKey } from './ca/test-authority.ts';
import { type ManualClock, manualClock } from './harness/manual-clock.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const day = 86_400_000;
const secret = { kind: 'random_key', bytes: Buffer.alloc(32, 7) } as const;
const entry = parseEntry(
  {
    id: 'web',
    spiffeId: 'spiffe://mesh.test/web',
    selectors: ['unix:uid:1'],
    expiresAt: '2046-01-01T00:00:00Z',
  },
  { trustDomain, ttlSeconds: 86_400 },
  1,
);
const key = makeKey('ec-prime256v1');

let dataDir: string;
let clock: ManualClock;
let store: Store;
let recorded: AuditEvent[];
let isRegistered: boolean;
let holders: { issuerKeyId: string; notAfter: Date }[];
/** Runs while a record is being written. */
let meanwhile: () => void;

beforeEach(async () => {
  dataDir = mkdtempSync(join(tmpdir(), 'cs-authority-'));
  clock = manualClock();
  store = await openStore({ dataDir, clock, randomBytes });
  recorded = [];
  isRegistered = true;
  holders = [];
  meanwhile = () => undefined;
});

afterEach(async () => {
  await store.close();
  rmSync(dataDir, { recursive: true, force: true });
});

test('an intermediate is replaced after two thirds of its life, and what the old one signed still verifies', async () => {
  const kept = await open();
  const before = await issue(kept);
  const [oldKey, root] = [kept.current().issuerKeyId, rootOf(kept)];
  clock.jump(19 * day);
  expect(await kept.tick()).toBe(false);
  clock.jump(1.1 * day);
  expect(await kept.tick()).toBe(true);
  holders = [{ issuerKeyId: oldKey, notAfter: new Date(clock.now().getTime() + day) }];
  expect(await kept.tick()).toBe(false);
  const after = await issue(kept);
  expect(kept.current().issuerKeyId).not.toBe(oldKey);
  expect(rootOf(kept)).toEqual(root);
  for (const { certificates } of [before, after]) expect(verifies(certificates, kept)).toBe(true);
  expect(after.certificates[1]).not.toEqual(before.certificates[1]);

  const again = await open();
  expect(again.current().issuerKeyId).toBe(kept.current().issuerKeyId);
  expect(again.stored().map(({ kind }) => kind)).toEqual(['root', 'intermediate', 'intermediate']);
});

test('near the end of the root nothing outlives it, and what cannot be renewed says so and signs on', async () => {
  const kept = await open();
  const end = kept.stored().find(({ kind }) => kind === 'root')?.notAfter ?? new Date(0);
  clock.jump(end.getTime() - day - clock.now().getTime());
  expect(await kept.tick()).toBe(true);
  expect(kept.current().notAfter).toEqual(end);
  expect((await issue(kept)).notAfter).toEqual(end);
  clock.jump(day - 1_800_000);
  await expect(kept.step({ kind: 'rotate', scope: 'intermediate' }, { kind: 'system' })).rejects.toThrow(
    code('issuer_expired'),
  );
  expect((await issue(kept)).notAfter).toEqual(end);
  clock.jump(1_799_000);
  await expect(issue(kept)).rejects.toThrow(code('issuer_expired'));
});

test.each<{ when: string; change: () => void; records: number }>([
  { when: 'deleted before', change: () => (isRegistered = false), records: 0 },
  { when: 'expired before', change: () => clock.jump(-clock.now().getTime() + Date.UTC(2046)), records: 0 },
  {
    when: 'deleted while its record is written',
    change: () => {
      meanwhile = () => (isRegistered = false);
    },
    records: 1,
  },
])('an entry $when is not signed for, and $records issuances are recorded', async ({ change, records }) => {
  const kept = await open();
  change();
  await expect(issue(kept)).rejects.toThrow(code('identity_none'));
  expect(recorded).toHaveLength(records);
});

function open(begin?: 'as_is'): Promise<KeptAuthority> {
  const parts: AuthorityParts = {
    store,
    trustDomain,
    profile: parseProfile(),
    custody: createFileCustody({ keyDir: join(dataDir, 'keys'), trustDomain, secret, randomBytes }),
    clock,
    randomBytes,
    reissue: () => undefined,
    doubt: () => null,
    evidence: async () => ({
      holders: [{ spiffeId: entry.spiffeId.text, node: '', lastSeen: null, sequence: null, leaves: holders }],
      doubt: null,
    }),
  };
  return openAuthority(parts, begin);
}

function issue(
  { current, mayStillSign }: KeptAuthority,
  recordedOnce = (): Promise<void> => Promise.resolve(),
): Promise<IssuedX509> {
  const issuer = createIssuer({
    authority: current,
    mayStillSign,
    record: async (event) => {
      recorded.push(event);
      const proof = await store.recordProven(event);
      meanwhile();
      await recordedOnce();
      return proof;
    },
    clock,
    isCurrent: () => isRegistered,
    bans: () => noBans,
  });
  return issuer({
    entry,
    publicKey: key.spki,
    attestation: { selectors: [], caller: { pid: 1, uid: 1, gid: 1 } },
  });
}

function verifies([leaf, intermediate]: readonly Uint8Array[], kept: KeptAuthority): boolean {
  const [own, above] = [new X509Certificate(leaf ?? ''), new X509Certificate(intermediate ?? '')];
  const root = new X509Certificate(rootOf(kept));
  return own.verify(above.publicKey) && own.checkIssued(above) && above.verify(root.publicKey);
}

function rootOf(kept: KeptAuthority): Uint8Array {
  return kept.current().bundle.x509Authorities[0] ?? new Uint8Array();
}

function randomBytes(size: number): Uint8Array {
  return new Uint8Array(cryptoRandomBytes(size));
}

function code(expected: MeshError['code']): Error {
  return expect.objectContaining({ code: expected }) as Error;
}

test('a bundle of two roots wakes who waits for it, and certificates of both verify', async () => {
  const kept = await open();
  let woken = 0;
  kept.onChange(() => (woken += 1));
  const before = await issue(kept);
  await kept.step({ kind: 'rotate', scope: 'root' }, { kind: 'system' });
  expect([woken, kept.bundle().sequence, kept.bundle().x509Authorities.length]).toEqual([1, 2, 2]);
  const oldKey = kept.current().issuerKeyId;
  holders = [{ issuerKeyId: oldKey, notAfter: before.notAfter }];
  await expect(kept.step({ kind: 'activate', force: false }, { kind: 'system' })).rejects.toThrow(
    code('rotation_unproven'),
  );
  expect(kept.current().issuerKeyId).toBe(oldKey);
  await kept.step({ kind: 'activate', force: true }, { kind: 'system' });
  expect(kept.current().issuerKeyId).not.toBe(oldKey);
  expect(woken).toBe(1);
  for (const { certificates } of [before, await issue(kept)])
    expect(verifiesInBundle(certificates, kept)).toBe(true);
  await expect(kept.step({ kind: 'retire', force: false }, { kind: 'system' })).rejects.toThrow(
    code('rotation_unproven'),
  );
  await kept.step({ kind: 'retire', force: true }, { kind: 'system' });
  expect([woken, kept.bundle().sequence, kept.bundle().x509Authorities.length]).toEqual([2, 3, 1]);
  expect(verifiesInBundle(before.certificates, kept)).toBe(false);
  expect(verifiesInBundle((await issue(kept)).certificates, kept)).toBe(true);
});

test('the roots of a bundle stand in one order, before and after a restart, whatever their dates are', async () => {
  const kept = await open();
  // So that what is published later seems to be older.
  clock.jump(-3_600_000);
  for (let i = 0; i < 3; i++)
    await kept
      .step({ kind: 'rotate', scope: 'root' }, { kind: 'system' })
      .then(() => kept.step({ kind: 'activate', force: true }, { kind: 'system' }));
  const again = await open();
  expect(again.bundle()).toEqual(kept.bundle());
  expect(again.bundle().x509Authorities).toHaveLength(4);
});

test('a certificate is not signed once its CA is retired, though its record was written', async () => {
  const kept = await open();
  await kept.step({ kind: 'rotate', scope: 'root' }, { kind: 'system' });
  let over: Promise<void> = Promise.resolve();
  meanwhile = () => {
    over = kept
      .step({ kind: 'activate', force: true }, { kind: 'system' })
      .then(() => kept.step({ kind: 'retire', force: true }, { kind: 'system' }));
  };
  await expect(issue(kept, () => over)).rejects.toThrow(code('revision_conflict'));
  expect(recorded).toHaveLength(1);
});

test('a disk that takes no key file leaves everything as it was', async () => {
  const kept = await open();
  const [signer, bundle] = [kept.current(), kept.bundle()];
  rmSync(join(dataDir, 'keys'), { recursive: true });
  writeFileSync(join(dataDir, 'keys'), 'no directory');
  await expect(kept.step({ kind: 'rotate', scope: 'root' }, { kind: 'system' })).rejects.toThrow();
  expect([kept.current(), kept.bundle(), kept.stored().length]).toEqual([signer, bundle, 2]);
  expect((await issue(kept)).issuerKeyId).toBe(signer.issuerKeyId);
});

test('a chain that could not be stored leaves nothing behind', async () => {
  clock.jump(forgedNow.getTime() - clock.now().getTime());
  const kept = await open('as_is');
  const system = { kind: 'system' } as const;
  await kept.step({ kind: 'rotate', scope: 'root', offline: true }, system);
  const { spki } = readCsr(kept.request()?.csr ?? new Uint8Array(0));
  const rootKey = makeKey('ec-prime256v1');
  const chainOf = (root: ForgedCa) =>
    readChain(forgeCa('signer', { key: { ...rootKey, spki }, issuer: root }).pem + root.pem, 'chain.pem');
  const file = join(dataDir, 'keys', `${kept.request()?.keyId}.json`);
  renameSync(file, `${file}.away`);
  const refused = kept.step({ kind: 'import', chain: chainOf(forgeCa('root', { key: rootKey })) }, system);
  await expect(refused).rejects.toThrow(code('file_missing'));
  renameSync(`${file}.away`, file);
  // The root was renewed meanwhile, which is nobody's affair: nothing of the first chain was taken.
  const renewed = forgeCa('root', { key: rootKey, until: days(500) });
  await kept.step({ kind: 'import', chain: chainOf(renewed) }, system);
  expect(rootOf(kept)).toEqual(renewed.der);
});

function verifiesInBundle([leaf, intermediate]: readonly Uint8Array[], kept: KeptAuthority): boolean {
  const [own, above] = [new X509Certificate(leaf ?? ''), new X509Certificate(intermediate ?? '')];
  return kept.bundle().x509Authorities.some((der) => {
    const root = new X509Certificate(der);
    return above.checkIssued(root) && above.verify(root.publicKey) && own.verify(above.publicKey);
  });
}

test('the tainted intermediate signs until there is another, then no more', async () => {
  const kept = await open();
  const old = kept.current();
  rmSync(join(dataDir, 'keys', `${kept.stored().find(({ kind }) => kind === 'root')?.keyId}.json`));
  const wish = { kind: 'taint', keyId: old.issuerKeyId } as const;
  // The root's key is lost, so there is no successor: it is tainted all the same.
  await expect(kept.step(wish, { kind: 'system' })).rejects.toThrow(code('file_missing'));
  expect(kept.stored().find(({ keyId }) => keyId === old.issuerKeyId)).toMatchObject({ tainted: true });
  expect(kept.mayStillSign(old)).toBe(true);
  await kept.step({ kind: 'rotate', scope: 'root' }, { kind: 'system' });
  await kept.step({ kind: 'activate', force: false }, { kind: 'system' });
  expect(kept.mayStillSign(old)).toBe(false);
  expect(kept.mayStillSign(kept.current())).toBe(true);
});
