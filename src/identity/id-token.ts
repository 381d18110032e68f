import type { Clock } from '../clock.ts';
import { MeshError, quote } from '../errors.ts';
import { jwtAlgorithms } from '../spiffe/jwt-algorithms.ts';
import type { JwtAlgorithm } from '../spiffe/jwt-algorithms.ts';
import type { JwtAuthority } from '../spiffe/jwt-bundle.ts';
import { leewaySeconds } from '../spiffe/jwt-svid.ts';
import { type Jwt, type JwtProfile, readJwt } from '../spiffe/jwt-token.ts';
import { verifyJwt } from '../spiffe/jwt-verify.ts';
import { maxSubjectLength, unprintable } from './admin-grant.ts';

/** Whose ID tokens are believed, and for whom they must be meant. */
export type OidcSettings = {
  /** The `iss`, character by character. */
  readonly issuer: string;
  /** The `aud`: the client that people sign in to. */
  readonly audience: string;
  /** The claim that lists groups: one text, or a list of them. */
  readonly groupsClaim: string;
  /** How long after `iat` a token still counts, whatever its `exp` says. */
  readonly maxAgeSeconds: number;
};

/** What an ID token has proven. */
export type IdToken = {
  readonly issuer: string;
  /** 1 to 255 printable characters: the issuer's, and anything. */
  readonly subject: string;
  readonly groups: readonly string[];
};

/** @throws MeshError `unauthenticated` with what is wrong with it; `oidc_unavailable` */
export type VerifyIdToken = (token: string) => Promise<IdToken>;

/**
 * Finds the issuer's key of a `kid`, and the one algorithm it is for when the issuer says so; undefined when there is none.
 * @throws MeshError `oidc_unavailable` when the keys cannot be had
 */
export type FindIssuerKey = (
  keyId: string,
) => Promise<{ readonly authority: JwtAuthority; readonly alg: string | null } | undefined>;

/** Whether a bearer token has the form of a JWT: then it is judged as one, and as nothing else. */
export function looksLikeJwt(text: string): boolean {
  return /^eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_.-]*$/.test(text);
}

/**
 * Judges ID tokens: the form that our own tokens have too; `iss`, `aud`, `azp` and times; the groups; then the signature,
 * with the key that `kid` names among the issuer's, by one of five algorithms. No e-mail address is looked at: who owns one
 * changes, unless an operator names that claim, and then only a verified one.
 * @see OpenID Connect Core 1.0 section 3.1.3.7
 */
export function createIdTokenCheck(
  settings: OidcSettings,
  findKey: FindIssuerKey,
  clock: Clock,
): VerifyIdToken {
  return async (token) => {
    const jwt = readOrRefuse(token);
    const { issuer, audience } = settings;
    const { alg, kid } = jwt.header;
    const { subject, claims } = jwt.payload;
    if (claims.get('iss') !== issuer) refuse('is of another issuer');
    checkAudience(jwt, audience);
    checkTimes(jwt, settings.maxAgeSeconds, clock.now());
    if (subject.length > maxSubjectLength || unprintable.test(subject))
      refuse('has a sub that is no plain text');
    const groups = readGroups(claims, settings.groupsClaim);
    const key = await findKey(kid);
    if (key === undefined) refuse('is signed with a key that its issuer does not publish');
    if (key.alg !== null && key.alg !== alg) refuse('is signed in another way than its key is for');
    const expected = { alg, subject, audience, issuer, now: clock.now(), leewaySeconds };
    await verifyJwt(token, key.authority, expected, idTokenAlgorithms).catch(translate);
    return { issuer, subject, groups };
  };
}

function readOrRefuse(token: string): Jwt {
  try {
    return readJwt(token, idTokenProfile);
  } catch (error) {
    return translate(error);
  }
}

/** A token for several must say that it was made for us. */
function checkAudience({ payload: { audiences, claims } }: Jwt, audience: string): void {
  if (!audiences.includes(audience)) refuse('is not meant for this server');
  const party = claims.get('azp');
  if ((party !== undefined || audiences.length > 1) && party !== audience)
    refuse('was made for another party');
}

function checkTimes({ payload }: Jwt, maxAgeSeconds: number, now: Date): void {
  const { expiresAt, issuedAt, notBefore } = payload;
  const nowMs = now.getTime();
  const leewayMs = leewaySeconds * 1_000;
  // Written so that a moment which is none, NaN, refuses every token.
  if (!(nowMs < expiresAt.getTime())) refuse('has expired');
  if (issuedAt === null) refuse('does not say when it was issued');
  if (!(nowMs < issuedAt.getTime() + maxAgeSeconds * 1_000)) refuse('was issued too long ago');
  for (const time of [issuedAt, notBefore]) {
    if (time !== null && !(time.getTime() <= nowMs + leewayMs)) refuse('is not valid yet');
  }
}

function readGroups(claims: ReadonlyMap<string, unknown>, claim: string): readonly string[] {
  const value = claims.get(claim);
  if (value === undefined) return [];
  if (claim === 'email' && claims.get('email_verified') !== true) return [];
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  const groups = list.filter((group): group is string => typeof group === 'string');
  if (groups.length !== list.length || groups.length > maxGroups) {
    refuse(`has a claim ${quote(claim)} that is no list of at most ${maxGroups} texts`);
  }
  return groups;
}

function translate(error: unknown): never {
  if (!(error instanceof MeshError) || error.code !== 'jwt_invalid') throw error;
  throw new MeshError('unauthenticated', error.message, { fix });
}

function refuse(why: string): never {
  throw new MeshError('unauthenticated', `the token ${why}`, { fix });
}

const fix = 'sign in again, and send the ID token of the configured issuer for the configured audience';
const maxGroups = 1_000;
const edDsa: Pick<JwtAlgorithm, 'fits' | 'signatureBytes'> = {
  fits: (kind) => kind === 'Ed25519',
  signatureBytes: { min: 64, max: 64 },
};
const idTokenAlgorithms: ReadonlyMap<string, Pick<JwtAlgorithm, 'fits' | 'signatureBytes'>> = new Map([
  ...[...jwtAlgorithms].filter(([name]) => ['RS256', 'PS256', 'ES256', 'ES384'].includes(name)),
  ['EdDSA', edDsa],
]);
const idTokenProfile: JwtProfile = {
  algorithms: idTokenAlgorithms,
  // Thumbprints of certificates, which some issuers add and nothing here is looked up by.
  passedOver: new Set(['x5t', 'x5t#S256']),
  fix,
};
