import { status } from '@grpc/grpc-js';
import { afterEach, beforeAll, expect, test } from 'vitest';
import type { WatchCredentials, WorkloadCredentials, X509Svid } from '../../src/identity/credentials.ts';
import { secretOf } from '../../src/xds/secret.ts';
import { createAuthority, credentialsOf, nothingOf, type TestAuthority } from './certificates.ts';
import { createSource, type RunningSds, secretsOf, startSds, until } from './harness.ts';

let authority: TestAuthority;
let web: X509Svid;
let zebra: X509Svid;
let sds: RunningSds;
let close = async (): Promise<void> => undefined;

beforeAll(async () => {
  authority = await createAuthority('example.org');
  web = await authority.issue('spiffe://example.org/web');
  zebra = await authority.issue('spiffe://example.org/zebra');
});

afterEach(() => close());

/** Everything of one caller whose default identity is web, and whose only other one is zebra. */
const both = (): WorkloadCredentials => credentialsOf(authority, [web, zebra]);
const onlyWeb = (): WorkloadCredentials => credentialsOf(authority, [web]);
const webBanned = (): WorkloadCredentials => ({
  ...credentialsOf(authority, [zebra]),
  banned: [web.id],
  isDefaultBanned: true,
});
const zebraBanned = (): WorkloadCredentials => ({ ...credentialsOf(authority, [web]), banned: [zebra.id] });
const allBanned = (): WorkloadCredentials => ({
  ...nothingOf(authority),
  banned: [web.id],
  isDefaultBanned: true,
});

async function start(watch: WatchCredentials): Promise<void> {
  sds = await startSds(watch);
  close = async () => {
    close = async () => undefined;
    await sds.close();
  };
}

async function given(names: readonly string[], first: () => WorkloadCredentials) {
  const source = createSource(first);
  await start(source.watch);
  const stream = sds.open();
  stream.send({ resourceNames: [...names] });
  const response = await stream.response();
  stream.acknowledge(response, names);
  await until(() => sds.acknowledged.length === names.length);
  return { source, stream };
}

test.each([
  ['default', onlyWeb, allBanned],
  ['spiffe://example.org/web', onlyWeb, allBanned],
  ['default', both, webBanned],
  ['spiffe://example.org/web', both, webBanned],
  ['spiffe://example.org/zebra', both, zebraBanned],
])('a stream that was given %s ends when that is banned, and it is recorded', async (name, before, after) => {
  const { source, stream } = await given([name], before);
  source.publish(after);
  expect(await stream.status()).toMatchObject({
    code: status.PERMISSION_DENIED,
    details: 'the identity is banned',
  });
  expect(sds.refusals).toMatchObject([{ door: 'sds', code: 'identity_banned', resource: name, count: 1 }]);
});

test.each([
  ['spiffe://example.org/zebra', both, webBanned],
  ['default', both, zebraBanned],
  ['ROOTCA', both, webBanned],
  ['ROOTCA', onlyWeb, allBanned],
])('a stream that was given %s goes on when another identity is banned', async (name, before, after) => {
  const { source, stream } = await given([name], before);
  source.publish(after);
  expect(await stream.next(200)).toBeUndefined();
  expect(sds.streams()).toBe(1);
});

test.each(['default', 'spiffe://example.org/web', 'ROOTCA'])(
  'a stream opened during the ban for %s stays open with nothing, and is given it when the ban is lifted',
  async (name) => {
    const source = createSource(allBanned);
    await start(source.watch);
    const stream = sds.open();
    stream.send({ resourceNames: [name] });
    expect(await stream.next(200)).toBeUndefined();
    expect(sds.refusals).toMatchObject([{ code: 'identity_banned', resource: name }]);
    source.publish(onlyWeb);
    expect(secretsOf(await stream.response())[0]?.name).toBe(name);
  },
);

test('a name that nobody has is not called banned', async () => {
  await start(createSource(webBanned).watch);
  const stream = sds.open();
  stream.send({ resourceNames: ['spiffe://example.org/other'] });
  await until(() => sds.refusals.length === 1);
  expect(sds.refusals).toMatchObject([{ code: 'identity_none' }]);
});

test('no other identity passes for a default that is banned', () => {
  const format = { plainTrustedCa: false };
  expect(secretOf(webBanned(), 'default', format)).toBeUndefined();
  expect(secretOf(webBanned(), 'spiffe://example.org/web', format)).toBeUndefined();
  expect(secretOf(webBanned(), 'spiffe://example.org/zebra', format)?.holdsKey).toBe(true);
  expect(secretOf(webBanned(), 'ROOTCA', format)).toBeDefined();
});
