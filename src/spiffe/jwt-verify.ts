import { createPublicKey, type KeyObject } from 'node:crypto';
// Not from 'jose': that loads all of it, encryption too, which takes four times as long and is never to be called.
import { JOSEError } from 'jose/errors';
import { jwtVerify } from 'jose/jwt/verify';
import { MeshError } from '../errors.ts';
import { describeKey } from './inspect-algorithms.ts';
import { type JwtAlgorithm, jwtAlgorithms } from './jwt-algorithms.ts';
import type { JwtAuthority } from './jwt-bundle.ts';

/** What the token must say besides being signed; its own reader found all of it already. */
export type ExpectedJwt = {
  /** The one algorithm permitted. */
  readonly alg: string;
  readonly subject: string;
  readonly audience: string;
  readonly now: Date;
  /** How far `nbf` may lie in the future. */
  readonly leewaySeconds: number;
  /** The `iss` it must have; any, or none, when it is left out. */
  readonly issuer?: string;
};

/**
 * Verifies the signature of a token that has passed {@link readJwt}, with the key of one authority, and has jose, which
 * shares nothing with our reader, find the same subject, audience and times in it.
 * @param algorithms those the token was read by
 * @throws MeshError `jwt_invalid` when the algorithm is not for such a key, or the token does not verify
 */
export async function verifyJwt(
  token: string,
  authority: JwtAuthority,
  expected: ExpectedJwt,
  algorithms: ReadonlyMap<string, Pick<JwtAlgorithm, 'fits'>> = jwtAlgorithms,
): Promise<void> {
  const { alg, subject, audience, now, leewaySeconds, issuer } = expected;
  const { kind, key } = readKey(authority);
  if (key === undefined || algorithms.get(alg)?.fits(kind) !== true) {
    refuse(`is signed with ${alg}, which is not for the key that its kid names`);
  }
  try {
    await jwtVerify(token, key, {
      algorithms: [alg],
      subject,
      audience,
      requiredClaims: ['exp'],
      currentDate: now,
      clockTolerance: leewaySeconds,
      ...(issuer === undefined ? {} : { issuer }),
    });
  } catch (error) {
    // INVARIANT: whatever goes wrong in there, the token is not believed.
    refuse(error instanceof JOSEError ? 'does not verify' : 'cannot be verified');
  }
}

type ReadKey = { readonly kind: string; readonly key: KeyObject | undefined };

/** Reading a key takes as long as using it. jose keeps what it makes of a key with the KeyObject, so that is kept. */
function readKey(authority: JwtAuthority): ReadKey {
  const known = keys.get(authority);
  if (known !== undefined) return known;
  const { family, text } = describeKey(authority.publicKey);
  const read: ReadKey = {
    kind: text,
    key: family === 'unknown' ? undefined : load(authority),
  };
  keys.set(authority, read);
  return read;
}

function load({ publicKey }: JwtAuthority): KeyObject | undefined {
  try {
    return createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' });
  } catch {
    return undefined;
  }
}

function refuse(why: string): never {
  throw new MeshError('jwt_invalid', `the token ${why}`);
}

const keys = new WeakMap<JwtAuthority, ReadKey>();
