import { MeshError, publicError, quote } from '../errors.ts';
import { decodeBase64 } from './base64.ts';
import { makeBundle, maxAuthorities, type TrustBundle } from './bundle.ts';
import { bytesEqual } from './der.ts';
import type { TrustDomain } from './id.ts';
import { describeKey } from './inspect-algorithms.ts';
import { membersOf, readJsonObject } from './inspect-json.ts';
import { publicJwk, readPublicJwk, secretMember, spkiOf } from './jwk.ts';
import { algorithmsOf } from './jwt-algorithms.ts';
import { isKeyId, type JwtAuthority, type JwtBundle } from './jwt-bundle.ts';
import { checkIssuer } from './jwt-issuer.ts';
import { checkX509Authority } from './svid.ts';

/** The two halves of a SPIFFE bundle, and how often its readers should come back. */
export type BundleParts = {
  readonly x509: TrustBundle;
  /** Of the same trust domain. */
  readonly jwt: JwtBundle;
  /** 1 to 604,800. */
  readonly refreshHintSeconds: number;
};

/** What a bundle document of another trust domain says, its authorities proven. */
export type ReadBundleDocument = {
  /** Null when it has no X.509 authority: no certificate of the trust domain is to be believed. */
  readonly x509: TrustBundle | null;
  readonly jwt: JwtBundle;
  /** `spiffe_sequence`, which is that of both halves too (0 when the document has none). */
  readonly sequence: number | null;
  readonly refreshHintSeconds: number | null;
};

/** The longest bundle document that is read. 64 RSA certificates and 64 keys are a quarter of it. */
export const maxBundleDocumentBytes = 1_048_576;

/** The most elements of `keys`, those of unknown use among them. */
export const maxBundleKeys = 256;

/**
 * Writes the SPIFFE bundle of a trust domain: the JWK set that a federation endpoint serves. Each X.509 authority is an
 * element of one certificate without `kid`, each JWT authority one with `kid`.
 *
 * `spiffe_sequence` is the sum of the sequences of both halves. Each of those grows by one with every change of its half
 * and never falls, so the sum grows with every change of the document and never falls either, and two documents of one
 * sequence are the same.
 * @throws MeshError `bundle_invalid` when the halves are of different trust domains, or a number is out of bounds
 * @see SPIFFE Trust Domain and Bundle, section 4; X509-SVID section 6; JWT-SVID section 6
 */
export function writeBundleDocument({ x509, jwt, refreshHintSeconds }: BundleParts): string {
  const { name } = x509.trustDomain;
  if (!x509.trustDomain.equals(jwt.trustDomain)) refuse(name, 'has halves of different trust domains');
  const sequence = x509.sequence + jwt.sequence;
  if (!Number.isSafeInteger(sequence) || sequence < 0) refuse(name, 'has a sequence that is no whole number');
  if (!Number.isSafeInteger(refreshHintSeconds) || refreshHintSeconds < 1 || refreshHintSeconds > weekSeconds)
    refuse(name, `has a refresh hint that is not 1 to ${weekSeconds} seconds`);
  const keys = [...x509.x509Authorities.map(x509Element), ...jwt.authorities.map(jwtElement)];
  return JSON.stringify({ spiffe_sequence: sequence, spiffe_refresh_hint: refreshHintSeconds, keys });
}

/**
 * Writes the JWT authorities of one trust domain as the Workload API carries them: a JWK set of the use `jwt-svid`.
 * @see SPIFFE Workload API section 6.2.2; JWT-SVID section 6
 */
export function writeJwtBundle(jwt: JwtBundle): string {
  return JSON.stringify({ keys: jwt.authorities.map(jwtElement) });
}

/**
 * Writes the JWT authorities as the JWK set of an OpenID provider: `use` is `sig`, as relying parties that know nothing of
 * SPIFFE expect, and `alg` is the one that our tokens have with such a key.
 * @see OpenID Connect Discovery 1.0 section 3 (`jwks_uri`); RFC 7517 sections 4.2 and 4.4
 */
export function writeOidcKeys(jwt: JwtBundle): string {
  const keys = jwt.authorities.map(({ keyId, publicKey }) => {
    const [alg] = algorithmsOf(describeKey(publicKey).text);
    return { use: 'sig', alg, kid: keyId, ...publicJwk(publicKey) };
  });
  return JSON.stringify({ keys });
}

/**
 * Writes the metadata of an OpenID provider that hands out no tokens over HTTP. Its keys are at `<issuer>/keys`. All
 * members that the specification requires are there: it demands `RS256` among the algorithms, whatever keys there are, and
 * an authorization endpoint, which nobody can be sent to, so it names none that a browser could open.
 * @param issuer as in the tokens, character by character
 * @throws MeshError `config_invalid` when it is no plain https URL
 * @see OpenID Connect Discovery 1.0 section 3
 */
export function writeOidcDiscovery(issuer: string): string {
  return JSON.stringify({
    issuer: checkIssuer(issuer),
    jwks_uri: `${issuer}/keys`,
    authorization_endpoint: 'urn:countersign:no-authorization-endpoint',
    response_types_supported: ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['RS256', 'ES256', 'ES384'],
    claims_supported: ['sub', 'aud', 'exp', 'iat', 'iss', 'jti'],
  });
}

/**
 * Reads the SPIFFE bundle of a trust domain that was configured by name: a document does not say whose it is. Elements of
 * a use or a key type that nobody here knows are passed over, as the specification demands; one of a known use that breaks
 * a rule is the end of the whole document, and so is a private key in it.
 * @param bytes at most {@link maxBundleDocumentBytes}, at most {@link maxBundleKeys} elements
 * @throws MeshError `bundle_invalid`
 * @see SPIFFE Trust Domain and Bundle, section 4; X509-SVID section 6; JWT-SVID section 6
 */
export function readBundleDocument(bytes: Uint8Array, trustDomain: TrustDomain): ReadBundleDocument {
  const { name } = trustDomain;
  if (bytes.length > maxBundleDocumentBytes) refuse(name, `is longer than ${maxBundleDocumentBytes} bytes`);
  const members = readMembers(bytes, name);
  const sequence = readNumber(members, 'spiffe_sequence', name);
  const refreshHintSeconds = readNumber(members, 'spiffe_refresh_hint', name);
  const keys: unknown = members.get('keys');
  if (!Array.isArray(keys)) refuse(name, 'has no list of keys');
  if (keys.length > maxBundleKeys) refuse(name, `has more than ${maxBundleKeys} keys`);
  const certificates: Uint8Array[] = [];
  const authorities: JwtAuthority[] = [];
  const kids = new Set<string>();
  for (const [index, value] of (keys as readonly unknown[]).entries()) {
    const element = readElement(value, (why) => refuse(name, `has a key, keys[${index}], that ${why}`));
    if (element instanceof Uint8Array) certificates.push(element);
    if (element === undefined || element instanceof Uint8Array) continue;
    if (kids.has(element.keyId)) refuse(name, `has the kid ${quote(element.keyId)} twice`);
    kids.add(element.keyId);
    authorities.push(element);
  }
  if (authorities.length > maxAuthorities) refuse(name, `has more than ${maxAuthorities} keys for tokens`);
  const jwt = { trustDomain, authorities, sequence: sequence ?? 0 };
  const x509 = certificates.length === 0 ? null : makeBundle(trustDomain, certificates, sequence ?? 0);
  return { x509, jwt, sequence, refreshHintSeconds };
}

function x509Element(der: Uint8Array): object {
  const x5c = [Buffer.from(der).toString('base64')];
  return { use: 'x509-svid', ...publicJwk(checkX509Authority(der).spki), x5c };
}

function jwtElement({ keyId, publicKey }: JwtAuthority): object {
  return { use: 'jwt-svid', kid: keyId, ...publicJwk(publicKey) };
}

function readMembers(bytes: Uint8Array, name: string): ReadonlyMap<string, unknown> {
  let json: ReturnType<typeof readJsonObject>;
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    json = readJsonObject(text, 'it');
  } catch (cause) {
    return refuse(name, cause instanceof MeshError ? `cannot be read: ${cause.message}` : 'is not UTF-8');
  }
  if (json.duplicates.length > 0) refuse(name, `has members that stand twice: ${json.duplicates.join(', ')}`);
  return json.members;
}

function readNumber(members: ReadonlyMap<string, unknown>, member: string, name: string): number | null {
  if (!members.has(member)) return null;
  const value = members.get(member);
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    refuse(name, `has a ${member} that is no whole number`);
  }
  return value as number;
}

/** A certificate, a JWT authority, or undefined for an element that is passed over. */
function readElement(
  value: unknown,
  refuseKey: (why: string) => never,
): Uint8Array | JwtAuthority | undefined {
  const jwk = membersOf(value) ?? refuseKey('is no object');
  // Whoever reads this document has the key now, whatever it was for.
  const secret = secretMember(jwk);
  if (secret !== undefined) refuseKey(`holds the private or secret member ${quote(secret)}`);
  const use = jwk.get('use');
  if (use !== 'x509-svid' && use !== 'jwt-svid') return undefined;
  const read = readPublicJwk(jwk);
  if ('unknownType' in read) return undefined;
  if ('wrong' in read) return refuseKey(`is refused: ${read.wrong}`);
  const spki = spkiOf(read.key);
  if (use === 'x509-svid') return readCertificate(jwk, spki, refuseKey);
  const kid = jwk.get('kid');
  if (typeof kid !== 'string' || !isKeyId(kid)) refuseKey('has no kid of 1 to 256 printable characters');
  if (algorithmsOf(read.kind).length === 0) {
    // Of a type that a later JWT-SVID may know: no token we believe is signed with it. A weak key is another matter.
    if (jwk.get('kty') === 'OKP') return undefined;
    refuseKey(`is ${quote(read.kind)}, which no token may be signed with`);
  }
  return { keyId: kid, publicKey: spki };
}

function readCertificate(
  jwk: ReadonlyMap<string, unknown>,
  spki: Uint8Array,
  refuseKey: (why: string) => never,
): Uint8Array {
  if (jwk.has('kid')) refuseKey('is for certificates and has a kid');
  const x5c = jwk.get('x5c');
  const list: readonly unknown[] = Array.isArray(x5c) ? x5c : [];
  const [text] = list;
  if (list.length !== 1 || typeof text !== 'string') refuseKey('has no x5c of one certificate');
  const der = decodeBase64(text, 'base64') ?? refuseKey('has an x5c that is not base64');
  let own: Uint8Array;
  try {
    own = checkX509Authority(der).spki;
  } catch (error) {
    return refuseKey(`is refused: ${publicError(error).message}`);
  }
  if (!bytesEqual(own, spki)) refuseKey('has other members than the key in its certificate');
  return der;
}

function refuse(name: string, why: string): never {
  throw new MeshError('bundle_invalid', `the bundle of ${name} ${why}`);
}

const weekSeconds = 604_800;
