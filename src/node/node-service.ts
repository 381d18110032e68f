import type { ServerDuplexStream } from '@grpc/grpc-js';
import { asBuffer } from '../grpc/as-buffer.ts';
import type { PublicKey } from '../ca/public-key.ts';
import type { Clock } from '../clock.ts';
import { MeshError, publicError } from '../errors.ts';
import { guardServerStream, guardStream, guardUnary, type ReportFailure } from '../grpc/guard.ts';
import type { GrpcService } from '../grpc/listener.ts';
import { disconnectTls, type TlsPeer, tlsPeerOf } from '../grpc/tls-connections.ts';
import type { CheckPresented } from '../grpc/tls-svid.ts';
import type { Breathe } from '../identity/breath.ts';
import type { IssuedX509, IssueX509 } from '../identity/issuer.ts';
import type { MintJwt } from '../identity/jwt-svid.ts';
import type { AttestedNode } from '../identity/node.ts';
import type { KeptTrust } from '../identity/node-presence.ts';
import { createAdmission } from '../identity/admission.ts';
import { createRateLimit, type RateLimits } from '../identity/rate-limit.ts';
import { createTurns } from '../identity/turns.ts';
import type { RegistrationEntry } from '../identity/entry.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import {
  type CoverageAccepted,
  type CoverageReport,
  type EventBatch,
  type EventsAccepted,
  type NodeCertificate,
  NodeService as Definition,
  type RenewRequest,
  type SignJwtRequest,
  type SignJwtResponse,
  type SignX509Batch,
  type SignX509Item,
  type SignX509Result,
  type SignX509Results,
  type WatchViewRequest,
} from '../wire/node.ts';
import { agentReportFromWire } from './agent-report.ts';
import type { IssueNodeCertificate } from './attestation-service.ts';
import { type CoverageNote, noteFromWire } from './coverage-wire.ts';
import { readShipment, type StoreShipment } from './event-shipment.ts';
import { type CheckPeer, demandNode, type NodePeer } from './node-check.ts';
import { attestationOf, presentedAttestation } from './reported-evidence.ts';
import type { NodePresences } from './node-presence.ts';
import type { NodeRegistry } from './node-registry.ts';
import { createHolds } from './holds.ts';
import { createOwnIdentities } from './own-identities.ts';
import { rolloutCapability } from './rollout-wire.ts';
import { createViewStreams, type ViewPort, type ViewStreamLimits } from './view-stream.ts';
import { bundleToWire } from './view-wire.ts';
import { integerOf } from './wire-values.ts';

export type NodeServiceLimits = ViewStreamLimits & {
  /** Certificates that one node may ask for. */
  readonly perNode: RateLimits;
  /** Items worked on at once, of all nodes; those that wait for it are taken from one node after the other. */
  readonly atOnce: number;
  /** Streams that one node may hold open, of its view and of events together: each is woken by every change. */
  readonly streamsPerNode: number;
  /** Batches of events that one node may ship, 250 decisions each. */
  readonly shipmentsPerNode: RateLimits;
  /** Batches being stored at once, of all nodes: certificates are recorded through the same queue. */
  readonly shipmentsAtOnce: number;
  /** Reports of coverage that one node may send. */
  readonly reportsPerNode: RateLimits;
};

export const defaultNodeServiceLimits: NodeServiceLimits = {
  perNode: { burst: 4_000, perSecond: 200 },
  atOnce: 64,
  // An agent has one of each, and for a moment those of a connection that is dead and not yet known to be.
  streamsPerNode: 16,
  shipmentsPerNode: { burst: 400, perSecond: 40 },
  shipmentsAtOnce: 32,
  reportsPerNode: { burst: 256, perSecond: 20 },
  recheckMs: 2_000,
  writeMs: 15_000,
  // As many as a listener holds connections may wait; a node has one stream, and for a moment two.
  fullViews: { atOnce: 64, waiting: 16_384, waitingPerOwner: 2 },
};

export type NodeServiceOptions = {
  readonly check: CheckPeer;
  readonly certify: NodeRegistry['certify'];
  readonly issueNode: IssueNodeCertificate;
  /** Signs for entries. What it is given is proven to be the node's own. */
  readonly issue: IssueX509;
  readonly mintJwt: MintJwt;
  readonly readCsr: (csr: Uint8Array) => PublicKey | Promise<PublicKey>;
  readonly bundle: () => TrustBundle;
  /** What the node may serve now. */
  readonly view: ViewPort;
  /** Takes notes about processes of a node; must not throw and must not wait. */
  readonly cover: (notes: readonly CoverageNote[]) => void;
  readonly storeShipment: StoreShipment;
  /** A certificate leaves for a node, together with the bundle. */
  readonly delivering?: (node: AttestedNode, issued: IssuedX509, bundle: TrustBundle) => void;
  /** A node says what it goes by now, and after a crash. Not proven. */
  readonly keeps?: (peer: NodePeer, kept: KeptTrust) => void;
  /** A node says which policy revision it has enforced last; 0 for none. Not proven. */
  readonly enforces?: (node: string, policyNumber: number) => void;
  /** Where it is noted which nodes are there. */
  readonly presences?: NodePresences;
  /** Judges what somebody has shown to an agent over the network; without it no certificate is renewed so. */
  readonly checkPresented?: CheckPresented;
  /** Shares the turns of the event loop when thousands of nodes are told of a change. */
  readonly breathe?: Breathe;
  readonly clock: Clock;
  readonly report?: ReportFailure;
  readonly limits?: Partial<NodeServiceLimits>;
};

/**
 * Serves the node API to attested nodes. Who calls is judged at every call, and again before anything signed leaves;
 * open streams are judged every few seconds and at every change of nodes and bans. A node is served its own entries and
 * nobody else's, whatever it asks for.
 */
export function createNodeService(options: NodeServiceOptions): GrpcService {
  const { check, clock, report = () => undefined } = options;
  const limits = { ...defaultNodeServiceLimits, ...options.limits };
  const takeToken = createRateLimit<string>(limits.perNode, clock);
  const admit = createAdmission({ atOnce: limits.atOnce, ...waitingItems });
  const hold = createHolds(limits.streamsPerNode);
  const takeShipment = createRateLimit<string>(limits.shipmentsPerNode, clock);
  const takeReport = createRateLimit<string>(limits.reportsPerNode, clock);
  const shipmentTurns = createTurns(limits.shipmentsAtOnce);
  const shipping = new Set<string>();
  const ownOf = createOwnIdentities(options.view.current, clock);
  const serveView = createViewStreams({ view: options.view, clock, limits, breathe: options.breathe });
  const stop = new AbortController();

  const judge = (peer: TlsPeer): NodePeer => {
    if (stop.signal.aborted) throw new MeshError('shutting_down', 'the server is shutting down');
    const node = demandNode(check(peer));
    options.presences?.contact(node.node.name);
    return node;
  };

  /** An entry of the node itself, at the revision that it was told of. */
  const entryOf = ({ node }: NodePeer, id: string, revision: bigint): RegistrationEntry => {
    const entry = options.view.current(node).mesh.entries.get(id);
    // INVARIANT: an entry of another node is as unknown as one that is not there.
    if (entry === undefined) throw new MeshError('identity_none', 'the entry is not one of this node');
    if (BigInt(entry.revision) === revision) return entry;
    throw new MeshError('revision_conflict', 'the entry has changed', {
      fix: 'wait for the change, and ask again',
    });
  };

  /**
   * INVARIANT: thrown away unseen when the node was evicted or banned while it was signed, or the entry was taken from it:
   * an alias that becomes another leaves the entry as it was, so whoever signs does not notice.
   */
  const demandStill = (
    { peer }: NodePeer,
    item: { readonly entryId: string; readonly entryRevision: bigint },
  ) => entryOf(demandNode(check(peer)), item.entryId, item.entryRevision);

  /** One node after the other, whatever each asks for; for one that has gone nothing is made. */
  const inTurn = async <T>({ node }: NodePeer, signal: AbortSignal, work: () => Promise<T>): Promise<T> => {
    const leave = await admit(node.name, signal);
    try {
      if (signal.aborted) throw new MeshError('server_busy', 'the node has given up waiting');
      return await work();
    } finally {
      leave();
    }
  };

  const sign = async (peer: NodePeer, item: SignX509Item, signal: AbortSignal): Promise<SignX509Result> => {
    try {
      if (!takeToken(peer.node.name)) {
        throw new MeshError('rate_limited', 'the node asks for too many certificates', {
          fix: 'wait a while',
        });
      }
      return await inTurn(peer, signal, () => signItem(peer, item));
    } catch (error) {
      const { code, message } = publicError(error);
      if (code === 'internal' || code === 'lint_failed') report(error, 'SignX509');
      return { kind: { $case: 'failure', failure: { code, message } } };
    }
  };

  const signItem = async (peer: NodePeer, item: SignX509Item): Promise<SignX509Result> => {
    const entry = entryOf(peer, item.entryId, item.entryRevision);
    const attestation =
      item.presented.length === 0
        ? attestationOf(peer, entry, item)
        : presentedAttestation(options.checkPresented, peer, entry, item);
    const publicKey = await options.readCsr(item.csr);
    const ttlSeconds = integerOf(item.ttlSeconds, 'a lifetime');
    const issued = await options.issue({
      entry,
      publicKey,
      attestation,
      ...(ttlSeconds === 0 ? {} : { ttlSeconds }),
    });
    demandStill(peer, item);
    const { certificates, issuerKeyId, proof = '' } = issued;
    const signed = { certificates: certificates.map(asBuffer), issuerKeyId, issuanceProof: proof };
    return { kind: { $case: 'signed', signed } };
  };

  const renew = guardUnary<RenewRequest, NodeCertificate>(
    async (call, signal) => {
      const peer = judge(tlsPeerOf(call));
      if (!takeToken(peer.node.name))
        throw new MeshError('rate_limited', 'the node asks for too many certificates');
      const issued = await inTurn(peer, signal, async () =>
        options.issueNode(peer.node, await options.readCsr(call.request.csr)),
      );
      const { serial, notAfter, certificates } = issued;
      const sourceAddress = peer.peer.remoteAddress;
      // INVARIANT: durable before it is handed out; it is refused when the node was evicted meanwhile.
      const node = await options.certify(peer.node, {
        serial,
        notAfter,
        shown: peer.leaf.serial,
        sourceAddress,
      });
      const bundle = options.bundle();
      options.delivering?.(node, issued, bundle);
      return { certificates: certificates.map(asBuffer), bundle: bundleToWire(bundle) };
    },
    { report },
  );

  const watchView = guardServerStream<WatchViewRequest, Buffer>(
    async (call, ended) => {
      const peer = tlsPeerOf(call);
      const { node } = judge(peer);
      const policyNumber = integerOf(call.request.policyNumber, 'a number');
      const takesRollouts = call.request.capabilities.includes(rolloutCapability);
      await hold(node.name, () => {
        const present = options.presences?.opened(node.name, call.request.agentVersion, takesRollouts);
        options.enforces?.(node.name, policyNumber);
        return serveView({
          call,
          judge: () => judge(peer).node,
          cut: () => disconnectTls(peer),
          takesRollouts,
          ...(present === undefined ? {} : { sent: present.sent }),
          signal: AbortSignal.any([ended, stop.signal]),
        }).finally(present?.closed);
      });
      if (stop.signal.aborted) throw new MeshError('shutting_down', 'the server is shutting down');
    },
    { report },
  );

  const signX509 = guardUnary<SignX509Batch, SignX509Results>(
    async (call, signal) => {
      const peer = judge(tlsPeerOf(call));
      const { items } = call.request;
      if (items.length > maxItems)
        throw new MeshError('message_too_large', `a batch has at most ${maxItems} items`);
      return { results: await Promise.all(items.map((item) => sign(peer, item, signal))) };
    },
    { report },
  );

  const signJwt = guardUnary<SignJwtRequest, SignJwtResponse>(
    async (call, signal) => {
      const peer = judge(tlsPeerOf(call));
      if (!takeToken(peer.node.name))
        throw new MeshError('rate_limited', 'the node asks for too many tokens');
      const { request } = call;
      const entry = entryOf(peer, request.entryId, request.entryRevision);
      const ttlSeconds = integerOf(request.ttlSeconds, 'a lifetime');
      const attestation = attestationOf(peer, entry, request);
      const svid = await inTurn(peer, signal, () =>
        options.mintJwt({
          entry,
          audiences: request.audiences,
          attestation,
          ...(ttlSeconds === 0 ? {} : { ttlSeconds }),
        }),
      );
      demandStill(peer, request);
      return {
        token: svid.token,
        keyId: svid.keyId,
        issuedAtMs: BigInt(svid.issuedAt.getTime()),
        expiresAtMs: BigInt(svid.expiresAt.getTime()),
      };
    },
    { report },
  );

  const reportCoverage = guardUnary<CoverageReport, CoverageAccepted>(
    (call) => {
      const peer = judge(tlsPeerOf(call));
      const { node } = peer;
      if (!takeReport(node.name)) throw new MeshError('rate_limited', 'the node reports too often');
      const { notes, agent } = call.request;
      if (agent !== undefined) {
        const { kept, ...report } = agentReportFromWire(agent);
        options.presences?.reported(node.name, report);
        if (kept !== null) options.keeps?.(peer, kept);
      }
      if (notes.length > maxNotes)
        throw new MeshError('message_too_large', `a report has at most ${maxNotes} notes`);
      const own = new Set(
        [...options.view.current(node).mesh.entries.values()].map(({ spiffeId }) => spiffeId.text),
      );
      const read = notes.map((note) => noteFromWire(node.name, note, clock.now()));
      // A node cannot vouch for certificates of another: what it says of those is as if it were not said.
      options.cover(read.filter(({ content }) => content.kind === 'bundle' || own.has(content.spiffeId)));
      return {};
    },
    { report },
  );

  /** INVARIANT: whoever counts no longer holds nothing open: it would count against the node that comes in its place. */
  const cutOnceRefused = async (peer: TlsPeer, signal: AbortSignal): Promise<void> => {
    while (!signal.aborted) {
      await clock.sleep(limits.recheckMs, signal);
      if (!signal.aborted && 'refused' in check(peer)) disconnectTls(peer);
    }
  };
  const takeBatches = async (
    call: ServerDuplexStream<EventBatch, EventsAccepted>,
    peer: TlsPeer,
    signal: AbortSignal,
  ): Promise<void> => {
    // Else a throw within would destroy the call, and the node would never learn why.
    const batches = call.iterator({ destroyOnReturn: false }) as AsyncIterable<EventBatch>;
    for await (const batch of batches) {
      const { node } = judge(peer);
      const shipper = { node: node.name, isOwn: ownOf(node), now: clock.now() };
      const shipment = readShipment(shipper, batch);
      // INVARIANT: one at a time, or a node could fill the queue that everybody's events wait in.
      if (shipping.has(node.name) || !takeShipment(node.name))
        throw new MeshError('rate_limited', 'the node ships too many events', { fix: 'wait a while' });
      shipping.add(node.name);
      try {
        await shipmentTurns(() => options.storeShipment(shipment));
      } finally {
        shipping.delete(node.name);
      }
      if (signal.aborted) return;
      call.write({ epoch: shipment.epoch, sequence: BigInt(shipment.sequence) });
    }
  };
  const shipEvents = guardStream<EventBatch, EventsAccepted>(
    async (call, signal) => {
      const peer = tlsPeerOf(call);
      const { name } = judge(peer).node;
      cutOnceRefused(peer, signal).catch((error: unknown) => report(error, 'ShipEvents'));
      await hold(name, () => takeBatches(call, peer, signal));
    },
    { report },
  );

  return {
    definition: definitionOfBytes,
    implementation: { renew, watchView, signX509, signJwt, reportCoverage, shipEvents },
    close: () => stop.abort('shutting down'),
  };
}

/** Views are encoded where it is known what nodes have in common. */
const definitionOfBytes = {
  ...Definition,
  watchView: { ...Definition.watchView, responseSerialize: (bytes: Buffer): Buffer => bytes },
} as const;

const maxItems = 128;
// As many as a node may ask for at once, of more nodes than a listener holds.
const waitingItems = { waiting: 1_048_576, waitingPerOwner: 8_192 };
const maxNotes = 512;
