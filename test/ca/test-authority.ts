import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { type Authority, createAuthority } from '../../src/ca/authority.ts';
import { type Profile, parseProfile, type ProfileConfig } from '../../src/ca/profile.ts';
import { type CreatedAuthority, createIntermediate, createRoot } from '../../src/ca/x509.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';

/** A real authority, made at a given time, with everything a test may want to take apart. */
export type TestAuthority = {
  readonly trustDomain: TrustDomain;
  readonly profile: Profile;
  readonly root: CreatedAuthority;
  readonly intermediate: CreatedAuthority;
  readonly authority: Authority;
};

export async function makeTestAuthority(
  now: Date,
  config: ProfileConfig = {},
  name = 'example.org',
): Promise<TestAuthority> {
  const trustDomain = TrustDomain.parse(name);
  const profile = parseProfile(config);
  const root = await createRoot({ trustDomain, profile, now, randomBytes });
  const intermediate = await createIntermediate({ trustDomain, profile, now, randomBytes, root });
  const authority = createAuthority({ trustDomain, root, intermediate, profile, randomBytes });
  return { trustDomain, profile, root, intermediate, authority };
}

export type TestKey = {
  readonly spki: Uint8Array;
  readonly pkcs8: Uint8Array;
  readonly privateKey: KeyObject;
};

export function makeKey(kind: string): TestKey {
  const [algorithm, size] = kind.split('-');
  const { publicKey, privateKey } =
    algorithm === 'rsa'
      ? generateKeyPairSync('rsa', { modulusLength: Number(size) })
      : generateKeyPairSync('ec', { namedCurve: size ?? '' });
  return {
    spki: publicKey.export({ format: 'der', type: 'spki' }),
    pkcs8: privateKey.export({ format: 'der', type: 'pkcs8' }),
    privateKey,
  };
}
