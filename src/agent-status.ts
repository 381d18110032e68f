import type { AgentConfig } from './agent-config.ts';
import { isStale } from './agent-staleness.ts';
import { isFailing, type SourceHealth } from './attest/source-health.ts';
import type { Clock } from './clock.ts';
import type { AgentReadiness, AgentStatusReport, WorkloadOutlook } from './http/status-report.ts';
import { maxOutlooks } from './http/status-report.ts';
import { nodeNameOf } from './identity/node.ts';
import type { ProxyPolicies } from './identity/node-presence.ts';
import type { NodeView } from './identity/view.ts';
import type { NodeLink } from './node/node-link.ts';
import { checkX509SvidLeaf } from './spiffe/svid.ts';
import { policyInForce, policyModeOf } from './identity/policy-revision.ts';
import { sourceReport } from './up-outlook.ts';
import { proxyReports } from './up-workload.ts';
import { version } from './version.ts';
import type { ProxyPolicyStanding } from './xds/policy-book.ts';

/** What the status of an agent that serves is made of. */
export type AgentFacts = {
  readonly link: Pick<NodeLink, 'identity' | 'isWatching' | 'since' | 'freshAt' | 'trouble'>;
  readonly view: () => NodeView;
  readonly outlooks: () => readonly WorkloadOutlook[];
  readonly sources: () => readonly SourceHealth[];
  readonly depth: () => { readonly queued: number; readonly lost: number };
  readonly streams: () => number;
  readonly proxies: () => readonly ProxyPolicyStanding[];
};

export type AgentStatusParts = {
  readonly config: AgentConfig;
  readonly startedAt: Date;
  readonly clock: Clock;
  readonly metricsUrl: () => string | null;
  /** Undefined while the agent waits for its first view. */
  readonly facts: () => AgentFacts | undefined;
  /** What the link complained of last, while it is not open yet. */
  readonly complaint: () => AgentStatusReport['server']['trouble'];
};

/** When calls are denied if the server is away from now on; at the latest now, when they are denied already. */
export function deniesAt(freshAt: Date, now: Date, settings: NodeView['settings']): Date {
  const at = new Date(freshAt.getTime() + settings.maxStalenessSeconds * 1_000);
  // A clock that was put back: what was confirmed in the future counts for nothing.
  return isStale(freshAt, now, settings) && at > now ? now : at;
}

/** What the agent tells of itself. */
export function agentStatus(parts: AgentStatusParts): AgentStatusReport {
  const { config, startedAt, clock } = parts;
  const now = clock.now();
  const facts = parts.facts();
  const common = {
    kind: 'agent',
    version,
    now,
    startedAt,
    ...agentReadiness(parts),
    dataDir: config.dataDir,
    workloadSocket: config.workloadSocket,
    adminSocket: config.adminSocket,
    metricsUrl: parts.metricsUrl(),
  } as const;
  const address = `${config.server.host}:${config.server.port}`;
  if (facts === undefined) {
    return {
      ...common,
      trustDomain: null,
      node: null,
      server: {
        address,
        connected: false,
        since: startedAt,
        lastContactAt: null,
        trouble: parts.complaint(),
        viewRevision: 0,
        meshRevision: 0,
      },
      policy: null,
      events: { queued: 0, lost: 0 },
      entries: 0,
      policies: 0,
      streams: 0,
      workloads: [],
      workloadsInAll: 0,
      sources: [],
      ...proxyReports(),
    };
  }
  const { link } = facts;
  const view = facts.view();
  const workloads = facts.outlooks();
  const denied = deniesAt(link.freshAt(), now, view.settings);
  return {
    ...common,
    trustDomain: view.bundle.trustDomain.name,
    node: nodeOf(parts, facts, now),
    server: {
      address,
      connected: link.isWatching(),
      since: link.since(),
      lastContactAt: link.freshAt(),
      trouble: link.trouble(),
      viewRevision: view.revision,
      meshRevision: view.mesh.revision,
    },
    policy: {
      revision: policyInForce(view.mesh),
      mode: policyModeOf(view.mesh),
      maxStalenessSeconds: view.settings.maxStalenessSeconds,
      deniesAt: denied,
      deniesInSeconds: secondsUntil(denied, now),
    },
    events: facts.depth(),
    entries: view.mesh.entries.size,
    policies: view.mesh.policies.size,
    streams: facts.streams(),
    workloads: workloads.slice(0, maxOutlooks),
    workloadsInAll: workloads.length,
    sources: facts.sources().map(sourceReport),
    ...proxyReports(facts.proxies()),
  };
}

/** An agent is ready while it can serve certificates and decide; that its server is away is a warning. */
export function agentReadiness({ facts: read, complaint, clock }: AgentStatusParts): AgentReadiness {
  const now = clock.now();
  const facts = read();
  if (facts === undefined) {
    const why = complaint()?.message;
    return {
      ready: false,
      causes: [`the server was not reached yet${why === undefined ? '' : `: ${why}`}`],
      warnings: [],
    };
  }
  const { link } = facts;
  const { settings } = facts.view();
  const stale = isStale(link.freshAt(), now, settings);
  const { notAfter } = checkX509SvidLeaf(link.identity().certificates[0] ?? new Uint8Array(0));
  const causes = stale ? ['policy is too old: every call is denied until the server is back'] : [];
  const trouble = link.trouble();
  const dark = facts.outlooks().filter(({ darkInSeconds }) => darkInSeconds === 0).length;
  const warnings = [
    ...(link.isWatching() ? [] : [`the server is away since ${link.since().toISOString()}`]),
    ...(trouble === null ? [] : [trouble.message]),
    ...(notAfter > now ? [] : ['the certificate of the node has ended: it has to attest again']),
    ...(dark === 0 ? [] : [`${dark} workloads have no certificate that counts`]),
    ...facts
      .sources()
      .filter(isFailing)
      .map(({ name, lastFailure }) => `no selectors from the ${name}: ${lastFailure}`),
  ];
  return { ready: causes.length === 0, causes, warnings };
}

/** The proxies that decide by themselves, in numbers; of more than a status lists, those in trouble are counted. */
export function countProxies(proxies: AgentStatusReport['proxies']): ProxyPolicies {
  const inForce = proxies.flatMap(({ policyRevision }) => policyRevision ?? []);
  return {
    filters: proxies.length,
    behind: proxies.filter(({ state }) => state === 'behind').length,
    rejecting: proxies.filter(({ state }) => state === 'rejected').length,
    lacking: proxies.filter(({ lacks }) => lacks !== '').length,
    oldestPolicy: inForce.length === 0 ? null : Math.min(...inForce),
  };
}

function nodeOf(
  { config }: AgentStatusParts,
  { link, view }: AgentFacts,
  now: Date,
): AgentStatusReport['node'] {
  const { id, serial, notAfter } = checkX509SvidLeaf(link.identity().certificates[0] ?? new Uint8Array(0));
  return {
    name: nodeNameOf(view().bundle.trustDomain, id) ?? '',
    spiffeId: id.text,
    serial,
    expiresAt: notAfter,
    expiresInSeconds: secondsUntil(notAfter, now),
    attestsWith: config.attestsWith,
  };
}

function secondsUntil(at: Date, now: Date): number {
  return Math.max(0, Math.floor((at.getTime() - now.getTime()) / 1_000));
}
