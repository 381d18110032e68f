import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { routeAccess } from '../../src/http/roles.ts';
import { createIdTokenCheck, type OidcSettings } from '../../src/identity/id-token.ts';
import { openLog } from '../../src/log.ts';
import { createKeySource } from '../../src/node/kubernetes-keys.ts';
import { type OidcConfig, openOidc } from '../../src/up-oidc.ts';
import { ec, ec384, forge, otherEc, type Pair, part, rsa } from '../spiffe/jwt-forge.ts';
import { type Harness, startHarness } from './harness.ts';

const issuer = 'https://login.example.org';
const settings: OidcSettings = {
  issuer,
  audience: 'countersign',
  groupsClaim: 'groups',
  maxAgeSeconds: 3_600,
};
const ed: Pair = generateKeyPairSync('ed25519');
const jwk = (kid: string, { publicKey }: Pair, rest: object = {}) => ({
  ...publicKey.export({ format: 'jwk' }),
  kid,
  use: 'sig',
  ...rest,
});
const keys = [
  jwk('ec', ec),
  jwk('ec384', ec384),
  jwk('rsa', rsa),
  jwk('pss', rsa, { alg: 'PS256' }),
  jwk('ed', ed),
  { ...jwk('encryption', otherEc), use: 'enc' },
];
let published = keys;
let fetches = 0;
let harness: Harness;
beforeAll(async () => {
  harness = await startHarness({}, (clock) => {
    const fetch = async () => {
      fetches += 1;
      return JSON.stringify({ keys: published });
    };
    return createIdTokenCheck(settings, createKeySource({ fetch, clock, warn: () => undefined }), clock);
  });
  const create = (body: object) => harness.overUnix({ method: 'POST', path: '/v1/admin/grants', body });
  await create({ name: 'all', subject: { oidcIssuer: issuer, oidcGroup: 'admins' }, role: 'admin' });
  await create({
    name: 'authors',
    subject: { oidcIssuer: issuer, oidcGroup: 'shop' },
    role: 'policy-author',
    namespaces: ['shop'],
  });
  await create({ name: 'ann', subject: { oidcIssuer: issuer, oidcSubject: 'ann' }, role: 'viewer' });
  await create({
    name: 'else',
    subject: { oidcIssuer: 'https://else.example.org', oidcSubject: 'bob' },
    role: 'admin',
  });
});
afterAll(() => harness.close());

const seconds = () => Math.floor(harness.clock.now().getTime() / 1_000);
const claims = (change: object = {}) => ({
  iss: issuer,
  sub: 'bob',
  aud: 'countersign',
  iat: seconds(),
  exp: seconds() + 600,
  groups: ['admins'],
  ...change,
});
const header = (change: object = {}) => ({ alg: 'ES256', kid: 'ec', typ: 'JWT', ...change });
const token = (change: object = {}, head: object = {}, key?: KeyObject, as?: string) =>
  forge({
    claims: claims(change),
    header: header(head),
    ...(key === undefined ? {} : { key }),
    ...(as === undefined ? {} : { as }),
  });
const edToken = () => {
  const signed = `${part(header({ alg: 'EdDSA', kid: 'ed' }))}.${part(claims())}`;
  return `${signed}.${sign(null, Buffer.from(signed), ed.privateKey).toString('base64url')}`;
};
const ask = (bearer: string, path = '/v1/entries', method = 'GET') =>
  harness.overTls({ method, path, headers: { authorization: `Bearer ${bearer}` } }, null);
async function lastAdminEvent(): Promise<unknown> {
  const { rows } = await harness.store.queryAudit(
    parseAuditQuery({ types: ['admin'], limit: 1 }, harness.clock.now()),
  );
  return JSON.parse(rows[0]?.leaf ?? 'null');
}

describe('an ID token is taken', () => {
  test.each<[string, () => string]>([
    ['ES256', () => token()],
    ['ES384', () => token({}, { alg: 'ES384', kid: 'ec384' }, ec384.privateKey, 'ES384')],
    ['RS256', () => token({}, { alg: 'RS256', kid: 'rsa' }, rsa.privateKey, 'RS256')],
    ['PS256', () => token({}, { alg: 'PS256', kid: 'pss' }, rsa.privateKey, 'PS256')],
    ['EdDSA', edToken],
    ['a thumbprint in its header', () => token({}, { x5t: 'abc' })],
    ['no typ', () => forge({ claims: claims(), header: { alg: 'ES256', kid: 'ec' } })],
    ['two audiences, made for ours', () => token({ aud: ['a', 'countersign'], azp: 'countersign' })],
    ['one group as text', () => token({ groups: 'admins' })],
    ['an iat of a clock a minute ahead', () => token({ iat: seconds() + 59 })],
  ])('with %s', async (_, make) => {
    expect((await ask(make())).status).toBe(200);
  });

  test('and its bearer stands in the log', async () => {
    const body = { kind: 'serial', value: '40ee', reason: 'x' };
    const headers = { authorization: `Bearer ${token()}` };
    expect((await harness.overTls({ method: 'POST', path: '/v1/bans', body, headers }, null)).status).toBe(
      201,
    );
    expect((await harness.events('ban')).at(-1)?.['actor']).toEqual({
      kind: 'oidc',
      issuer,
      subject: 'bob',
      role: 'admin',
    });
  });
});

describe('grants', () => {
  test.each<[string, object, string, number]>([
    ['by subject', { sub: 'ann', groups: [] }, '/v1/status', 200],
    ['by subject, without groups', { sub: 'ann', groups: undefined }, '/v1/status', 200],
    ['by group, confined', { groups: ['shop'] }, '/v1/entries', 200],
    ['by group, confined', { groups: ['shop'] }, '/v1/status', 403],
    ['by both', { sub: 'ann', groups: ['shop'] }, '/v1/status', 200],
    ['of another issuer', { groups: [] }, '/v1/entries', 403],
    ['for nobody', { sub: 'carol', groups: ['Shop', 'shop ', 'sho'] }, '/v1/entries', 403],
    [
      'by an e-mail address',
      { sub: 'carol', groups: [], email: 'ann', email_verified: true },
      '/v1/entries',
      403,
    ],
    ['for a name out of an object', { sub: '__proto__', groups: ['constructor'] }, '/v1/entries', 403],
  ])('%s', async (_, change, path, status) => {
    expect((await ask(token(change), path)).status).toBe(status);
  });
});

const hs256 = (secret: Buffer) => {
  const signed = `${part({ alg: 'HS256', kid: 'rsa', typ: 'JWT' })}.${part(claims())}`;
  return `${signed}.${Buffer.from(secret).toString('base64url')}`;
};
const refused: readonly [string, () => string][] = [
  ['alg none', () => `${part(header({ alg: 'none' }))}.${part(claims())}.`],
  ['alg None and a signature', () => token({}, { alg: 'None' })],
  ['HS256', () => hs256(Buffer.alloc(32))],
  ['alg as a list', () => token({}, { alg: ['ES256'] })],
  ['RS512, which is not on the list', () => token({}, { alg: 'RS512', kid: 'rsa' }, rsa.privateKey, 'RS512')],
  [
    'RS256 for a key that is for PS256',
    () => token({}, { alg: 'RS256', kid: 'pss' }, rsa.privateKey, 'RS256'),
  ],
  ['ES256 for an RSA key', () => token({}, { kid: 'rsa' })],
  ['a key of its own in its header', () => token({}, { jwk: jwk('ec', otherEc) }, otherEc.privateKey)],
  ['a jku', () => token({}, { jku: 'https://evil.example/keys' })],
  ['an x5u', () => token({}, { x5u: 'https://evil.example/chain' })],
  ['crit', () => token({}, { crit: ['exp'] })],
  ['an access token', () => token({}, { typ: 'at+jwt' })],
  ['no kid', () => forge({ claims: claims(), header: { alg: 'ES256' } })],
  ['a kid that climbs', () => token({}, { kid: '../../etc/passwd' })],
  ['a key for encryption', () => token({}, { kid: 'encryption' }, otherEc.privateKey)],
  ['another key', () => token({}, {}, otherEc.privateKey)],
  ['another issuer', () => token({ iss: 'https://login.example.org/' })],
  ['two issuers', () => token({ iss: [issuer] })],
  ['no issuer', () => token({ iss: undefined })],
  ['another audience', () => token({ aud: 'other' })],
  ['our audience as a part', () => token({ aud: 'countersign-dev' })],
  ['two audiences, made for none', () => token({ aud: ['a', 'countersign'] })],
  ['two audiences, made for the other', () => token({ aud: ['a', 'countersign'], azp: 'a' })],
  ['made for another', () => token({ azp: 'a' })],
  ['no exp', () => token({ exp: undefined })],
  [
    'an exp without end',
    () => forge({ header: header(), claims: JSON.stringify(claims()).replace(/"exp":\d+/, '"exp":1e999') }),
  ],
  ['an exp as text', () => token({ exp: `${seconds() + 60}` })],
  ['expired', () => token({ exp: seconds() })],
  ['no iat', () => token({ iat: undefined })],
  ['too old', () => token({ iat: seconds() - 3_600, exp: seconds() + 86_400 })],
  ['from the future', () => token({ iat: seconds() + 61 })],
  ['not before later', () => token({ nbf: seconds() + 61 })],
  ['no sub', () => token({ sub: undefined })],
  ['a sub that is a number', () => token({ sub: 1 })],
  ['a sub with a line break', () => token({ sub: 'bob\r\nadmin' })],
  ['a sub of 256 characters', () => token({ sub: 'a'.repeat(256) })],
  ['groups that are numbers', () => token({ groups: [1] })],
  ['groups that are an object', () => token({ groups: { admins: true } })],
  ['1,001 groups', () => token({ groups: Array(1_001).fill('a') })],
  [
    'a claim twice',
    () => forge({ header: header(), claims: JSON.stringify(claims()).replace('{', '{"sub":"ann",') }),
  ],
  ['padding', () => `${token()}=`],
  ['four parts', () => `${token()}.a`],
  [
    'JSON 40 levels deep',
    () => forge({ header: header(), claims: `{"a":${'['.repeat(40)}${']'.repeat(40)}}` }),
  ],
];

describe('an ID token is refused, and nobody is named by it:', () => {
  test.each(refused)('%s', async (_, make) => {
    harness.clock.move(61_000);
    const text = make();
    const answer = await ask(text);
    expect([answer.status, answer.json.code]).toEqual([401, 'unauthenticated']);
    const event = await lastAdminEvent();
    expect(event).toMatchObject({ action: 'refused', code: 'unauthenticated', actor: { kind: 'anonymous' } });
    expect(JSON.stringify(event)).not.toContain(text.split('.')[2] || text);
  });
});

test.each([...routeAccess].filter(([, access]) => access !== 'public').map(([route]) => route))(
  '%s denies a token of nobody, and one for somebody else',
  async (route) => {
    const [method = '', pattern = ''] = route.split(' ');
    const path = pattern.replace(/:[a-z]+/g, 'none');
    expect((await ask(token({ groups: [] }), path, method)).json.code).toBe('forbidden');
    expect((await ask(token({ aud: 'other' }), path, method)).json.code).toBe('unauthenticated');
  },
);

describe('the keys of the issuer', () => {
  test('are asked for once however many tokens name others', async () => {
    harness.clock.move(60_000);
    await ask(token());
    const before = fetches;
    for (let i = 0; i < 50; i++) await ask(token({}, { kid: `random-${i}` }));
    expect(fetches - before).toBeLessThanOrEqual(1);
  });

  test('that were taken away verify nothing once they have been read again', async () => {
    published = keys.filter(({ kid }) => kid !== 'ec');
    harness.clock.move(301_000);
    expect((await ask(token())).status).toBe(401);
    published = keys;
    harness.clock.move(301_000);
    expect((await ask(token())).status).toBe(200);
  });

  test('from a file that is not there are refused at the start', () => {
    const missing = { ...fromFile, oidcJwksFile: '/nowhere/jwks.json' };
    expect(() => openOidc(missing, harness.clock, openLog('silent'))).toThrow(
      expect.objectContaining({ code: 'config_invalid' }) as Error,
    );
  });

  test('that nobody can have are 503, and tokens of our own still work', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'cs-oidc-'));
    const missing = { ...fromFile, oidcJwksFile: join(directory, 'jwks.json') };
    writeFileSync(missing.oidcJwksFile, JSON.stringify({ keys }));
    const away = await startHarness({}, (clock) => openOidc(missing, clock, openLog('silent')));
    // It was there at the start, or there had been none.
    rmSync(directory, { recursive: true });
    const times = { iat: away.clock.now().getTime() / 1_000, exp: away.clock.now().getTime() / 1_000 + 60 };
    const headers = { authorization: `Bearer ${token(times)}` };
    try {
      const answer = await away.overTls({ path: '/v1/status', headers }, null);
      expect([answer.status, answer.json.code]).toEqual([503, 'oidc_unavailable']);
      expect((await away.overTls({ path: '/v1/status' }, 'viewer')).status).toBe(200);
    } finally {
      await away.close();
    }
  });
});

const fromFile: OidcConfig = {
  oidcIssuer: issuer,
  oidcAudience: 'countersign',
  oidcJwksFile: null,
  oidcCaFile: null,
  oidcGroupsClaim: 'groups',
  oidcMaxAgeSeconds: 3_600,
};

test('an e-mail address counts where it is the configured claim, and verified', async () => {
  const check = createIdTokenCheck(
    { ...settings, groupsClaim: 'email' },
    async () => ({ authority: { keyId: 'ec', publicKey: spki(ec) }, alg: null }),
    harness.clock,
  );
  const email = { email: 'ann@example.org', groups: undefined };
  expect((await check(token({ ...email, email_verified: true }))).groups).toEqual(['ann@example.org']);
  for (const email_verified of [false, 'true', undefined, 1]) {
    expect((await check(token({ ...email, email_verified }))).groups).toEqual([]);
  }
});

function spki({ publicKey }: Pair): Uint8Array {
  return new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }));
}
