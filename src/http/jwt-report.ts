import type { Actor } from '../audit/event.ts';
import type { JwtSchedule, JwtSlot } from '../ca/jwt-slot.ts';
import type { JwtSvid, ValidateJwt } from '../identity/jwt-svid.ts';
import type { JwtBundle } from '../spiffe/jwt-bundle.ts';

/** What `GET /v1/ca` tells of the keys that sign tokens. Times are serialised as RFC 3339. */
export type JwtReport = {
  /** Of the JWT bundle in force. */
  readonly jwtBundleSequence: number;
  /** All that are not retired, those published first first. */
  readonly jwtKeys: readonly (Omit<JwtSlot, 'publicKey'> & {
    /** When the last token recorded under it expires; null when there was none. */
    readonly lastTokenExpiresAt: Date | null;
  })[];
  /** What happens by itself, the earliest first, and from when on somebody may ask for it. */
  readonly jwtNext: readonly JwtSchedule[];
};

/** Whom an operator wants a token for. */
export type MintOrder = {
  /** By ID of an entry, or by SPIFFE ID: then of the first entry in force that has it. */
  readonly entry: { readonly entryId: string } | { readonly spiffeId: string };
  readonly audiences: readonly string[];
  readonly ttlSeconds?: number;
};

/** Tokens and their keys as the admin API sees them. */
export type JwtPort = {
  readonly report: () => Promise<JwtReport>;
  /** Steps throw `rotation_unproven`, `rotation_out_of_order`, `authority_not_found`. */
  readonly rotate: (actor: Actor) => Promise<void>;
  readonly activate: (force: boolean, actor: Actor) => Promise<void>;
  readonly retire: (force: boolean, actor: Actor) => Promise<void>;
  readonly taint: (keyId: string, actor: Actor) => Promise<void>;
  /** Whether a key ID is that of a JWT key, retired ones included. */
  readonly owns: (keyId: string) => boolean;
  readonly bundle: () => JwtBundle;
  /** @throws MeshError `entry_not_found`, and whatever `MintJwt` throws */
  readonly mint: (order: MintOrder, actor: Actor) => Promise<JwtSvid>;
  readonly validate: ValidateJwt;
};
