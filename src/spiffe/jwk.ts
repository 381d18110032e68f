import { createPublicKey, type KeyObject } from 'node:crypto';
import { quote } from '../errors.ts';
import { describeKey } from './inspect-algorithms.ts';

/** The members of a public key as JWK, in one order: `kty` and what makes the key. */
export type PublicJwk = Readonly<Record<string, string>>;

/** What the key members of a JWK come to: a key, a type that nobody here uses, or what is wrong with them. */
export type ReadJwk =
  | { readonly key: KeyObject; readonly kind: string }
  | { readonly unknownType: true }
  | { readonly wrong: string };

/**
 * Makes the key of which a JWK holds the public members, and of no others of its members.
 * @param jwk members by name, of any origin
 * @see RFC 7517 section 4; RFC 7518 section 6
 */
export function readPublicJwk(jwk: ReadonlyMap<string, unknown>): ReadJwk {
  const kty = jwk.get('kty');
  const wanted = publicMembers.get(typeof kty === 'string' ? kty : '');
  if (wanted === undefined) return { unknownType: true };
  const members: Record<string, string> = { kty: String(kty) };
  for (const name of wanted) {
    const value = jwk.get(name);
    // Base64url of 1,024 octets: an RSA key of 8,192 bits. No larger number is put to work.
    if (typeof value !== 'string' || value.length > maxMemberLength) {
      return { wrong: `the member ${name} is missing, no text, or too long` };
    }
    members[name] = value;
  }
  try {
    const key = createPublicKey({ key: members, format: 'jwk' });
    const { family, text } = describeKey(spkiOf(key));
    return family === 'unknown'
      ? { wrong: `the key, ${quote(text)}, is out of the ordinary` }
      : { key, kind: text };
  } catch {
    return { wrong: 'the members do not make a key' };
  }
}

/** The first member of a JWK that belongs to a private or a secret key, or undefined. @see RFC 7517 section 9.2 */
export function secretMember(jwk: ReadonlyMap<string, unknown>): string | undefined {
  return secretMembers.find((name) => jwk.has(name));
}

/**
 * The public members of a key.
 * @param spki DER
 * @throws TypeError or an OpenSSL error for what is no key: the caller has proven it before
 */
export function publicJwk(spki: Uint8Array): PublicJwk {
  const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
  const members = key.export({ format: 'jwk' }) as Record<string, string | undefined>;
  const names = ['kty', ...(publicMembers.get(members['kty'] ?? '') ?? [])];
  return Object.fromEntries(names.map((name) => [name, members[name] ?? '']));
}

/** A public key as SubjectPublicKeyInfo, DER. */
export function spkiOf(key: KeyObject): Uint8Array {
  return new Uint8Array(key.export({ format: 'der', type: 'spki' }));
}

const maxMemberLength = 1_366;
const secretMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'] as const;
const publicMembers: ReadonlyMap<string, readonly string[]> = new Map([
  ['EC', ['crv', 'x', 'y']],
  ['RSA', ['n', 'e']],
  ['OKP', ['crv', 'x']],
]);
