import { status } from '@grpc/grpc-js';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { WorkloadCredentials, X509Svid } from '../../src/identity/credentials.ts';
import { secretTypeUrl } from '../../src/xds/secret.ts';
import type { DeltaDiscoveryResponse } from '../../src/wire/discovery.ts';
import { createAuthority, credentialsOf, nothingOf, type TestAuthority } from './certificates.ts';
import {
  createSource,
  type DeltaStream,
  deltaSecretsOf,
  type RunningSds,
  secretsOf,
  startSds,
  until,
} from './harness.ts';
import { domainsOf, serialOf } from './told.ts';

const clusters = 'type.googleapis.com/envoy.config.cluster.v3.Cluster';
const webName = 'spiffe://example.org/web';
const apiName = 'spiffe://example.org/api';

let authority: TestAuthority;
let friend: TestAuthority;
let web: X509Svid;
let renewed: X509Svid;
let api: X509Svid;
let credentials: WorkloadCredentials;
let sds: RunningSds;

beforeAll(async () => {
  [authority, friend] = await Promise.all([
    createAuthority('example.org'),
    createAuthority('friend.example'),
  ]);
  web = await authority.issue(webName);
  renewed = await authority.issue(webName);
  api = await authority.issue(apiName);
  credentials = credentialsOf(authority, [web, api], [friend.bundle]);
});

afterEach(() => sds.close());

describe.each<[string, () => DeltaStream]>([
  ['DeltaSecrets', () => sds.openDelta()],
  ['DeltaAggregatedResources', () => sds.openDeltaAds()],
])('%s', (_, open) => {
  async function start(first = credentials) {
    const source = createSource(() => first);
    sds = await startSds(source.watch);
    return source;
  }

  test('gives each name its secret, with a version of its own', async () => {
    await start();
    const stream = open();
    const names = ['default', apiName, 'ROOTCA', 'ALL', 'spiffe://friend.example'];
    stream.send({ resourceNamesSubscribe: names });
    const response = await stream.response();
    expect(response).toMatchObject({ typeUrl: secretTypeUrl, removedResources: [] });
    const secrets = deltaSecretsOf(response);
    expect([...secrets.keys()]).toEqual(names);
    for (const [name, secret] of secrets) expect(secret.name).toBe(name);
    expect(serialOf(secrets.get('default'))).toBe(web.serial);
    expect(serialOf(secrets.get(apiName))).toBe(api.serial);
    expect(domainsOf(secrets.get('ALL'))).toEqual(['example.org', 'friend.example']);
    expect(new Set(response.resources.map(({ version }) => version)).size).toBe(names.length);
  });

  test('pushes what has changed alone', async () => {
    const source = await start();
    const stream = open();
    stream.send({ resourceNamesSubscribe: ['default', apiName, 'ROOTCA'] });
    stream.acknowledge(await stream.response());
    await until(() => sds.acknowledged.length === 3);
    source.publish(() => credentialsOf(authority, [renewed, api], [friend.bundle]));
    const secrets = deltaSecretsOf(await stream.response());
    expect([...secrets.keys()]).toEqual(['default']);
    expect(serialOf(secrets.get('default'))).toBe(renewed.serial);
  });

  test('adds and drops names, whatever the nonce', async () => {
    const source = await start();
    const stream = open();
    stream.send({ resourceNamesSubscribe: ['default'] });
    stream.acknowledge(await stream.response());
    stream.send({ resourceNamesSubscribe: [apiName], responseNonce: 'stale' });
    const second = await stream.response();
    expect([...deltaSecretsOf(second).keys()]).toEqual([apiName]);
    stream.send({ resourceNamesUnsubscribe: ['default'], responseNonce: second.nonce });
    await until(() => sds.acknowledged.length === 2);
    source.publish(() => credentialsOf(authority, [renewed, api], [friend.bundle]));
    stream.send({ resourceNamesSubscribe: ['ROOTCA'] });
    expect([...deltaSecretsOf(await stream.response()).keys()]).toEqual(['ROOTCA']);
  });

  test('sends nothing again to a client that comes back with it, and takes that for its word', async () => {
    await start();
    const before = open();
    before.send({ resourceNamesSubscribe: ['default', 'ROOTCA'] });
    const initialResourceVersions = versionsOf(await before.response());
    before.call.cancel();
    await until(() => sds.streams() === 0);
    await sds.close();
    // Another process, which has the same certificates.
    await start();
    const after = open();
    after.send({ resourceNamesSubscribe: ['default', 'ROOTCA'], initialResourceVersions });
    await until(() => sds.acknowledged.length === 2);
    expect(sds.acknowledged.map(({ name, version }) => [name, version])).toEqual(
      Object.entries(initialResourceVersions),
    );
    // Whatever is sent for the next request comes after what was sent for the first.
    after.send({ resourceNamesSubscribe: ['ALL'] });
    expect([...deltaSecretsOf(await after.response()).keys()]).toEqual(['ALL']);
    expect(sds.pushed.map(({ names }) => names)).toEqual([['ALL']]);
  });

  test('sends a client that comes back what is newer, in one response', async () => {
    const source = await start();
    const before = open();
    before.send({ resourceNamesSubscribe: ['default', 'ROOTCA'] });
    const initialResourceVersions = versionsOf(await before.response());
    before.call.cancel();
    source.publish(() => credentialsOf(authority, [renewed], [friend.bundle]));
    const after = open();
    after.send({ resourceNamesSubscribe: ['default', 'ROOTCA'], initialResourceVersions });
    expect(serialOf(deltaSecretsOf(await after.response()).get('default'))).toBe(renewed.serial);
    expect(sds.acknowledged.map(({ name }) => name)).toEqual(['ROOTCA']);
  });

  test('says that a withdrawn secret is gone, and gives it again later', async () => {
    const source = await start();
    const stream = open();
    stream.send({ resourceNamesSubscribe: ['default', apiName] });
    stream.acknowledge(await stream.response());
    await until(() => sds.acknowledged.length === 2);
    source.publish(() => credentialsOf(authority, [web], [friend.bundle]));
    const gone = await stream.response();
    expect([gone.resources, gone.removedResources]).toEqual([[], [apiName]]);
    expect(sds.refusals).toMatchObject([{ code: 'identity_none', resource: apiName }]);
    stream.acknowledge(gone);
    source.publish(() => credentials);
    expect(serialOf(deltaSecretsOf(await stream.response()).get(apiName))).toBe(api.serial);
  });

  test('says nothing of a name that is not there yet: Envoy would open its port without a certificate', async () => {
    const source = await start(nothingOf(authority));
    const stream = open();
    stream.send({ resourceNamesSubscribe: ['default'] });
    await until(() => sds.refusals.length === 1);
    source.publish(() => credentials);
    const first = await stream.response();
    expect([first.removedResources, [...deltaSecretsOf(first).keys()]]).toEqual([[], ['default']]);
    expect(sds.pushed).toHaveLength(1);
  });

  test('ends when what it gave is banned; the next stream is told that it is gone and stays open', async () => {
    const source = await start();
    const stream = open();
    stream.send({ resourceNamesSubscribe: ['default', 'ROOTCA'] });
    const response = await stream.response();
    stream.acknowledge(response);
    await until(() => sds.acknowledged.length === 2);
    const banned = { ...credentialsOf(authority, [api]), banned: [web.id], isDefaultBanned: true };
    source.publish(() => banned);
    expect(await stream.status()).toMatchObject({ code: status.PERMISSION_DENIED });
    const next = open();
    next.send({
      resourceNamesSubscribe: ['default', 'ROOTCA'],
      initialResourceVersions: versionsOf(response),
    });
    expect((await next.response()).removedResources).toEqual(['default']);
    expect(sds.streams()).toBe(1);
    source.publish(() => credentials);
  });

  test('offers what was refused together once more, each alone, and nothing twice after that', async () => {
    await start();
    const stream = open();
    stream.send({ resourceNamesSubscribe: ['default', 'ROOTCA'] });
    stream.reject(await stream.response(), 'Failed to load');
    const first = await stream.response();
    expect([...deltaSecretsOf(first).keys()]).toEqual(['default']);
    for (let i = 0; i < 200; i++) stream.reject(first, `evil\n\u001b[31m${i}`);
    const second = await stream.response();
    expect([...deltaSecretsOf(second).keys()]).toEqual(['ROOTCA']);
    stream.acknowledge(second);
    await until(() => sds.acknowledged.length === 1);
    expect([sds.pushed.length, sds.rejected.length, sds.log.length]).toEqual([3, 2, 1]);
  });

  test('is limited, and cut off when it does not answer', async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch, { limits: { answerMs: 100, streamsPerUid: 1 } });
    const stream = open();
    stream.send({ resourceNamesSubscribe: ['default'] });
    await stream.response();
    const second = open();
    second.send({ resourceNamesSubscribe: ['default'] });
    expect(await second.status()).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    source.publish(() => credentialsOf(authority, [renewed]));
    expect((await stream.status()).metadata.get('countersign-code')).toEqual(['stream_stalled']);
  });

  test.each([
    ['10,000 names', { resourceNamesSubscribe: Array.from({ length: 10_000 }, (_, i) => `name-${i}`) }],
    [
      '10,000 names to drop',
      { resourceNamesUnsubscribe: Array.from({ length: 10_000 }, (_, i) => `n-${i}`) },
    ],
    ['a name of 64 KiB', { resourceNamesSubscribe: ['x'.repeat(65_536)] }],
    ['a name of 1 MiB', { resourceNamesSubscribe: ['x'.repeat(1_048_577)] }],
  ])('refuses %s', async (_name, request) => {
    await start();
    const stream = open();
    stream.send(request);
    expect(await stream.status()).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
  });

  test('takes odd names and odd versions for what they are', async () => {
    await start();
    const stream = open();
    const odd = [
      '__proto__',
      'constructor',
      '*',
      '',
      '../../etc/passwd',
      'file-cert:/etc/shadow~/etc/shadow',
    ];
    stream.send({
      resourceNamesSubscribe: [...odd, 'default'],
      initialResourceVersions: Object.fromEntries(odd.map((name) => [name, 'x'.repeat(1_000)])),
    });
    const { resources, removedResources } = await stream.response();
    expect(resources.map(({ name }) => name)).toEqual(['default']);
    // What the client says it has and may not have is gone; `__proto__` never was a version.
    expect(removedResources).toEqual(odd.slice(1));
  });
});

describe('ADS', () => {
  test('carries many secrets on one stream, and changes of the names', async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch);
    const stream = sds.openAds();
    stream.send({ resourceNames: ['default', 'ROOTCA'] });
    const first = await stream.response();
    expect(secretsOf(first).map(({ name }) => name)).toEqual(['default', 'ROOTCA']);
    stream.acknowledge(first, ['default', 'ROOTCA', apiName, 'spiffe://friend.example']);
    const second = await stream.response();
    expect(secretsOf(second)).toHaveLength(4);
    stream.acknowledge(second, ['default']);
    const third = await stream.response();
    expect(secretsOf(third).map(({ name }) => name)).toEqual(['default']);
    stream.acknowledge(third, ['default']);
    await until(() => sds.acknowledged.length === 7);
    source.publish(() => credentialsOf(authority, [renewed, api], [friend.bundle]));
    expect(secretsOf(await stream.response()).map(serialOf)).toEqual([renewed.serial]);
  });

  test('leaves other kinds unanswered, with one line, and goes on with secrets', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = sds.openAds();
    for (let i = 0; i < 100; i++) stream.send({ typeUrl: clusters, resourceNames: [] });
    stream.send({ typeUrl: `${clusters}.other`, resourceNames: [] });
    stream.send({ resourceNames: ['default'], node: undefined });
    // It is the first response: nothing was said of clusters, which Envoy would take for the order to drop them.
    expect((await stream.response()).typeUrl).toBe(secretTypeUrl);
    expect(sds.log).toEqual([
      'a proxy asks for a kind of resource that is not served here, and is not answered',
    ]);
  });

  test.each([
    ['StreamAggregatedResources', () => sds.openAds()],
    ['DeltaAggregatedResources', () => sds.openDeltaAds()],
  ])('%s wants every request to name its type', async (_, open) => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = open();
    stream.send({ typeUrl: '' });
    expect((await stream.status()).metadata.get('countersign-code')).toEqual(['message_invalid']);
  });

  test.each([
    ['DeltaSecrets', () => sds.openDelta()],
    ['StreamSecrets', () => sds.open()],
  ])('%s refuses another type', async (_, open) => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = open();
    stream.send({ typeUrl: clusters });
    expect(await stream.status()).toMatchObject({ code: status.INVALID_ARGUMENT });
  });

  test('streams of every form end with OK at the end, and none is opened any more', async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch);
    const open = () => [sds.open(), sds.openDelta(), sds.openAds(), sds.openDeltaAds()];
    const streams = open();
    for (const stream of streams) {
      stream.send({ resourceNames: ['default'], resourceNamesSubscribe: ['default'] });
      await stream.response();
    }
    sds.closeService();
    for (const stream of streams) expect(await stream.status()).toMatchObject({ code: status.OK });
    await until(() => source.watchers() === 0);
    for (const stream of open()) {
      stream.send({});
      expect(await stream.status()).toMatchObject({ code: status.UNAVAILABLE });
    }
  });
});

test.each<[what: string, after: () => WorkloadCredentials]>([
  ['is taken away', () => nothingOf(authority)],
  ['makes room for another default', () => credentialsOf(authority, [api])],
])('a key that %s while its caller is attested again does not leave', async (_, after) => {
  const gate = Promise.withResolvers<void>();
  let looks = 0;
  const source = createSource(() => credentials);
  sds = await startSds(source.watch, {
    attest: async ({ pid, uid, gid }) => {
      looks += 1;
      if (looks === 2) await gate.promise;
      return { selectors: [], caller: { pid, uid, gid } };
    },
  });
  const stream = sds.openDelta();
  stream.send({ resourceNamesSubscribe: ['default', 'spiffe://friend.example'] });
  stream.acknowledge(await stream.response());
  await until(() => sds.acknowledged.length === 2);
  source.publish(() => credentialsOf(authority, [renewed], [friend.bundle]));
  await until(() => looks === 2);
  source.publish(after);
  await until(() => sds.refusals.some(({ resource }) => resource === 'spiffe://friend.example'));
  gate.resolve();
  expect((await stream.status()).metadata.get('countersign-code')).toEqual(['credentials_pending']);
  expect(sds.pushed).toHaveLength(1);
});

function versionsOf({ resources }: DeltaDiscoveryResponse): Record<string, string> {
  return Object.fromEntries(resources.map(({ name, version }) => [name, version]));
}
