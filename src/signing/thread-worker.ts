import { parentPort } from 'node:worker_threads';
import { readCsr } from '../ca/csr.ts';
import { openAuthorityCertificate } from '../ca/issuer.ts';
import { type LeafIssuer, lintLeaf } from '../ca/lint.ts';
import { adoptPublicKey } from '../ca/public-key.ts';
import { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { type Batch, describeFailure, type IssuerFacts, type Job, type Verdict } from './thread-protocol.ts';

// The thread that proves: it reads certificate requests and judges leaves, a batch at a time, and answers in order. It
// has no key, no clock and no disk.
const issuers = new Map<number, LeafIssuer>();

parentPort?.on('message', (batch: Batch) => {
  for (const [number, facts] of batch.issuers) issuers.set(number, openFacts(facts));
  let at = 0;
  const take = (size: number): Uint8Array => batch.bytes.subarray(at, (at += size));
  const verdicts = batch.jobs.map((job) => {
    const parts = job.sizes.map(take);
    return judge(job, parts);
  });
  parentPort?.postMessage(verdicts, []);
});

function judge(job: Job, parts: readonly Uint8Array[]): Verdict {
  const [first = empty, tbs = empty, spki = empty, keyId = empty] = parts;
  try {
    if (job.kind === 'csr') {
      const key = readCsr(first);
      return { kind: key.kind, spki: key.spki, keyId: key.keyId, spkiSha256: key.spkiSha256 };
    }
    const issuer = issuers.get(job.issuer);
    if (issuer === undefined) throw new Error('a leaf of an unknown issuer');
    const expected = {
      id: SpiffeId.parse(job.id),
      dnsNames: job.dnsNames,
      serial: job.serial,
      notBefore: new Date(job.notBeforeMs),
      notAfter: new Date(job.notAfterMs),
      publicKey: adoptPublicKey({ kind: job.keyKind, spki, keyId, spkiSha256: job.spkiSha256 }),
      tbs,
    };
    lintLeaf(first, expected, issuer);
    return null;
  } catch (error) {
    return describeFailure(error);
  }
}

function openFacts({ der, hash, trustDomain }: IssuerFacts): LeafIssuer {
  const certificate = openAuthorityCertificate(der);
  const named = trustDomain === null ? undefined : TrustDomain.parse(trustDomain);
  return { certificate: { ...certificate, trustDomain: certificate.trustDomain ?? named }, hash };
}

const empty = new Uint8Array(0);
