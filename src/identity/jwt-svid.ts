import type { SpiffeId } from '../spiffe/id.ts';
import type { RegistrationEntry } from './entry.ts';
import type { Attestation } from './evidence.ts';

/** A JWT-SVID that was just signed. */
export type JwtSvid = {
  readonly id: SpiffeId;
  /** JWS in compact form. A bearer secret: never logged. */
  readonly token: string;
  readonly audiences: readonly string[];
  /** The `kid` it was signed with. */
  readonly keyId: string;
  readonly issuedAt: Date;
  readonly expiresAt: Date;
  readonly hint: string;
  readonly entryId: string;
};

export type MintJwtRequest = {
  readonly entry: RegistrationEntry;
  /** 1 to 16 audiences of 1 to 256 characters each. */
  readonly audiences: readonly string[];
  readonly attestation: Attestation;
  /** A shorter lifetime than the configured one; a longer one is cut to it. */
  readonly ttlSeconds?: number;
};

/**
 * Mints a JWT-SVID for an entry, in write-ahead order: the record is durable before the token exists. In one process it
 * is the local CA, on a node it is the node API. It throws `jwt_audience_invalid`, `identity_none` for an entry that is
 * no longer in force, `identity_banned`, `store_unavailable`.
 */
export type MintJwt = (request: MintJwtRequest) => Promise<JwtSvid>;

/** What a token says that has been proven. */
export type ValidatedJwt = {
  readonly id: SpiffeId;
  readonly audiences: readonly string[];
  readonly expiresAt: Date;
  readonly keyId: string;
  /** Every claim of the payload, as JSON. */
  readonly claims: { readonly [name: string]: unknown };
};

/**
 * Validates a token for one audience, with the JWT bundle of its subject's trust domain. It throws MeshError `jwt_invalid`
 * (form, algorithm, signature, claims), `jwt_expired`, `jwt_audience_mismatch`, `jwt_key_unknown`, `identity_banned`.
 */
export type ValidateJwt = (token: string, audience: string) => Promise<ValidatedJwt>;
