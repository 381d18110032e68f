import { createPublicKey, hash, randomBytes as cryptoRandomBytes, verify } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { AuditEvent } from '../src/audit/event.ts';
import { parseAuditQuery } from '../src/audit/question.ts';
import type { JwtKeyType } from '../src/ca/jwt-slot.ts';
import { MeshError } from '../src/errors.ts';
import type { Ban } from '../src/identity/ban.ts';
import { type BanList, indexBans, noBans } from '../src/identity/ban-list.ts';
import { parseEntry } from '../src/identity/entry-parse.ts';
import { createJwtIssuer, type JwtRequest } from '../src/identity/jwt-issuer.ts';
import type { JwtSvid } from '../src/identity/jwt-svid.ts';
import { createJwtValidator } from '../src/identity/jwt-validator.ts';
import { parseSelector } from '../src/identity/selector.ts';
import { TrustDomain } from '../src/spiffe/id.ts';
import { openStore, type Store } from '../src/store/store.ts';
import { type KeptJwtKeys, openJwtKeys } from '../src/up-jwt-keys.ts';
import { type ManualClock, manualClock } from './harness/manual-clock.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const operator = { kind: 'uid', uid: 7, role: 'admin' } as const;
const entry = parseEntry(
  {
    id: 'web',
    spiffeId: 'spiffe://mesh.test/web',
    selectors: ['unix:uid:1'],
    hint: 'blue',
    expiresAt: '2046-01-01T00:00:00Z',
  },
  { trustDomain, ttlSeconds: 86_400 },
  3,
);
const attestation = { selectors: [parseSelector('unix:uid:1')], caller: { pid: 4, uid: 1, gid: 1 } };

let dataDir: string;
let clock: ManualClock;
let store: Store;
let recorded: AuditEvent[];
let isRegistered: boolean;
let bans: BanList;
let doubt: string | null;
/** Runs while a record is being written. */
let meanwhile: () => Promise<void> | void;

beforeEach(async () => {
  dataDir = mkdtempSync(join(tmpdir(), 'cs-jwt-'));
  clock = manualClock();
  store = await openStore({ dataDir, clock, randomBytes });
  recorded = [];
  isRegistered = true;
  bans = noBans;
  doubt = null;
  meanwhile = () => undefined;
});

afterEach(async () => {
  await store.close();
  rmSync(dataDir, { recursive: true, force: true });
});

describe('minting', () => {
  test('the record is in the log before the token, and tells what was signed', async () => {
    const keys = await open();
    const { token, ...svid } = await mint(keys);
    expect(svid).toEqual({
      id: entry.spiffeId,
      audiences: ['db', 'cache'],
      keyId: keys.signer().keyId,
      issuedAt: clock.now(),
      expiresAt: new Date(clock.now().getTime() + 300_000),
      hint: 'blue',
      entryId: 'web',
    });
    const [event] = await logged('jwt_issuance');
    expect(event).toMatchObject({
      spiffeId: 'spiffe://mesh.test/web',
      audiences: ['db', 'cache'],
      keyId: svid.keyId,
      entryId: 'web',
      entryRevision: 3,
      selectors: ['unix:uid:1'],
      caller: attestation.caller,
      notAfter: svid.expiresAt.toISOString(),
    });
    expect(event).not.toHaveProperty('actor');
    // The token itself is nowhere in the log.
    expect(JSON.stringify(recorded)).not.toContain(token.slice(-20));
    const [header = '', claims = '', signature = ''] = token.split('.');
    expect(hash('sha256', `${header}.${claims}`, 'hex')).toBe(event?.['signingInputSha256']);
    expect(JSON.parse(Buffer.from(claims, 'base64url').toString())).toMatchObject({ jti: event?.['jwtId'] });
    const der = Buffer.from(keys.bundle().authorities[0]?.publicKey ?? []);
    const key = createPublicKey({ key: der, format: 'der', type: 'spki' });
    const bytes = Buffer.from(`${header}.${claims}`);
    expect(
      verify('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url')),
    ).toBe(true);
  });

  test('an operator is recorded in the place of a process', async () => {
    const keys = await open();
    await mint(keys, { entry, audiences: ['db'], actor: operator });
    const [event] = await logged('jwt_issuance');
    expect(event).toMatchObject({ actor: operator, selectors: [] });
    expect(event).not.toHaveProperty('caller');
  });

  test.each<[string, number | undefined, number, number]>([
    ['the configured one', undefined, 86_400, 300],
    ['a shorter one', 60, 86_400, 60],
    ['no longer one', 900, 86_400, 300],
    ['none beyond that of the entry', 900, 120, 120],
  ])('a lifetime: %s', async (_, ttlSeconds, entrySeconds, expected) => {
    const keys = await open();
    const asked = { ...entry, ttlSeconds: entrySeconds };
    const { issuedAt, expiresAt } = await mint(keys, {
      entry: asked,
      audiences: ['db'],
      attestation,
      ...(ttlSeconds === undefined ? {} : { ttlSeconds }),
    });
    expect(expiresAt.getTime() - issuedAt.getTime()).toBe(expected * 1_000);
  });

  const ban = () => {
    bans = indexBans([banOf('spiffe-id', entry.spiffeId.text)]);
  };
  test.each<{
    what: string;
    before?: () => void;
    during?: () => void;
    code: MeshError['code'];
    records: number;
  }>([
    { what: 'deleted before', before: () => (isRegistered = false), code: 'identity_none', records: 0 },
    { what: 'deleted meanwhile', during: () => (isRegistered = false), code: 'identity_none', records: 1 },
    {
      what: 'expired meanwhile',
      during: () => clock.jump(Date.UTC(2047) - clock.now().getTime()),
      code: 'identity_none',
      records: 1,
    },
    { what: 'banned before', before: ban, code: 'identity_banned', records: 0 },
    { what: 'banned meanwhile', during: ban, code: 'identity_banned', records: 1 },
  ])('an entry that was $what is not signed for', async ({ before, during, code: expected, records }) => {
    const keys = await open();
    before?.();
    meanwhile = during ?? meanwhile;
    await expect(mint(keys)).rejects.toThrow(code(expected));
    expect(recorded).toHaveLength(records);
  });

  test.each<[string, readonly string[], number, MeshError['code']]>([
    ['no audience', [], 60, 'jwt_audience_invalid'],
    ['one audience twice', ['a', 'a'], 60, 'jwt_audience_invalid'],
    ['17 audiences', Array.from({ length: 17 }, (_, n) => `a${n}`), 60, 'jwt_audience_invalid'],
    ['no time', ['a'], 0, 'profile_invalid'],
    ['no number', ['a'], Number.NaN, 'profile_invalid'],
  ])('%s: refused, and not recorded', async (_, audiences, ttlSeconds, expected) => {
    const keys = await open();
    await expect(mint(keys, { entry, audiences, attestation, ttlSeconds })).rejects.toThrow(code(expected));
    expect(recorded).toEqual([]);
  });

  test('a token is not signed with a key that was withdrawn while its record was written', async () => {
    const keys = await open();
    const { keyId } = keys.signer();
    meanwhile = () => keys.step({ kind: 'taint', keyId }, operator);
    await expect(mint(keys)).rejects.toThrow(code('revision_conflict'));
    meanwhile = () => undefined;
    expect((await mint(keys)).keyId).not.toBe(keyId);
  });

  test('when the log takes no record, no token is made', async () => {
    const keys = await open();
    await store.close();
    await expect(mint(keys)).rejects.toThrow(code('store_unavailable'));
  });
});

describe('validating', () => {
  test('a ban holds at once, of the identity or of the one token', async () => {
    const keys = await open();
    const { token } = await mint(keys);
    const validate = validatorOf(keys);
    expect(await validate(token, 'db')).toMatchObject({ id: entry.spiffeId, audiences: ['db', 'cache'] });
    await expect(validate(token, 'mail')).rejects.toThrow(code('jwt_audience_mismatch'));
    bans = indexBans([banOf('spiffe-id', entry.spiffeId.text)]);
    await expect(validate(token, 'db')).rejects.toThrow(code('identity_banned'));
    const { jti } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as {
      jti: string;
    };
    bans = indexBans([banOf('serial', jti)]);
    await expect(validate(token, 'db')).rejects.toThrow(code('identity_banned'));
    bans = noBans;
    clock.jump(300_000);
    await expect(validate(token, 'db')).rejects.toThrow(code('jwt_expired'));
  });

  test('a key that is withdrawn while a token is verified verifies it no more', async () => {
    const keys = await open();
    const { token } = await mint(keys);
    const validating = validatorOf(keys)(token, 'db');
    const none = { ...keys.bundle(), authorities: [] };
    let asked = 0;
    const late = createJwtValidator({
      bundles: () => new Map([['mesh.test', asked++ === 0 ? keys.bundle() : none]]),
      bans: () => bans,
      clock,
    });
    await expect(late(token, 'db')).rejects.toThrow(code('jwt_key_unknown'));
    await expect(validating).resolves.toMatchObject({ keyId: keys.signer().keyId });
  });
});

describe('keys', () => {
  test.each<[JwtKeyType, string]>([
    ['ec-p256', 'ES256'],
    ['rsa-2048', 'RS256'],
  ])('%s signs %s, now and after a restart', async (keyType, algorithm) => {
    const keys = await open(keyType);
    expect(keys.signer().algorithm).toBe(algorithm);
    const { token } = await mint(keys);
    // What is configured later is for the next key.
    const again = await open(keyType === 'ec-p256' ? 'rsa-2048' : 'ec-p256');
    expect(again.signer()).toMatchObject({ keyId: keys.signer().keyId, algorithm });
    expect(again.bundle()).toEqual(keys.bundle());
    expect(await validatorOf(again)(token, 'cache')).toMatchObject({ id: entry.spiffeId });
  });

  test('a month goes by: the next key is published a day before it signs, and the old one goes after its tokens', async () => {
    const keys = await open();
    const old = keys.signer().keyId;
    let woken = 0;
    keys.onChange(() => (woken += 1));
    clock.jump(29 * day - 1_000);
    expect(await keys.tick()).toBe(false);
    clock.jump(1_000);
    expect(await keys.tick()).toBe(true);
    expect([woken, keys.bundle().authorities.length, keys.signer().keyId]).toEqual([1, 2, old]);
    clock.jump(day - 1_000);
    expect(await keys.tick()).toBe(false);
    const { token, expiresAt } = await mint(keys);
    clock.jump(1_000);
    expect(await keys.tick()).toBe(true);
    expect(keys.signer().keyId).not.toBe(old);
    expect([woken, keys.bundle().sequence]).toEqual([1, 2]);
    expect(await validatorOf(keys)(token, 'db')).toMatchObject({ keyId: old });
    // The next process knows until when the old key is needed.
    const again = await open();
    expect((await again.evidence()).lastExpiries).toEqual(new Map([[old, expiresAt]]));
    await expect(again.step({ kind: 'retire', force: false }, operator)).rejects.toThrow(
      code('rotation_unproven'),
    );
    clock.jump(601_000);
    doubt = 'the clock was moved';
    expect(await again.tick()).toBe(false);
    doubt = null;
    expect(await again.tick()).toBe(true);
    expect(again.bundle().authorities.map(({ keyId }) => keyId)).toEqual([again.signer().keyId]);
    expect(readdirSync(join(dataDir, 'keys'))).toEqual([`${again.signer().keyId}.json`]);
    expect((await logged('jwt_key')).map(({ action, sequence }) => [action, sequence])).toEqual([
      ['created', 1],
      ['prepared', 2],
      ['activated', 2],
      ['retired', 3],
    ]);
  });

  test('tokens of a stolen key are refused from the step on, and there is another key', async () => {
    const keys = await open();
    const { token, keyId } = await mint(keys);
    await keys.step({ kind: 'taint', keyId }, operator);
    await expect(validatorOf(keys)(token, 'db')).rejects.toThrow(code('jwt_key_unknown'));
    expect(keys.bundle().authorities).toHaveLength(1);
    await expect(validatorOf(keys)((await mint(keys)).token, 'db')).resolves.toBeDefined();
    expect(
      (await logged('jwt_key')).map(({ action, actor }) => [action, (actor as { kind: string }).kind]),
    ).toEqual([
      ['created', 'system'],
      ['tainted', 'uid'],
      ['prepared', 'uid'],
      ['activated', 'uid'],
    ]);
  });

  test('a stolen key is withdrawn though there can be no other; the next tick or start makes one', async () => {
    const keys = await open();
    const { keyId } = keys.signer();
    rmSync(join(dataDir, 'keys'), { recursive: true });
    writeFileSync(join(dataDir, 'keys'), 'no directory');
    await expect(keys.step({ kind: 'taint', keyId }, operator)).rejects.toThrow();
    expect(keys.bundle()).toMatchObject({ authorities: [], sequence: 2 });
    await expect(mint(keys)).rejects.toThrow(code('jwt_key_missing'));
    expect(recorded).toEqual([]);
    rmSync(join(dataDir, 'keys'));
    const again = await open();
    expect(again.signer().keyId).not.toBe(keyId);
    expect(again.bundle().sequence).toBe(3);
  });

  test('a store that is ill for long gathers no keys: the one that was made is taken when it is well', async () => {
    const files = () => readdirSync(join(dataDir, 'keys')).length;
    let isIll = false;
    const keys = await open('ec-p256', {
      ...store,
      commitJwtKeys: (...change) =>
        isIll ? Promise.reject(new MeshError('store_unavailable', 'ill')) : store.commitJwtKeys(...change),
    });
    isIll = true;
    clock.jump(30 * day);
    for (let i = 0; i < 5; i++) await expect(keys.tick()).rejects.toThrow(code('store_unavailable'));
    expect([files(), keys.state().slots.length]).toEqual([2, 1]);
    isIll = false;
    expect(await keys.tick()).toBe(true);
    expect([files(), keys.state().slots.length]).toEqual([2, 2]);
    clock.jump(day);
    await keys.tick();
    expect(await mint(keys)).toMatchObject({ keyId: keys.state().slots[1]?.keyId });
    expect((await open()).bundle()).toEqual(keys.bundle());
  });

  test.each<[string, (path: string) => void, MeshError['code']]>([
    ['is lost', (path) => rmSync(path), 'file_missing'],
    ['is damaged', (path) => writeFileSync(path, '{}', { mode: 0o600 }), 'key_envelope_invalid'],
  ])('a key whose file %s stops the start', async (_, harm, expected) => {
    const { keyId } = (await open()).signer();
    harm(join(dataDir, 'keys', `${keyId}.json`));
    await expect(open()).rejects.toThrow(code(expected));
  });
});

function open(
  keyType: JwtKeyType = 'ec-p256',
  kept: Pick<Store, 'loadJwtKeys' | 'commitJwtKeys' | 'jwtExpiries' | 'readMeta'> = store,
): Promise<KeptJwtKeys> {
  return openJwtKeys({
    store: kept,
    keyDir: join(dataDir, 'keys'),
    trustDomain,
    secret: { kind: 'random_key', bytes: Buffer.alloc(32, 7) },
    clock,
    randomBytes,
    keyType,
    doubt: () => doubt,
  });
}

function mint(
  keys: KeptJwtKeys,
  request: JwtRequest = { entry, audiences: ['db', 'cache'], attestation },
): Promise<JwtSvid> {
  return createJwtIssuer({
    signer: keys.signer,
    mayStillSign: keys.mayStillSign,
    record: async (events) => {
      const indexes = await store.recordEvents(events);
      recorded.push(...events);
      await meanwhile();
      return indexes;
    },
    clock,
    isCurrent: () => isRegistered,
    bans: () => bans,
    issuer: null,
    ttlSeconds: 300,
    newJwtId: () => `40${cryptoRandomBytes(15).toString('hex')}`,
  })(request);
}

function validatorOf(keys: KeptJwtKeys) {
  return createJwtValidator({
    bundles: () => new Map([['mesh.test', keys.bundle()]]),
    bans: () => bans,
    clock,
  });
}

async function logged(type: AuditEvent['type']): Promise<Record<string, unknown>[]> {
  const { rows } = await store.queryAudit(parseAuditQuery({ types: [type], order: 'oldest' }, clock.now()));
  return rows.map(({ leaf }) => JSON.parse(leaf) as Record<string, unknown>);
}

function banOf(kind: Ban['kind'], value: string): Ban {
  return { kind, value, reason: '', until: null, createdAt: clock.now(), actor: operator, revision: 1 };
}

function randomBytes(size: number): Uint8Array {
  return new Uint8Array(cryptoRandomBytes(size));
}

function code(expected: MeshError['code']): Error {
  return expect.objectContaining({ code: expected }) as Error;
}

const day = 86_400_000;
