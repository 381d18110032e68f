import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { JwtBundle } from '../spiffe/jwt-bundle.ts';
import { validateJwtSvid } from '../spiffe/jwt-svid.ts';
import { readSerial } from './ban.ts';
import type { BanList } from './ban-list.ts';
import type { ValidateJwt } from './jwt-svid.ts';

export type JwtValidatorParts = {
  /** By trust domain name, our own among them. A key that was withdrawn is in none. */
  readonly bundles: () => ReadonlyMap<string, JwtBundle>;
  readonly bans: () => BanList;
  readonly clock: Clock;
};

/**
 * Validates tokens against the bundles and the bans in force: a banned SPIFFE ID is refused from the moment of the ban,
 * however long its token would last, and so is a token whose `jti` is banned as a serial.
 */
export function createJwtValidator({ bundles, bans, clock }: JwtValidatorParts): ValidateJwt {
  return async (token, audience) => {
    const verified = await validateJwtSvid({ token, audience, bundles: bundles(), now: clock.now() });
    const { id, claims, keyId } = verified;
    // INVARIANT: what counts is what is in force when the answer is given, not when the question came.
    const trusted = bundles().get(id.trustDomain.name)?.authorities ?? [];
    if (!trusted.some((authority) => authority.keyId === keyId)) {
      throw new MeshError('jwt_key_unknown', 'the key that signed the token was withdrawn', {
        fix: 'fetch a new token',
      });
    }
    const { jti } = claims;
    // Another issuer may write its numbers in upper case; a ban is about the number.
    const serial = typeof jti === 'string' ? { serial: readSerial(jti) } : {};
    if (bans().find({ id, ...serial }, clock.now()) !== undefined) {
      // Whoever asks is not told why, by whom or until when.
      throw new MeshError('identity_banned', 'the identity of the token is banned, or the token is', {
        fix: 'ask an operator, who sees why with `countersign ban list`',
      });
    }
    return verified;
  };
}
