import { type KeyObject, verify } from 'node:crypto';
import { MeshError, quote } from '../errors.ts';
import { decodeBase64 } from './base64.ts';
import { checkIdText } from './inspect-id.ts';
import type { JwtKey } from './inspect-jwk.ts';
import { readJsonObject } from './inspect-json.ts';
import { collectFindings, type Findings, type Inspection } from './inspect-rules.ts';
import { type JwtAlgorithm, jwtAlgorithms } from './jwt-algorithms.ts';

/** What a JWT-SVID says. It says it of itself: only a verified signature makes it true. */
export type JwtFacts = {
  readonly header: { readonly alg: string | null; readonly kid: string | null; readonly typ: string | null };
  readonly subject: string | null;
  readonly audience: readonly string[];
  readonly expiresAt: Date | null;
  readonly issuedAt: Date | null;
  readonly notBefore: Date | null;
  /** Names of the claims that are not named above. */
  readonly otherClaims: readonly string[];
  /** `not verified` when no keys were given. */
  readonly signature: 'not verified' | 'verified' | 'invalid';
};

/** Against which keys, and for which moment, a token is judged. */
export type JwtOptions = { readonly keys?: readonly JwtKey[]; readonly at?: Date };

/**
 * Inspects a JWT-SVID. Without keys its signature is not looked at, without a moment its dates are not.
 * @param token compact form, at most 64 KiB
 * @throws MeshError `input_unreadable` when it is no compact JWS of two JSON objects, `input_too_large`
 * @see JWT-SVID sections 2 to 4
 */
export function inspectJwt(token: string, { keys, at }: JwtOptions = {}): Inspection<JwtFacts> {
  if (token.length > maxTokenBytes) {
    throw new MeshError('input_too_large', `the token is longer than ${maxTokenBytes} bytes`);
  }
  const findings = collectFindings();
  const [head = '', body = '', signature, more] = token.split('.', 4);
  if (signature === undefined || more !== undefined) unreadable('is not of the form header.claims.signature');
  const header = readJsonObject(decodeText(head, 'header'), 'the header of the token');
  const claims = readJsonObject(decodeText(body, 'claims'), 'the claims of the token');
  if (header.duplicates.length > 0) {
    findings.add('rfc7515-4-unique-members', `header members stand twice: ${header.duplicates.join(', ')}`);
  }
  if (claims.duplicates.length > 0) {
    findings.add('rfc7519-4-unique-claims', `claims stand twice: ${claims.duplicates.join(', ')}`);
  }
  const alg = checkHeader(header.members, findings);
  const facts = checkClaims(claims.members, findings);
  if (at !== undefined) checkTime(facts, at, findings);
  const bytes = decodeBase64(signature, 'base64url');
  if (bytes === undefined || bytes.length === 0) {
    findings.add('jwt-svid-4-signature', 'the token has no signature, or one that is not base64url');
  }
  const kid = header.members.get('kid');
  const why =
    keys === undefined ? undefined : whyUnverified({ token, bytes, alg, kid, keys }, findings.list());
  if (why !== undefined) findings.add('jwt-svid-4-signature', why);
  return {
    facts: {
      header: {
        alg: textOf(header.members.get('alg')),
        kid: textOf(kid),
        typ: textOf(header.members.get('typ')),
      },
      ...facts,
      signature: keys === undefined ? 'not verified' : why === undefined ? 'verified' : 'invalid',
    },
    broken: findings.list(),
  };
}

function checkHeader(header: ReadonlyMap<string, unknown>, findings: Findings): JwtAlgorithm | undefined {
  const others = [...header.keys()].filter((name) => !headerMembers.has(name));
  if (others.length > 0) {
    findings.add('jwt-svid-2-header', `the header has ${others.slice(0, maxShown).map(quote).join(', ')}`);
  }
  const name = header.get('alg');
  const alg = typeof name === 'string' ? jwtAlgorithms.get(name) : undefined;
  if (alg === undefined) findings.add('jwt-svid-2.1-alg', `alg is ${shownValue(name)}`);
  const kid = header.get('kid');
  if (kid !== undefined && typeof kid !== 'string') findings.add('jwt-svid-2.2-kid', 'kid is not text');
  const typ = header.get('typ');
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE') {
    findings.add('jwt-svid-2.3-typ', `typ is ${shownValue(typ)}`);
  }
  return alg;
}

function checkClaims(
  claims: ReadonlyMap<string, unknown>,
  findings: Findings,
): Omit<JwtFacts, 'header' | 'signature'> {
  const sub = claims.get('sub');
  if (typeof sub !== 'string') {
    findings.add('jwt-svid-3.1-sub', claims.has('sub') ? 'sub is not text' : 'the token has no sub');
  } else if (checkIdText(sub, findings.of('sub')).path === '') {
    findings.add('jwt-svid-3.1-sub', `sub ${quote(sub)} names a trust domain, no workload`);
  }
  const aud = claims.get('aud');
  const audience: unknown[] = Array.isArray(aud) ? aud : aud === undefined ? [] : [aud];
  const texts = audience.filter((value): value is string => typeof value === 'string' && value !== '');
  if (texts.length === 0 || texts.length !== audience.length) {
    findings.add(
      'jwt-svid-3.2-aud',
      aud === undefined ? 'the token has no aud' : 'aud is no text, or no list of texts',
    );
  }
  const expiresAt = dateOf(claims.get('exp'));
  if (expiresAt === null) {
    findings.add(
      'jwt-svid-3.3-exp',
      claims.has('exp') ? 'exp is no number of seconds' : 'the token has no exp',
    );
  }
  const [notBefore, issuedAt] = ['nbf', 'iat'].map((name) => {
    const date = dateOf(claims.get(name));
    if (date === null && claims.has(name)) {
      findings.of(name).add('rfc7519-4.1-numeric-date', `${name} is no number of seconds`);
    }
    return date;
  }) as [Date | null, Date | null];
  return {
    subject: textOf(sub),
    audience: texts,
    expiresAt,
    issuedAt,
    notBefore,
    otherClaims: [...claims.keys()].filter((name) => !knownClaims.has(name)),
  };
}

function checkTime(
  { expiresAt, notBefore }: Pick<JwtFacts, 'expiresAt' | 'notBefore'>,
  at: Date,
  findings: Findings,
): void {
  if (expiresAt !== null && at >= expiresAt) {
    findings.add('jwt-svid-4-time', `the token expired at ${expiresAt.toISOString()}`);
  } else if (notBefore !== null && at < notBefore) {
    findings.add('jwt-svid-4-time', `the token is valid only from ${notBefore.toISOString()}`);
  }
}

type Signed = {
  readonly token: string;
  readonly bytes: Uint8Array | undefined;
  readonly alg: JwtAlgorithm | undefined;
  readonly kid: unknown;
  readonly keys: readonly JwtKey[];
};

function whyUnverified(
  { token, bytes, alg, kid, keys }: Signed,
  broken: readonly unknown[],
): string | undefined {
  if (alg === undefined) return 'the algorithm is not supported';
  // A header that one reader takes otherwise than another is not worth a key.
  if (broken.some((finding) => (finding as { rule: string }).rule === 'rfc7515-4-unique-members')) {
    return 'the header is ambiguous';
  }
  if (kid !== undefined && typeof kid !== 'string') return 'kid is not text';
  const named = kid === undefined ? keys : keys.filter((key) => key.kid === kid);
  const fitting = named.filter(({ kind }) => alg.fits(kind)).slice(0, maxTriedKeys);
  if (named.length === 0)
    return kid === undefined
      ? 'the bundle has no jwt-svid key for its trust domain'
      : `no key for its trust domain has the kid ${quote(kid)}`;
  if (fitting.length === 0) return 'the key is not of the kind that alg needs';
  const signed = Buffer.from(token.slice(0, token.lastIndexOf('.')), 'latin1');
  const holds = bytes !== undefined && fitting.some(({ key }) => verifies(alg, key, signed, bytes));
  return holds ? undefined : 'the signature does not verify';
}

function verifies(alg: JwtAlgorithm, key: KeyObject, signed: Uint8Array, signature: Uint8Array): boolean {
  try {
    return verify(alg.hash, signed, { key, ...alg.options }, signature);
  } catch {
    return false;
  }
}

function decodeText(part: string, what: string): string {
  const bytes =
    decodeBase64(part, 'base64url') ?? unreadable(`has a part, its ${what}, that is not base64url`);
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return unreadable(`has a part, its ${what}, that is not UTF-8`);
  }
}

function unreadable(why: string): never {
  // The token itself is a secret while it lives: no message repeats any of it.
  throw new MeshError('input_unreadable', `the token ${why}`, { fix: 'give one JWT in compact form' });
}

function dateOf(value: unknown): Date | null {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0 || value > maxDateSeconds)
    return null;
  return new Date(value * 1_000);
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

function shownValue(value: unknown): string {
  if (value === undefined) return 'missing';
  return typeof value === 'string' ? quote(value) : 'not text';
}

const maxTokenBytes = 65_536;
const maxTriedKeys = 16;
const maxShown = 8;
// The year 9999, beyond which no text has four digits for it.
const maxDateSeconds = 253_402_300_799;
const headerMembers: ReadonlySet<string> = new Set(['alg', 'kid', 'typ']);
const knownClaims: ReadonlySet<string> = new Set(['sub', 'aud', 'exp', 'nbf', 'iat']);
