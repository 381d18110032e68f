import { MeshError, quote } from '../errors.ts';
import { decodeBase64 } from './base64.ts';
import { readJsonObject } from './inspect-json.ts';
import { type JwtAlgorithm, jwtAlgorithms } from './jwt-algorithms.ts';
import { isKeyId } from './jwt-bundle.ts';

/** A token taken apart, its form proven. It says all this of itself: only a verified signature makes it true. */
export type Jwt = {
  readonly header: {
    /** A key of {@link jwtAlgorithms}, or of the profile the token was read by. */
    readonly alg: string;
    /** 1 to 256 printable ASCII characters. */
    readonly kid: string;
    readonly typ?: 'JWT' | 'JOSE';
  };
  readonly payload: {
    /** `sub` as it stands, not yet parsed as a SPIFFE ID. */
    readonly subject: string;
    /** `aud`, always as a list: 1 to 16 texts, none empty. */
    readonly audiences: readonly string[];
    readonly expiresAt: Date;
    readonly issuedAt: Date | null;
    readonly notBefore: Date | null;
    /** Every claim, those above among them. Numbers are finite, texts have no lone surrogates. */
    readonly claims: ReadonlyMap<string, unknown>;
  };
  /** `header.payload` as it stands, ASCII: what is signed. */
  readonly signingInput: Uint8Array;
  /** Of a length that fits `alg`. */
  readonly signature: Uint8Array;
};

/** The longest token that is read. Ours have about 350 characters; an HTTP header holds 8 to 16 KiB in most servers. */
export const maxTokenBytes = 16_384;

/** The most audiences a token may name, of ours and of others. */
export const maxAudiences = 16;

/** What tells one kind of token from another, before its claims are looked at. */
export type JwtProfile = {
  /** Those permitted, by the value of `alg`. */
  readonly algorithms: ReadonlyMap<string, Pick<JwtAlgorithm, 'signatureBytes'>>;
  /** Header members that mean nothing here and are passed over; all but `alg`, `kid` and `typ` are refused else. */
  readonly passedOver: ReadonlySet<string>;
  /** What to send instead, for people. */
  readonly fix: string;
};

const jwtSvidProfile: JwtProfile = {
  algorithms: jwtAlgorithms,
  passedOver: new Set(),
  fix: 'send a JWT-SVID in compact form',
};

/**
 * Takes a JWT-SVID, or another token of its form, apart and proves that form, before anything of it reaches a library:
 * compact form of three parts in base64url with one text for one byte string; strict UTF-8; JSON objects whose members
 * stand once, at most 32 levels deep; no header but `alg`, `kid` and `typ`; an asymmetric algorithm of the closed list;
 * `sub`, `aud` and `exp` present; times whole seconds from 1970 to 9999. Signature, times and audience are for the caller
 * to judge.
 * @param token at most {@link maxTokenBytes} characters
 * @throws MeshError `jwt_invalid`, which repeats nothing of the token but names: it may be a secret
 * @see JWT-SVID sections 2, 3 and 5.1; RFC 7515 section 7.1; RFC 7519 section 7.2
 */
export function readJwt(token: string, profile: JwtProfile = jwtSvidProfile): Jwt {
  try {
    return takeApart(token, profile);
  } catch (error) {
    if (!(error instanceof MeshError) || profile === jwtSvidProfile) throw error;
    // No cause, as below.
    throw new MeshError(error.code, error.message, { fix: profile.fix });
  }
}

function takeApart(token: string, { algorithms, passedOver }: JwtProfile): Jwt {
  if (token.length > maxTokenBytes) refuse(`is longer than ${maxTokenBytes} bytes`);
  const [head = '', body = '', tail = '', more] = token.split('.', 4);
  if (more !== undefined || head === '' || body === '' || tail === '') {
    refuse('is not of the form header.payload.signature');
  }
  // Each part is judged before the next is decoded: the header is small, and most rubbish ends there.
  const header = readHeader(readPart(head, 'header'), algorithms, passedOver);
  const signature = decodeBase64(tail, 'base64url');
  const { min, max } = algorithms.get(header.alg)?.signatureBytes ?? noBytes;
  if (signature === undefined) refuse('has a signature that is not base64url');
  if (signature.length < min || signature.length > max)
    refuse(`has a signature of a length that ${header.alg} does not make`);
  const payload = readPayload(readPart(body, 'payload'));
  const signingInput = new Uint8Array(Buffer.from(token.slice(0, head.length + 1 + body.length), 'latin1'));
  return { header, payload, signingInput, signature };
}

function readHeader(
  members: ReadonlyMap<string, unknown>,
  algorithms: JwtProfile['algorithms'],
  passedOver: ReadonlySet<string>,
): Jwt['header'] {
  for (const name of members.keys()) {
    if (!headerMembers.has(name) && !passedOver.has(name))
      refuse(`has the header member ${quote(name)}, which is not permitted`);
  }
  const [alg, kid, typ] = [members.get('alg'), members.get('kid'), members.get('typ')];
  if (typeof alg !== 'string' || !algorithms.has(alg)) {
    refuse(
      `is signed with ${typeof alg === 'string' ? `alg ${quote(alg)}` : 'an alg'} that is not permitted`,
    );
  }
  if (typeof kid !== 'string' || !isKeyId(kid)) refuse('has no kid of 1 to 256 printable characters');
  if (!members.has('typ')) return { alg, kid };
  if (typ !== 'JWT' && typ !== 'JOSE') refuse('has a typ other than JWT and JOSE');
  return { alg, kid, typ };
}

function readPayload(claims: ReadonlyMap<string, unknown>): Jwt['payload'] {
  const subject = claims.get('sub');
  if (typeof subject !== 'string' || subject === '') refuse('has no sub that is text');
  const expiresAt = readTime(claims, 'exp');
  if (expiresAt === null) refuse('has no exp');
  return {
    subject,
    audiences: readAudiences(claims.get('aud')),
    expiresAt,
    issuedAt: readTime(claims, 'iat'),
    notBefore: readTime(claims, 'nbf'),
    claims,
  };
}

function readAudiences(aud: unknown): readonly string[] {
  const list: readonly unknown[] = Array.isArray(aud) ? aud : [aud];
  const texts = list.filter((value): value is string => typeof value === 'string' && value !== '');
  if (texts.length !== list.length || list.length === 0 || list.length > maxAudiences) {
    refuse(`has no aud that is text, or a list of 1 to ${maxAudiences} texts`);
  }
  return texts;
}

/** A NumericDate; RFC 7519 permits fractions and no end, we do not: 1e999 is infinite, and then no token ever expires. */
function readTime(claims: ReadonlyMap<string, unknown>, name: string): Date | null {
  if (!claims.has(name)) return null;
  const value = claims.get(name);
  if (!Number.isSafeInteger(value) || (value as number) < 0 || (value as number) > maxTimeSeconds) {
    refuse(`has an ${name} that is no whole number of seconds from 1970 to 9999`);
  }
  return new Date((value as number) * 1_000);
}

function readPart(part: string, what: string): ReadonlyMap<string, unknown> {
  const bytes = decodeBase64(part, 'base64url') ?? refuse(`has a ${what} that is not base64url`);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return refuse(`has a ${what} that is not UTF-8`);
  }
  const { members, duplicates } = orInvalid(() => readJsonObject(text, `its ${what}`));
  if (duplicates.length > 0) refuse(`has a ${what} in which ${duplicates.join(', ')} stands twice`);
  for (const [name, value] of members) checkPlain(name, value, what);
  return members;
}

/**
 * INVARIANT: what passes means the same to every reader that a verified claim may come to: no number that becomes
 * infinite, no lone surrogate that becomes U+FFFD, no name that reaches for a prototype.
 */
function checkPlain(name: string, value: unknown, what: string): void {
  if (name === '__proto__') refuse(`has a ${what} with a member "__proto__"`);
  if (!name.isWellFormed() || (typeof value === 'string' && !value.isWellFormed())) {
    refuse(`has a ${what} with half a character in it`);
  }
  if (typeof value === 'number' && !Number.isFinite(value))
    refuse(`has a ${what} with a number out of range`);
  // At most 32 levels: deeper ones were refused with the JSON.
  if (typeof value === 'object' && value !== null) {
    for (const [inner, innerValue] of Object.entries(value)) checkPlain(inner, innerValue, what);
  }
}

function orInvalid<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof MeshError)) throw cause;
    return refuse(`cannot be read: ${cause.message}`);
  }
}

function refuse(why: string): never {
  // No cause: that of a JSON error holds a piece of the token.
  throw new MeshError('jwt_invalid', `the token ${why}`, { fix: 'send a JWT-SVID in compact form' });
}

const noBytes = { min: 0, max: 0 };
const headerMembers: ReadonlySet<string> = new Set(['alg', 'kid', 'typ']);
// The year 9999, beyond which a time has no text of four digits for its year.
const maxTimeSeconds = 253_402_300_799;
