import type { KeyObject } from 'node:crypto';
import type { Actor, RecordEvents } from '../audit/event.ts';
import { type JwtSigningAlgorithm, parseAudiences, prepareJwtSvid, signJwtSvid } from '../ca/jwt.ts';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { BanList } from './ban-list.ts';
import type { RegistrationEntry } from './entry.ts';
import type { JwtSvid, MintJwtRequest } from './jwt-svid.ts';
import { isLive } from './registry.ts';

/** The key that signs tokens now. */
export type JwtSigner = {
  readonly keyId: string;
  readonly algorithm: JwtSigningAlgorithm;
  readonly privateKey: KeyObject;
};

/** A request by a workload, on the evidence of its attestation, or by an operator, who has none. */
export type JwtRequest = MintJwtRequest | (Omit<MintJwtRequest, 'attestation'> & { readonly actor: Actor });

/** A `MintJwt` that operators may ask as well. */
export type IssueJwt = (request: JwtRequest) => Promise<JwtSvid>;

export type JwtIssuerParts = {
  /** @throws MeshError `jwt_key_missing` while no key can sign */
  readonly signer: () => JwtSigner;
  /** Whether what was prepared for a key may still be signed: it may have been withdrawn meanwhile. */
  readonly mayStillSign: (keyId: string) => boolean;
  readonly record: RecordEvents;
  readonly clock: Clock;
  /** Whether the entry is still registered, unchanged. Whether it has expired is seen to here. */
  readonly isCurrent: (entry: RegistrationEntry) => boolean;
  readonly bans: () => BanList;
  /** The `iss` of every token, an https URL; null for none. */
  readonly issuer: string | null;
  /** The longest lifetime of a token. */
  readonly ttlSeconds: number;
  /** The number of the policy revision in force, for the record. */
  readonly policyRevision?: () => number | undefined;
  /** A new `jti`. */
  readonly newJwtId: () => string;
};

/**
 * Mints in write-ahead order, as certificates are issued: what will be signed is durable in the log before it is signed.
 * A token lives no longer than configured, nor than a certificate of its entry would. It throws what `MintJwt` says, and
 * `jwt_key_missing`, `revision_conflict` when the key was withdrawn while the record was written, `profile_invalid` for a
 * lifetime under 20 seconds.
 */
export function createJwtIssuer(parts: JwtIssuerParts): IssueJwt {
  const { signer, mayStillSign, record, clock, isCurrent, bans, issuer, newJwtId } = parts;
  const demandInForce = (entry: RegistrationEntry): void => {
    if (isCurrent(entry) && isLive(entry, clock.now())) return;
    throw new MeshError('identity_none', 'the registration entry changed while its token was being made');
  };
  const demandNoBan = ({ spiffeId }: RegistrationEntry): void => {
    if (bans().find({ id: spiffeId }, clock.now()) === undefined) return;
    // Whoever asks is not told why, by whom or until when.
    throw new MeshError('identity_banned', 'the identity is banned', {
      fix: 'ask an operator, who sees why with `countersign ban list`',
    });
  };
  return async (request) => {
    const { entry, ttlSeconds = parts.ttlSeconds } = request;
    // Nothing is recorded that is known not to be signed.
    demandInForce(entry);
    demandNoBan(entry);
    const { keyId, algorithm, privateKey } = signer();
    const now = clock.now();
    const prepared = prepareJwtSvid(
      {
        id: entry.spiffeId,
        audiences: parseAudiences(request.audiences),
        issuer,
        ttlSeconds: Math.min(ttlSeconds, parts.ttlSeconds, entry.ttlSeconds),
        keyId,
        jwtId: newJwtId(),
        algorithm,
      },
      now,
    );
    const policyRevision = parts.policyRevision?.();
    const { audiences, jwtId, issuedAt, expiresAt, signingInputSha256 } = prepared;
    await record([
      {
        type: 'jwt_issuance',
        time: now,
        spiffeId: entry.spiffeId.text,
        audiences,
        keyId,
        jwtId,
        issuedAt,
        notAfter: expiresAt,
        signingInputSha256,
        entryId: entry.id,
        entryRevision: entry.revision,
        ...(policyRevision === undefined ? {} : { policyRevision }),
        ...evidenceOf(request),
      },
    ]);
    // The entry may have been deleted or banned while the record was written: then the record stands and nothing is
    // signed.
    demandInForce(entry);
    demandNoBan(entry);
    // INVARIANT: a record that came too late to be seen by whoever withdrew the key is not signed.
    if (!mayStillSign(keyId)) {
      throw new MeshError('revision_conflict', 'the JWT key was withdrawn while the token was being made', {
        fix: 'ask again',
      });
    }
    // INVARIANT: nothing is awaited between the last look and the token, so no ban falls between them.
    const token = signJwtSvid(prepared, privateKey);
    const { spiffeId: id, hint, id: entryId } = entry;
    return { id, token, audiences, keyId, issuedAt, expiresAt, hint, entryId };
  };
}

function evidenceOf(request: JwtRequest) {
  if ('actor' in request) return { selectors: [], actor: request.actor };
  const { selectors, caller } = request.attestation;
  return { selectors: selectors.map(({ text }) => text), caller };
}
