import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Answer, type Harness, startHarness } from './harness.ts';

let harness: Harness;
const web = 'spiffe://example.org/ns/shop/sa/web';
const [a, b] = ['web-a', 'web-b'];

beforeAll(async () => {
  harness = await startHarness();
  for (const id of [b, a]) {
    const body = { id, spiffeId: web, selectors: [`unix:uid:${id === a ? 1 : 2}`] };
    expect((await harness.overTls({ method: 'POST', path: '/v1/entries', body })).status).toBe(201);
  }
  const old = {
    id: 'old',
    spiffeId: `${web}-old`,
    selectors: ['unix:uid:3'],
    expiresAt: '2027-01-01T00:00:01Z',
  };
  expect((await harness.overTls({ method: 'POST', path: '/v1/entries', body: old })).status).toBe(201);
});
afterAll(() => harness.close());

type Role = Parameters<Harness['overTls']>[1];
const post = (path: string, body: unknown, role: Role = 'admin'): Promise<Answer> =>
  harness.overTls({ method: 'POST', path, body }, role);
const mint = (body: unknown, role: Role = 'admin') => post('/v1/jwt/mint', body, role);
const report = async () => (await harness.overTls({ path: '/v1/ca' }, 'viewer')).json;

test('a token is minted for an entry, validates, and the record names the operator', async () => {
  const minted = await mint({ spiffeId: web, audience: ['db', 'cache'], ttlSeconds: 60 });
  expect(minted.status).toBe(201);
  expect(minted.headers['cache-control']).toBe('no-store');
  const { token, keyId, issuedAt, expiresAt, ...rest } = minted.json;
  // Of several entries with the identity the first by id.
  expect(rest).toEqual({ spiffeId: web, audiences: ['db', 'cache'], entryId: a });
  expect(Date.parse(expiresAt) - Date.parse(issuedAt)).toBe(60_000);
  const [event] = await harness.events('jwt_issuance');
  expect(event).toMatchObject({ spiffeId: web, entryId: a, actor: { kind: 'token', role: 'admin' }, keyId });
  expect(JSON.stringify(event)).not.toContain(token);
  const valid = await post('/v1/jwt/validate', { token, audience: 'cache' }, 'viewer');
  expect([valid.status, valid.json]).toMatchObject([
    200,
    { spiffeId: web, audiences: ['db', 'cache'], keyId, expiresAt, claims: { sub: web } },
  ]);
  const bundle = await harness.overTls({ path: '/v1/jwt/bundle' }, 'viewer');
  expect(bundle.json.keys).toMatchObject([{ kid: keyId, use: 'jwt-svid', kty: 'EC' }]);
  expect(JSON.stringify(bundle.json)).not.toContain('"d"');
  const wanted = await mint({ entryId: b, audience: ['db'] });
  expect(wanted.json).toMatchObject({ entryId: b, spiffeId: web });
});

test.each<[string, unknown, number, string]>([
  ['nobody', { audience: ['db'] }, 400, 'body_invalid'],
  ['two', { spiffeId: web, entryId: a, audience: ['db'] }, 400, 'body_invalid'],
  ['no audience', { spiffeId: web }, 400, 'body_invalid'],
  ['an empty list', { spiffeId: web, audience: [] }, 400, 'jwt_audience_invalid'],
  ['an audience of nothing', { spiffeId: web, audience: [''] }, 400, 'jwt_audience_invalid'],
  ['an audience that is no list', { spiffeId: web, audience: 'db' }, 400, 'body_invalid'],
  ['an audience with a line', { spiffeId: web, audience: ['d\nb'] }, 400, 'jwt_audience_invalid'],
  [
    '17 audiences',
    { spiffeId: web, audience: Array.from({ length: 17 }, (_, n) => `a${n}`) },
    400,
    'jwt_audience_invalid',
  ],
  ['a stranger', { spiffeId: 'spiffe://example.org/none', audience: ['db'] }, 404, 'entry_not_found'],
  ['no SPIFFE ID', { spiffeId: 'web', audience: ['db'] }, 404, 'entry_not_found'],
  ['an inherited name', { entryId: '__proto__', audience: ['db'] }, 404, 'entry_not_found'],
  ['the server itself', { entryId: 'countersign.server', audience: ['db'] }, 404, 'entry_not_found'],
  ['a life of nothing', { spiffeId: web, audience: ['db'], ttlSeconds: 0 }, 400, 'body_invalid'],
  ['a life too short', { spiffeId: web, audience: ['db'], ttlSeconds: 19 }, 400, 'profile_invalid'],
  ['claims of its own', { spiffeId: web, audience: ['db'], claims: { admin: true } }, 400, 'body_invalid'],
])('minting for %s is refused, and nothing is recorded', async (_, body, status, code) => {
  const before = (await harness.events('jwt_issuance')).length;
  const answer = await mint(body);
  expect([answer.status, answer.json.code]).toEqual([status, code]);
  expect(await harness.events('jwt_issuance')).toHaveLength(before);
});

test.each<[string, unknown, number, string]>([
  ['no token', { audience: 'db' }, 400, 'body_invalid'],
  ['an empty token', { token: '', audience: 'db' }, 400, 'jwt_invalid'],
  ['three dots', { token: '...', audience: 'db' }, 400, 'jwt_invalid'],
  ['a token of 64 KiB', { token: 'a'.repeat(65_537), audience: 'db' }, 400, 'body_invalid'],
])('%s does not validate', async (_, body, status, code) => {
  const answer = await post('/v1/jwt/validate', body, 'viewer');
  expect([answer.status, answer.json.code]).toEqual([status, code]);
});

test.each<[Role, string, number]>([
  ['viewer', '/v1/jwt/mint', 403],
  ['operator', '/v1/jwt/mint', 403],
  [null, '/v1/jwt/mint', 401],
  [null, '/v1/jwt/validate', 401],
])('%s may not POST %s', async (role, path, status) => {
  expect((await post(path, {}, role)).status).toBe(status);
});

test('an entry that has expired gets none, by its name or its identity', async () => {
  harness.clock.move(2_000);
  const byId = await mint({ entryId: 'old', audience: ['db'] });
  const byIdentity = await mint({ spiffeId: `${web}-old`, audience: ['db'] });
  expect([byId.json.code, byIdentity.json.code]).toEqual(['identity_none', 'entry_not_found']);
});

test('a ban ends minting and validation in the same moment', async () => {
  const { token } = (await mint({ spiffeId: web, audience: ['db'] })).json;
  const value = encodeURIComponent(web);
  expect((await post('/v1/bans', { kind: 'spiffe-id', value: web, reason: 'stolen' })).status).toBe(201);
  expect((await mint({ spiffeId: web, audience: ['db'] })).json.code).toBe('identity_banned');
  expect((await post('/v1/jwt/validate', { token, audience: 'db' })).json.code).toBe('identity_banned');
  await harness.overTls({ method: 'DELETE', path: `/v1/bans/spiffe-id/${value}` });
  expect((await post('/v1/jwt/validate', { token, audience: 'db' })).status).toBe(200);
  // One token, by its jti.
  const { jti } = JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString());
  expect((await post('/v1/bans', { kind: 'serial', value: jti, reason: 'leaked' })).status).toBe(201);
  expect((await post('/v1/jwt/validate', { token, audience: 'db' })).json.code).toBe('identity_banned');
  expect((await mint({ spiffeId: web, audience: ['db'] })).status).toBe(201);
});

test('the keys: prepared, in force by time or by force, retired when their tokens are over', async () => {
  const { token } = (await mint({ spiffeId: web, audience: ['db'] })).json;
  const [{ keyId: first }] = (await report()).jwtKeys;
  expect(await report()).toMatchObject({
    jwtBundleSequence: 1,
    jwtKeys: [{ state: 'active', keyType: 'ec-p256' }],
    jwtNext: [{ step: 'prepare', keyId: null }],
  });
  const rotated = (await post('/v1/ca/rotate', { scope: 'jwt' })).json;
  expect(rotated).toMatchObject({
    jwtBundleSequence: 2,
    jwtKeys: [
      { keyId: first, state: 'active' },
      { state: 'prepared', activatedAt: null },
    ],
    jwtNext: [{ step: 'activate' }],
    // What is told of the other keys stays.
    bundleSequence: 2,
  });
  expect(rotated.jwtKeys[0].publicKey).toBeUndefined();
  const soon = await post('/v1/ca/activate', { scope: 'jwt' });
  expect([soon.status, soon.json.code]).toEqual([409, 'rotation_unproven']);
  expect(soon.json.detail).toContain('2027-01-01T00:10:0');
  expect((await post('/v1/ca/activate', { scope: 'jwt', force: true })).status).toBe(200);
  expect((await post('/v1/jwt/validate', { token, audience: 'db' })).status).toBe(200);
  expect((await post('/v1/ca/retire', { scope: 'jwt' })).json.code).toBe('rotation_unproven');
  harness.clock.move(700_000);
  const after = await post('/v1/ca/retire', { scope: 'jwt' });
  expect([after.status, after.json.jwtKeys.length, after.json.jwtBundleSequence]).toEqual([200, 1, 3]);
  const late = (await mint({ spiffeId: web, audience: ['db'] })).json;
  const tainted = await post('/v1/ca/taint', { keyId: late.keyId });
  expect([tainted.status, tainted.json.jwtBundleSequence]).toEqual([200, 5]);
  expect((await post('/v1/jwt/validate', { token: late.token, audience: 'db' })).json.code).toBe(
    'jwt_key_unknown',
  );
  // Retired keys are still known by name.
  expect((await post('/v1/ca/taint', { keyId: first })).json.code).toBe('rotation_out_of_order');
  const actions = (await harness.events('jwt_key')).map(({ action }) => action);
  expect(actions).toEqual(['created', 'prepared', 'forced', 'retired', 'tainted', 'prepared', 'activated']);
});
