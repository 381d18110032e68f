import { createPublicKey, sign, verify } from 'node:crypto';
import type { Authority } from '../../src/ca/authority.ts';
import { readCsr } from '../../src/ca/csr.ts';
import { openIssuer } from '../../src/ca/issuer.ts';
import { lintLeaf } from '../../src/ca/lint.ts';
import { readPublicKey } from '../../src/ca/public-key.ts';
import { readCertificate } from '../../src/spiffe/certificate.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { checkX509SvidLeaf, peerCertificateIds } from '../../src/spiffe/svid.ts';
import { makeCsr } from '../../test/ca/csr-writer.ts';
import { makeReferenceIssuer } from '../../test/ca/reference-leaf.ts';
import { makeKey, type TestAuthority } from '../../test/ca/test-authority.ts';

/** What each step costs, in microseconds of processor time of this thread: a neighbour's load does not count. */
export type CoreCosts = {
  /** From the bytes of a request to a certificate, read back and checked. */
  readonly whole: number;
  /** The same without the checks after the signature. */
  readonly unchecked: number;
  /** The checks after the signature, alone. */
  readonly lint: number;
  readonly csr: number;
  readonly prepare: number;
  /** SPKI import, verify, sign: what nobody can do without. */
  readonly reference: number;
  readonly peculiar: number;
  readonly leafCheck: number;
  readonly peerIds: number;
};

/** Turn about, and the best of the rounds, so that what disturbs one of them disturbs no ratio. */
export async function measureCore(
  keyKind: string,
  { authority, intermediate }: TestAuthority,
  unchecked: Authority,
): Promise<CoreCosts> {
  const now = new Date();
  const key = makeKey(keyKind);
  const csr = makeCsr(key);
  const id = SpiffeId.parse('spiffe://example.org/ns/shop/sa/web');
  const request = { id, publicKey: readCsr(csr), dnsNames: ['web.shop.svc'], ttlSeconds: 3_600 };
  const prepared = authority.prepare(request, now);
  const issued = await authority.sign(prepared);
  const leaf = issued.certificates[0] ?? new Uint8Array(0);
  const { tbs } = readCertificate(leaf);
  const expected = { ...prepared, publicKey: request.publicKey, tbs };
  const issuer = openIssuer(intermediate.certificate, intermediate.key);
  const proof = sign('sha256', tbs, key.privateKey);
  const spki = Buffer.from(key.spki);
  const peculiarIssue = await makeReferenceIssuer(intermediate);
  const { keyId } = readPublicKey(key.spki);

  const work = {
    whole: () => authority.sign(authority.prepare({ ...request, publicKey: readCsr(csr) }, now)),
    unchecked: () => unchecked.sign(unchecked.prepare({ ...request, publicKey: readCsr(csr) }, now)),
    lint: () => lintLeaf(leaf, expected, issuer),
    csr: () => readCsr(csr),
    prepare: () => authority.prepare(request, now),
    reference: () => {
      verify('sha256', tbs, createPublicKey({ key: spki, format: 'der', type: 'spki' }), proof);
      void issuer.key.sign(tbs);
    },
    peculiar: () =>
      peculiarIssue({
        uri: id.text,
        dnsNames: request.dnsNames,
        spki: key.spki,
        subjectKeyId: Buffer.from(keyId).toString('hex'),
        ...issued,
      }),
    leafCheck: () => checkX509SvidLeaf(leaf),
    peerIds: () => peerCertificateIds(leaf),
  };
  const best = new Map<string, number>();
  for (let round = 0; round < rounds; round++) {
    for (const [name, run] of Object.entries(work)) {
      best.set(name, Math.min(best.get(name) ?? Infinity, await costUs(run)));
    }
  }
  const cost = (name: keyof typeof work): number => best.get(name) ?? Number.NaN;
  return {
    whole: cost('whole'),
    unchecked: cost('unchecked'),
    lint: cost('lint'),
    csr: cost('csr'),
    prepare: cost('prepare'),
    reference: cost('reference'),
    peculiar: cost('peculiar'),
    leafCheck: cost('leafCheck'),
    peerIds: cost('peerIds'),
  };
}

async function costUs(run: () => unknown): Promise<number> {
  const until = performance.now() + roundMs;
  let count = 0;
  const before = process.cpuUsage();
  while (performance.now() < until) {
    for (let i = 0; i < 10; i++) await run();
    count += 10;
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / count;
}

const rounds = 6;
const roundMs = 150;
