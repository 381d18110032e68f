import { MeshError, publicError, quote } from '../errors.ts';
import { SpiffeId } from './id.ts';
import type { JwtAuthority, JwtBundle } from './jwt-bundle.ts';
import { type Jwt, readJwt } from './jwt-token.ts';
import { verifyJwt } from './jwt-verify.ts';

/** A token, and what it is judged by. */
export type JwtToValidate = {
  /** JWS in compact form. */
  readonly token: string;
  /** Whom the token must be meant for, compared character by character. */
  readonly audience: string;
  /** By name of the trust domain; each bundle verifies the tokens of its own trust domain and no others. */
  readonly bundles: ReadonlyMap<string, JwtBundle>;
  readonly now: Date;
};

/** What a token says that has been proven. */
export type VerifiedJwtSvid = {
  /** Of a workload: with a path. */
  readonly id: SpiffeId;
  /** Always a list: 1 to 16. */
  readonly audiences: readonly string[];
  readonly expiresAt: Date;
  readonly keyId: string;
  /** Every claim of the payload, as it stands there: `aud` may be one text. */
  readonly claims: { readonly [name: string]: unknown };
};

/**
 * How far `iat` and `nbf` may lie in the future: the clock of an issuer may be ahead of ours. go-spiffe permits a minute
 * too. It permits the same past `exp`, where we permit none: a lifetime is a promise about how long a stolen token lives.
 * @see JWT-SVID appendix A ("a small amount of leeway is acceptable"); RFC 7519 sections 4.1.4 and 4.1.5
 */
export const leewaySeconds = 60;

/**
 * Validates a JWT-SVID for one audience: its form; its subject, the ID of a workload; its times and its audience; then
 * its signature, with the key that its `kid` names in the bundle of the subject's own trust domain, by the one algorithm
 * of the token that is for such a key. All that needs no key comes first, so a stranger's token costs a few microseconds
 * and what it is told is what it said itself.
 * @throws MeshError `jwt_invalid` (form, subject, algorithm, signature, not valid yet), `jwt_expired`,
 *   `jwt_audience_mismatch`, `jwt_key_unknown`
 * @see JWT-SVID sections 2 to 6 and appendix A
 */
export async function validateJwtSvid({
  token,
  audience,
  bundles,
  now,
}: JwtToValidate): Promise<VerifiedJwtSvid> {
  const jwt = readJwt(token);
  const { audiences, expiresAt, claims } = jwt.payload;
  const { alg, kid } = jwt.header;
  const id = readSubject(jwt.payload.subject);
  checkTimes(jwt.payload, now);
  if (!audiences.includes(audience)) {
    throw new MeshError('jwt_audience_mismatch', `the token is not meant for ${quote(audience)}`, {
      fix: 'fetch a token for this audience',
    });
  }
  const authority = findAuthority(bundles, id, kid);
  // jose is told the moment too. Its clock has our leeway for exp as well, which checkTimes has refused already.
  await verifyJwt(token, authority, { alg, subject: id.text, audience, now, leewaySeconds });
  return { id, audiences, expiresAt, keyId: kid, claims: Object.fromEntries(claims) };
}

function readSubject(subject: string): SpiffeId {
  try {
    return SpiffeId.parseWorkload(subject);
  } catch (error) {
    throw new MeshError('jwt_invalid', `the token has a sub that is refused: ${publicError(error).message}`);
  }
}

function checkTimes({ expiresAt, issuedAt, notBefore }: Jwt['payload'], now: Date): void {
  const nowMs = now.getTime();
  // Written so that a moment which is none, NaN, refuses every token.
  if (!(nowMs < expiresAt.getTime())) {
    throw new MeshError('jwt_expired', `the token expired at ${expiresAt.toISOString()}`, {
      fix: 'fetch a new token',
    });
  }
  for (const [name, time] of [
    ['iat', issuedAt],
    ['nbf', notBefore],
  ] as const) {
    if (time !== null && time.getTime() > nowMs + leewaySeconds * 1_000) {
      throw new MeshError('jwt_invalid', `the token has an ${name} in the future, ${time.toISOString()}`, {
        fix: 'compare the clocks of this machine and of the issuer',
      });
    }
  }
}

function findAuthority(bundles: ReadonlyMap<string, JwtBundle>, id: SpiffeId, kid: string): JwtAuthority {
  const { name } = id.trustDomain;
  const bundle = bundles.get(name);
  // INVARIANT: a bundle filed under another name than its own verifies nothing.
  if (bundle?.trustDomain.equals(id.trustDomain) !== true) {
    throw new MeshError('jwt_key_unknown', `there is no bundle for the trust domain ${quote(name)}`);
  }
  const named = bundle.authorities.filter(({ keyId }) => keyId === kid);
  const [authority] = named;
  if (authority === undefined || named.length > 1) {
    throw new MeshError(
      'jwt_key_unknown',
      `the bundle of ${quote(name)} has no one key ${quote(kid)}, which signed the token`,
      { fix: 'fetch a new token: the key may have been rotated out' },
    );
  }
  return authority;
}
