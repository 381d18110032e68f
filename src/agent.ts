import { join } from 'node:path';
import { randomBytes } from './up-random.ts';
import { openAgentCache } from './agent-cache.ts';
import type { AgentConfig } from './agent-config.ts';
import { createAgentInstruments } from './agent-instruments.ts';
import { isStale, staleSnapshot } from './agent-staleness.ts';
import { createWorkloadAttestor } from './attest/workload.ts';
import { type Clock, systemClock } from './clock.ts';
import { MeshError, publicError } from './errors.ts';
import { createDecisionLog } from './ext-authz/decision-log.ts';
import {
  compileStoredMesh,
  createMeshHolder,
  type MeshHolder,
  type MeshSettings,
} from './identity/current-mesh.ts';
import { createJwtValidator } from './identity/jwt-validator.ts';
import { createKeeper } from './identity/keeper.ts';
import { createNotice } from './identity/notice.ts';
import type { NodeView } from './identity/view.ts';
import type { Log } from './log.ts';
import { createCoverageReporter } from './node/coverage-reporter.ts';
import { createEventShipper } from './node/event-shipper.ts';
import { type NodeLink, openNodeLink } from './node/node-link.ts';
import { createRemoteSigner } from './node/remote-signer.ts';
import { learnServer, parseJoinSecret, type ServerTrust } from './node/server-trust.ts';
import { startProofThread } from './signing/thread.ts';
import { checkX509SvidLeaf } from './spiffe/svid.ts';
import { ensurePrivateDirectory } from './store/key-files.ts';
import { generateP256 } from './up.ts';
import { createBreathe } from './up-breath.ts';
import { openWorkloadDoor } from './up-workload.ts';
import { version } from './version.ts';

/** A running agent. */
export type RunningAgent = {
  readonly status: () => AgentStatus;
  readonly close: () => Promise<void>;
};

/** What an agent says of itself. */
export type AgentStatus = {
  readonly version: string;
  readonly trustDomain: string;
  readonly node: string;
  readonly workloadSocket: string;
  /** Whether the server is there now. */
  readonly connected: boolean;
  /** When the server last confirmed the policy. */
  readonly freshAt: Date;
  readonly entries: number;
  readonly policies: number;
};

/**
 * Starts an agent: attests this machine, takes its view from the server, and serves SDS, the Workload API, ext_authz and
 * signing on the workload socket, with the same doors as `countersign up`. What it holds is kept sealed, and with that
 * it starts and serves while the server is away.
 * @throws MeshError `server_untrusted`, `node_evidence_invalid`, `agent_cache_invalid`, and of the parts it opens
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
  ensurePrivateDirectory(config.dataDir);
  const cache = openAgentCache(join(config.dataDir, 'cache'), randomBytes);
  const kept = cache.load(config.trustDomain);
  const { evidence, trust } = await evidenceAndTrust(config, kept?.view, clock);
  let holder: MeshHolder | undefined;
  let accepted: NodeView | undefined;
  const accept = (view: NodeView): void => {
    const next = compileStoredMesh(view.mesh, settingsOf(view), holder?.current());
    accepted = view;
    if (holder === undefined) holder = createMeshHolder(next);
    else holder.replace(next);
  };
  if (kept !== null) accept(kept.view);
  const link = await openNodeLink({
    server: config.server,
    trust,
    evidence,
    kept,
    generateKeyPair: generateP256,
    accept,
    agentVersion: version,
    clock,
    random: Math.random,
    log: (level, message, detail) => log[level](detail, message),
    signal,
  });
  opened.push(link.close);
  const mesh = holder;
  const view = (): NodeView => accepted ?? link.view();
  if (mesh === undefined) throw new MeshError('internal', 'the agent has no view');
  const proofs = startProofThread((cause) => log.warn({ cause }, 'the thread that verifies is gone'));
  opened.push(proofs.close);
  const signer = createRemoteSigner({
    client: link.client,
    generateKeyPair: generateP256,
    readCsr: proofs.readCsr,
  });
  const recalled = new Map((kept?.svids ?? []).map((svid) => [svid.entryId, svid]));
  const keeper = createKeeper({
    issue: async (request) => {
      const issued = await signer.issue(request);
      saveSoon();
      return issued;
    },
    generateKeyPair: signer.generateKeyPair,
    recall: ({ id }) => {
      const svid = recalled.get(id);
      recalled.delete(id);
      return svid !== undefined && svid.notAfter > clock.now() ? svid : undefined;
    },
    bans: () => mesh.current().bans,
    onChange: mesh.onChange,
    clock,
    random: Math.random,
    onFailure: (entry, error) =>
      log.error({ entry: entry.id, ...publicError(error) }, 'certificate could not be made'),
  });
  opened.push(() => keeper.close());
  const save = (): void => {
    // Those that nobody has asked for since the start are kept on: their workloads may just not be back yet.
    const svids = [...keeper.kept(), ...recalled.values()];
    cache.save({ identity: link.identity(), view: view(), freshAt: link.freshAt(), svids });
  };
  const { saveSoon, close: closeSaving } = cache.keepSaved(save, clock, (error) =>
    log.error(publicError(error), 'the sealed cache could not be written'),
  );
  opened.push(closeSaving);
  link.onChange(saveSoon);

  const decisionsOut = createEventShipper({
    client: link.client,
    epoch: Buffer.from(randomBytes(16)).toString('hex'),
  });
  const decisions = createDecisionLog({
    record: decisionsOut.record,
    clock,
    onError: (error, lost) => log.warn({ lost, ...publicError(error) }, 'decisions could not be shipped'),
  });
  opened.push(async () => {
    await decisions.close();
    await decisionsOut.flush().catch((error: unknown) => {
      log.error({ lost: decisionsOut.inHand(), ...publicError(error) }, 'decisions were lost');
    });
  });
  const coverage = createCoverageReporter(link.client, clock);
  opened.push(coverage.close);
  const instruments = createAgentInstruments((error) => log.warn(publicError(error), 'check failed'));
  const bundles = bundlesOf(mesh, view);
  const { kubelet, docker } = config.attest;
  const attest = createWorkloadAttestor({
    kubelet,
    dockerSocket: docker,
    wanted: () => mesh.current().registry.kinds,
    clock,
    warn: (message) => log.warn(message),
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
  const { trustDomain } = trust;
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
    issue: signer.issue,
    knownKeys: [],
    readCsr: signer.readCsr,
    attest,
    decisions,
    recordQuietly: (events) => {
      for (const event of events) log.warn({ event }, 'refused');
    },
    observer: { delivering: tell(false), acknowledged: tell(true) },
    instruments,
    snapshot: () => {
      const { snapshot } = mesh.current();
      return isStale(link.freshAt(), clock.now(), view().settings)
        ? staleSnapshot(snapshot, settingsOf(view()))
        : snapshot;
    },
    clock,
    log,
  });
  opened.push(workload.close);
  let closing: Promise<void> | undefined;
  return {
    status: () => statusOf(config, link, view()),
    close: () => (closing ??= closeAll()),
  };
}

type Told = Parameters<Parameters<typeof openWorkloadDoor>[0]['observer']['delivering']>[0];

async function evidenceAndTrust(
  config: AgentConfig,
  kept: NodeView | undefined,
  clock: Clock,
): Promise<{ evidence: Parameters<typeof openNodeLink>[0]['evidence']; trust: ServerTrust }> {
  const join = config.joinToken === null ? null : parseJoinSecret(config.joinToken);
  const evidence =
    config.machine ?? (join === null ? null : { kind: 'join_token' as const, secret: join.secret });
  if (kept !== undefined) {
    const { bundle } = kept;
    return { evidence, trust: { roots: bundle.x509Authorities, trustDomain: bundle.trustDomain } };
  }
  const pin = config.trustRootSha256 ?? join?.rootSha256;
  if (config.trustRoots !== null && config.trustDomain !== null) {
    return { evidence, trust: { roots: config.trustRoots, trustDomain: config.trustDomain } };
  }
  if (pin === undefined) {
    throw new MeshError('server_untrusted', 'nothing says which server to trust', {
      fix: 'give a join token, --trust-bundle with --trust-domain, or --trust-bundle-sha256',
    });
  }
  const trust = await learnServer(config.server, pin, clock.now());
  if (config.trustDomain !== null && !config.trustDomain.equals(trust.trustDomain)) {
    throw new MeshError('server_untrusted', `the server is of the trust domain ${trust.trustDomain.name}`);
  }
  return { evidence, trust };
}

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

function settingsOf({ bundle, settings }: NodeView): MeshSettings {
  const { rootNamespace, ttlSeconds } = settings;
  return { trustDomain: bundle.trustDomain, rootNamespace, ttlSeconds };
}

function statusOf(config: AgentConfig, link: NodeLink, { mesh, bundle }: NodeView): AgentStatus {
  const { id } = checkX509SvidLeaf(link.identity().certificates[0] ?? new Uint8Array(0));
  return {
    version,
    trustDomain: bundle.trustDomain.name,
    node: id.text,
    workloadSocket: config.workloadSocket,
    connected: link.isWatching(),
    freshAt: link.freshAt(),
    entries: mesh.entries.size,
    policies: mesh.policies.size,
  };
}

const turnShareMs = 3;
