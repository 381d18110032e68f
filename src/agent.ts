import { join } from 'node:path';
import { randomBytes } from './up-random.ts';
import { openAgentCache } from './agent-cache.ts';
import { nodeCertificate } from './agent-certificate.ts';
import type { AgentConfig } from './agent-config.ts';
import { createEvidenceSource } from './agent-evidence.ts';
import { createAgentInstruments } from './agent-metrics.ts';
import { createAgentShipping } from './agent-shipping.ts';
import { openAgentDoors } from './agent-door.ts';
import { createSpares } from './agent-spares.ts';
import { isStale, staleSnapshot } from './agent-staleness.ts';
import {
  type AgentFacts,
  agentStatus,
  type AgentStatusParts,
  countProxies,
  deniesAt,
} from './agent-status.ts';
import { createAgentView, settingsOf } from './agent-view.ts';
import { openWaitingDoor } from './agent-waiting.ts';
import { createSourceHealths } from './attest/source-health.ts';
import { createWorkloadAttestor } from './attest/workload.ts';
import { type Clock, systemClock } from './clock.ts';
import { MeshError, publicError } from './errors.ts';
import type { AgentStatusReport } from './http/status-report.ts';
import type { X509Svid } from './identity/credentials.ts';
import { rolloutOf } from './identity/candidate.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import { createJwtValidator } from './identity/jwt-validator.ts';
import { createKeeper } from './identity/keeper.ts';
import { createKeyOwners } from './identity/key-owners.ts';
import type { AgentReport } from './identity/node-presence.ts';
import { createNotice } from './identity/notice.ts';
import type { NodeView } from './identity/view.ts';
import type { Log } from './log.ts';
import { createCoverageReporter } from './node/coverage-reporter.ts';
import { createAgentReporter } from './node/agent-report.ts';
import { createBelievedLogKey, createProofDemand, provenOnly } from './node/proven-issuance.ts';
import { createTrustKeeper } from './node/kept-trust.ts';
import { openNodeLink } from './node/node-link.ts';
import { createRemoteSigner } from './node/remote-signer.ts';
import { startProofThread } from './signing/thread.ts';
import { lockDirectory } from './store/directory-lock.ts';
import { ensurePrivateDirectory, removeHalfDone } from './store/key-files.ts';
import { traceIssuance } from './tracing.ts';
import { checkComplaints } from './up-break-glass.ts';
import { createBreathe } from './up-breath.ts';
import { complainOfEntry, createComplaints } from './up-complaints.ts';
import { generateP256 } from './up-key-pair.ts';
import { workloadOutlooks } from './up-outlook.ts';
import { sayPolicyMode } from './up-policy-mode.ts';
import { openWorkloadDoor } from './up-workload.ts';
import { version } from './version.ts';

/** A running agent. */
export type RunningAgent = {
  readonly status: () => AgentStatusReport;
  readonly close: () => Promise<void>;
};

/**
 * Starts an agent: attests this machine, takes its view from the server, and serves SDS, the Workload API, ext_authz and
 * signing on the workload socket, with the same doors as `countersign up`. What it holds is kept sealed, and with that
 * it starts and serves while the server is away.
 * @throws MeshError `directory_in_use`, `server_untrusted`, `node_evidence_invalid`, and of the parts it opens
 */
export async function startAgent(
  config: AgentConfig,
  log: Log,
  clock: Clock = systemClock,
  signal: AbortSignal = new AbortController().signal,
): Promise<RunningAgent> {
  const opened: (() => Promise<void> | void)[] = [];
  const closeAll = async () => {
    for (const close of opened.splice(0).reverse()) {
      try {
        await close();
      } catch (error) {
        log.warn(publicError(error), 'not closed in order');
      }
    }
  };
  try {
    return await open(config, log, clock, signal, opened, closeAll);
  } catch (error) {
    await closeAll();
    throw error;
  }
}

async function open(
  config: AgentConfig,
  log: Log,
  clock: Clock,
  signal: AbortSignal,
  opened: (() => Promise<void> | void)[],
  closeAll: () => Promise<void>,
): Promise<RunningAgent> {
  const complain = createComplaints(clock, (detail, message) => log.error(detail, message));
  const complainOf = complainOfEntry(complain);
  ensurePrivateDirectory(config.dataDir);
  // Two with one identity and one cache would push each other out, and take each other's cache for one put back.
  opened.push(lockDirectory(config.dataDir));
  const cacheDir = join(config.dataDir, 'cache');
  const cache = openAgentCache(cacheDir, randomBytes);
  removeHalfDone(cacheDir);
  const kept = cache.load(config.trustDomain, (error) =>
    log.error(publicError(error), 'the sealed cache is refused; going on without it'),
  );
  let facts: AgentFacts | undefined;
  let metricsText = (): string => '# EOF\n';
  let complaint: AgentStatusReport['server']['trouble'] = null;
  const statusParts: AgentStatusParts = {
    config,
    startedAt: clock.now(),
    clock,
    metricsUrl: () => doors?.metricsUrl() ?? null,
    facts: () => facts,
    complaint: () => complaint,
  };
  const status = () => agentStatus(statusParts);
  let doors: Awaited<ReturnType<typeof openAgentDoors>> | undefined;
  doors = await openAgentDoors({ ...statusParts, log, metricsText: () => metricsText() });
  opened.push(doors.close);
  const stopWaiting = kept === null ? await openWaitingDoor(config, log) : async () => undefined;
  opened.push(stopWaiting);
  const agentView = createAgentView();
  let reissueOutgoing: (view: NodeView) => void = () => undefined;
  const logKey = createBelievedLogKey(config.auditLogKey, kept?.auditLogKey ?? null, (told) =>
    log.error(
      { told: told.slice(0, maxToldKey) },
      'the server names another key of its audit log: it is not believed',
    ),
  );
  const accept = (view: NodeView): void => {
    const modeBefore = agentView.holder()?.current().snapshot.mode;
    agentView.take(view);
    logKey.told(view.settings.auditLogKey ?? '');
    const mode = agentView.holder()?.current().snapshot.mode;
    if (mode !== undefined && mode !== modeBefore) sayPolicyMode(mode, log);
    // Bundles first: whoever is given another certificate has been told what it is verified with.
    reissueOutgoing(view);
  };
  if (kept !== null) accept(kept.view);
  const link = await openNodeLink({
    server: config.server,
    ...createEvidenceSource(config, clock),
    kept,
    generateKeyPair: generateP256,
    shownKeys: cache.shownKeys,
    accept,
    agentVersion: version,
    clock,
    random: Math.random,
    log: (level, message, detail) => {
      if ('code' in detail) complaint = detail as typeof complaint;
      log[level](detail, message);
    },
    signal,
  });
  opened.push(link.close);
  const mesh = agentView.holder();
  const view = (): NodeView => agentView.taken() ?? link.view();
  if (mesh === undefined) throw new MeshError('internal', 'the agent has no view');
  const proofs = startProofThread((cause) => log.warn({ cause }, 'the thread that verifies is gone'));
  opened.push(proofs.close);
  const demandProof = createProofDemand(logKey.current, config.requireIssuanceProof);
  const signer = createRemoteSigner({
    client: link.client,
    generateKeyPair: generateP256,
    readCsr: proofs.readCsr,
    bundle: () => view().bundle,
    demandProof,
  });
  const spares = createSpares(kept, clock);
  const issue = traceIssuance(signer.issue);
  const keeper = createKeeper({
    issue: async (request) => {
      const issued = await issue(request);
      instruments.issuances.add('ok');
      saveSoon();
      return issued;
    },
    generateKeyPair: signer.generateKeyPair,
    // What an earlier process was content with may not be enough for this one.
    recall: (entry) =>
      provenOnly(spares.take(entry), demandProof, (error) =>
        log.error({ entry: entry.id, ...publicError(error) }, 'a certificate of the cache is refused'),
      ),
    onForgotten: spares.put,
    bans: () => mesh.current().bans,
    onChange: mesh.onChange,
    clock,
    random: Math.random,
    onFailure: (entry, error) => {
      instruments.issuances.add('failed');
      complainOf(entry, error);
    },
  });
  opened.push(() => keeper.close());
  reissueOutgoing = ({ outgoing }) => {
    for (const { keyId, urgent, nodes } of outgoing) keeper.reissue([keyId], urgent ? 'soon' : { nodes });
  };
  reissueOutgoing(view());
  const trust = createTrustKeeper(link.bundle);
  const save = (): void => {
    const [identity, held] = [link.identity(), view()];
    // Those that nobody has asked for since the start are kept on: their workloads may just not be back yet.
    const svids = [...keeper.kept().filter(isForAttested), ...spares.keep(held.mesh.entries)];
    cache.save({ identity, view: held, freshAt: link.freshAt(), svids, auditLogKey: logKey.learned() });
    trust.saved(identity, held.bundle);
  };
  const { saveSoon, close: closeSaving } = cache.keepSaved(save, clock, (error) => {
    const detail = publicError(error);
    complain(detail.code, 'the sealed cache could not be written', detail);
  });
  opened.push(closeSaving);
  link.onChange(saveSoon);

  const epoch = Buffer.from(randomBytes(16)).toString('hex');
  const shipping = createAgentShipping({
    client: link.client,
    epoch,
    clock,
    log,
    allowedCallsWindowSeconds: config.allowedCallsWindowSeconds,
  });
  opened.push(shipping.close);
  const coverage = createCoverageReporter(link.client, clock);
  opened.push(coverage.close);
  const outlooks = () =>
    workloadOutlooks({
      states: keeper.states(),
      waiting: spares.keep(view().mesh.entries).flatMap((svid) => {
        const entry = mesh.current().registry.entry(svid.entryId);
        return entry === undefined ? [] : [[entry, svid] as const];
      }),
      policyUntil: deniesAt(link.freshAt(), clock.now(), view().settings),
      now: clock.now(),
    });
  const sources = createSourceHealths(clock);
  const instruments = createAgentInstruments({
    holder: mesh,
    keeper,
    decisions: shipping.decisions,
    accessLog: shipping.accessLog,
    outlooks,
    sources: sources.all,
    status,
    clock,
    ...checkComplaints(clock, log),
  });
  const bundles = bundlesOf(mesh, view);
  const { kubelet, docker } = config.attest;
  const attest = createWorkloadAttestor({
    kubelet,
    dockerSocket: docker,
    wanted: () => mesh.current().registry.kinds,
    clock,
    warn: (message) => log.warn(message),
    healths: sources,
  });
  const tell =
    (isConfirmed: boolean) =>
    ({ peer, nodeId, name, content, at }: Told): void => {
      if (content === undefined) return;
      coverage.add({
        isConfirmed,
        client: { uid: peer.uid, pid: peer.pid, node: nodeId },
        name,
        content,
        at,
      });
    };
  const { trustDomain } = view().bundle;
  await stopWaiting();
  const workload = await openWorkloadDoor({
    config,
    trustDomain,
    holder: mesh,
    keeper,
    authority: { bundle: () => view().bundle, onChange: bundles.onChange },
    crl: { published: () => view().crls, onChange: bundles.onChange },
    jwt: {
      bundle: () => view().jwtBundle,
      onChange: bundles.onChange,
      mint: signer.mintJwt,
      validate: createJwtValidator({
        bundles: () => new Map([[trustDomain.name, view().jwtBundle]]),
        bans: () => mesh.current().bans,
        clock,
      }),
    },
    breathe: createBreathe(turnShareMs),
    issue,
    keyOwners: createKeyOwners(),
    readCsr: signer.readCsr,
    attest,
    decisions: shipping.decisions,
    accessLog: shipping.accessLog,
    recordQuietly: shipping.recordQuietly,
    observer: { delivering: tell(false), acknowledged: tell(true) },
    instruments,
    snapshot: () => {
      const { snapshot } = mesh.current();
      return isStale(link.freshAt(), clock.now(), view().settings)
        ? staleSnapshot(snapshot, settingsOf(view()))
        : snapshot;
    },
    // What is denied because nobody knows the policy is not what a candidate is compared with.
    rollout: () => (isStale(link.freshAt(), clock.now(), view().settings) ? null : rolloutOf(mesh.current())),
    freshness: {
      isTooOld: () => isStale(link.freshAt(), clock.now(), view().settings),
      usableUntil: () => deniesAt(link.freshAt(), clock.now(), view().settings),
      onChange: link.onChange,
    },
    ownCertificate: async () => nodeCertificate(link),
    clock,
    log,
  });
  opened.push(workload.close);
  metricsText = instruments.text;
  facts = {
    link,
    view,
    outlooks,
    sources: sources.all,
    depth: shipping.depth,
    streams: instruments.openStreams,
    proxies: workload.proxies,
  };
  const reporter = createAgentReporter({
    client: link.client,
    isConnected: link.isWatching,
    read: () => ({ ...reportOf(status()), kept: trust.current() }),
    onChange: (listener) => {
      const forgets = [link.onChange(listener), trust.onChange(listener)];
      return () => forgets.forEach((forget) => forget());
    },
    clock,
    random: Math.random,
  });
  opened.push(reporter.close);
  let closing: Promise<void> | undefined;
  return {
    status,
    close: () => (closing ??= closeAll()),
  };
}

/** What was made for one line of the network is for nobody else: it is not kept. */
function isForAttested({ renewedFrom }: X509Svid): boolean {
  return renewedFrom === undefined;
}

type Told = Parameters<Parameters<typeof openWorkloadDoor>[0]['observer']['delivering']>[0];

/** Tells of changes of a view that are not of the mesh in it, too: whoever hears of it looks at the whole. */
function bundlesOf(mesh: MeshHolder, view: () => NodeView) {
  const notice = createNotice();
  let last = view();
  mesh.onChange(() => {
    const next = view();
    const isSame =
      next.bundle === last.bundle && next.jwtBundle === last.jwtBundle && next.crls === last.crls;
    last = next;
    if (!isSame) notice.announce();
  });
  return { onChange: notice.subscribe };
}

/** What of it the server is told. */
function reportOf({
  server,
  events,
  workloads,
  workloadsInAll,
  proxies,
}: AgentStatusReport): Omit<AgentReport, 'kept'> {
  return {
    viewRevision: server.viewRevision,
    eventsQueued: events.queued,
    eventsLost: events.lost,
    workloads: workloadsInAll,
    darkAt: workloads[0]?.darkAt ?? null,
    proxyPolicies: countProxies(proxies),
  };
}

const turnShareMs = 3;
// As long as any key that could be believed.
const maxToldKey = 512;
