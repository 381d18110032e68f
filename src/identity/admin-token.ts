/** What an operator may do over the admin API; each role includes the ones before it. */
export const adminRoles = ['viewer', 'operator', 'admin'] as const;
export type AdminRole = (typeof adminRoles)[number];

/** A bearer token for the admin API's TCP door, as stored: the secret itself is shown once and never kept. */
export type AdminToken = {
  /** Public name of the token, 16 lower-case hex digits. */
  readonly id: string;
  readonly role: AdminRole;
  readonly label: string;
  /** SHA-256 of the secret, lower-case hex. */
  readonly secretSha256: string;
  readonly createdAt: Date;
  readonly expiresAt: Date;
};
