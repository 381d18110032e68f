import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import type { AuditEvent } from './audit/event.ts';
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { publicError } from './errors.ts';
import type { DecisionLog } from './ext-authz/decision-log.ts';
import { createExtAuthzService } from './ext-authz/service.ts';
import { startGrpcListener } from './grpc/listener.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import type { Attest } from './identity/evidence.ts';
import type { IssueX509 } from './identity/issuer.ts';
import type { Keeper } from './identity/keeper.ts';
import { createWatch } from './identity/watch.ts';
import type { Log } from './log.ts';
import type { SdsObserver } from './sds/observer.ts';
import { createRefusals } from './sds/refusals.ts';
import { createSdsService } from './sds/service.ts';
import { createSigningService } from './signing/service.ts';
import type { TrustDomain } from './spiffe/id.ts';
import { makeDirectory } from './store/key-files.ts';
import type { KeptAuthority } from './up-authority.ts';
import type { Instruments } from './up-metrics.ts';
import type { Rotation } from './up-rotation.ts';

/** The socket that proxies and workloads of this machine connect to. */
export type WorkloadDoor = { readonly close: () => Promise<void> };

export type WorkloadDoorParts = {
  readonly config: Config;
  readonly trustDomain: TrustDomain;
  readonly holder: MeshHolder;
  readonly keeper: Keeper;
  readonly authority: KeptAuthority;
  readonly issue: IssueX509;
  readonly attest: Attest;
  readonly decisions: DecisionLog;
  /** Records without anybody waiting for it. */
  readonly recordQuietly: (events: readonly AuditEvent[]) => void;
  readonly observer: Rotation['observer'];
  readonly instruments: Instruments;
  readonly clock: Clock;
  readonly log: Log;
};

/** Opens the workload socket with all that is served on it: SDS, ext_authz and signing. */
export async function openWorkloadDoor(parts: WorkloadDoorParts): Promise<WorkloadDoor> {
  const { config, trustDomain, holder, keeper, authority, attest, recordQuietly, instruments, clock, log } =
    parts;
  const sds = createSdsService({
    attest,
    watch: createWatch({
      trustDomain,
      registry: () => holder.current().registry,
      bans: () => holder.current().bans,
      bundles: () => new Map([[trustDomain.name, authority.bundle()]]),
      jwtBundles: () => new Map(),
      keeper,
      clock,
      onChange: (listener) => {
        const both = [holder.onChange(listener), authority.onChange(listener)];
        return () => both.forEach((unsubscribe) => unsubscribe());
      },
    }),
    recordRefusal: (event) => recordQuietly([event]),
    clock,
    observer: observeBoth(instruments.sds, parts.observer),
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
    bans: () => holder.current().bans,
    record: parts.decisions.push,
    clock,
    newDecisionId: () => randomBytes(12).toString('hex'),
    observer: instruments.checks,
  });
  const refusals = createRefusals((event) => recordQuietly([event]), clock, undefined, 'issue');
  const signing = createSigningService({
    attest,
    entitled: ({ selectors }) => holder.current().registry.match(selectors, clock.now()),
    issue: parts.issue,
    bundle: authority.bundle,
    recordRefusal: refusals.add,
    clock,
    report: (error) => log.error(publicError(error), 'certificate could not be made'),
  });
  // Others must be able to reach the sockets in it; who may use one is the socket's own affair.
  makeDirectory(dirname(config.workloadSocket), 0o755);
  const workload = await startGrpcListener({
    path: config.workloadSocket,
    mode: 0o666,
    services: [sds, signing, { ...extAuthz, requestBytes: 262_144 }],
    log: (message, detail) => log.warn(detail, message),
  });
  return {
    close: async () => {
      await workload.close(config.shutdownGraceSeconds * 1_000);
      refusals.close();
    },
  };
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
