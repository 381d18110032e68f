import { createHash, X509Certificate } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { booleanTrue } from '../../src/ca/der-writer.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { readCertificate } from '../../src/spiffe/certificate.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { checkX509SvidLeaf, peerCertificateIds } from '../../src/spiffe/svid.ts';
import { attributes, extensionRequest, makeCsr } from '../ca/csr-writer.ts';
import { makeKey } from '../ca/test-authority.ts';
import { createScope, type Scope } from '../harness/scope.ts';
import * as odd from '../spiffe/odd-certificate.ts';
import { entry, own, startSigning } from './harness.ts';

let scope: Scope;
beforeEach(() => {
  scope = createScope();
});
afterEach(() => scope.close());

const key = makeKey('ec-prime256v1');
const csr = Buffer.from(makeCsr(key));
const fresh = () => Buffer.from(makeCsr(makeKey('ec-prime256v1')));
const web = entry('/ns/shop/sa/web', { dnsNames: ['web.shop.svc'] });
const leafOf = ({ certificates }: { certificates: readonly Uint8Array[] }) =>
  checkX509SvidLeaf(certificates[0] ?? new Uint8Array(0));

test('a registered process gets the certificate of its entry for its own key, and the record comes first', async () => {
  const door = await startSigning(scope);
  door.register([web]);
  const answer = await door.sign({ csr });
  const leaf = leafOf(answer);
  expect(leaf).toMatchObject({
    id: web.spiffeId,
    dnsNames: web.dnsNames,
    spkiSha256: createHash('sha256').update(key.spki).digest('hex'),
  });
  expect(answer.spiffeId).toBe(web.spiffeId.text);
  expect(answer.expiresAt).toBe(BigInt(leaf.notAfter.getTime() / 1_000));
  expect(answer.bundle.map((der) => new Uint8Array(der))).toEqual([door.ca.root.certificate]);
  const [leafDer, middle] = answer.certificates.map((der) => new X509Certificate(der));
  expect(leafDer?.verify(middle!.publicKey)).toBe(true);
  expect(middle?.verify(new X509Certificate(answer.bundle[0]!).publicKey)).toBe(true);
  expect(leafDer?.checkPrivateKey(key.privateKey)).toBe(true);

  const { tbs } = readCertificate(answer.certificates[0]!);
  // By which doors tell a certificate that has the serial of another.
  expect(peerCertificateIds(answer.certificates[0]!).tbsSha256).toBe(
    createHash('sha256').update(tbs).digest('hex'),
  );
  expect(await door.events('issuance')).toMatchObject([
    {
      serial: leaf.serial,
      tbsSha256: createHash('sha256').update(tbs).digest('hex'),
      spkiSha256: leaf.spkiSha256,
      entryId: web.id,
      spiffeId: web.spiffeId.text,
      caller: { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() },
    },
  ]);
  expect([await door.events('refusal'), door.failures]).toEqual([[], []]);
});

test('the wishes of a request change nothing but the key', async () => {
  const door = await startSigning(scope);
  door.register([web]);
  const wishes = extensionRequest(
    odd.basicConstraints(true, booleanTrue()),
    odd.keyUsage(true, 2, 0x86),
    odd.keyPurposes('2.5.29.37.0'),
    odd.altNames(
      false,
      odd.uri('spiffe://example.org/admin'),
      odd.uri('spiffe://evil.example/x'),
      odd.dns('*'),
    ),
  );
  const asked = makeCsr(key, { subject: odd.commonName('admin'), attributes: attributes(wishes) });
  const [plain, wished] = await Promise.all([door.sign({ csr }), door.sign({ csr: Buffer.from(asked) })]);
  const [a, b] = [plain, wished].map(({ certificates }) => readCertificate(certificates[0]!));
  const own = {
    serial: '',
    serialOctets: '',
    tbs: '',
    validity: '',
    notBefore: '',
    notAfter: '',
    signature: '',
  };
  expect({ ...a, ...own }).toEqual({ ...b, ...own });
  expect(a?.serial).not.toBe(b?.serial);
});

test('PEM is as good as DER', async () => {
  const door = await startSigning(scope);
  door.register([web]);
  const answer = await door.sign({ csr: Buffer.from(encodePem('CERTIFICATE REQUEST', csr)) });
  expect(leafOf(answer).id.text).toBe(web.spiffeId.text);
});

describe('which identity', () => {
  const api = entry('/ns/shop/sa/api');
  const narrow = entry('/ns/shop/sa/narrow', {
    selectors: [parseSelector(own), parseSelector(`unix:gid:${process.getgid?.() ?? 0}`)],
  });
  const foreign = entry('/ns/shop/sa/foreign', { selectors: [parseSelector('unix:uid:54321')] });

  test('the default one is that of the entry that says most, another is had by name', async () => {
    const door = await startSigning(scope);
    door.register([web, api, narrow, foreign]);
    expect((await door.sign({ csr: fresh() })).spiffeId).toBe(narrow.spiffeId.text);
    expect((await door.sign({ csr: fresh(), spiffeId: api.spiffeId.text })).spiffeId).toBe(api.spiffeId.text);
  });

  test.each<[string, string, string, number]>([
    ['of another process', foreign.spiffeId.text, 'identity_none', status.PERMISSION_DENIED],
    ['that nobody has', 'spiffe://example.org/none', 'identity_none', status.PERMISSION_DENIED],
    [
      'of another trust domain',
      'spiffe://evil.example/ns/shop/sa/web',
      'identity_none',
      status.PERMISSION_DENIED,
    ],
    ['of no workload', 'spiffe://example.org', 'spiffe_id_path_missing', status.INVALID_ARGUMENT],
    [
      'with a dot segment',
      'spiffe://example.org/ns/../sa/web',
      'spiffe_id_segment_dot',
      status.INVALID_ARGUMENT,
    ],
    ['that is none', 'web', 'spiffe_id_scheme', status.INVALID_ARGUMENT],
    [
      'of 100 kB',
      `spiffe://example.org/${'a'.repeat(100_000)}`,
      'spiffe_id_too_long',
      status.INVALID_ARGUMENT,
    ],
  ])('not one %s', async (_, spiffeId, code, grpc) => {
    const door = await startSigning(scope);
    door.register([web, foreign]);
    expect(await door.refusal({ csr, spiffeId })).toEqual([code, grpc]);
    const [refused, ...more] = await door.refused();
    expect([refused, more]).toMatchObject([{ door: 'issue', code, count: 1 }, []]);
    expect(refused?.['resource']).toBe(spiffeId.length > 2_048 ? '' : spiffeId);
    expect(await door.events('issuance')).toEqual([]);
  });

  test('one key for two identities is refused, for the same one it is renewed', async () => {
    const door = await startSigning(scope);
    door.register([web, api]);
    const [first, second] = [
      { csr, spiffeId: web.spiffeId.text },
      { csr, spiffeId: api.spiffeId.text },
    ];
    const serials = [leafOf(await door.sign(first)).serial, leafOf(await door.sign(first)).serial];
    expect(new Set(serials).size).toBe(2);
    expect(await door.refusal(second)).toEqual(['public_key_in_use', status.ABORTED]);
  });
});

test('nobody without an entry, and nothing is computed for them', async () => {
  const door = await startSigning(scope);
  expect(await door.refusal({ csr: Buffer.from('hostile') })).toEqual([
    'identity_none',
    status.PERMISSION_DENIED,
  ]);
  door.register([web]);
  expect(await door.refusal({ csr: Buffer.from('hostile') })).toEqual([
    'csr_invalid',
    status.INVALID_ARGUMENT,
  ]);
  await door.sign({ csr });
});

describe('hostile requests', () => {
  const flipped = Buffer.from(csr);
  flipped[flipped.length - 1] = (flipped.at(-1) ?? 0) ^ 1;
  test.each<[string, () => Buffer, string]>([
    ['none', () => Buffer.alloc(0), 'csr_invalid'],
    ['16 KiB and one', () => Buffer.alloc(16_385, 0x30), 'csr_invalid'],
    ['half a MiB', () => Buffer.alloc(524_288, 0x30), 'csr_invalid'],
    ['a false proof', () => flipped, 'csr_proof_invalid'],
    ['a weak key', () => Buffer.from(makeCsr(makeKey('rsa-1024'))), 'public_key_unsupported'],
  ])('%s', async (_, make, code) => {
    const door = await startSigning(scope);
    door.register([web]);
    expect(await door.refusal({ csr: make() })).toEqual([code, status.INVALID_ARGUMENT]);
    expect(leafOf(await door.sign({ csr })).id.text).toBe(web.spiffeId.text);
    expect(await door.refused()).toMatchObject([
      { door: 'issue', code, selectors: expect.arrayContaining([own]) },
    ]);
  });

  test('over the size of a message', async () => {
    const door = await startSigning(scope);
    const [, grpc] = await door.refusal({ csr: Buffer.alloc(2_097_152) }).catch(() => ['', 8]);
    expect(grpc).toBe(status.RESOURCE_EXHAUSTED);
  });

  test("the CA's own key", async () => {
    const door = await startSigning(scope);
    door.register([web]);
    const { spki } = readCertificate(door.ca.intermediate.certificate);
    const { createPrivateKey } = await import('node:crypto');
    const pkcs8 = door.ca.intermediate.privateKey;
    const privateKey = createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' });
    const stolen = Buffer.from(makeCsr({ spki, pkcs8, privateKey }));
    expect(await door.refusal({ csr: stolen })).toEqual(['public_key_unsupported', status.INVALID_ARGUMENT]);
  });
});

describe('how long', () => {
  test.each<[bigint, number]>([
    [0n, 600],
    [20n, 20],
    [599n, 599],
    [600n, 600],
    [601n, 600],
    [2n ** 31n, 600],
    [2n ** 53n + 1n, 600],
    [2n ** 63n - 1n, 600],
  ])('asked for %i seconds: %i', async (ttlSeconds, granted) => {
    const door = await startSigning(scope);
    door.register([web]);
    const before = Math.floor(Date.now() / 1_000);
    const { expiresAt } = await door.sign({ csr, ttlSeconds });
    expect(Number(expiresAt) - before - granted).toBeGreaterThanOrEqual(0);
    const after = Math.floor(Date.now() / 1_000);
    expect(Number(expiresAt) - after - granted).toBeLessThanOrEqual(1);
  });

  test.each([19n, 1n, -1n, -(2n ** 63n)])('not %i', async (ttlSeconds) => {
    const door = await startSigning(scope);
    door.register([web]);
    expect(await door.refusal({ csr, ttlSeconds })).toEqual(['message_invalid', status.INVALID_ARGUMENT]);
  });
});

test('a thousand of the same request: the limit of the uid holds, each certificate has its own serial', async () => {
  const door = await startSigning(scope, { limits: { perUid: { burst: 40, perSecond: 0.001 } } });
  door.register([web]);
  const answers = await Promise.allSettled(Array.from({ length: 1_000 }, () => door.sign({ csr })));
  const signed = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
  expect(new Set(signed.map((answer) => leafOf(answer).serial)).size).toBe(40);
  expect(await door.events('issuance')).toHaveLength(40);
  // The rest is one record now, and one with their number when the minute is over.
  expect(await door.refused()).toMatchObject([{ code: 'rate_limited', door: 'issue', count: 1 }]);
});

test('a failure of ours is recorded and reported, and its words stay inside', async () => {
  const door = await startSigning(scope, {
    issue: () => Promise.reject(new Error('the machine room is on fire')),
  });
  door.register([web]);
  expect(await door.refusal({ csr })).toEqual(['internal', status.INTERNAL]);
  expect(door.failures).toHaveLength(1);
  expect(await door.refused()).toMatchObject([{ code: 'internal', message: 'internal error' }]);
});

test('an entry that is withdrawn while its record is written: the record stands, nothing is signed', async () => {
  const door = await startSigning(scope, {}, (withdraw) => withdraw());
  door.register([web]);
  expect(await door.refusal({ csr })).toEqual(['identity_none', status.PERMISSION_DENIED]);
  expect(await door.events('issuance')).toMatchObject([{ entryId: web.id }]);
});

test('who has given up is not made a certificate for', async () => {
  const hold = Promise.withResolvers<void>();
  const attested: number[] = [];
  const door = await startSigning(scope, {
    attest: async ({ uid, pid, gid }) => {
      attested.push(pid);
      await hold.promise;
      return { selectors: [parseSelector(own)], caller: { uid, pid, gid } };
    },
  });
  door.register([web]);
  await expect(door.sign({ csr }, 1_000)).rejects.toMatchObject({ code: status.DEADLINE_EXCEEDED });
  // The word that the caller has gone travels after its own answer.
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(attested).toHaveLength(1);
  hold.resolve();
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(await door.events('issuance')).toEqual([]);
});

test('when the store is gone nothing is signed; closed, the door turns callers away', async () => {
  const door = await startSigning(scope);
  door.register([web]);
  await door.store.close();
  expect(await door.refusal({ csr })).toEqual(['store_unavailable', status.UNAVAILABLE]);
  door.closeService();
  expect(await door.refusal({ csr })).toEqual(['shutting_down', status.UNAVAILABLE]);
});
