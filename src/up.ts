import { generateKeyPair, randomBytes as cryptoRandomBytes } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createUnixAttestor, describeUnixAbilities } from './attest/unix.ts';
import type { AuditEvent } from './audit/event.ts';
import { parseProfile } from './ca/profile.ts';
import { type Clock, systemClock } from './clock.ts';
import { type Config, defaultTrustDomain } from './config.ts';
import { MeshError, publicError, quote } from './errors.ts';
import { createDecisionLog } from './ext-authz/decision-log.ts';
import type { StatusReport } from './http/status-report.ts';
import { createAdministration } from './identity/administration.ts';
import { compileStoredMesh, createMeshHolder } from './identity/current-mesh.ts';
import { createIssuer, type IssueX509 } from './identity/issuer.ts';
import { createKeeper, type GenerateKeyPair, type Keeper } from './identity/keeper.ts';
import type { Log } from './log.ts';
import { TrustDomain } from './spiffe/id.ts';
import { ensureKeyEncryptionKey, ensurePrivateDirectory, readPrivateFile } from './store/key-files.ts';
import { openStore, type Store } from './store/store.ts';
import { type AdminDoors, openAdminDoors, serverEntryId } from './up-admin.ts';
import type { Failpoint } from './up-authority.ts';
import { createInstruments } from './up-metrics.ts';
import { openRotation } from './up-rotation.ts';
import { openWorkloadDoor } from './up-workload.ts';
import { version } from './version.ts';

/** A running authority, in one process with the agent. */
export type Running = {
  readonly status: () => Promise<StatusReport>;
  /** Stops accepting, drains and closes everything, in the reverse order of opening. A second call waits for the first. */
  readonly close: () => Promise<void>;
};

/**
 * Starts the authority in embedded mode: opens the data directory, creates what a first start lacks, then opens its
 * doors. When any part cannot be opened, those before it are closed again.
 * @throws MeshError of whichever part could not be opened
 */
export async function startUp(
  config: Config,
  log: Log,
  clock: Clock = systemClock,
  hooks: { readonly failpoint?: (name: Failpoint) => void } = {},
): Promise<Running> {
  const opened: (() => Promise<void> | void)[] = [];
  const closeAll = async () => {
    const failures: unknown[] = [];
    // Each is closed whatever becomes of those before it: a store thread left open would keep the process for ever.
    for (const close of opened.splice(0).reverse()) {
      try {
        await close();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  };
  try {
    return await open(config, log, clock, hooks, opened, closeAll);
  } catch (error) {
    await closeAll().catch((failure: unknown) => log.warn(publicError(failure), 'not closed in order'));
    throw error;
  }
}

async function open(
  config: Config,
  log: Log,
  clock: Clock,
  hooks: { readonly failpoint?: (name: Failpoint) => void },
  opened: (() => Promise<void> | void)[],
  closeAll: () => Promise<void>,
): Promise<Running> {
  const startedAt = clock.now();
  ensurePrivateDirectory(config.dataDir);
  const store = await openStore({ dataDir: config.dataDir, clock, randomBytes });
  opened.push(() => store.close());
  const trustDomain = await settleTrustDomain(config, store);
  const keyDir = join(config.dataDir, 'keys');
  ensurePrivateDirectory(keyDir);
  let reissue: Keeper['reissue'] = () => undefined;
  const rotation = await openRotation({
    store,
    keyDir,
    trustDomain,
    profile: parseProfile(),
    passphrase: readPassphrase(config, keyDir),
    clock,
    randomBytes,
    log,
    ownEntries: new Set([serverEntryId]),
    reissue: (issuerKeyIds) => reissue(issuerKeyIds),
    ...hooks,
  });
  opened.push(rotation.close);
  const { authority } = rotation;
  const settings = { trustDomain, rootNamespace: config.rootNamespace, ttlSeconds: config.leafTtlSeconds };
  const holder = createMeshHolder(compileStoredMesh(await store.loadMesh(), settings));
  const administration = createAdministration({
    holder,
    settings,
    commit: store.commitMesh,
    latestExpiry: store.latestExpiry,
    latestExpiries: store.latestExpiries,
    clock,
  });
  await recordLifecycle(store, clock, 'started');
  opened.push(() => recordLifecycle(store, clock, 'stopped'));
  const issue = createIssuer({
    authority: authority.current,
    mayStillSign: authority.mayStillSign,
    record: store.recordEvents,
    clock,
    isCurrent: (entry) =>
      entry.id === serverEntryId || holder.current().registry.entry(entry.id)?.revision === entry.revision,
    bans: () => holder.current().bans,
  });
  const counted: IssueX509 = async (request) => {
    const issued = await issue(request);
    instruments.issuances.add('ok');
    return issued;
  };
  const keeper = createKeeper({
    issue: counted,
    generateKeyPair: generateP256,
    bans: () => holder.current().bans,
    onChange: holder.onChange,
    clock,
    random: Math.random,
    onFailure: (entry, error) => {
      instruments.issuances.add('failed');
      log.error({ entry: entry.id, ...publicError(error) }, 'certificate could not be made');
    },
  });
  reissue = keeper.reissue;
  opened.push(() => keeper.close());
  const attest = createUnixAttestor({ warn: (message) => log.warn(message) });
  const recordQuietly = (events: readonly AuditEvent[]) => {
    store
      .recordEvents(events)
      .catch((error: unknown) => log.error(publicError(error), 'event could not be recorded'));
  };
  const decisions = createDecisionLog({
    record: store.recordEvents,
    clock,
    onError: (error, lost) => log.error({ lost, ...publicError(error) }, 'decisions could not be recorded'),
  });
  opened.push(() => decisions.close());
  const instruments = createInstruments({
    holder,
    keeper,
    decisions,
    authority,
    store,
    clock,
    onCheckFailure: (error) => log.warn(publicError(error), 'check failed'),
  });
  const workload = await openWorkloadDoor({
    config,
    trustDomain,
    holder,
    keeper,
    authority,
    issue: counted,
    attest,
    decisions,
    recordQuietly,
    observer: rotation.observer,
    instruments,
    clock,
    log,
  });
  opened.push(workload.close);

  const abilities = describeUnixAbilities();
  // The Unix door may be asked before the TLS one is open.
  let doors: AdminDoors | undefined;
  const status = async (): Promise<StatusReport> => {
    const { mesh } = holder.current();
    const { ready, causes } = readinessOf(store);
    return {
      version,
      trustDomain: trustDomain.name,
      startedAt,
      ready,
      causes,
      dataDir: config.dataDir,
      workloadSocket: config.workloadSocket,
      adminSocket: config.adminSocket,
      adminUrl: doors?.url() ?? null,
      custody: custodyOf(config),
      attestation: abilities.pathOfOtherUsers
        ? 'unix:path works for every process'
        : 'unix:path works for processes of this user only: others need root or CAP_SYS_PTRACE',
      revision: mesh.revision,
      entries: mesh.entries.size,
      policies: mesh.policies.size,
      auditSize: await store.auditSize(),
      streams: instruments.openStreams(),
      authorities: authority.stored().map(({ kind, keyId, notAfter }) => ({ kind, keyId, notAfter })),
    };
  };
  doors = await openAdminDoors({
    config,
    trustDomain,
    store,
    administration,
    holder,
    authority,
    keeper,
    ca: rotation.ca,
    clock,
    log,
    randomBytes,
    metricsText: instruments.text,
    status,
    readiness: () => readinessOf(store),
  });
  opened.push(doors.close);
  let closing: Promise<void> | undefined;
  return { status, close: () => (closing ??= closeAll()) };
}

/** The trust domain is fixed by the first start: certificates of two would be strangers to each other. */
async function settleTrustDomain(config: Config, store: Store): Promise<TrustDomain> {
  const stored = await store.readMeta('trust_domain');
  if (stored === null) {
    const chosen = config.trustDomain ?? TrustDomain.parse(defaultTrustDomain);
    await store.commitMeta('trust_domain', chosen.name, []);
    return chosen;
  }
  if (config.trustDomain !== null && config.trustDomain.name !== stored) {
    throw new MeshError(
      'config_invalid',
      `this data directory belongs to the trust domain ${quote(stored)}, not ${quote(config.trustDomain.name)}`,
      { fix: 'drop the trustDomain option, or choose another data directory' },
    );
  }
  return TrustDomain.parse(stored);
}

function readPassphrase(config: Config, keyDir: string): Uint8Array {
  if (config.passphraseFile === null) return ensureKeyEncryptionKey(keyDir);
  const bytes = readPrivateFile(config.passphraseFile);
  // An editor's last line break is no part of a passphrase. Latin-1 keeps every byte: read as UTF-8, random ones would
  // collapse into U+FFFD.
  return Buffer.from(
    Buffer.from(bytes)
      .toString('latin1')
      .replace(/\r?\n$/, ''),
    'latin1',
  );
}

function custodyOf({ passphraseFile }: Config): string {
  return passphraseFile === null
    ? 'CA keys are sealed with a key file on this same machine: fit for one machine, not for a fleet'
    : 'CA keys are sealed with your passphrase';
}

async function recordLifecycle(store: Store, clock: Clock, action: 'started' | 'stopped'): Promise<void> {
  await store.recordEvents([{ type: 'lifecycle', time: clock.now(), action, version }]);
}

function readinessOf(store: Store): { ready: boolean; causes: readonly string[] } {
  const health = store.health();
  return health.ok ? { ready: true, causes: [] } : { ready: false, causes: [`store: ${health.cause}`] };
}

const generateP256: GenerateKeyPair = async () => {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' });
  return {
    publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
    privateKey: new Uint8Array(privateKey.export({ type: 'pkcs8', format: 'der' })),
  };
};

function randomBytes(size: number): Uint8Array {
  return new Uint8Array(cryptoRandomBytes(size));
}
