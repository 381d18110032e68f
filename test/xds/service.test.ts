import { status, type StatusObject } from '@grpc/grpc-js';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { createUnixAttestor } from '../../src/attest/unix.ts';
import { MeshError } from '../../src/errors.ts';
import type { WorkloadCredentials, X509Svid } from '../../src/identity/credentials.ts';
import type { Attest } from '../../src/identity/evidence.ts';
import { secretTypeUrl } from '../../src/xds/secret.ts';
import { createAuthority, credentialsOf, nothingOf, type TestAuthority } from './certificates.ts';
import { createSource, emptyRequest, type RunningSds, secretsOf, startSds, until } from './harness.ts';
import { serialOf } from './told.ts';

let authority: TestAuthority;
let web: X509Svid;
let renewed: X509Svid;
let credentials: WorkloadCredentials;
let sds: RunningSds;

beforeAll(async () => {
  authority = await createAuthority('example.org');
  web = await authority.issue('spiffe://example.org/web');
  renewed = await authority.issue('spiffe://example.org/web');
  credentials = credentialsOf(authority, [web]);
});

afterEach(() => sds.close());

describe('a proxy', () => {
  test('gets a certificate with its key and a bundle', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = sds.open();
    stream.send({ resourceNames: ['default', 'ROOTCA'], node: node('proxy-1') });
    const response = await stream.response();
    expect(response).toMatchObject({ typeUrl: secretTypeUrl, canary: false, resourceErrors: [] });
    const [certificate, bundle] = secretsOf(response);
    expect([certificate?.name, bundle?.name]).toEqual(['default', 'ROOTCA']);
    expect(serialOf(certificate)).toBe(web.serial);
    expect(bundle?.type?.$case).toBe('validationContext');
    stream.acknowledge(response, ['default', 'ROOTCA']);
    await until(() => sds.acknowledged.length === 2);
    expect(sds.acknowledged.map(({ name, nodeId, peer }) => [name, nodeId, peer.pid])).toEqual([
      ['default', 'proxy-1', process.pid],
      ['ROOTCA', 'proxy-1', process.pid],
    ]);
    expect(await stream.next(100)).toBeUndefined();
  });

  test('gets a renewed certificate pushed, with a key that fits', async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch);
    const stream = sds.open();
    stream.send({ resourceNames: ['default'] });
    const first = await stream.response();
    stream.acknowledge(first, ['default']);
    source.publish(() => credentialsOf(authority, [renewed]));
    const second = await stream.response();
    expect(second.nonce).not.toBe(first.nonce);
    expect(second.versionInfo).not.toBe(first.versionInfo);
    expect(serialOf(secretsOf(second)[0])).toBe(renewed.serial);
  });

  test('that reconnects with its last version is answered, and another process says the same version', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const before = sds.open();
    before.send({ resourceNames: ['default'] });
    const { versionInfo } = await before.response();
    await sds.close();
    sds = await startSds(createSource(() => credentials).watch);
    const after = sds.open();
    after.send({ resourceNames: ['default'], versionInfo, responseNonce: 'of-another-life' });
    expect((await after.response()).versionInfo).toBe(versionInfo);
  });

  test('whose entry is made later waits on the same stream, and the refusal is on record', async () => {
    const source = createSource(() => nothingOf(authority));
    sds = await startSds(source.watch);
    const stream = sds.open();
    stream.send({ resourceNames: ['default'] });
    expect(await stream.next(100)).toBeUndefined();
    expect(sds.refusals).toMatchObject([
      {
        type: 'refusal',
        door: 'sds',
        code: 'identity_none',
        resource: 'default',
        caller: { pid: process.pid, uid: process.getuid?.() },
        count: 1,
      },
    ]);
    expect(sds.refusals[0]?.selectors).toContain(`unix:uid:${process.getuid?.()}`);
    source.publish(() => credentials);
    expect(secretsOf(await stream.response())).toHaveLength(1);
  });

  test('that refuses a secret is logged once, and gets the next one', async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch);
    const stream = sds.open();
    stream.send({ resourceNames: ['default'] });
    const first = await stream.response();
    for (let i = 0; i < 5; i++) stream.reject(first, ['default'], 'Failed to load');
    expect(await stream.next(100)).toBeUndefined();
    source.publish(() => credentialsOf(authority, [renewed]));
    stream.reject(await stream.response(), ['default'], 'again');
    await until(() => sds.rejected.length === 2);
    expect(sds.rejected).toEqual(['Failed to load', 'again']);
    expect(sds.log).toEqual(['a proxy refuses its secrets and keeps the last good ones until they expire']);
  });

  test.each([
    [true, 'plain'],
    ['true', 'plain'],
    [false, 'validator'],
    ['yes', 'validator'],
    [1, 'validator'],
    [null, 'validator'],
  ])('with node metadata disable_spiffe_cert_validation %j gets a %s bundle', async (wish, kind) => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = sds.open();
    stream.send({ resourceNames: ['ROOTCA'], node: node('n', { disable_spiffe_cert_validation: wish }) });
    const [secret] = secretsOf(await stream.response());
    if (secret?.type?.$case !== 'validationContext') throw new Error('another kind');
    const { trustedCa, customValidatorConfig } = secret.type.validationContext;
    expect([trustedCa !== undefined, customValidatorConfig !== undefined]).toEqual([
      kind === 'plain',
      kind !== 'plain',
    ]);
  });

  test('with several streams on one connection has each on its own', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const client = sds.client();
    const answers = Array.from({ length: 50 }, async () => {
      const call = client.streamSecrets();
      call.write({ ...emptyRequest, resourceNames: ['default'] });
      const response = await new Promise<{ nonce: string }>((resolve) => call.once('data', resolve));
      call.on('error', () => undefined).cancel();
      return response.nonce;
    });
    expect(new Set(await Promise.all(answers)).size).toBe(50);
    await until(() => sds.streams() === 0);
    expect(sds.connections()).toBe(1);
  });
});

describe('the caller is looked at again before each key', () => {
  const changes: readonly [string, (attest: Attest) => Attest][] = [
    [
      'other selectors',
      (attest) => async (peer) => {
        const found = await attest(peer);
        return { ...found, selectors: found.selectors.slice(1) };
      },
    ],
    [
      'a process that has ended',
      () => async () => {
        throw new MeshError('attestation_failed', 'the caller has ended');
      },
    ],
  ];
  test.each(changes)('%s: the stream ends, without the key', async (_, change) => {
    const real = createUnixAttestor();
    let attest: Attest = real;
    const source = createSource(() => credentials);
    sds = await startSds(source.watch, { attest: (peer) => attest(peer) });
    const stream = sds.open();
    stream.send({ resourceNames: ['default'] });
    stream.acknowledge(await stream.response(), ['default']);
    await until(() => sds.acknowledged.length === 1);
    attest = change(real);
    source.publish(() => credentialsOf(authority, [renewed]));
    expectFailure(await stream.status(), status.UNAUTHENTICATED, 'attestation_failed');
    expect(sds.refusals).toMatchObject([{ code: 'attestation_failed', resource: '' }]);
    expect(sds.pushed).toHaveLength(1);
    await until(() => source.watchers() === 0);
  });

  test('a bundle is no secret: it is pushed without another look', async () => {
    let looks = 0;
    const attest = createUnixAttestor();
    sds = await startSds(createSource(() => credentials).watch, {
      attest: (peer) => {
        looks += 1;
        return attest(peer);
      },
    });
    const stream = sds.open();
    stream.send({ resourceNames: ['ROOTCA'] });
    const response = await stream.response();
    expect(looks).toBe(1);
    stream.acknowledge(response, ['ROOTCA', 'default']);
    await stream.response();
    expect(looks).toBe(2);
  });

  test('a caller that cannot be attested has its stream ended, and the refusal is on record', async () => {
    sds = await startSds(createSource(() => credentials).watch, {
      attest: async () => {
        throw new MeshError('attestation_failed', 'the caller lives in a pid namespace that is out of sight');
      },
    });
    const stream = sds.open();
    stream.send({ resourceNames: ['default'] });
    expectFailure(await stream.status(), status.UNAUTHENTICATED, 'attestation_failed');
    expect(sds.refusals).toMatchObject([{ code: 'attestation_failed', selectors: [], count: 1 }]);
  });
});

describe('faults of others', () => {
  test('a watch that fails ends the stream, and says nothing of why', async () => {
    sds = await startSds(async function* () {
      yield credentials;
      throw new Error('key material');
    });
    const stream = sds.open();
    stream.send({ resourceNames: [] });
    const ended = await stream.status();
    expectFailure(ended, status.INTERNAL, 'internal');
    expect(ended.details).toBe('internal error');
    expect(sds.log).toEqual(['stream failed']);
  });

  test('a watch that ends, ends the stream in order', async () => {
    sds = await startSds(async function* () {
      yield credentials;
    });
    const stream = sds.open();
    stream.send({ resourceNames: [] });
    expect(await stream.status()).toMatchObject({ code: status.OK });
  });
});

describe('the end', () => {
  test('streams end with OK at once, and new ones are turned away', async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch);
    const stream = sds.open();
    stream.send({ resourceNames: ['default'] });
    await stream.response();
    sds.closeService();
    expect(await stream.status()).toMatchObject({ code: status.OK });
    await until(() => source.watchers() === 0);
    const late = sds.open();
    late.send({ resourceNames: ['default'] });
    expectFailure(await late.status(), status.UNAVAILABLE, 'shutting_down');
  });

  test.each<[string, (stream: ReturnType<RunningSds['open']>) => unknown]>([
    ['cancels', (stream) => stream.call.cancel()],
    ['half-closes', (stream) => stream.call.end()],
  ])('a client that %s leaves nothing behind', async (_, leave) => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch);
    const stream = sds.open();
    stream.send({ resourceNames: ['default'] });
    await stream.response();
    expect([sds.streams(), source.watchers()]).toEqual([1, 1]);
    leave(stream);
    await stream.status();
    await until(() => sds.streams() === 0 && source.watchers() === 0);
  });
});

function expectFailure(ended: StatusObject, code: status, ours: string): void {
  expect(ended.code).toBe(code);
  expect(ended.metadata.get('countersign-code')).toEqual([ours]);
}

function node(id: string, metadata?: Record<string, unknown>) {
  return {
    id,
    cluster: '',
    metadata,
    locality: undefined,
    userAgentName: '',
    userAgentVersionType: undefined,
    clientFeatures: [],
  };
}
