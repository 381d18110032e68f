import { generateKeyPairSync } from 'node:crypto';
import { beforeAll, expect, test } from 'vitest';
import { readCsr } from '../../src/ca/csr.ts';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import { asBuffer } from '../../src/grpc/as-buffer.ts';
import { createRemoteSigner } from '../../src/node/remote-signer.ts';
import { makeBundle } from '../../src/spiffe/bundle.ts';
import type { NodeClient, SignX509Batch, SignX509Results } from '../../src/wire/node.ts';
import { makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';

const now = new Date(Math.floor(Date.now() / 1_000) * 1_000);
let old: TestAuthority;
let next: TestAuthority;
beforeAll(async () => {
  const before = new Date(now.getTime() - 86_400_000);
  [old, next] = await Promise.all([
    makeTestAuthority(before, {}, 'mesh.test'),
    makeTestAuthority(before, {}, 'mesh.test'),
  ]);
});

/** A server that signs with `next`. */
const client = {
  signX509: (
    { items }: SignX509Batch,
    _metadata: unknown,
    _options: unknown,
    done: (error: null, results: SignX509Results) => void,
  ): void => {
    const signed = items.map(async ({ csr }) => {
      const { authority } = next;
      const prepared = authority.prepare(
        { id: entry().spiffeId, publicKey: readCsr(csr), dnsNames: [], ttlSeconds: 600 },
        now,
      );
      const { certificates } = await authority.sign(prepared);
      const issuerKeyId = authority.issuerKeyId;
      return {
        kind: {
          $case: 'signed' as const,
          signed: { certificates: certificates.map(asBuffer), issuerKeyId, issuanceProof: '' },
        },
      };
    });
    void Promise.all(signed).then((results) => done(null, { results }));
  },
} as unknown as NodeClient;

function entry() {
  const { trustDomain } = next;
  const input = { id: 'web', spiffeId: 'spiffe://mesh.test/ns/a/sa/web', selectors: ['unix:uid:1'] };
  return parseEntry(input, { trustDomain, ttlSeconds: 600 }, 1);
}

test.each<[string, () => TestAuthority[], string]>([
  ['is taken under a root of the bundle', () => [next], 'taken'],
  ['is taken while both roots are published', () => [old, next], 'taken'],
  ['waits for the bundle when the server has changed its root meanwhile', () => [old], 'credentials_pending'],
])('a certificate %s: bundles come first', async (_, published, expected) => {
  const roots = published().flatMap(({ authority }) => authority.bundle.x509Authorities);
  const signer = createRemoteSigner({
    client: () => client,
    generateKeyPair: async () => {
      const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
      return {
        publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
        privateKey: new Uint8Array(privateKey.export({ type: 'pkcs8', format: 'der' })),
      };
    },
    readCsr: async (csr) => readCsr(csr),
    bundle: () => makeBundle(next.trustDomain, roots, 1),
  });
  const { publicKey } = await signer.generateKeyPair();
  const attestation = { selectors: [], caller: { pid: 1, uid: 1, gid: 1 } };
  const outcome = await signer.issue({ entry: entry(), publicKey, attestation }).then(
    () => 'taken',
    (error: { code: string }) => error.code,
  );
  expect(outcome).toBe(expected);
});
