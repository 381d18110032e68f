import { join } from 'node:path';
import { poolRandom } from './ca/serial.ts';
import { randomBytes } from './up-random.ts';
import { createSourceHealths } from './attest/source-health.ts';
import { describeUnixAbilities } from './attest/unix.ts';
import { createWorkloadAttestor } from './attest/workload.ts';
import { signerOf } from './ca/slot.ts';
import { type Clock, systemClock } from './clock.ts';
import type { Config } from './config.ts';
import { publicError } from './errors.ts';
import { maxOutlooks, type StatusReport } from './http/status-report.ts';
import { createAdministration } from './identity/administration.ts';
import { compileStoredMesh, createMeshHolder } from './identity/current-mesh.ts';
import { createIssuer } from './identity/issuer.ts';
import { createKeeper, type Keeper } from './identity/keeper.ts';
import { createKeyOwners } from './identity/key-owners.ts';
import { policyInForce } from './identity/policy-revision.ts';
import type { Log } from './log.ts';
import { startProofThread } from './signing/thread.ts';
import { ensurePrivateDirectory } from './store/key-files.ts';
import { openStore } from './store/store.ts';
import { type AdminDoors, openAdminDoors } from './up-admin.ts';
import type { Failpoint } from './up-authority.ts';
import { type JwtPlant, openJwt } from './up-jwt.ts';
import type { JwtFailpoint } from './up-jwt-keys.ts';
import { authorityProfile, readRefusedKeys, settleTrustDomain } from './up-hierarchy.ts';
import { generateP256 } from './up-key-pair.ts';
import { createFileCustody } from './up-keys.ts';
import { checkComplaints } from './up-break-glass.ts';
import { createBreathe } from './up-breath.ts';
import { complainOfEntry, createComplaints } from './up-complaints.ts';
import { openRevocationLists } from './up-crl.ts';
import { watchHealth } from './up-health.ts';
import { createInstruments } from './up-metrics.ts';
import { openMetricsDoor } from './up-metrics-door.ts';
import { keepOwnCertificate, ownEntryIds } from './up-own-certificate.ts';
import { sourceReport, workloadOutlooks } from './up-outlook.ts';
import { countEnding, policyStatus } from './identity/policy-terms.ts';
import { checkPolicyRevision, keepPolicyRevisions, openPolicyKey } from './up-policy-revisions.ts';
import { sayPolicyMode } from './up-policy-mode.ts';
import { openProxyLogs } from './up-proxy-logs.ts';
import { rolloutStatus } from './up-rollout-report.ts';
import { recordStart, recordStop } from './up-lifecycle.ts';
import { keepRetention } from './up-retention.ts';
import { openRotation } from './up-rotation.ts';
import { custodyOf, readSealingSecret } from './up-secret.ts';
import { type Nodes, openNodes } from './up-nodes.ts';
import { traceIssuance, traceSteps } from './tracing.ts';
import { openAuditLog } from './up-audit-log.ts';
import { reportOpening } from './up-opening.ts';
import { openWorkloadDoor, proxyReports } from './up-workload.ts';
import { openTrustDoor, type TrustDoor } from './up-trust.ts';
import { version } from './version.ts';

/** A running authority, in one process with the agent. */
export type Running = {
  readonly status: () => Promise<StatusReport>;
  /** Stops accepting, drains and closes everything, in the reverse order of opening. A second call waits for the first. */
  readonly close: () => Promise<void>;
};

/** How a start differs from that of `countersign up`. */
export type Hooks = {
  readonly failpoint?: (name: Failpoint | JwtFailpoint) => void;
  /** `nodes`: no workload of this machine is served; agents serve those of theirs. */
  readonly serves?: 'machine' | 'nodes';
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
  hooks: Hooks = {},
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
  hooks: Hooks,
  opened: (() => Promise<void> | void)[],
  closeAll: () => Promise<void>,
): Promise<Running> {
  const startedAt = clock.now();
  const breathe = createBreathe(turnShareMs);
  ensurePrivateDirectory(config.dataDir);
  const store = await openStore({
    dataDir: config.dataDir,
    clock,
    randomBytes: poolRandom(randomBytes),
    onCheckpointerGone: (cause) =>
      log.warn({ cause }, 'the thread that keeps the WAL short is gone; commits do its work from now on'),
  });
  opened.push(() => store.close());
  reportOpening(store, log);
  const trustDomain = await settleTrustDomain(config, store);
  const keyDir = join(config.dataDir, 'keys');
  ensurePrivateDirectory(keyDir);
  const sealing = { keyDir, trustDomain, secret: readSealingSecret(config, keyDir), randomBytes };
  const auditLog = await openAuditLog({ ...sealing, config, store, clock, log });
  opened.push(auditLog.close);
  const custody = createFileCustody(sealing);
  let reissue: Keeper['reissue'] = () => undefined;
  let isOver: Nodes['isOver'] = () => false;
  let jwtKeys: JwtPlant['keySha256'] = () => [];
  const proofs = startProofThread((cause) =>
    log.warn({ cause }, 'the thread that verifies is gone; the main thread verifies from now on'),
  );
  opened.push(proofs.close);
  const rotation = await openRotation({
    store,
    custody,
    trustDomain,
    profile: authorityProfile(config),
    refusedKeys: readRefusedKeys(config),
    clock,
    randomBytes,
    log,
    otherKeys: () => jwtKeys(),
    lint: proofs.lintLeaf,
    ownEntries: ownEntryIds,
    reissue: (issuerKeyIds) => reissue(issuerKeyIds),
    isOver: (certificate) => isOver(certificate),
    ...hooks,
  });
  opened.push(rotation.close);
  const { authority } = rotation;
  const { rootNamespace, leafTtlSeconds: ttlSeconds, policyMode } = config;
  const settings = { trustDomain, rootNamespace, ttlSeconds, policyMode };
  const holder = createMeshHolder(compileStoredMesh(await store.loadMesh(), settings));
  const administration = createAdministration({
    holder,
    settings,
    commit: store.commitMesh,
    signer: await openPolicyKey({ ...sealing, store }),
    history: { revision: store.policyRevision, past: store.policyPast },
    latestExpiry: store.latestExpiry,
    latestExpiries: store.latestExpiries,
    clock,
    breathe,
  });
  checkPolicyRevision(administration.current());
  await administration.adoptPolicies();
  sayPolicyMode(policyMode, log);
  opened.push(keepPolicyRevisions({ store, holder, clock, doubt: rotation.doubt, log }).close);
  opened.push(keepRetention({ store, config, clock, doubt: rotation.doubt, log }).close);
  const crl = await openRevocationLists({
    authority,
    openKey: custody.open,
    holder,
    store,
    trustDomain,
    clock,
    log,
  });
  opened.push(crl.close);
  const jwt = await openJwt({
    ...sealing,
    ...hooks,
    store,
    config,
    holder,
    clock,
    log,
    doubt: rotation.doubt,
  });
  jwtKeys = jwt.keySha256;
  opened.push(jwt.close);
  await recordStart({ store, clock, log });
  opened.push(() => recordStop({ store, clock }));
  const issue = createIssuer({
    ...traceSteps({ authority: crl.signer, record: store.recordProven }),
    mayStillSign: authority.mayStillSign,
    clock,
    isCurrent: (entry) =>
      ownEntryIds.has(entry.id) || holder.current().registry.entry(entry.id)?.revision === entry.revision,
    bans: () => holder.current().bans,
    policyRevision: () => holder.current().mesh.policyRevision?.number,
  });
  const counted = traceIssuance(async (request) => {
    const issued = await issue(request);
    instruments.issuances.add('ok');
    return issued;
  });
  const complainOf = complainOfEntry(
    createComplaints(clock, (detail, message) => log.error(detail, message)),
  );
  const keeper = createKeeper({
    issue: counted,
    generateKeyPair: generateP256,
    bans: () => holder.current().bans,
    onChange: holder.onChange,
    clock,
    random: Math.random,
    onFailure: (entry, error) => {
      instruments.issuances.add('failed');
      complainOf(entry, error);
    },
  });
  reissue = keeper.reissue;
  opened.push(() => keeper.close());
  const { attestKubelet: url, attestKubeletCaFile: caFile, attestKubeletTokenFile: tokenFile } = config;
  const sources = createSourceHealths(clock);
  const attest = createWorkloadAttestor({
    kubelet: url === null ? null : { url, caFile, tokenFile },
    dockerSocket: config.attestDocker,
    wanted: () => holder.current().registry.kinds,
    clock,
    warn: (message) => log.warn(message),
    healths: sources,
  });
  const proxyLogs = await openProxyLogs({ store, trustDomain, config, holder, administration, clock, log });
  opened.push(proxyLogs.close);
  const outlooks = () => workloadOutlooks({ states: keeper.states(), policyUntil: null, now: clock.now() });
  const instruments = createInstruments({
    holder,
    keeper,
    ...proxyLogs,
    authority,
    store,
    outlooks,
    sources: sources.all,
    nodes: () => nodes.report(),
    clock,
    doubt: rotation.doubt,
    witnesses: auditLog.trouble,
    ...checkComplaints(clock, log),
  });
  const keyOwners = createKeyOwners(undefined, await store.keyOwners(clock.now()));
  const nodes = await openNodes({
    config,
    keyOwners,
    trustDomain,
    settings,
    store,
    holder,
    authority,
    crl,
    jwt,
    issue: counted,
    keeper,
    readCsr: proofs.readCsr,
    breathe,
    note: rotation.note,
    look: proxyLogs.alarms.look,
    complete: proxyLogs.complete,
    clock,
    randomBytes,
    log,
  });
  isOver = nodes.isOver;
  opened.push(nodes.close);
  const openWorkload = async () =>
    openWorkloadDoor({
      config,
      trustDomain,
      holder,
      keeper,
      authority,
      crl,
      jwt,
      breathe,
      issue: counted,
      keyOwners,
      readCsr: proofs.readCsr,
      attest,
      ...proxyLogs,
      observer: rotation.observer,
      instruments,
      ownCertificate: () =>
        keepOwnCertificate(keeper, { door: 'server', trustDomain, dnsNames: ['localhost'] }),
      clock,
      log,
    });
  const workload = hooks.serves === 'nodes' ? undefined : await openWorkload();
  if (workload !== undefined) opened.push(workload.close);

  const abilities = describeUnixAbilities();
  // The Unix door may be asked before the TLS one is open.
  let doors: AdminDoors | undefined;
  let trustDoor: TrustDoor | undefined;
  const health = watchHealth({
    dataDir: config.dataDir,
    facts: () => ({
      store: store.health(),
      damage: store.check.damage(),
      outlook: rotation.outlook(),
      issuer: signerOf(authority.state()) ?? null,
      doubt: rotation.doubt(),
      decisions: proxyLogs.decisions.depth(),
      alarms: proxyLogs.alarms.recent(),
      witnesses: auditLog.trouble(),
      policies: countEnding(holder.current().policies, clock.now()),
    }),
    clock,
  });
  opened.push(health.close);
  const status = async (): Promise<StatusReport> => {
    const { mesh } = holder.current();
    const workloads = outlooks();
    return {
      version,
      serves: hooks.serves ?? 'machine',
      trustDomain: trustDomain.name,
      now: clock.now(),
      startedAt,
      ...health.readiness(),
      dataDir: config.dataDir,
      workloadSocket: config.workloadSocket,
      adminSocket: config.adminSocket,
      adminUrl: doors?.url() ?? null,
      nodeAddress: nodes.ports.nodeAddress,
      trustEndpoint: trustDoor?.endpoint ?? null,
      custody: custodyOf(config),
      attestation: abilities.pathOfOtherUsers
        ? 'unix:path works for every process'
        : 'unix:path works for processes of this user only: others need root or CAP_SYS_PTRACE',
      revision: mesh.revision,
      entries: mesh.entries.size,
      ...policyStatus(holder.current(), clock.now()),
      policyRevision: policyInForce(mesh),
      policyRollout: rolloutStatus(mesh, proxyLogs.rollouts.counts()),
      policyMode,
      auditSize: await store.auditSize(),
      streams: instruments.openStreams(),
      authorities: authority.stored().map(({ kind, keyId, notAfter }) => ({ kind, keyId, notAfter })),
      workloads: workloads.slice(0, maxOutlooks),
      workloadsInAll: workloads.length,
      sources: sources.all().map(sourceReport),
      nodes: nodes.report(),
      ...proxyReports(workload?.proxies()),
    };
  };
  doors = await openAdminDoors({
    config,
    trustDomain,
    store,
    auditWitnesses: auditLog.report,
    administration,
    rollouts: proxyLogs.rollouts,
    holder,
    authority,
    keeper,
    ca: rotation.ca,
    revocationLists: crl.current,
    jwt: jwt.port,
    nodes: nodes.ports,
    jwtBundle: jwt.bundle,
    breathe,
    clock,
    log,
    randomBytes,
    metricsText: instruments.text,
    status,
    readiness: health.readiness,
  });
  opened.push(doors.close);
  if (config.metricsAddress !== null) {
    const metrics = await openMetricsDoor(health.readiness, instruments.text, config, log);
    opened.push(metrics.close);
  }
  if (config.trustAddress !== null) {
    const bundles = { x509: authority.bundle, jwt: jwt.bundle, witness: auditLog.witness };
    const parts = { config, trustDomain, ...bundles, keeper, instruments, clock, log, randomBytes };
    trustDoor = await openTrustDoor(parts, config.trustAddress);
    opened.push(trustDoor.close);
  }
  let closing: Promise<void> | undefined;
  return { status, close: () => (closing ??= closeAll()) };
}

// Of each turn of the event loop, for long work; calls that wait for a decision get the rest.
const turnShareMs = 3;
