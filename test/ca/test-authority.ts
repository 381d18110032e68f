import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { type Authority, createAuthority } from '../../src/ca/authority.ts';
import type { CaKey } from '../../src/ca/key-port.ts';
import type { LintLeaf } from '../../src/ca/lint.ts';
import { generatePkcs8, openMemoryKey } from '../../src/ca/memory-key.ts';
import { type Profile, parseProfile, type ProfileConfig } from '../../src/ca/profile.ts';
import { type CreatedAuthority, createIntermediate, createRoot } from '../../src/ca/x509.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';

/** A CA certificate with its key, also in the clear. */
export type MadeAuthority = CreatedAuthority & { readonly key: CaKey; readonly privateKey: Uint8Array };

/** Makes a root with a key of its own. */
export async function makeRoot(
  options: Omit<Parameters<typeof createRoot>[0], 'key'>,
): Promise<MadeAuthority> {
  const privateKey = await generatePkcs8(options.profile.authorityKey);
  const key = openMemoryKey(privateKey);
  return { ...(await createRoot({ ...options, key })), key, privateKey };
}

/** Makes an intermediate with a key of its own. */
export async function makeIntermediate(
  options: Omit<Parameters<typeof createIntermediate>[0], 'publicKey'>,
): Promise<MadeAuthority> {
  const privateKey = await generatePkcs8(options.profile.authorityKey);
  const key = openMemoryKey(privateKey);
  return { ...(await createIntermediate({ ...options, publicKey: key.publicKey })), key, privateKey };
}

/** A real authority, made at a given time, with everything a test may want to take apart. */
export type TestAuthority = {
  readonly trustDomain: TrustDomain;
  readonly profile: Profile;
  readonly root: MadeAuthority;
  readonly intermediate: MadeAuthority;
  readonly authority: Authority;
};

export async function makeTestAuthority(
  now: Date,
  config: ProfileConfig = {},
  name = 'example.org',
  lint?: LintLeaf,
): Promise<TestAuthority> {
  const trustDomain = TrustDomain.parse(name);
  const profile = parseProfile(config);
  const root = await makeRoot({ trustDomain, profile, now, randomBytes });
  const intermediate = await makeIntermediate({ trustDomain, profile, now, randomBytes, root });
  const authority = createAuthority({
    trustDomain,
    root,
    intermediate,
    profile,
    randomBytes,
    ...(lint && { lint }),
  });
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
