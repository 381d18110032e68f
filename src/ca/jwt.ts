import { createPublicKey, hash, type KeyObject, sign, verify } from 'node:crypto';
import { MeshError, quote } from '../errors.ts';
import { bytesEqual } from '../spiffe/der.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import { describeKey } from '../spiffe/inspect-algorithms.ts';
import { jwtAlgorithms } from '../spiffe/jwt-algorithms.ts';
import { isKeyId } from '../spiffe/jwt-bundle.ts';
import { checkIssuer } from '../spiffe/jwt-issuer.ts';
import { maxAudiences, maxTokenBytes, readJwt } from '../spiffe/jwt-token.ts';

/** What we sign with: one algorithm for each kind of key. */
export type JwtSigningAlgorithm = 'ES256' | 'ES384' | 'RS256';

/** What a token is asked for. */
export type JwtRequest = {
  /** With a path. That it is of the authority's trust domain is for the caller to know. */
  readonly id: SpiffeId;
  /** As {@link parseAudiences} gave them. */
  readonly audiences: readonly string[];
  /** The `iss` that OIDC relying parties want, an https URL; null for none, which the SPIFFE documents do not know. */
  readonly issuer: string | null;
  /** Within {@link jwtTtlBounds}. */
  readonly ttlSeconds: number;
  /** The `kid`: 1 to 256 printable characters. */
  readonly keyId: string;
  /** The `jti`: 1 to 128 letters, digits, `-`, `_`, `.`; new for each token. */
  readonly jwtId: string;
  /** That of the key which will sign, see {@link jwtAlgorithmOf}; ES256 unless told. */
  readonly algorithm?: JwtSigningAlgorithm;
};

/**
 * A token that is decided but not signed: what goes into the record before the signature is made. Only
 * {@link prepareJwtSvid} makes one, and {@link signJwtSvid} takes it once. It holds no secret.
 */
export type PreparedJwt = {
  readonly id: SpiffeId;
  readonly audiences: readonly string[];
  readonly jwtId: string;
  readonly keyId: string;
  readonly algorithm: JwtSigningAlgorithm;
  /** Whole seconds. */
  readonly issuedAt: Date;
  readonly expiresAt: Date;
  /** `header.payload`, what will be signed. */
  readonly signingInput: string;
  /** Lower-case hex. */
  readonly signingInputSha256: string;
};

/** How long a token may live. A shorter one ends on its way, and a day is long for a bearer secret. */
export const jwtTtlBounds = { minSeconds: 20, maxSeconds: 86_400 } as const;

/** How long a token lives when nobody says. SPIRE's are of the same length. */
export const defaultJwtTtlSeconds = 300;

/**
 * Proves a list of audiences: 1 to 16, no two the same, each of 1 to 256 printable ASCII characters, the first and the
 * last no space.
 * @throws MeshError `jwt_audience_invalid`
 */
export function parseAudiences(audiences: readonly string[]): readonly string[] {
  if (audiences.length === 0) refuseAudience('a token needs an audience');
  if (audiences.length > maxAudiences) refuseAudience(`a token has at most ${maxAudiences} audiences`);
  for (const audience of audiences) {
    if (!audiencePattern.test(audience)) {
      refuseAudience(`the audience ${quote(audience)} is not 1 to 256 printable ASCII characters`);
    }
  }
  if (new Set(audiences).size !== audiences.length) refuseAudience('an audience is given twice');
  return Object.freeze([...audiences]);
}

/** The algorithm that a key signs tokens with. @throws MeshError `authority_invalid` for a key that signs none */
export function jwtAlgorithmOf(key: KeyObject): JwtSigningAlgorithm {
  const kind = kindOf(key);
  const algorithm = signingAlgorithms.find((name) => jwtAlgorithms.get(name)?.fits(kind) === true);
  if (algorithm === undefined)
    throw new MeshError('authority_invalid', `a key of the kind ${quote(kind)} signs no tokens`);
  return algorithm;
}

/**
 * Decides a token: proves the request, sets the times, lays out the bytes that will be signed. The same request at the
 * same moment gives the same bytes.
 * @throws MeshError `jwt_audience_invalid`; `spiffe_id_path_missing`; `profile_invalid` (lifetime, key id, token id,
 *   or a token of more than 16 KiB); `config_invalid` (issuer)
 * @see JWT-SVID sections 2 and 3; RFC 7515 section 3.1
 */
export function prepareJwtSvid(request: JwtRequest, now: Date): PreparedJwt {
  const { id, issuer, ttlSeconds, keyId, jwtId, algorithm = 'ES256' } = request;
  const audiences = parseAudiences(request.audiences);
  if (id.path === '') {
    throw new MeshError(
      'spiffe_id_path_missing',
      `SPIFFE ID ${quote(id.text)} names a trust domain, not a workload`,
    );
  }
  const { minSeconds, maxSeconds } = jwtTtlBounds;
  if (!Number.isSafeInteger(ttlSeconds) || ttlSeconds < minSeconds || ttlSeconds > maxSeconds) {
    refuse(`a token's lifetime must be ${minSeconds} to ${maxSeconds} whole seconds`);
  }
  if (!isKeyId(keyId)) refuse('a key id must be 1 to 256 printable characters');
  if (!jwtIdPattern.test(jwtId)) refuse('a token id must be 1 to 128 letters, digits and - _ .');
  const iat = Math.floor(now.getTime() / 1_000);
  const exp = iat + ttlSeconds;
  // NaN fails both comparisons.
  if (!(iat >= 0 && exp <= maxTimeSeconds)) refuse('the time of issue is no time from 1970 to 9999');
  // INVARIANT: the order of members never changes; objects keep that of their writing, as no name is a number.
  const claims = {
    sub: id.text,
    aud: audiences,
    exp,
    iat,
    ...(issuer === null ? {} : { iss: checkIssuer(issuer) }),
    jti: jwtId,
  };
  const signingInput = `${encodePart({ alg: algorithm, kid: keyId, typ: 'JWT' })}.${encodePart(claims)}`;
  if (signingInput.length + 1 + maxSignatureChars > maxTokenBytes)
    refuse(`the token would be longer than ${maxTokenBytes} bytes`);
  const prepared: PreparedJwt = Object.freeze({
    id,
    audiences,
    jwtId,
    keyId,
    algorithm,
    issuedAt: new Date(iat * 1_000),
    expiresAt: new Date(exp * 1_000),
    signingInput,
    signingInputSha256: hash('sha256', signingInput, 'hex'),
  });
  plans.set(prepared, { signingInput, algorithm, keyId, subject: id.text, audiences, exp, iat });
  return prepared;
}

/**
 * Signs what {@link prepareJwtSvid} decided, then reads the token back as a validator does, compares it with what was
 * decided and verifies its signature. A prepared token is spent by the attempt, whether it succeeds or not.
 * @throws MeshError `internal` when it was signed before, or the key is not for its algorithm; `lint_failed` when what
 *   came out is not what was prepared, and then the token is lost
 */
export function signJwtSvid(prepared: PreparedJwt, privateKey: KeyObject): string {
  const plan = plans.get(prepared);
  if (plan === undefined) throw new MeshError('internal', 'the token was not prepared, or was signed before');
  // INVARIANT: the plan is gone before the key is used, so no two signatures are ever made for one record.
  plans.delete(prepared);
  const algorithm = jwtAlgorithms.get(plan.algorithm);
  const publicKey = publicHalf(privateKey);
  if (algorithm?.fits(kindOf(publicKey)) !== true)
    throw new MeshError('internal', 'the key is not for the algorithm of the token');
  const { hash: digest, options } = algorithm;
  const bytes = Buffer.from(plan.signingInput, 'latin1');
  let signature: Uint8Array;
  try {
    signature = sign(digest, bytes, { key: privateKey, ...options });
  } catch (cause) {
    throw new MeshError('internal', 'the token could not be signed', { cause });
  }
  const token = `${plan.signingInput}.${Buffer.from(signature).toString('base64url')}`;
  lintToken(token, plan, (signed, made) => verify(digest, signed, { key: publicKey, ...options }, made));
  return token;
}

type Plan = {
  readonly signingInput: string;
  readonly algorithm: JwtSigningAlgorithm;
  readonly keyId: string;
  readonly subject: string;
  readonly audiences: readonly string[];
  readonly exp: number;
  readonly iat: number;
};
const plans = new WeakMap<PreparedJwt, Plan>();

function lintToken(
  token: string,
  plan: Plan,
  verifies: (signed: Uint8Array, signature: Uint8Array) => boolean,
): void {
  let jwt: ReturnType<typeof readJwt>;
  try {
    jwt = readJwt(token);
  } catch (cause) {
    throw new MeshError('lint_failed', 'the new token cannot be read back', { cause });
  }
  const { header, payload, signingInput, signature } = jwt;
  demand(header.alg === plan.algorithm && header.kid === plan.keyId, 'has another header');
  demand(payload.subject === plan.subject, 'has another subject');
  demand(
    payload.audiences.length === plan.audiences.length &&
      payload.audiences.every((audience, i) => audience === plan.audiences[i]),
    'has other audiences',
  );
  demand(payload.expiresAt.getTime() === plan.exp * 1_000, 'ends at another time');
  demand(payload.issuedAt?.getTime() === plan.iat * 1_000, 'is of another time');
  demand(bytesEqual(signingInput, Buffer.from(plan.signingInput, 'latin1')), 'has other bytes than recorded');
  demand(verifies(signingInput, signature), 'has a signature that does not verify');
}

function demand(holds: boolean, otherwise: string): void {
  if (!holds) throw new MeshError('lint_failed', `the new token ${otherwise}`);
}

function encodePart(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

/** Deriving the public half of an RSA key takes longer than verifying with it. */
function publicHalf(privateKey: KeyObject): KeyObject {
  const known = publicHalves.get(privateKey);
  if (known !== undefined) return known;
  const made = createPublicKey(privateKey);
  publicHalves.set(privateKey, made);
  return made;
}
const publicHalves = new WeakMap<KeyObject, KeyObject>();

function kindOf(key: KeyObject): string {
  const known = kinds.get(key);
  if (known !== undefined) return known;
  const publicKey = key.type === 'private' ? publicHalf(key) : key;
  const kind = describeKey(publicKey.export({ format: 'der', type: 'spki' })).text;
  kinds.set(key, kind);
  return kind;
}
const kinds = new WeakMap<KeyObject, string>();

function refuseAudience(why: string): never {
  throw new MeshError('jwt_audience_invalid', why, { fix: 'name the service that the token is for' });
}

function refuse(why: string): never {
  throw new MeshError('profile_invalid', why);
}

const signingAlgorithms: readonly JwtSigningAlgorithm[] = ['ES256', 'ES384', 'RS256'];
const audiencePattern = /^[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?$/;
const jwtIdPattern = /^[A-Za-z0-9._-]{1,128}$/;
const maxTimeSeconds = 253_402_300_799;
// Of RSA 8192.
const maxSignatureChars = 1_366;
