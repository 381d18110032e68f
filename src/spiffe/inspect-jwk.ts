import { createPublicKey, type KeyObject } from 'node:crypto';
import { MeshError, publicError, quote } from '../errors.ts';
import { bytesEqual } from './der.ts';
import { describeKey } from './inspect-algorithms.ts';
import { checkAuthority, type ReadCertificate, readForInspection } from './inspect-certificate.ts';
import { membersOf } from './inspect-json.ts';
import type { Findings } from './inspect-rules.ts';

/** A key that verifies JWT-SVIDs. */
export type JwtKey = { readonly kid: string; readonly kind: string; readonly key: KeyObject };

/** What one JWK of a bundle gives; empty for a key that clients ignore. */
export type InspectedJwk = { readonly authority?: ReadCertificate; readonly jwtKey?: JwtKey };

/** Judges one element of `keys` and takes from it what can be used. */
export function inspectJwk(value: unknown, findings: Findings): InspectedJwk {
  const jwk = membersOf(value);
  if (jwk === undefined) {
    findings.add('spiffe-bundle-4.1.3-keys', 'the element is not an object');
    return {};
  }
  const kty = jwk.get('kty');
  const use = jwk.get('use');
  if (typeof kty !== 'string' || kty === '') findings.add('spiffe-bundle-4.2.1-kty', 'the key has no kty');
  if (typeof use !== 'string' || use === '') findings.add('spiffe-bundle-4.2.2-use', 'the key has no use');
  const secret = secretMembers.filter((name) => jwk.has(name));
  if (secret.length > 0) {
    findings.add(
      'rfc7517-9.2-no-private-key',
      `the key holds the private or secret member ${quote(secret[0] ?? '')}`,
    );
  }
  // Clients ignore uses and types they do not know, so these break no rule.
  if (use !== 'x509-svid' && use !== 'jwt-svid') return {};
  const key = readKey(jwk, findings);
  return use === 'x509-svid' ? readAuthority(jwk, key, findings) : readJwtKey(jwk, key, findings);
}

function readAuthority(
  jwk: ReadonlyMap<string, unknown>,
  key: KeyObject | undefined,
  findings: Findings,
): InspectedJwk {
  if (jwk.has('kid')) findings.add('x509-svid-6.1-no-kid', 'the key has a kid');
  const x5c = jwk.get('x5c');
  const list: readonly unknown[] = Array.isArray(x5c) ? x5c : [];
  if (list.length !== 1) {
    findings.add(
      'x509-svid-6.1-one-x5c',
      Array.isArray(x5c) ? `x5c has ${list.length} values` : 'the key has no x5c, or one that is no array',
    );
  }
  if (list.length === 0) return {};
  const der = decodeBase64(list[0]);
  if (der === undefined) {
    findings.of('x5c').add('x509-svid-6.1-one-x5c', 'the value is not base64 of a certificate');
    return {};
  }
  let authority: ReadCertificate;
  try {
    authority = readForInspection(der, findings);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    findings.of('x5c').add('x509-svid-6.1-one-x5c', publicError(error).message);
    return {};
  }
  checkAuthority(authority, findings);
  if (key !== undefined && !bytesEqual(spkiOf(key), authority.certificate.spki)) {
    findings.add('rfc7517-4.7-x5c-key', 'the members of the key are not those of the key in x5c');
  }
  return { authority };
}

function readJwtKey(
  jwk: ReadonlyMap<string, unknown>,
  key: KeyObject | undefined,
  findings: Findings,
): InspectedJwk {
  const kid = jwk.get('kid');
  if (typeof kid !== 'string' || kid === '') {
    findings.add('jwt-svid-6.1-kid', 'the key has no kid');
    return {};
  }
  return key === undefined ? {} : { jwtKey: { kid, kind: describeKey(spkiOf(key)).text, key } };
}

function readKey(jwk: ReadonlyMap<string, unknown>, findings: Findings): KeyObject | undefined {
  const kty = jwk.get('kty');
  const wanted = publicMembers.get(typeof kty === 'string' ? kty : '');
  if (wanted === undefined) return undefined;
  const members: Record<string, string> = { kty: String(kty) };
  for (const name of wanted) {
    const value = jwk.get(name);
    // Base64url of 1,024 octets: an RSA key of 8,192 bits. No larger number is put to work.
    if (typeof value !== 'string' || value.length > maxMemberLength) {
      findings.add('rfc7517-4-public-key', `the member ${name} is missing, no text, or too long`);
      return undefined;
    }
    members[name] = value;
  }
  try {
    const key = createPublicKey({ key: members, format: 'jwk' });
    const { family, text } = describeKey(spkiOf(key));
    if (family !== 'unknown') return key;
    findings.add('rfc7517-4-public-key', `the key, ${quote(text)}, is out of the ordinary`);
  } catch {
    findings.add('rfc7517-4-public-key', 'the members do not make a key');
  }
  return undefined;
}

function spkiOf(key: KeyObject): Uint8Array {
  return key.export({ format: 'der', type: 'spki' });
}

function decodeBase64(value: unknown): Uint8Array | undefined {
  if (typeof value !== 'string' || value === '') return undefined;
  const bytes = Buffer.from(value, 'base64');
  return bytes.toString('base64') === value ? new Uint8Array(bytes) : undefined;
}

const maxMemberLength = 1_366;
const secretMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'] as const;
const publicMembers: ReadonlyMap<string, readonly string[]> = new Map([
  ['EC', ['crv', 'x', 'y']],
  ['RSA', ['n', 'e']],
  ['OKP', ['crv', 'x']],
]);
