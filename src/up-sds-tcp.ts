import { hash } from 'node:crypto';
import type { AuditEvent } from './audit/event.ts';
import type { Clock } from './clock.ts';
import { MeshError } from './errors.ts';
import type { PeerCall } from './grpc/connections.ts';
import { admitCalls } from './grpc/tls-guard.ts';
import { enrollCertified, type TlsPeer, tlsPeerOf } from './grpc/tls-connections.ts';
import { createLineage } from './grpc/tls-lineage.ts';
import { startTlsGrpcListener, type TlsGrpcLimits } from './grpc/tls-listener.ts';
import { createCheckRenewing, type SvidRefusal } from './grpc/tls-svid.ts';
import type { WatchCredentials } from './identity/credentials.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import type { Attestation, PresentedCertificate } from './identity/evidence.ts';
import { createRateLimit, type RateLimits } from './identity/rate-limit.ts';
import { createRefusals } from './identity/refusals.ts';
import type { Log } from './log.ts';
import type { Delivery, SdsObserver } from './xds/observer.ts';
import { createSdsService } from './xds/service.ts';
import type { TrustBundle } from './spiffe/bundle.ts';
import type { TrustDomain } from './spiffe/id.ts';
import type { OwnCertificate } from './up-own-certificate.ts';

/** SDS over the network, for whoever shows a live certificate of the identity it asks for. */
export type SdsTcpDoor = { readonly port: number; readonly close: (graceMs: number) => Promise<void> };

export type SdsTcpParts = {
  readonly at: { readonly host: string; readonly port: number };
  readonly trustDomain: TrustDomain;
  readonly holder: MeshHolder;
  readonly bundle: () => TrustBundle;
  readonly watch: WatchCredentials;
  /** What the door itself shows. */
  readonly own: OwnCertificate;
  readonly observer: SdsObserver;
  /** Records without anybody waiting for it. */
  readonly recordQuietly: (events: readonly AuditEvent[]) => void;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits?: Partial<TlsGrpcLimits>;
  /** Connections that are served, of one certificate and all that came of it. */
  readonly connectionsOfLine?: RateLimits;
  /** How often those who are connected are judged again, in ms; a ban or a lost entry is acted on at once. */
  readonly recheckMs?: number;
};

/**
 * Opens SDS on a TCP address. A caller is known by its certificate alone: a live X509-SVID of a workload of ours whose
 * entry lets it be renewed over the network. It is served that identity and nothing else, with certificates made for its
 * own line. Who it is is judged at every call, before every private key, at every change of the mesh and every few
 * seconds; whoever does not count any more is cut off with all its streams.
 * @throws MeshError `address_in_use`
 */
export async function openSdsTcpDoor(parts: SdsTcpParts): Promise<SdsTcpDoor> {
  const { holder, clock, log, recheckMs = 2_000 } = parts;
  const refusals = createRefusals((event) => parts.recordQuietly([event]), clock);
  const lineage = createLineage();
  const check = createCheckRenewing({
    trustDomain: parts.trustDomain,
    bundle: parts.bundle,
    bans: () => holder.current().bans,
    registry: () => holder.current().registry,
    lineage: lineage.of,
    clock,
  });
  const refuse = ({ remoteAddress }: TlsPeer, { code, refused, presented }: SvidRefusal): MeshError => {
    const nobody = { pid: 0, uid: 0, gid: 0 };
    refusals.add({
      code,
      message: refused,
      // Only what a CA of ours has signed is taken down.
      resource: presented?.id.text ?? '',
      selectors: [],
      caller: presented === undefined ? nobody : { ...nobody, certificate: presented.serial },
    });
    log.debug({ code, address: remoteAddress }, 'refused at sdsAddress');
    return new MeshError(code, refused, { fix: 'see docs/sds-tcp.md for who is served' });
  };
  // The door itself lets in; by its peer a service finds the certificate that was let in.
  const known = new Map<string, TlsPeer>();
  const demand = (peer: TlsPeer): PresentedCertificate => {
    const verdict = check(peer);
    if ('refused' in verdict) throw refuse(peer, verdict);
    return verdict.presented;
  };
  // INVARIANT: who is given a certificate, shows that one, and so on without end, cannot outgrow the lineage, or fill
  // the log: each line may connect only so often.
  const takeConnection = createRateLimit<string>(parts.connectionsOfLine ?? connectionsOfLine, clock);
  const admit = (call: PeerCall): void => {
    const peer = tlsPeerOf(call);
    const presented = demand(peer);
    if (!known.has(peer.connectionId) && !takeConnection(lineage.originOf(presented.serial))) {
      throw new MeshError('rate_limited', 'the certificates of this line are renewed too often', {
        fix: 'keep the connection, and wait before it is opened again',
      });
    }
    known.set(peer.connectionId, peer);
    enrollCertified(peer, presented, () => !('refused' in check(peer)));
  };
  const attestCertified = async ({ connectionId }: { connectionId: string }): Promise<Attestation> => {
    const peer = known.get(connectionId);
    if (peer === undefined) throw new MeshError('unauthenticated', 'the connection is not known');
    const presented = demand(peer);
    return {
      selectors: [],
      presented,
      caller: { pid: 0, uid: 0, gid: 0, certificate: presented.serial },
    };
  };
  const sds = createSdsService({
    attest: () => Promise.reject(new MeshError('attestation_failed', 'no process is known at the other end')),
    attestCertified,
    watch: parts.watch,
    recordRefusal: (event) => parts.recordQuietly([event]),
    clock,
    observer: observeLines(parts.observer, ({ peer, content, at }) => {
      if (peer.kind === 'certified' && content?.kind === 'svid') lineage.note(content, peer.presented, at);
    }),
    log: (level, message, detail) => log[level](detail, message),
    limits: { streamsPerUid: 1_024 },
  });
  const listener = await startTlsGrpcListener({
    at: parts.at,
    shown: parts.own.current(),
    services: [sds, sds.aggregated].map((service) =>
      admitCalls({ requestBytes: maxRequestBytes, ...service }, admit),
    ),
    limits: { ...sdsTcpLimits, ...parts.limits },
    log: (message, detail) => log.info(detail, message),
  });
  parts.own.watch((certificate) => {
    try {
      listener.renew(certificate);
    } catch {
      log.error({}, 'the certificate of sdsAddress could not be renewed');
    }
  });

  // A stranger is told why it is refused when it calls; it is cut off when it stays without one.
  let strangers = new Set<string>();
  const sweep = (): void => {
    const seen = new Set<string>();
    const there = new Set<string>();
    listener.cut((peer) => {
      there.add(peer.connectionId);
      const verdict = check(peer);
      if (!('refused' in verdict)) return false;
      if (known.has(peer.connectionId)) {
        refuse(peer, verdict);
        return true;
      }
      seen.add(peer.connectionId);
      return strangers.has(peer.connectionId);
    });
    strangers = seen;
    for (const id of known.keys()) if (!there.has(id)) known.delete(id);
  };
  const cutLost = (): void => {
    listener.cut((peer) => {
      if (!known.has(peer.connectionId)) return false;
      const verdict = check(peer);
      if ('refused' in verdict) refuse(peer, verdict);
      return 'refused' in verdict;
    });
  };
  const unsubscribe = holder.onChange(() => setImmediate(cutLost));
  const stop = new AbortController();
  const sweeping = (async () => {
    while (!stop.signal.aborted) {
      await clock.sleep(recheckMs, stop.signal);
      sweep();
    }
  })();
  return {
    port: listener.port,
    close: async (graceMs) => {
      unsubscribe();
      stop.abort();
      await sweeping;
      await listener.close(graceMs);
      refusals.close();
    },
  };
}

/**
 * Tells of deliveries before they leave. Nobody has seen a process there, so that each connection counts as one of its
 * own for rotation: the confirmation of one says nothing about another.
 */
function observeLines(observer: SdsObserver, delivering: (told: Delivery) => void): SdsObserver {
  const ofLine = <T extends Delivery>(told: T): T => {
    if (told.peer.kind !== 'certified') return told;
    const { connectionId, presented } = told.peer;
    // Only told apart by it, and kept short: an agent sends it on.
    const name = told.name.length > 256 ? hash('sha256', told.name, 'hex') : told.name;
    return { ...told, name: `${connectionId} ${presented.serial.slice(0, 16)} ${name}` };
  };
  return {
    ...observer,
    delivering: (told) => {
      delivering(told);
      observer.delivering?.(ofLine(told));
    },
    acknowledged: (told) => observer.acknowledged?.(ofLine(told)),
  };
}

/** What strangers can make us keep. */
export const sdsTcpLimits: Partial<TlsGrpcLimits> = {
  connections: 4_096,
  connectionsPerAddress: 512,
  streamsPerConnection: 256,
  // A hundred names of 2,048 bytes.
  messageBytes: 262_144,
};
const maxRequestBytes = 262_144;
const connectionsOfLine: RateLimits = { burst: 1_024, perSecond: 1 / 30 };
