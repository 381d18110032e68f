import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readJwt } from '../../src/spiffe/jwt-token.ts';
import type {
  JWTSVIDResponse,
  SpiffeWorkloadAPIClient,
  ValidateJWTSVIDResponse,
} from '../../src/wire/workload.ts';
import { createScope, type Scope } from '../harness/scope.ts';
import { entry } from './entries.ts';
import {
  follow,
  header,
  refusal,
  type RunningWorkloadApi,
  type StartOptions,
  startWorkloadApi,
  unary,
} from './harness.ts';

let scope: Scope;
let door: RunningWorkloadApi;
let client: SpiffeWorkloadAPIClient;

beforeEach(() => {
  scope = createScope();
});
afterEach(() => scope.close());

async function start(options: StartOptions = {}) {
  door = await startWorkloadApi(scope, options);
  client = door.client();
}

const fetchJwt = (audience: string[], spiffeId = '') =>
  unary<JWTSVIDResponse>((done) => client.fetchJwtsvid({ audience, spiffeId }, header(), done));
const validate = (svid: string, audience: string) =>
  unary<ValidateJWTSVIDResponse>((done) => client.validateJwtsvid({ audience, svid }, header(), done));

const none = ['identity_none', status.PERMISSION_DENIED];
const banned = ['identity_banned', status.PERMISSION_DENIED];
const web = 'spiffe://example.org/web';
const orders = 'spiffe://example.org/orders';
const claimsOf = (token: string) => Object.fromEntries(readJwt(token).payload.claims);

describe('FetchJWTSVID', () => {
  test('mints one token for each identity, the default first', async () => {
    await start();
    door.register([
      entry('/orders', { hint: 'h' }),
      entry('/web', { hint: 'h' }),
      entry('/web', { id: 'web-again' }),
    ]);
    const { svids } = await fetchJwt(['a', 'b']);
    expect(svids.map(({ spiffeId, hint }) => [spiffeId, hint])).toEqual([
      [orders, 'h'],
      [web, ''],
    ]);
    for (const { svid, spiffeId } of svids) {
      expect(claimsOf(svid)).toMatchObject({ sub: spiffeId, aud: ['a', 'b'] });
    }
    expect(door.recorded.map(({ type }) => type)).toEqual(['jwt_issuance', 'jwt_issuance']);
  });

  test('mints for the one identity that is asked for', async () => {
    await start();
    door.register([entry('/orders'), entry('/web')]);
    expect((await fetchJwt(['a'], web)).svids.map(({ spiffeId }) => spiffeId)).toEqual([web]);
  });

  test.each<[string, string[], string, string, number]>([
    ['no audience', [], '', 'jwt_audience_invalid', status.INVALID_ARGUMENT],
    ['an empty audience', [''], '', 'jwt_audience_invalid', status.INVALID_ARGUMENT],
    ['too many audiences', Array.from({ length: 17 }, (_, i) => `a${i}`), '', 'jwt_audience_invalid', 3],
    ['no SPIFFE ID', ['a'], 'web', 'spiffe_id_scheme', status.INVALID_ARGUMENT],
    ['a trust domain', ['a'], 'spiffe://example.org', 'spiffe_id_path_missing', status.INVALID_ARGUMENT],
    ['the ID of somebody else', ['a'], `${web}x`, 'identity_none', status.PERMISSION_DENIED],
    ['a foreign ID', ['a'], 'spiffe://other/web', 'identity_none', status.PERMISSION_DENIED],
    ['a banned identity', ['a'], 'spiffe://example.org/x-bad', 'identity_banned', status.PERMISSION_DENIED],
  ])('refuses %s', async (_, audience, id, code, grpc) => {
    await start();
    door.register([entry('/orders'), entry('/web'), entry('/x-bad')]);
    door.ban('spiffe://example.org/x-bad');
    expect((await refusal(fetchJwt(audience, id))).slice(0, 2)).toEqual([code, grpc]);
    expect(door.recorded).toEqual([]);
    expect(door.refusals).toMatchObject([{ door: 'workload_api', code, resource: id }]);
  });

  test('leaves out what is banned, and gives nothing when that is the default', async () => {
    await start();
    door.register([entry('/orders'), entry('/web')]);
    door.ban(web);
    expect((await fetchJwt(['a'])).svids.map(({ spiffeId }) => spiffeId)).toEqual([orders]);
    door.ban(orders);
    expect((await refusal(fetchJwt(['a']))).slice(0, 2)).toEqual(banned);
    // By its name the other one is there.
    expect((await fetchJwt(['a'], web)).svids).toHaveLength(1);
    door.register([]);
    expect((await refusal(fetchJwt(['a']))).slice(0, 2)).toEqual(none);
  });

  test('is limited for each uid, every token counted', async () => {
    await start({ limits: { mints: { burst: 3, perSecond: 0 } } });
    door.register([entry('/orders'), entry('/web')]);
    expect((await fetchJwt(['a'])).svids).toHaveLength(2);
    const limited = ['rate_limited', status.RESOURCE_EXHAUSTED];
    expect((await refusal(fetchJwt(['a']))).slice(0, 2)).toEqual(limited);
    expect((await refusal(fetchJwt(['a'], web))).slice(0, 2)).toEqual(limited);
    // Tokens are one thing, certificates another.
    expect((await follow(client.fetchX509Svid({}, header())).response()).svids).toHaveLength(2);
    expect(door.refusals.map(({ code }) => code)).toEqual(['rate_limited', 'rate_limited']);
  });
});

describe('ValidateJWTSVID', () => {
  const mint = async (): Promise<string> => (await fetchJwt(['a', 'b'], web)).svids[0]!.svid;

  test('says whose token it is and what it claims', async () => {
    await start();
    door.register([entry('/web')]);
    const token = await mint();
    const { spiffeId, claims } = await validate(token, 'b');
    expect(spiffeId).toBe(web);
    expect(claims).toEqual(claimsOf(token));
    expect(claims).toMatchObject({ sub: web, aud: ['a', 'b'], exp: expect.any(Number) as number });
  });

  test.each<[string, (token: string) => [string, string], string]>([
    ['another audience', (token) => [token, 'c'], 'jwt_audience_mismatch'],
    ['no token', () => ['', 'a'], 'message_invalid'],
    ['no audience', (token) => [token, ''], 'message_invalid'],
    ['text', () => ['token', 'a'], 'jwt_invalid'],
    ['another signature', (token) => [`${token.slice(0, -8)}AAAAAAAA`, 'a'], 'jwt_invalid'],
    ['no signature', (token) => [`${token.split('.').slice(0, 2).join('.')}.`, 'a'], 'jwt_invalid'],
    ['100 kB', (token) => [`${token}${'A'.repeat(100_000)}`, 'a'], 'jwt_invalid'],
  ])('refuses %s', async (_, make, code) => {
    await start();
    door.register([entry('/web')]);
    const [refused, grpc, details] = await refusal(validate(...make(await mint())));
    expect([refused, grpc]).toEqual([code, status.INVALID_ARGUMENT]);
    if (code.startsWith('jwt_')) expect(details).toMatch(new RegExp(`^${code}: `));
    // A bad token is an answer, and no refusal of who asks.
    expect(door.refusals.map((one) => one.code)).toEqual(code.startsWith('jwt_') ? [] : [code]);
  });

  test('refuses the token of a banned identity, and says so', async () => {
    await start();
    door.register([entry('/orders'), entry('/web')]);
    const token = await mint();
    door.ban(web);
    const [code, grpc, details] = await refusal(validate(token, 'a'));
    expect([code, grpc]).toEqual(['jwt_invalid', status.INVALID_ARGUMENT]);
    expect(details).toMatch(/^identity_banned: /);
  });

  test('is for callers with an identity alone', async () => {
    await start();
    door.register([entry('/web')]);
    const token = await mint();
    door.register([]);
    expect((await refusal(validate(token, 'a'))).slice(0, 2)).toEqual(none);
    door.register([entry('/web')]);
    door.ban(web);
    expect((await refusal(validate(token, 'a'))).slice(0, 2)).toEqual(banned);
  });
});
