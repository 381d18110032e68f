import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { randomBytes } from './up-random.ts';
import { readCsr } from './ca/csr.ts';
import { openAuthorityCertificate } from './ca/issuer.ts';
import type { SealingSecret } from './ca/key-envelope.ts';
import { parseProfile } from './ca/profile.ts';
import type { PublicKey } from './ca/public-key.ts';
import { createIntermediate, createRoot } from './ca/x509.ts';
import { type Clock, systemClock } from './clock.ts';
import { MeshError, quote } from './errors.ts';
import { bytesEqual, hexOf } from './spiffe/der.ts';
import { isIpLike, type TrustDomain } from './spiffe/id.ts';
import { inspectCsr } from './spiffe/inspect-csr.ts';
import { decodePem, encodePem } from './spiffe/pem.ts';
import { ensurePrivateDirectory, readListFile, writeKeyFile } from './store/key-files.ts';
import { createFileCustody } from './up-keys.ts';

/** A root that lives in a directory of a machine apart: its certificate, and its key sealed with a passphrase. */
export type OfflineRoot = {
  readonly trustDomain: TrustDomain;
  readonly keyId: string;
  readonly certificatePem: string;
  readonly notAfter: Date;
};

/** What a request asks the root to sign, proven and for people to look at. */
export type RootTask = {
  readonly trustDomain: TrustDomain;
  readonly publicKey: PublicKey;
  /** What our own commands call the key, lower-case hex. */
  readonly keyId: string;
};

/**
 * Makes a root CA in a directory of its own, which must be empty. It needs no server and no store.
 * @param options.keyType `ec-p256` or `ec-p384`
 * @param options.nameConstraints `off` or `uri`
 * @throws MeshError `file_exists`, `file_permissions`, `profile_invalid`, `config_invalid`
 */
export async function createOfflineRoot(options: {
  readonly dir: string;
  readonly trustDomain: TrustDomain;
  readonly keyType: string;
  readonly ttlSeconds: number | undefined;
  readonly nameConstraints: string;
  readonly secret: SealingSecret;
  readonly clock?: Clock;
}): Promise<OfflineRoot> {
  const { dir, trustDomain, keyType, ttlSeconds, nameConstraints, secret, clock = systemClock } = options;
  const profile = parseProfile({
    authorityKey: keyType.replace(/^ec-/, 'ecdsa-'),
    nameConstraints,
    ...(ttlSeconds === undefined ? {} : { rootTtlSeconds: ttlSeconds }),
  });
  if (profile.nameConstraints === 'uri' && isIpLike(trustDomain)) {
    throw new MeshError(
      'config_invalid',
      `name constraints cannot be used with the trust domain ${quote(trustDomain.name)}`,
      { fix: 'leave them off: verifiers refuse to hold an IP address against them' },
    );
  }
  if (existsSync(dir) && readdirSync(dir).length > 0) {
    throw new MeshError('file_exists', `the directory ${quote(dir)} is not empty`, {
      fix: 'choose another one: a root is never written over',
    });
  }
  ensurePrivateDirectory(dir);
  const key = await createFileCustody({ keyDir: dir, trustDomain, secret, randomBytes }).create(
    profile.authorityKey,
  );
  const root = await createRoot({ trustDomain, profile, now: clock.now(), randomBytes, key });
  const certificatePem = encodePem('CERTIFICATE', root.certificate);
  // Last: a directory with a certificate has its key.
  writeKeyFile(dir, certificateName, Buffer.from(certificatePem));
  return { trustDomain, keyId: root.keyId, certificatePem, notAfter: root.notAfter };
}

/**
 * Reads the root's certificate. @throws MeshError `file_missing`, `file_permissions`, `authority_invalid`
 */
export function readOfflineRoot(dir: string): OfflineRoot {
  const certificatePem = readListFile(join(dir, certificateName), maxCertificateFile);
  const [der] = decodePem(certificatePem, 'CERTIFICATE', { maxBytes: maxCertificateFile });
  const certificate = openAuthorityCertificate(der ?? new Uint8Array(0));
  const { trustDomain, keyId, notAfter, issuer, subject } = certificate;
  if (trustDomain === undefined || !bytesEqual(issuer, subject)) {
    throw new MeshError('authority_invalid', `the certificate in ${quote(dir)} is no root of ours`, {
      fix: 'name the directory that `countersign ca root create` made',
    });
  }
  return { trustDomain, keyId, certificatePem, notAfter };
}

/**
 * Proves a request: that its sender has the key, that the key is a CA's kind, and that it is for the root's trust domain.
 * @param input PKCS #10, DER or PEM
 * @param expectedKeyId what somebody read out from the other machine; undefined when nobody did
 * @throws MeshError `csr_invalid`, `csr_proof_invalid`, `public_key_unsupported`, `csr_trust_domain`, `csr_key_unexpected`
 */
export function checkRootTask(
  { trustDomain }: OfflineRoot,
  input: Uint8Array,
  expectedKeyId: string | undefined,
): RootTask {
  const publicKey = readCsr(input);
  const keyId = hexOf(publicKey.keyId);
  if (!publicKey.kind.startsWith('ecdsa')) {
    throw new MeshError('public_key_unsupported', 'the key of an intermediate must be ECDSA P-256 or P-384', {
      fix: 'give the request that `countersign ca csr` prints',
    });
  }
  const { uris, dnsNames, otherNames } = inspectCsr(derOf(input)).facts;
  if (uris.length !== 1 || uris[0] !== trustDomain.id || dnsNames.length + otherNames > 0) {
    const asked = uris.length === 0 ? 'no URI name' : uris.map((uri) => quote(uri)).join(', ');
    throw new MeshError(
      'csr_trust_domain',
      `the request is for ${asked}, and the root signs for ${trustDomain.id}`,
      {
        fix: 'give the request that `countersign ca csr` prints, to the root of its trust domain',
      },
    );
  }
  if (expectedKeyId !== undefined && expectedKeyId !== keyId) {
    throw new MeshError(
      'csr_key_unexpected',
      `the request is of the key ${keyId}, not ${quote(expectedKeyId)}`,
      {
        fix: 'compare the key that `countersign ca csr` shows; do not sign what you did not expect',
      },
    );
  }
  return { trustDomain, publicKey, keyId };
}

/**
 * Signs a proven request. Of the request it takes the public key and nothing else.
 * @returns the intermediate and the root, PEM: what `countersign ca import` takes
 * @throws MeshError `key_passphrase_wrong`, `key_envelope_invalid`, `file_missing`, `file_permissions`, `issuer_expired`,
 *   `profile_invalid`
 */
export async function signRootTask(
  root: OfflineRoot,
  task: RootTask,
  options: {
    readonly dir: string;
    readonly ttlSeconds: number | undefined;
    readonly nameConstraints: string;
    readonly secret: SealingSecret;
    readonly clock?: Clock;
  },
): Promise<{ readonly chainPem: string; readonly notAfter: Date }> {
  const { dir, ttlSeconds, nameConstraints, secret, clock = systemClock } = options;
  const { trustDomain } = root;
  const profile = parseProfile({
    nameConstraints,
    ...(ttlSeconds === undefined ? {} : { intermediateTtlSeconds: ttlSeconds }),
  });
  const key = await createFileCustody({ keyDir: dir, trustDomain, secret, randomBytes }).open(root.keyId);
  const [certificate = new Uint8Array(0)] = decodePem(root.certificatePem, 'CERTIFICATE', {
    maxBytes: maxCertificateFile,
  });
  const signed = await createIntermediate({
    trustDomain,
    profile,
    now: clock.now(),
    randomBytes,
    publicKey: task.publicKey,
    root: { certificate, key },
  });
  return {
    chainPem: encodePem('CERTIFICATE', signed.certificate) + root.certificatePem,
    notAfter: signed.notAfter,
  };
}

function derOf(input: Uint8Array): Uint8Array {
  if (input[0] !== hyphen) return input;
  const text = Buffer.from(input).toString('latin1');
  const label = text.startsWith('-----BEGIN NEW ') ? 'NEW CERTIFICATE REQUEST' : 'CERTIFICATE REQUEST';
  return decodePem(text, label, { maxBytes: input.length })[0] ?? input;
}

const hyphen = 0x2d;
const certificateName = 'root.pem';
const maxCertificateFile = 65_536;
