import { join } from 'node:path';
import { randomBytes } from './up-random.ts';
import type { Actor } from './audit/event.ts';
import { readChain } from './ca/chain.ts';
import { parseProfile, type Profile } from './ca/profile.ts';
import { parseRefusedKeys } from './ca/refused-keys.ts';
import type { Slot } from './ca/slot.ts';
import type { StoredRequest } from './ca/stored.ts';
import { type Clock, systemClock } from './clock.ts';
import type { Config } from './config.ts';
import { defaultTrustDomain } from './config-values.ts';
import { MeshError, quote } from './errors.ts';
import { isIpLike, TrustDomain } from './spiffe/id.ts';
import { ensurePrivateDirectory, readListFile } from './store/key-files.ts';
import { openStore, type Store } from './store/store.ts';
import { type AuthorityParts, type Failpoint, type KeptAuthority, openAuthority } from './up-authority.ts';
import { signAuditLog } from './up-audit-key.ts';
import { createFileCustody } from './up-keys.ts';
import { readSealingSecret } from './up-secret.ts';

/** What the commands that work on a data directory without a server give back. */
export type SetUp = {
  readonly trustDomain: TrustDomain;
  /** The key that waits for a certificate; null when none does any more. */
  readonly request: StoredRequest | null;
  readonly authorities: readonly Slot[];
};

/** What differs from a real run in tests. */
export type SetUpHooks = { readonly clock?: Clock; readonly failpoint?: (name: Failpoint) => void };

/**
 * Prepares a new data directory for a root that is kept elsewhere: settles the trust domain, makes the key of the
 * intermediate and its certificate request. Told twice, it goes on where the first time ended.
 * @throws MeshError `authority_exists` when the directory has a CA; `store_locked`, `config_invalid`, and what the store
 *   and the keys throw
 */
export function initOfflineRoot(config: Config, hooks: SetUpHooks = {}): Promise<SetUp> {
  return withAuthority(config, hooks, async (authority) => {
    if (authority.stored().length > 0) {
      throw new MeshError(
        'authority_exists',
        `the data directory ${quote(config.dataDir)} has a CA already`,
        {
          fix: 'use `countersign ca rotate --offline-root` on the running server to move to a root kept elsewhere',
        },
      );
    }
    if (authority.request() === null) {
      await authority.step({ kind: 'rotate', scope: 'root', offline: true }, operator());
    }
  });
}

/**
 * Takes in the signed certificate of the key that waits, on a data directory no server runs on.
 * @param chain PEM: the intermediate first, then up to the root
 * @throws MeshError `csr_not_waiting`, `chain_*`, `store_locked`, and what the store and the keys throw
 */
export async function importChain(
  config: Config,
  chain: { readonly file: string; readonly text: string },
  hooks: SetUpHooks = {},
): Promise<SetUp> {
  const parts = readChain(chain.text, chain.file);
  return withAuthority(
    config,
    hooks,
    (authority) => authority.step({ kind: 'import', chain: parts }, operator()),
    // Before anything is settled: a directory that was never prepared must not be given a trust domain by mistake.
    async (store) => {
      if ((await store.loadRequest()) === null) throw nothingWaits();
    },
  );
}

/**
 * The request that waits in a data directory no server runs on. Opens no key.
 * @throws MeshError `csr_not_waiting`, `store_locked`, and what the store throws
 */
export function readWaitingRequest(config: Config): Promise<SetUp & { readonly request: StoredRequest }> {
  return withStore(config, systemClock, async (store) => {
    const [request, trustDomain] = [await store.loadRequest(), await store.readMeta('trust_domain')];
    if (request === null || trustDomain === null) throw nothingWaits();
    return { trustDomain: TrustDomain.parse(trustDomain), request, authorities: [] };
  });
}

/** The profile that the configuration asks for. @throws MeshError `config_invalid` */
export function authorityProfile({ authorityKeyType, nameConstraints }: Config): Profile {
  return parseProfile({ authorityKey: `ecdsa-${authorityKeyType.slice('ec-'.length)}`, nameConstraints });
}

/** The operator's list of keys that get no certificate. @throws MeshError `config_invalid`, `file_missing` */
export function readRefusedKeys({ refusedKeysFile }: Config): ReadonlySet<string> {
  if (refusedKeysFile === null) return new Set();
  return parseRefusedKeys(readListFile(refusedKeysFile, maxListBytes), refusedKeysFile);
}

/** The trust domain is fixed by the first start: certificates of two would be strangers to each other. */
export async function settleTrustDomain(config: Config, store: Store): Promise<TrustDomain> {
  const stored = await store.readMeta('trust_domain');
  if (stored !== null && config.trustDomain !== null && config.trustDomain.name !== stored) {
    throw new MeshError(
      'config_invalid',
      `this data directory belongs to the trust domain ${quote(stored)}, not ${quote(config.trustDomain.name)}`,
      { fix: 'drop the trustDomain option, or choose another data directory' },
    );
  }
  const settled =
    stored === null
      ? (config.trustDomain ?? TrustDomain.parse(defaultTrustDomain))
      : TrustDomain.parse(stored);
  if (config.nameConstraints === 'uri' && isIpLike(settled)) {
    throw new MeshError(
      'config_invalid',
      `nameConstraints cannot be used with the trust domain ${quote(settled.name)}`,
      {
        fix: 'turn nameConstraints off: verifiers refuse to hold an IP address against them',
      },
    );
  }
  if (stored === null) await store.commitMeta('trust_domain', settled.name, []);
  return settled;
}

async function withAuthority(
  config: Config,
  { clock = systemClock, failpoint }: SetUpHooks,
  work: (authority: KeptAuthority) => Promise<void>,
  before: (store: Store) => Promise<void> = () => Promise.resolve(),
): Promise<SetUp> {
  return withStore(config, clock, async (store) => {
    await before(store);
    const trustDomain = await settleTrustDomain(config, store);
    const keyDir = join(config.dataDir, 'keys');
    ensurePrivateDirectory(keyDir);
    const sealing = { keyDir, trustDomain, secret: readSealingSecret(config, keyDir), randomBytes };
    await signAuditLog({ ...sealing, store, auditOrigin: config.auditOrigin });
    const parts: AuthorityParts = {
      store,
      trustDomain,
      custody: createFileCustody(sealing),
      profile: authorityProfile(config),
      clock,
      randomBytes,
      // Nobody is served, so nobody can have confirmed anything: what needs evidence waits for a server.
      evidence: () => Promise.resolve({ holders: [], doubt: 'no server runs' }),
      doubt: () => 'no server runs',
      reissue: () => undefined,
      ...(failpoint === undefined ? {} : { failpoint }),
    };
    const authority = await openAuthority(parts, 'as_is');
    await work(authority);
    return { trustDomain, request: authority.request(), authorities: authority.state().slots };
  });
}

async function withStore<T>(config: Config, clock: Clock, work: (store: Store) => Promise<T>): Promise<T> {
  ensurePrivateDirectory(config.dataDir);
  const store = await openStore({ dataDir: config.dataDir, clock, randomBytes });
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}

function nothingWaits(): MeshError {
  return new MeshError('csr_not_waiting', 'no key waits for a certificate', {
    fix: 'use `countersign ca init --offline-root` on a new data directory, or `countersign ca rotate` on a server',
  });
}

function operator(): Actor {
  return { kind: 'uid', uid: process.getuid?.() ?? 0, role: 'admin' };
}

const maxListBytes = 134_217_728;
