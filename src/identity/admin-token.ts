import type { Grant } from './access.ts';

/** A bearer token for the admin API's TCP door, as stored: the secret itself is shown once and never kept. */
export type AdminToken = {
  /** Public name of the token, 16 lower-case hex digits. */
  readonly id: string;
  /** What it lets its bearer do; at least one. */
  readonly grants: readonly Grant[];
  readonly label: string;
  /** SHA-256 of the secret, lower-case hex. */
  readonly secretSha256: string;
  readonly createdAt: Date;
  readonly expiresAt: Date;
};
