import { status } from '@grpc/grpc-js';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { WorkloadCredentials, X509Svid } from '../../src/identity/credentials.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { createAuthority, credentialsOf, nothingOf, type TestAuthority } from './certificates.ts';
import { createSource, emptyRequest, type RunningSds, secretsOf, startSds, until } from './harness.ts';
import { serialOf } from './told.ts';
import type { Secret } from '../../src/wire/tls.ts';

const clusters = 'type.googleapis.com/envoy.config.cluster.v3.Cluster';
const webName = 'spiffe://example.org/web';

let authority: TestAuthority;
let web: X509Svid;
let credentials: WorkloadCredentials;
let sds: RunningSds;

beforeAll(async () => {
  authority = await createAuthority('example.org');
  web = await authority.issue(webName);
  credentials = credentialsOf(authority, [web]);
});

afterEach(() => sds.close());

describe('FetchSecrets', () => {
  const fetched = (request: Partial<typeof emptyRequest>) =>
    new Promise<{ secrets: Secret[]; version: string }>((resolve, reject) =>
      sds.client().fetchSecrets({ ...emptyRequest, ...request }, (error, response) => {
        if (error !== null) reject(error);
        else resolve({ secrets: secretsOf(response), version: response.versionInfo });
      }),
    );

  test('answers with what there is, and records what there is not', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const { secrets } = await fetched({
      resourceNames: ['default', 'ALL', 'spiffe://example.org/other', 'ALL'],
    });
    expect(secrets.map(({ name }) => name)).toEqual(['default', 'ALL']);
    expect(serialOf(secrets[0])).toBe(web.serial);
    expect(sds.refusals).toMatchObject([{ code: 'identity_none', resource: 'spiffe://example.org/other' }]);
    expect(sds.acknowledged).toEqual([]);
  });

  test('a client that names the version of now has it in use; it is answered all the same', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const { version } = await fetched({ resourceNames: ['ROOTCA'] });
    const again = await fetched({ resourceNames: ['ROOTCA'], versionInfo: version });
    expect([again.version, again.secrets.length]).toEqual([version, 1]);
    expect(sds.acknowledged.map(({ name }) => name)).toEqual(['ROOTCA']);
    await fetched({
      resourceNames: ['ROOTCA'],
      versionInfo: version,
      errorDetail: { code: 13, message: 'bad', details: [] },
    });
    expect(sds.acknowledged).toHaveLength(1);
  });

  type Case = [string, Partial<typeof emptyRequest>, () => WorkloadCredentials, status, string];
  test.each<Case>([
    ['no names', {}, () => credentials, status.INVALID_ARGUMENT, 'message_invalid'],
    [
      'another type',
      { typeUrl: clusters, resourceNames: ['default'] },
      () => credentials,
      status.INVALID_ARGUMENT,
      'message_invalid',
    ],
    [
      '257 names',
      { resourceNames: Array<string>(257).fill('a') },
      () => credentials,
      status.RESOURCE_EXHAUSTED,
      'resource_names_exceeded',
    ],
    [
      'a long name',
      { resourceNames: ['x'.repeat(2_049)] },
      () => credentials,
      status.RESOURCE_EXHAUSTED,
      'resource_names_exceeded',
    ],
    [
      'nothing for the caller',
      { resourceNames: ['default'] },
      () => nothingOf(authority),
      status.PERMISSION_DENIED,
      'identity_none',
    ],
    [
      'another identity',
      { resourceNames: ['spiffe://example.org/other'] },
      () => credentials,
      status.PERMISSION_DENIED,
      'identity_none',
    ],
    ['a wildcard', { resourceNames: ['*'] }, () => credentials, status.PERMISSION_DENIED, 'identity_none'],
    [
      'a banned one',
      { resourceNames: ['default'] },
      () => ({ ...nothingOf(authority), banned: [web.id], isDefaultBanned: true }),
      status.PERMISSION_DENIED,
      'identity_banned',
    ],
  ])('refuses %s', async (_, request, first, code, ours) => {
    sds = await startSds(createSource(first).watch);
    const error: unknown = await fetched(request).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code });
    expect(
      (error as { metadata: { get: (key: string) => unknown } }).metadata.get('countersign-code'),
    ).toEqual([ours]);
  });

  test('waits for a certificate that is being made, but not for ever', async () => {
    sds = await startSds(
      async function* (_, signal) {
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        yield* [];
      },
      { limits: { offerMs: 50 } },
    );
    await expect(fetched({ resourceNames: ['default'] })).rejects.toMatchObject({ code: status.UNAVAILABLE });
  });

  test('leaves no watch behind', async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch);
    for (let i = 0; i < 5; i++) await fetched({ resourceNames: ['default'] });
    await until(() => source.watchers() === 0);
  });

  test('gives no key that is taken away while the caller is looked at again', async () => {
    let looks = 0;
    let now = credentials;
    sds = await startSds(
      async function* () {
        await new Promise((resolve) => setTimeout(resolve, 10));
        yield now;
      },
      {
        attest: async ({ pid, uid, gid }) => {
          looks += 1;
          if (looks === 2) now = { ...nothingOf(authority), banned: [web.id], isDefaultBanned: true };
          return { selectors: [], caller: { pid, uid, gid } };
        },
      },
    );
    await expect(fetched({ resourceNames: ['default'] })).rejects.toMatchObject({ code: status.UNAVAILABLE });
    expect(sds.pushed).toEqual([]);
  });

  test('looks at the caller before and after, and refuses one that has changed', async () => {
    let looks = 0;
    sds = await startSds(
      async function* () {
        // What was seen of a caller in one turn of the event loop is as good as another look.
        await new Promise((resolve) => setTimeout(resolve, 10));
        yield credentials;
      },
      {
        attest: async ({ pid, uid, gid }) => {
          looks += 1;
          return { selectors: [parseSelector(`unix:uid:${looks}`)], caller: { pid, uid, gid } };
        },
      },
    );
    await expect(fetched({ resourceNames: ['default'] })).rejects.toMatchObject({
      code: status.UNAUTHENTICATED,
    });
    expect(sds.refusals).toMatchObject([{ code: 'attestation_failed' }]);
  });
});
