import type { KeyObject } from 'node:crypto';
import { MeshError, publicError, quote } from '../errors.ts';
import { decodeBase64 } from './base64.ts';
import { bytesEqual } from './der.ts';
import { checkAuthority, type ReadCertificate, readForInspection } from './inspect-certificate.ts';
import { membersOf } from './inspect-json.ts';
import type { Findings } from './inspect-rules.ts';
import { readPublicJwk, secretMember, spkiOf } from './jwk.ts';

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
  const secret = secretMember(jwk);
  if (secret !== undefined) {
    findings.add('rfc7517-9.2-no-private-key', `the key holds the private or secret member ${quote(secret)}`);
  }
  // Clients ignore uses and types they do not know, so these break no rule.
  if (use !== 'x509-svid' && use !== 'jwt-svid') return {};
  const key = readKey(jwk, findings);
  return use === 'x509-svid' ? readAuthority(jwk, key, findings) : readJwtKey(jwk, key, findings);
}

function readAuthority(
  jwk: ReadonlyMap<string, unknown>,
  key: UsableKey | undefined,
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
  const [value] = list;
  const der = typeof value === 'string' && value !== '' ? decodeBase64(value, 'base64') : undefined;
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
  if (key !== undefined && !bytesEqual(spkiOf(key.key), authority.certificate.spki)) {
    findings.add('rfc7517-4.7-x5c-key', 'the members of the key are not those of the key in x5c');
  }
  return { authority };
}

function readJwtKey(
  jwk: ReadonlyMap<string, unknown>,
  key: UsableKey | undefined,
  findings: Findings,
): InspectedJwk {
  const kid = jwk.get('kid');
  if (typeof kid !== 'string' || kid === '') {
    findings.add('jwt-svid-6.1-kid', 'the key has no kid');
    return {};
  }
  return key === undefined ? {} : { jwtKey: { kid, ...key } };
}

function readKey(jwk: ReadonlyMap<string, unknown>, findings: Findings): UsableKey | undefined {
  const read = readPublicJwk(jwk);
  if ('wrong' in read) findings.add('rfc7517-4-public-key', read.wrong);
  return 'key' in read ? read : undefined;
}

type UsableKey = { readonly key: KeyObject; readonly kind: string };
