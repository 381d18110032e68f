import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { MeshError } from '../errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { type PolicyRevision, type PolicySigner, revisionStatement } from './policy-revision.ts';
import { type Rollout, rolloutStatement } from './rollout.ts';

/**
 * A signer whose key is in this process. Nothing gives its bytes back.
 * @param pkcs8 Ed25519, DER. The caller may wipe it afterwards.
 * @throws MeshError `authority_invalid` when it is another kind of key
 */
export function openPolicySigner(pkcs8: Uint8Array): PolicySigner {
  let privateKey: KeyObject;
  let publicKey: KeyObject;
  try {
    // INVARIANT: the same memory, not a copy, which nobody would wipe.
    const key = Buffer.from(pkcs8.buffer, pkcs8.byteOffset, pkcs8.length);
    privateKey = createPrivateKey({ key, format: 'der', type: 'pkcs8' });
    publicKey = createPublicKey(privateKey);
  } catch (cause) {
    throw notOurs(cause);
  }
  if (privateKey.asymmetricKeyType !== 'ed25519') throw notOurs();
  return Object.freeze({
    publicKey: publicKey.export({ format: 'der', type: 'spki' }).toString('base64'),
    sign: (bytes: Uint8Array) => new Uint8Array(sign(null, bytes, privateKey)),
  });
}

/** The name of a key: the first 20 bytes of the SHA-256 of its SubjectPublicKeyInfo, lower-case hex. */
export function policyKeyId(publicKey: string): string {
  return createHash('sha256').update(Buffer.from(publicKey, 'base64')).digest('hex').slice(0, 40);
}

/** Whether a revision was signed by the key that it names. Whose key that is, is another question. */
export function verifyRevision(trustDomain: TrustDomain, revision: PolicyRevision): boolean {
  return isSigned(revision, () => revisionStatement(trustDomain, revision));
}

/** Whether a state of a rollout was signed by the key that it names. */
export function verifyRollout(trustDomain: TrustDomain, rollout: Rollout): boolean {
  return isSigned(rollout, () => rolloutStatement(trustDomain, rollout));
}

function isSigned(
  signed: Pick<PolicyRevision, 'publicKey' | 'signature'>,
  statement: () => Uint8Array,
): boolean {
  const spki = Buffer.from(signed.publicKey, 'base64');
  // INVARIANT: one form only; node:crypto would take keys of other kinds too.
  if (spki.length !== spkiBytes || !spki.subarray(0, spkiHead.length).equals(spkiHead)) return false;
  const signature = Buffer.from(signed.signature, 'base64');
  if (signature.length !== signatureBytes) return false;
  try {
    const key = createPublicKey({ key: spki, format: 'der', type: 'spki' });
    return verify(null, statement(), key, signature);
  } catch {
    return false;
  }
}

function notOurs(cause?: unknown): MeshError {
  // What OpenSSL says about a private key stays inside.
  return new MeshError('authority_invalid', 'the key that signs policy revisions is not Ed25519', {
    fix: 'restore it from a backup',
    cause,
  });
}

// RFC 8410 section 4: SEQUENCE { SEQUENCE { 1.3.101.112 } BIT STRING (32 bytes) }
const spkiHead = Buffer.from('302a300506032b6570032100', 'hex');
const spkiBytes = spkiHead.length + 32;
const signatureBytes = 64;
