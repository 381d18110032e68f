import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import type { AccessLog } from './access-log/access-log.ts';
import { createMetricsService } from './access-log/metrics-service.ts';
import { createAccessLogService } from './access-log/service.ts';
import { createToldRules } from './access-log/told-rules.ts';
import type { AuditEvent } from './audit/event.ts';
import type { Snapshot } from './authz/snapshot.ts';
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { publicError } from './errors.ts';
import { createCallers } from './ext-authz/callers.ts';
import { createDecisionIds } from './ext-authz/decision-id.ts';
import type { DecisionLog } from './ext-authz/decision-log.ts';
import { createExtAuthzService } from './ext-authz/service.ts';
import { startGrpcListener } from './grpc/listener.ts';
import type { Breathe } from './identity/breath.ts';
import { maxProxies, type StatusReport } from './http/status-report.ts';
import { createBundleWatch } from './identity/bundle-watch.ts';
import { type LiveRollout, rolloutOf } from './identity/candidate.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import { entitlementOf } from './identity/entitlement.ts';
import type { Attest, Attestation } from './identity/evidence.ts';
import type { IssueX509 } from './identity/issuer.ts';
import type { MintJwt } from './identity/jwt-svid.ts';
import type { Keeper } from './identity/keeper.ts';
import type { KeyOwners } from './identity/key-owners.ts';
import { createPace } from './identity/pace.ts';
import { createRefusals } from './identity/refusals.ts';
import { createWatch, type WatchParts } from './identity/watch.ts';
import type { Log } from './log.ts';
import type { SdsObserver } from './xds/observer.ts';
import type { ProxyPolicyStanding } from './xds/policy-book.ts';
import { createSdsService } from './xds/service.ts';
import { createSigningService } from './signing/service.ts';
import type { ProofThread } from './signing/thread.ts';
import { writeJwtBundle } from './spiffe/bundle-document.ts';
import type { TrustDomain } from './spiffe/id.ts';
import { makeDirectory } from './store/key-files.ts';
import type { KeptAuthority } from './up-authority.ts';
import type { RevocationLists } from './up-crl.ts';
import type { JwtPlant } from './up-jwt.ts';
import type { Instruments } from './up-metrics.ts';
import { alwaysFresh, openPolicyDelivery, type PolicyFreshness } from './up-policy-delivery.ts';
import type { OwnCertificate } from './up-own-certificate.ts';
import type { Rotation } from './up-rotation.ts';
import { openSdsTcpDoor } from './up-sds-tcp.ts';
import { checkedTraceparent, inSpanOfNow, traceCalls, traceDecision, tracePushes } from './tracing.ts';
import { createWorkloadApi } from './workload-api/service.ts';

/** The socket that proxies and workloads of this machine connect to. */
export type WorkloadDoor = {
  /** How the proxies that decide by themselves stand with their policies. */
  readonly proxies: () => readonly ProxyPolicyStanding[];
  readonly close: () => Promise<void>;
};

export type WorkloadDoorParts = {
  readonly config: Pick<Config, 'workloadSocket' | 'sdsAddress' | 'shutdownGraceSeconds'> &
    Partial<Pick<Config, 'maxStalenessSeconds'>>;
  readonly trustDomain: TrustDomain;
  readonly holder: MeshHolder;
  readonly keeper: Keeper;
  readonly authority: Pick<KeptAuthority, 'bundle' | 'onChange'>;
  readonly crl: Pick<RevocationLists, 'published' | 'onChange'>;
  readonly jwt: Pick<JwtPlant, 'bundle' | 'onChange' | 'validate'> & { readonly mint: MintJwt };
  readonly breathe: Breathe;
  readonly issue: IssueX509;
  /** Whose the keys in certificates that are still valid are. */
  readonly keyOwners: KeyOwners;
  readonly readCsr: ProofThread['readCsr'];
  readonly attest: Attest;
  readonly decisions: DecisionLog;
  readonly accessLog: AccessLog;
  /** Records without anybody waiting for it. */
  readonly recordQuietly: (events: readonly AuditEvent[]) => void;
  readonly observer: Rotation['observer'];
  readonly instruments: Pick<Instruments, 'sds' | 'checks' | 'workloadApi' | 'policies'>;
  /** What calls are decided by; default: the snapshot of the mesh. */
  readonly snapshot?: () => Snapshot;
  /** The rollout beside that snapshot; default: that of the mesh. */
  readonly rollout?: () => LiveRollout | null;
  /** How long proxies may go on by what they have; default: as long as the configuration says, from any moment on. */
  readonly freshness?: PolicyFreshness;
  /** What doors on the network show. */
  readonly ownCertificate: () => Promise<OwnCertificate>;
  readonly clock: Clock;
  readonly log: Log;
};

/** Opens the workload socket with all that is served on it: SDS, ext_authz, signing and the Workload API. */
export async function openWorkloadDoor(parts: WorkloadDoorParts): Promise<WorkloadDoor> {
  const {
    config,
    trustDomain,
    holder,
    keeper,
    authority,
    crl,
    jwt,
    attest,
    recordQuietly,
    instruments,
    clock,
    log,
  } = parts;
  const watchParts: WatchParts = {
    trustDomain,
    registry: () => holder.current().registry,
    bans: () => holder.current().bans,
    bundles: () => new Map([[trustDomain.name, authority.bundle()]]),
    jwtBundles: () => new Map([[trustDomain.name, jwt.bundle()]]),
    crls: crl.published,
    keeper,
    clock,
    pace: createPace(parts.breathe),
    onChange: (listener) => {
      const all = [holder, authority, crl, jwt].map(({ onChange }) => onChange(listener));
      return () => all.forEach((unsubscribe) => unsubscribe());
    },
  };
  const watch = createWatch(watchParts);
  const policies = openPolicyDelivery({
    holder,
    freshness: parts.freshness ?? alwaysFresh(clock, config.maxStalenessSeconds ?? 86_400),
    breathe: parts.breathe,
    instruments: instruments.policies,
    clock,
    log,
  });
  const observer = tracePushes(observeBoth(instruments.sds, parts.observer));
  const sds = createSdsService({
    attest,
    watch,
    onChange: watchParts.onChange,
    policies: policies.source,
    recordRefusal: (event) => recordQuietly([event]),
    clock,
    observer,
    log: (level, message, detail) => log[level](detail, message),
  });
  const countCall = parts.decisions.count;
  const entitledIds = ({ selectors }: Attestation) =>
    holder
      .current()
      .registry.match(selectors, clock.now())
      .map(({ spiffeId }) => spiffeId);
  const snapshot = parts.snapshot ?? (() => holder.current().snapshot);
  const { attested } = createCallers({ attest, clock });
  const metrics = createMetricsService({
    attested,
    entitledIds,
    tally: parts.accessLog.tally,
    clock,
    breathe: parts.breathe,
    report: (error) => log.error(publicError(error), 'counters of a proxy failed'),
  });
  const accessLog = createAccessLogService({
    attested,
    entitledIds,
    toldRules: createToldRules(snapshot),
    trustDomain,
    accessLog: parts.accessLog,
    recordRefusal: (event) => recordQuietly([event]),
    clock,
    breathe: parts.breathe,
    report: (error) => log.error(publicError(error), 'access log of a proxy failed'),
  });
  const extAuthz = createExtAuthzService({
    attest,
    entitledIds,
    rollout: parts.rollout ?? (() => rolloutOf(holder.current())),
    compare: parts.decisions.compare,
    snapshot,
    bans: () => holder.current().bans,
    record: (event) => {
      traceDecision(event, event.verdict, event.decisionId);
      parts.decisions.push(event);
    },
    count:
      countCall === undefined
        ? undefined
        : (call, decisionId) => {
            traceDecision(call, 'allow', decisionId);
            countCall(call);
          },
    clock,
    newDecisionId: createDecisionIds(randomBytes),
    inContext: inSpanOfNow,
    observer: instruments.checks,
  });
  const refusals = createRefusals((event) => recordQuietly([event]), clock, undefined, 'issue');
  const signing = createSigningService({
    attest,
    entitled: ({ selectors }) => holder.current().registry.match(selectors, clock.now()),
    issue: parts.issue,
    keyOwners: parts.keyOwners,
    readCsr: parts.readCsr,
    bundle: authority.bundle,
    recordRefusal: refusals.add,
    clock,
    report: (error) => log.error(publicError(error), 'certificate could not be made'),
  });
  const workloadApi = createWorkloadApi({
    attest,
    watch,
    watchBundles: createBundleWatch(watchParts),
    entitled: (attestation) => {
      const { registry, bans } = holder.current();
      return entitlementOf(registry, bans, attestation, clock.now());
    },
    mintJwt: jwt.mint,
    validateJwt: jwt.validate,
    writeJwtBundle,
    recordRefusal: (event) => recordQuietly([event]),
    clock,
    observer: {
      ...instruments.workloadApi,
      // Nobody acknowledges what is fetched here, so that it is only ever sent.
      delivering: (delivery) =>
        parts.observer.delivering({ ...delivery, nodeId: `pid ${delivery.peer.pid}, Workload API` }),
    },
    report: (error) => log.error(publicError(error), 'Workload API call failed'),
  });
  // Others must be able to reach the sockets in it; who may use one is the socket's own affair.
  makeDirectory(dirname(config.workloadSocket), 0o755);
  const workload = await startGrpcListener({
    path: config.workloadSocket,
    mode: 0o666,
    services: [
      // Of each stream the bytes of its last request are kept.
      { ...sds, requestBytes: 262_144 },
      { ...sds.aggregated, requestBytes: 262_144 },
      { ...sds.extensions, requestBytes: 262_144 },
      signing,
      traceCalls({ ...extAuthz, requestBytes: 262_144 }, checkServiceName, checkedTraceparent),
      { ...accessLog, requestBytes: 262_144 },
      // All counters of a proxy are one message.
      { ...metrics, requestBytes: 1_048_576 },
      { ...workloadApi, requestBytes: 65_536 },
    ],
    log: (message, detail) => log.warn(detail, message),
  });
  const graceMs = config.shutdownGraceSeconds * 1_000;
  const network =
    config.sdsAddress === null
      ? undefined
      : await openSdsTcpDoor({
          at: config.sdsAddress,
          trustDomain,
          holder,
          bundle: authority.bundle,
          watch,
          own: await parts.ownCertificate(),
          observer,
          recordQuietly,
          clock,
          log,
        }).catch(async (error: unknown) => {
          await workload.close(0);
          throw error;
        });
  return {
    proxies: policies.standings,
    close: async () => {
      await Promise.all([workload.close(graceMs), network?.close(graceMs), policies.close()]);
      refusals.close();
    },
  };
}

/** What a status tells of the proxies that decide by themselves. */
export function proxyReports(
  standings: readonly ProxyPolicyStanding[] = [],
): Pick<StatusReport, 'proxies' | 'proxiesInAll'> {
  return { proxies: standings.slice(0, maxProxies), proxiesInAll: standings.length };
}

function observeBoth(counts: SdsObserver, rotation: Rotation['observer']): SdsObserver {
  return {
    ...counts,
    delivering: rotation.delivering,
    acknowledged: (acknowledgement) => {
      counts.acknowledged?.(acknowledgement);
      rotation.acknowledged(acknowledgement);
    },
  };
}

const checkServiceName = 'envoy.service.auth.v3.Authorization';
