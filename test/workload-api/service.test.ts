import { createPrivateKey, X509Certificate } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createUnixAttestor } from '../../src/attest/unix.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import type { Attestation } from '../../src/identity/evidence.ts';
import type { SpiffeWorkloadAPIClient, X509SVIDResponse } from '../../src/wire/workload.ts';
import { createScope, type Scope } from '../harness/scope.ts';
import { createAuthority } from '../xds/certificates.ts';
import { entry } from './entries.ts';
import {
  follow,
  header,
  type RunningWorkloadApi,
  refusal,
  type StartOptions,
  startWorkloadApi,
  type TestStream,
  unary,
  until,
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

const x509 = (from = client): TestStream<X509SVIDResponse> => follow(from.fetchX509Svid({}, header()));
const x509Bundles = () => follow(client.fetchX509Bundles({}, header()));
const jwtBundles = () => follow(client.fetchJwtBundles({}, header()));
const fetchJwt = () =>
  unary((done) => client.fetchJwtsvid({ audience: ['a'], spiffeId: '' }, header(), done));

const none = ['identity_none', status.PERMISSION_DENIED];
const banned = ['identity_banned', status.PERMISSION_DENIED];
const web = 'spiffe://example.org/web';
const orders = 'spiffe://example.org/orders';

describe('the security header', () => {
  test.each([
    ['missing', []],
    ['of another value', ['false']],
    ['in capitals', ['TRUE']],
    ['empty', ['']],
    ['twice', ['true', 'true']],
    ['beside another', ['true', 'false']],
  ])('%s: no call is answered', async (_, values) => {
    await start();
    door.register([entry('/web')]);
    const metadata = values.length === 0 ? undefined : header(...values);
    const refused = ['message_invalid', status.INVALID_ARGUMENT];
    for (const call of [
      client.fetchX509Svid({}, metadata),
      client.fetchX509Bundles({}, metadata),
      client.fetchJwtBundles({}, metadata),
    ]) {
      expect(await follow(call as ReturnType<typeof client.fetchX509Svid>).end()).toEqual(refused);
    }
    const given = metadata ?? header('');
    if (metadata === undefined) given.remove('workload.spiffe.io');
    const minted = unary((done) => client.fetchJwtsvid({ audience: ['a'], spiffeId: '' }, given, done));
    expect((await refusal(minted)).slice(0, 2)).toEqual(refused);
    const validated = unary((done) => client.validateJwtsvid({ audience: 'a', svid: 'x' }, given, done));
    expect((await refusal(validated)).slice(0, 2)).toEqual(refused);
    expect(door.refusals).toMatchObject([{ door: 'workload_api', code: 'message_invalid', selectors: [] }]);
    expect(door.recorded).toEqual([]);
  });
});

describe('FetchX509SVID', () => {
  test('gives leaf, key and bundle that fit, at once', async () => {
    await start();
    door.register([entry('/web', { hint: 'inside' })]);
    const { svids, crl, federatedBundles } = await x509().response();
    expect([svids.length, crl, federatedBundles]).toEqual([1, [], {}]);
    const [svid] = svids;
    const leaf = new X509Certificate(svid!.x509Svid);
    expect([svid!.spiffeId, svid!.hint, leaf.subjectAltName]).toEqual([web, 'inside', `URI:${web}`]);
    const key = createPrivateKey({ key: svid!.x509SvidKey, format: 'der', type: 'pkcs8' });
    expect(leaf.checkPrivateKey(key)).toBe(true);
    // The intermediate follows the leaf, the root is in the bundle.
    const intermediate = new X509Certificate(svid!.x509Svid.subarray(leaf.raw.length));
    expect(leaf.checkIssued(intermediate)).toBe(true);
    expect(intermediate.checkIssued(new X509Certificate(svid!.bundle))).toBe(true);
    expect(leaf.raw.length + intermediate.raw.length).toBe(svid!.x509Svid.length);
  });

  test('gives every identity, the default first, and no hint twice', async () => {
    await start();
    const gid = parseSelector(`unix:gid:${process.getgid?.() ?? 0}`);
    const more = [...entry('/web').selectors, gid];
    door.register([
      entry('/a', { hint: 'h' }),
      entry('/web', { selectors: more, hint: 'h' }),
      entry('/z', { hint: 'other' }),
    ]);
    const { svids } = await x509().response();
    expect(svids.map(({ spiffeId, hint }) => [spiffeId.split('/').at(-1), hint])).toEqual([
      ['web', 'h'],
      ['a', ''],
      ['z', 'other'],
    ]);
  });

  test('sends the full state after each change, and only then', async () => {
    await start();
    door.register([entry('/orders')]);
    const stream = x509();
    await stream.response();
    door.register([entry('/orders'), entry('/web')]);
    expect((await stream.response()).svids.map(({ spiffeId }) => spiffeId)).toEqual([orders, web]);
    const foreign = await createAuthority('other.example');
    door.publish(2, foreign.bundle);
    expect(Object.keys((await stream.response()).federatedBundles)).toEqual(['spiffe://other.example']);
    door.publish(3);
    expect((await stream.response()).federatedBundles).toEqual({});
    door.register([entry('/orders')]);
    expect((await stream.response()).svids).toHaveLength(1);
    // Neither another entry of nobody's nor a JWT key is news here.
    door.publishJwt(7);
    door.register([entry('/orders'), entry('/else', { selectors: [parseSelector('unix:uid:4242')] })]);
    expect(await stream.quiet(200)).toBe(true);
    const serials = new Set(door.deliveries.map(({ content }) => content.kind === 'svid' && content.serial));
    expect(serials.size).toBe(2);
    expect(door.deliveries.map(({ content }) => content.kind === 'svid' && content.bundleSequence)).toEqual([
      1, 1, 1, 2, 2, 3, 3, 3,
    ]);
  });

  test('refuses who has no entry, and gives what was added later to the next call', async () => {
    await start();
    expect(await x509().end()).toEqual(none);
    expect(door.refusals).toMatchObject(
      [
        { door: 'workload_api', code: 'identity_none', selectors: expect.arrayContaining([/./]) as string[] },
      ].map((one) => ({ door: one.door, code: one.code })),
    );
    door.register([entry('/web')]);
    expect((await x509().response()).svids).toHaveLength(1);
    expect(door.recorded.filter(({ type }) => type === 'issuance')).toHaveLength(1);
  });

  test.each<[string, () => void, unknown[]]>([
    ['its entry is deleted', () => door.register([]), none],
    [
      'its entry runs out',
      () => door.register([entry('/web', { expiresAt: new Date(Date.now() + 300), revision: 2 })]),
      none,
    ],
    ['it is banned', () => door.ban(web), banned],
  ])('ends when %s', async (_, withdraw, expected) => {
    await start();
    door.register([entry('/web')]);
    const stream = x509();
    await stream.response();
    withdraw();
    expect(await stream.end()).toEqual(expected);
    expect(await x509().end()).toEqual(expected);
    await until(() => door.streams() === 0);
    // And all of it comes back.
    door.ban();
    door.register([entry('/web')]);
    expect((await x509().response()).svids).toHaveLength(1);
  });

  test('never makes another identity the default because the first is banned', async () => {
    await start();
    door.register([entry('/a'), entry('/web')]);
    const stream = x509();
    expect((await stream.response()).svids).toHaveLength(2);
    door.ban(web);
    expect((await stream.response()).svids.map(({ spiffeId }) => spiffeId)).toEqual([
      'spiffe://example.org/a',
    ]);
    door.ban('spiffe://example.org/a');
    expect(await stream.end()).toEqual(banned);
  });

  test('says UNAVAILABLE when the certificate cannot be made in time, and gives it later', async () => {
    const made = Promise.withResolvers<void>();
    await start({ beforeRecord: () => made.promise, limits: { firstMs: 100 } });
    door.register([entry('/web')]);
    expect(await x509().end()).toEqual(['credentials_pending', status.UNAVAILABLE]);
    made.resolve();
    await until(() => door.keeperCount() === 1);
    expect((await x509().response()).svids).toHaveLength(1);
    expect(door.refusals).toEqual([]);
  });

  test('is attested again before each key: a caller that became another gets nothing more', async () => {
    let changed = false;
    const attest = createUnixAttestor();
    await start({
      attest: async (peer): Promise<Attestation> => {
        const found = await attest(peer);
        return changed
          ? { ...found, selectors: [...found.selectors.slice(1), parseSelector('unix:gid:4242')] }
          : found;
      },
    });
    door.register([entry('/web')]);
    const stream = x509();
    await stream.response();
    changed = true;
    door.register([entry('/web'), entry('/a')]);
    expect(await stream.end()).toEqual(['attestation_failed', status.UNAUTHENTICATED]);
    expect(door.refusals).toMatchObject([{ code: 'attestation_failed' }]);
    expect(door.deliveries).toHaveLength(1);
  });
});

describe('what is taken away while the caller is attested again', () => {
  test.each<[string, () => void, unknown[]]>([
    ['an identity that is banned', () => door.ban(web), banned],
    ['an entry that is deleted', () => door.register([]), none],
  ])('never leaves: %s', async (_, withdraw, afterwards) => {
    const attest = createUnixAttestor();
    const gate = Promise.withResolvers<void>();
    let asked = 0;
    await start({
      attest: async (peer): Promise<Attestation> => {
        const found = await attest(peer);
        asked += 1;
        if (asked === 2) await gate.promise;
        return found;
      },
    });
    door.register([entry('/web')]);
    const stream = x509();
    await until(() => asked === 2);
    withdraw();
    gate.resolve();
    expect(await stream.end()).toEqual(['credentials_pending', status.UNAVAILABLE]);
    expect(door.deliveries).toEqual([]);
    expect(await x509().end()).toEqual(afterwards);
  });
});

describe('bundles', () => {
  test('come by trust domain, and again after each change of theirs', async () => {
    await start();
    door.register([entry('/web')]);
    const [certificates, keys] = [x509Bundles(), jwtBundles()];
    const root = Buffer.from(door.ca.root.certificate);
    expect((await certificates.response()).bundles).toEqual({ 'spiffe://example.org': root });
    const { bundles } = await keys.response();
    expect(Object.keys(bundles)).toEqual(['spiffe://example.org']);
    expect(JSON.parse(String(bundles['spiffe://example.org']))).toMatchObject({
      keys: [{ kid: 'k1', use: 'jwt-svid', kty: 'EC', crv: 'P-256' }],
    });
    const foreign = await createAuthority('other.example');
    door.publish(2, foreign.bundle);
    expect(Object.keys((await certificates.response()).bundles)).toEqual([
      'spiffe://example.org',
      'spiffe://other.example',
    ]);
    expect(await keys.quiet(100)).toBe(true);
    door.publishJwt(2);
    await keys.response();
    expect(await certificates.quiet(100)).toBe(true);
  });

  test('make no certificate', async () => {
    await start();
    door.register([entry('/web')]);
    await Promise.all([x509Bundles().response(), jwtBundles().response()]);
    expect([door.recorded, door.keeperCount(), door.deliveries]).toEqual([[], 0, []]);
  });

  test.each([
    ['X.509', x509Bundles],
    ['JWT', jwtBundles],
  ])('%s: are for callers with an identity alone', async (_, open) => {
    await start();
    expect(await open().end()).toEqual(none);
    door.register([entry('/web')]);
    const stream = open();
    await stream.response();
    door.ban(web);
    expect(await stream.end()).toEqual(banned);
  });
});

test('what is not served is UNIMPLEMENTED', async () => {
  await start();
  door.register([entry('/web')]);
  const outcome = await new Promise<number>((resolve) => {
    client
      .makeServerStreamRequest(
        '/SpiffeWorkloadAPI/FetchWITSVID',
        () => Buffer.alloc(0),
        (bytes: Buffer) => bytes,
        {},
        header(),
      )
      .on('data', () => undefined)
      .on('error', () => undefined)
      .on('status', ({ code }: { code: number }) => resolve(code));
  });
  expect(outcome).toBe(status.UNIMPLEMENTED);
});

test('a close ends every stream with UNAVAILABLE, and turns new calls away', async () => {
  await start();
  door.register([entry('/web')]);
  const streams = [x509(), x509Bundles(), jwtBundles()];
  for (const stream of streams) await stream.response();
  door.closeService();
  const down = ['shutting_down', status.UNAVAILABLE];
  for (const stream of streams) expect(await stream.end()).toEqual(down);
  expect(await x509().end()).toEqual(down);
  expect((await refusal(fetchJwt())).slice(0, 2)).toEqual(down);
  expect(door.refusals).toEqual([]);
});
