import { generateKeyPair, randomBytes as cryptoRandomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { createUnixAttestor, describeUnixAbilities } from './attest/unix.ts';
import type { AuditEvent } from './audit/event.ts';
import { parseProfile } from './ca/profile.ts';
import { type Clock, systemClock } from './clock.ts';
import { type Config, defaultTrustDomain } from './config.ts';
import { MeshError, publicError, quote } from './errors.ts';
import { createExtAuthzService } from './ext-authz/service.ts';
import { createDecisionLog } from './ext-authz/decision-log.ts';
import { startGrpcListener } from './grpc/listener.ts';
import type { StatusReport } from './http/status-report.ts';
import { createAdministration } from './identity/administration.ts';
import { compileStoredMesh, createMeshHolder } from './identity/current-mesh.ts';
import { createIssuer } from './identity/issuer.ts';
import { createKeeper, type GenerateKeyPair } from './identity/keeper.ts';
import { createWatch } from './identity/watch.ts';
import type { Log } from './log.ts';
import { createSdsService } from './sds/service.ts';
import { TrustDomain } from './spiffe/id.ts';
import { ensureKeyEncryptionKey, ensurePrivateDirectory, readKeyFile } from './store/key-files.ts';
import { openStore, type Store } from './store/store.ts';
import { openAdminDoors, serverEntryId } from './up-admin.ts';
import { type KeptAuthority, openAuthority } from './up-authority.ts';
import { createInstruments } from './up-metrics.ts';
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
export async function startUp(config: Config, log: Log, clock: Clock = systemClock): Promise<Running> {
  const opened: (() => Promise<void> | void)[] = [];
  const closeAll = async () => {
    for (const close of opened.splice(0).reverse()) await close();
  };
  try {
    return await open(config, log, clock, opened, closeAll);
  } catch (error) {
    await closeAll();
    throw error;
  }
}

async function open(
  config: Config,
  log: Log,
  clock: Clock,
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
  const authority = await openAuthority({
    store,
    keyDir,
    trustDomain,
    profile: parseProfile(),
    passphrase: readPassphrase(config, keyDir),
    clock,
    randomBytes,
  });
  const settings = { trustDomain, rootNamespace: config.rootNamespace, ttlSeconds: config.leafTtlSeconds };
  const holder = createMeshHolder(compileStoredMesh(await store.loadMesh(), settings));
  const administration = createAdministration({
    holder,
    settings,
    commit: store.commitMesh,
    latestExpiry: store.latestExpiry,
    clock,
  });
  await recordLifecycle(store, clock, 'started');
  opened.push(() => recordLifecycle(store, clock, 'stopped'));
  const stop = new AbortController();
  opened.push(() => stop.abort());
  void renewAuthority(authority, clock, log, stop.signal);

  const issue = createIssuer({
    authority: authority.current,
    record: store.recordEvents,
    clock,
    isCurrent: (entry) =>
      entry.id === serverEntryId || holder.current().registry.entry(entry.id)?.revision === entry.revision,
  });
  const keeper = createKeeper({
    issue: async (request) => {
      const issued = await issue(request);
      instruments.issuances.add('ok');
      return issued;
    },
    generateKeyPair: generateP256,
    clock,
    random: Math.random,
    onFailure: (entry, error) => {
      instruments.issuances.add('failed');
      log.error({ entry: entry.id, ...publicError(error) }, 'certificate could not be made');
    },
  });
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
  const sds = createSdsService({
    attest,
    watch: createWatch({
      trustDomain,
      registry: () => holder.current().registry,
      bundles: () => new Map([[trustDomain.name, authority.current().bundle]]),
      keeper,
      clock,
      onChange: holder.onChange,
    }),
    recordRefusal: (event) => recordQuietly([event]),
    clock,
    observer: instruments.sds,
    log: (level, message, detail) => log[level](detail, message),
  });
  const extAuthz = createExtAuthzService({
    attest,
    entitledIds: ({ selectors }) =>
      holder
        .current()
        .registry.match(selectors, clock.now())
        .map(({ spiffeId }) => spiffeId),
    snapshot: () => holder.current().snapshot,
    record: decisions.push,
    clock,
    newDecisionId: () => cryptoRandomBytes(12).toString('hex'),
    observer: instruments.checks,
  });
  makeRunDirectory(config.workloadSocket);
  const workload = await startGrpcListener({
    path: config.workloadSocket,
    mode: 0o666,
    services: [sds, { ...extAuthz, requestBytes: 262_144 }],
    log: (message, detail) => log.warn(detail, message),
  });
  opened.push(() => workload.close(config.shutdownGraceSeconds * 1_000));

  const abilities = describeUnixAbilities();
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
      adminUrl: doors.url(),
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
  const doors = await openAdminDoors({
    config,
    trustDomain,
    store,
    administration,
    holder,
    authority,
    keeper,
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

/** Others must be able to reach the sockets in it; who may use one is the socket's own affair. */
function makeRunDirectory(socket: string): void {
  mkdirSync(dirname(socket), { recursive: true, mode: 0o755 });
}

function readPassphrase(config: Config, keyDir: string): Uint8Array {
  if (config.passphraseFile === null) return ensureKeyEncryptionKey(keyDir);
  const text = readKeyFile(dirname(config.passphraseFile), basename(config.passphraseFile));
  // An editor's last line break is no part of a passphrase.
  return Buffer.from(
    Buffer.from(text)
      .toString('utf8')
      .replace(/\r?\n$/, ''),
    'utf8',
  );
}

function custodyOf({ passphraseFile }: Config): string {
  return passphraseFile === null
    ? 'CA keys are sealed with a key file on this same machine: fit for one machine, not for a fleet'
    : 'CA keys are sealed with your passphrase';
}

/** Looks once an hour; a renewal that fails is tried again then, long before the old intermediate ends. */
async function renewAuthority(
  authority: KeptAuthority,
  clock: Clock,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await clock.sleep(3_600_000, signal);
    if (signal.aborted) return;
    try {
      if (await authority.renewWhenDue()) log.warn('a new intermediate signs from now on');
    } catch (error) {
      log.error(publicError(error), 'the intermediate could not be renewed');
    }
  }
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
