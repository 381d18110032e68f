import type { RecordProven } from '../audit/event.ts';
import type { Authority } from '../ca/authority.ts';
import type { PublicKey } from '../ca/public-key.ts';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { BanList, BanSubject } from './ban-list.ts';
import type { RegistrationEntry } from './entry.ts';
import type { Attestation } from './evidence.ts';
import { isLive } from './registry.ts';

/** A request for a certificate: what is to be vouched for, and on what evidence. */
export type IssueRequest = {
  readonly entry: RegistrationEntry;
  /** SPKI DER, or a key read before. Whoever asks has proven that they hold the private key. */
  readonly publicKey: Uint8Array | PublicKey;
  readonly attestation: Attestation;
  /** A shorter lifetime than the entry's; a longer one is cut to it. At least 20. Default: the entry's. */
  readonly ttlSeconds?: number;
};

export type IssuedX509 = {
  /** DER, leaf first. */
  readonly certificates: readonly Uint8Array[];
  readonly serial: string;
  /** Subject key identifier of the CA that signed it, lower-case hex. */
  readonly issuerKeyId: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** That its record is in the audit log, a `.tlog-proof`; absent when the log is not signed. */
  readonly proof?: string;
};

/** Signs for an entry; owned by the keeper. In one process it is the local CA, on a node it is the node API. */
export type IssueX509 = (request: IssueRequest) => Promise<IssuedX509>;

export type IssuerParts = {
  readonly authority: () => Authority;
  /** Whether what was prepared may still be signed: a CA may be tainted or retired meanwhile. */
  readonly mayStillSign: (authority: Authority) => boolean;
  readonly record: RecordProven;
  readonly clock: Clock;
  /** Whether the entry is still registered, unchanged. Whether it has expired is seen to here. */
  readonly isCurrent: (entry: RegistrationEntry) => boolean;
  readonly bans: () => BanList;
  /** The number of the policy revision in force, for the record. */
  readonly policyRevision?: () => number | undefined;
};

/**
 * Issues in write-ahead order: what will be signed is durable in the log before it is signed, so a crash may lose a
 * certificate but never the record of one. It throws `identity_none` for an entry that is no longer in force, and
 * `identity_banned` for a banned identity or public key.
 */
export function createIssuer({
  authority,
  mayStillSign,
  record,
  clock,
  isCurrent,
  bans,
  policyRevision = () => undefined,
}: IssuerParts): IssueX509 {
  const demandInForce = (entry: RegistrationEntry): void => {
    if (isCurrent(entry) && isLive(entry, clock.now())) return;
    throw new MeshError(
      'identity_none',
      'the registration entry changed while its certificate was being made',
    );
  };
  const demandNoBan = (subject: BanSubject): void => {
    if (bans().find(subject, clock.now()) === undefined) return;
    // Whoever asks is not told why, by whom or until when.
    throw new MeshError('identity_banned', 'the identity is banned, or its public key is', {
      fix: 'ask an operator, who sees why with `countersign ban list`',
    });
  };
  return async ({ entry, publicKey, attestation, ttlSeconds = entry.ttlSeconds }) => {
    // Nothing is recorded that is known not to be signed.
    demandInForce(entry);
    demandNoBan({ id: entry.spiffeId });
    const signer = authority();
    const now = clock.now();
    const prepared = signer.prepare(
      {
        id: entry.spiffeId,
        publicKey,
        dnsNames: entry.dnsNames,
        ttlSeconds: Math.min(ttlSeconds, entry.ttlSeconds),
      },
      now,
    );
    const { serial, spkiSha256 } = prepared;
    demandNoBan({ spkiSha256 });
    const inForce = policyRevision();
    const proof = await record({
      type: 'issuance',
      time: now,
      profile: 'x509-svid',
      spiffeId: entry.spiffeId.text,
      serial,
      notBefore: prepared.notBefore,
      notAfter: prepared.notAfter,
      tbsSha256: prepared.tbsSha256,
      spkiSha256,
      issuerKeyId: signer.issuerKeyId,
      entryId: entry.id,
      entryRevision: entry.revision,
      ...(inForce === undefined ? {} : { policyRevision: inForce }),
      selectors: attestation.selectors.map((selector) => selector.text),
      caller: attestation.caller,
    });
    // The entry may have been deleted or banned while the record was written: then the record stands and nothing is
    // signed.
    demandInForce(entry);
    demandNoBan({ id: entry.spiffeId, serial, spkiSha256 });
    // INVARIANT: a record that came too late to be seen by whoever retired the CA is not signed.
    if (!mayStillSign(signer)) {
      throw new MeshError('revision_conflict', 'the CA was replaced while the certificate was being made', {
        fix: 'ask again',
      });
    }
    const issued = await signer.sign(prepared);
    // Thrown away unseen when the ban fell while it was signed.
    demandNoBan({ id: entry.spiffeId, serial, spkiSha256 });
    return { ...issued, issuerKeyId: signer.issuerKeyId, ...(proof === null ? {} : { proof }) };
  };
}
