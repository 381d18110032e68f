import type { AuthorityEvent } from './audit/event.ts';
import { createHash } from 'node:crypto';
import { type Authority, createAuthority } from './ca/authority.ts';
import { openKey, sealKey } from './ca/key-envelope.ts';
import type { Profile } from './ca/profile.ts';
import type { RandomBytes } from './ca/serial.ts';
import type { StoredAuthority } from './ca/stored.ts';
import { type CreatedAuthority, createIntermediate, createRoot } from './ca/x509.ts';
import type { Clock } from './clock.ts';
import { MeshError, quote } from './errors.ts';
import type { TrustDomain } from './spiffe/id.ts';
import { readKeyFile, writeKeyFile } from './store/key-files.ts';
import type { Store } from './store/store.ts';

/** The certificate authority of this process. */
export type KeptAuthority = {
  /** The one that signs now. */
  readonly current: () => Authority;
  readonly stored: () => readonly StoredAuthority[];
  /** Makes a new intermediate when the current one has used two thirds of its life. Safe at any time: the root stays. */
  readonly renewWhenDue: () => Promise<boolean>;
};

export type AuthorityParts = {
  readonly store: Store;
  readonly keyDir: string;
  readonly trustDomain: TrustDomain;
  readonly profile: Profile;
  readonly passphrase: Uint8Array;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
};

/**
 * Opens the stored authority, or creates root and intermediate on the first start.
 * @throws MeshError `key_passphrase_wrong`, `file_missing`, `file_permissions`, `authority_invalid`
 */
export async function openAuthority(parts: AuthorityParts): Promise<KeptAuthority> {
  let stored: readonly StoredAuthority[] = (await parts.store.loadAuthorities()).filter(
    ({ state }) => state === 'active',
  );
  let authority: Authority;
  if (stored.length === 0) {
    const created = await createFirst(parts);
    stored = created.map(storedOf);
    authority = assemble(parts, stored, created[1].privateKey);
  } else {
    authority = assemble(parts, stored, await openStoredKey(parts, pick(stored, 'intermediate').keyId));
  }
  const kept: KeptAuthority = {
    current: () => authority,
    stored: () => stored,
    renewWhenDue: async () => {
      const [root, intermediate] = [pick(stored, 'root'), pick(stored, 'intermediate')];
      const left = intermediate.notAfter.getTime() - parts.clock.now().getTime();
      const life = intermediate.notAfter.getTime() - intermediate.notBefore.getTime();
      if (left > life / 3) return false;
      const rootKey = await openStoredKey(parts, root.keyId);
      const next = await createIntermediate({
        ...parts,
        now: parts.clock.now(),
        root: { certificate: root.certificate, privateKey: rootKey },
      });
      await keep(parts, [next], [{ ...intermediate, state: 'retired' }]);
      stored = [root, storedOf(next)];
      authority = assemble(parts, stored, next.privateKey);
      return true;
    },
  };
  await kept.renewWhenDue();
  return kept;
}

async function createFirst(parts: AuthorityParts): Promise<readonly [CreatedAuthority, CreatedAuthority]> {
  const now = parts.clock.now();
  const root = await createRoot({ ...parts, now });
  const intermediate = await createIntermediate({ ...parts, now, root });
  await keep(parts, [root, intermediate], []);
  return [root, intermediate];
}

/** Keys first, then the rows that name them: a crash in between leaves a key nobody uses, never a row without a key. */
async function keep(
  { store, keyDir, trustDomain, passphrase, randomBytes, clock }: AuthorityParts,
  created: readonly CreatedAuthority[],
  changed: readonly StoredAuthority[],
): Promise<void> {
  // Sealing costs half a second of another thread for each key.
  const envelopes = await Promise.all(
    created.map(({ keyId, privateKey }) =>
      sealKey({ pkcs8: privateKey, keyId, trustDomain, passphrase, randomBytes }),
    ),
  );
  for (const envelope of envelopes) {
    writeKeyFile(keyDir, keyFile(envelope.keyId), Buffer.from(`${JSON.stringify(envelope, null, 2)}\n`));
  }
  const events = created.map((authority): AuthorityEvent => ({
    type: 'authority',
    time: clock.now(),
    action: 'created',
    kind: authority.kind,
    trustDomain: trustDomain.name,
    serial: authority.serial,
    keyId: authority.keyId,
    notBefore: authority.notBefore,
    notAfter: authority.notAfter,
    certificateSha256: createHash('sha256').update(authority.certificate).digest('hex'),
  }));
  await store.commitAuthorities([...created.map(storedOf), ...changed], events);
}

function assemble(
  { trustDomain, profile, randomBytes }: AuthorityParts,
  stored: readonly StoredAuthority[],
  privateKey: Uint8Array,
): Authority {
  const { certificate } = pick(stored, 'intermediate');
  return createAuthority({
    trustDomain,
    root: pick(stored, 'root'),
    intermediate: { certificate, privateKey },
    profile,
    randomBytes,
  });
}

async function openStoredKey(parts: AuthorityParts, keyId: string): Promise<Uint8Array> {
  const { keyDir, trustDomain, passphrase } = parts;
  let envelope: unknown;
  try {
    envelope = JSON.parse(Buffer.from(readKeyFile(keyDir, keyFile(keyId))).toString('utf8'));
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    throw new MeshError('key_envelope_invalid', `the key file of ${quote(keyId)} is not JSON`, {
      cause,
      fix: 'restore it from a backup',
    });
  }
  return openKey({ envelope, keyId, trustDomain, passphrase });
}

function pick(stored: readonly StoredAuthority[], kind: StoredAuthority['kind']): StoredAuthority {
  const found = stored.find((authority) => authority.kind === kind && authority.state === 'active');
  if (found !== undefined) return found;
  throw new MeshError('store_corrupt', `the store holds no active ${kind} certificate`, {
    fix: 'restore the data directory from a backup',
  });
}

function storedOf({ kind, keyId, certificate, notBefore, notAfter }: CreatedAuthority): StoredAuthority {
  return { kind, keyId, certificate, notBefore, notAfter, state: 'active' };
}

function keyFile(keyId: string): string {
  return `${keyId}.json`;
}
