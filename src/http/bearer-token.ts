import { createHash, timingSafeEqual } from 'node:crypto';
import type { AdminToken } from '../identity/admin-token.ts';

/** Random bytes of the given number, unpredictable. */
export type RandomBytes = (size: number) => Uint8Array;

/** A bearer token as presented: its public name, and the secret that proves it. */
export type PresentedToken = { readonly id: string; readonly secret: string };

/** The shortest, longest and usual life of a token. */
export const minTokenSeconds = 60;
export const maxTokenSeconds = 31_536_000;
export const defaultTokenSeconds = 2_592_000;

/**
 * Makes a token: what is stored, and the text `ctk_<id>_<secret>` which is shown once (64 and 256 random bits in hex).
 * @param lifeSeconds 60 to 31,536,000
 */
export function mintToken(
  wish: Pick<AdminToken, 'grants' | 'label'> & { readonly lifeSeconds: number },
  now: Date,
  randomBytes: RandomBytes,
): { readonly stored: AdminToken; readonly text: string } {
  const id = hex(randomBytes(8));
  const secret = hex(randomBytes(32));
  const stored: AdminToken = {
    id,
    grants: wish.grants,
    label: wish.label,
    secretSha256: sha256(secret).toString('hex'),
    createdAt: now,
    expiresAt: new Date(now.getTime() + wish.lifeSeconds * 1_000),
  };
  return { stored, text: `ctk_${id}_${secret}` };
}

/** Reads `Bearer ctk_<id>_<secret>`, the value of an authorization header; undefined when it is anything else. */
export function parseAuthorization(header: string | undefined): PresentedToken | undefined {
  const match = /^[Bb]earer ctk_([0-9a-f]{16})_([0-9a-f]{64})$/.exec(header ?? '');
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  return { id: match[1], secret: match[2] };
}

/** What a store knows the token by: SHA-256 of the secret's text, lower-case hex. */
export function secretSha256(presented: PresentedToken): string {
  return sha256(presented.secret).toString('hex');
}

/**
 * Whether the presented token is the stored one: secret and id both. Takes the same time for an unknown token as for a
 * known one with another id.
 */
export function provesToken(presented: PresentedToken, stored: AdminToken | null): boolean {
  const sameSecret = timingSafeEqual(
    sha256(presented.secret),
    Buffer.from(stored?.secretSha256 ?? absentSha256, 'hex'),
  );
  const sameId = timingSafeEqual(sha256(presented.id), sha256(stored?.id ?? ''));
  return sameSecret && sameId && stored !== null;
}

/** SHA-256 of bytes, lower-case hex. */
export function hashBytes(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'ascii').digest();
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

const absentSha256 = '0'.repeat(64);
