import { createHash } from 'node:crypto';
import type { Actor, AuthorityEvent } from './audit/event.ts';
import type { IssuerChain } from './ca/chain.ts';
import { type AuthorityCertificate, openAuthorityCertificate } from './ca/issuer.ts';
import type { MadeKey, RotationEffect } from './ca/rotation-event.ts';
import type { RotationState, Slot } from './ca/slot.ts';
import type { StoredAuthority } from './ca/stored.ts';
import type { CreatedAuthority } from './ca/x509.ts';
import { MeshError } from './errors.ts';
import type { TrustDomain } from './spiffe/id.ts';

/** The certificates behind the slots, by key ID; those of retired slots stay. */
export type Certificates = Map<string, Pick<StoredAuthority, 'certificate' | 'upstream'>>;

/** @throws MeshError `store_corrupt` */
export function materialOf(
  certificates: Certificates,
  keyId: string,
): Pick<StoredAuthority, 'certificate' | 'upstream'> {
  const material = certificates.get(keyId);
  if (material === undefined) throw corrupt('a CA without its certificate');
  return material;
}

export function storedOf(slot: Slot, certificates: Certificates): StoredAuthority {
  return { ...slot, ...materialOf(certificates, slot.keyId) };
}

/** The slots-to-be of certificates that were made here. */
export function keysOf(created: readonly CreatedAuthority[], rootKeyId: string | null): readonly MadeKey[] {
  const root = rootKeyId ?? created.find(({ kind }) => kind === 'root')?.keyId ?? '';
  return created.map(({ kind, keyId, notBefore, notAfter }) => ({
    kind,
    keyId,
    rootKeyId: root,
    notBefore,
    notAfter,
    offline: false,
  }));
}

/** The slots-to-be of a chain that came from elsewhere. */
export function importedKeys({ root, signer }: IssuerChain): {
  readonly root: MadeKey;
  readonly signer: MadeKey;
} {
  const key = ({ keyId, notBefore, notAfter }: AuthorityCertificate) => ({
    keyId,
    rootKeyId: root.keyId,
    notBefore,
    notAfter,
  });
  return {
    root: { ...key(root), kind: 'root', offline: true },
    signer: { ...key(signer), kind: 'intermediate', offline: false },
  };
}

/** What the log keeps of a step. */
export function authorityEvent(
  context: { readonly now: Date; readonly trustDomain: TrustDomain; readonly actor: Actor },
  { action, keyId, evidence }: Extract<RotationEffect, { kind: 'record' }>,
  { slots }: RotationState,
  certificates: Certificates,
): AuthorityEvent {
  const { now, trustDomain, actor } = context;
  const slot = slots.find((one) => one.keyId === keyId);
  const common = {
    type: 'authority',
    time: now,
    action,
    actor,
    evidence,
    trustDomain: trustDomain.name,
    keyId,
  } as const;
  if (slot === undefined) {
    // A key that waits has no certificate, nor has one that was given up while it did.
    return {
      ...common,
      kind: 'intermediate',
      serial: '',
      notBefore: now,
      notAfter: now,
      certificateSha256: '',
    };
  }
  const { certificate } = materialOf(certificates, keyId);
  return {
    ...common,
    kind: slot.kind,
    serial: openAuthorityCertificate(certificate).serial,
    notBefore: slot.notBefore,
    notAfter: slot.notAfter,
    certificateSha256: createHash('sha256').update(certificate).digest('hex'),
  };
}

export function corrupt(what: string): MeshError {
  return new MeshError('store_corrupt', `the store holds ${what}`, {
    fix: 'restore the data directory from a backup',
  });
}
