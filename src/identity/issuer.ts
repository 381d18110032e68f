import { createHash } from 'node:crypto';
import type { RecordEvents } from '../audit/event.ts';
import type { Authority } from '../ca/authority.ts';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { RegistrationEntry } from './entry.ts';
import type { Attestation } from './evidence.ts';
import { isLive } from './registry.ts';

/** A request for a certificate: what is to be vouched for, and on what evidence. */
export type IssueRequest = {
  readonly entry: RegistrationEntry;
  /** SPKI DER. */
  readonly publicKey: Uint8Array;
  readonly attestation: Attestation;
};

export type IssuedX509 = {
  /** DER, leaf first. */
  readonly certificates: readonly Uint8Array[];
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
};

/** Signs for an entry; owned by the keeper. In one process it is the local CA, on a node it is the node API. */
export type IssueX509 = (request: IssueRequest) => Promise<IssuedX509>;

export type IssuerParts = {
  readonly authority: () => Authority;
  readonly record: RecordEvents;
  readonly clock: Clock;
  /** Whether the entry is still registered, unchanged. Whether it has expired is seen to here. */
  readonly isCurrent: (entry: RegistrationEntry) => boolean;
};

/**
 * Issues in write-ahead order: what will be signed is durable in the log before it is signed, so a crash may lose a
 * certificate but never the record of one.
 */
export function createIssuer({ authority, record, clock, isCurrent }: IssuerParts): IssueX509 {
  const demandInForce = (entry: RegistrationEntry): void => {
    if (isCurrent(entry) && isLive(entry, clock.now())) return;
    throw new MeshError(
      'identity_none',
      'the registration entry changed while its certificate was being made',
    );
  };
  return async ({ entry, publicKey, attestation }) => {
    // Nothing is recorded that is known not to be signed.
    demandInForce(entry);
    const signer = authority();
    const now = clock.now();
    const prepared = signer.prepare(
      { id: entry.spiffeId, publicKey, dnsNames: entry.dnsNames, ttlSeconds: entry.ttlSeconds },
      now,
    );
    await record([
      {
        type: 'issuance',
        time: now,
        profile: 'x509-svid',
        spiffeId: entry.spiffeId.text,
        serial: prepared.serial,
        notBefore: prepared.notBefore,
        notAfter: prepared.notAfter,
        tbsSha256: prepared.tbsSha256,
        spkiSha256: createHash('sha256').update(publicKey).digest('hex'),
        issuerKeyId: signer.issuerKeyId,
        entryId: entry.id,
        entryRevision: entry.revision,
        selectors: attestation.selectors.map((selector) => selector.text),
        caller: attestation.caller,
      },
    ]);
    // The entry may have been deleted while the record was written: then the record stands and nothing is signed.
    demandInForce(entry);
    return signer.sign(prepared);
  };
}
