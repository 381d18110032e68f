import { createHash } from 'node:crypto';
import type { Config } from './config.ts';
import type { RandomBytes } from './ca/serial.ts';
import { outgoingIssuers } from './ca/slot.ts';
import type { Clock } from './clock.ts';
import { MeshError, publicError } from './errors.ts';
import { startTlsGrpcListener } from './grpc/tls-listener.ts';
import { createCheckPresented } from './grpc/tls-svid.ts';
import type { NodePorts } from './http/node-routes.ts';
import type { NodesReport } from './http/status-report.ts';
import { type MeshHolder, type MeshSettings } from './identity/current-mesh.ts';
import type { IssuedCertificate } from './identity/coverage.ts';
import type { RegistrationEntry } from './identity/entry.ts';
import type { Breathe } from './identity/breath.ts';
import { createIssuer, type IssueX509 } from './identity/issuer.ts';
import type { Keeper } from './identity/keeper.ts';
import type { KeyOwners } from './identity/key-owners.ts';
import { nodeEntryPrefix, nodeSpiffeId, nodeTtlSeconds } from './identity/node.ts';
import { createNamesInEntries } from './identity/node-alias.ts';
import { createViewMaker, type NodeView, type OutgoingIssuer } from './identity/view.ts';
import { createRefusals } from './identity/refusals.ts';
import type { Log } from './log.ts';
import { createAttestationService, type IssueNodeCertificate } from './node/attestation-service.ts';
import { createCheckPeer } from './node/node-check.ts';
import { claimKeys } from './node/key-claims.ts';
import { keepForgetting } from './node/forgetting.ts';
import { createNodePresences, type NodePresences } from './node/node-presence.ts';
import { type NodeRegistry, openNodeRegistry } from './node/node-registry.ts';
import { createNodeService } from './node/node-service.ts';
import { formatJoinSecret } from './node/server-trust.ts';
import type { ViewPort } from './node/view-stream.ts';
import { decodePem, encodePem } from './spiffe/pem.ts';
import { traceCalls } from './tracing.ts';
import type { TrustDomain } from './spiffe/id.ts';
import { readListFile } from './store/key-files.ts';
import type { Store } from './store/store.ts';
import type { ProofThread } from './signing/thread.ts';
import type { KeptAuthority } from './up-authority.ts';
import type { RevocationLists } from './up-crl.ts';
import type { JwtPlant } from './up-jwt.ts';
import { openClusters } from './up-node-clusters.ts';
import { createNodeCoverage, isOverForNode } from './up-node-coverage.ts';
import { nodesReport } from './up-nodes-report.ts';
import { type DoorCertificate, keepOwnCertificate } from './up-own-certificate.ts';
import { watchAhead } from './up-policy-revisions.ts';
import type { CompleteCoverage } from './up-proxy-coverage.ts';
import type { Alarms } from './up-proxy-logs.ts';
import type { Rotation } from './up-rotation.ts';

/** The nodes of a mesh, and the door that they come in by. */
export type Nodes = {
  readonly ports: NodePorts;
  readonly report: () => NodesReport;
  /** Whether a certificate is one of a node that it can use no more. */
  readonly isOver: (certificate: Pick<IssuedCertificate, 'spiffeId' | 'serial' | 'notAfter'>) => boolean;
  readonly close: () => Promise<void>;
};

export type NodesParts = {
  readonly config: Config;
  readonly trustDomain: TrustDomain;
  readonly settings: MeshSettings;
  readonly store: Store;
  readonly holder: MeshHolder;
  readonly authority: KeptAuthority;
  readonly crl: RevocationLists;
  readonly jwt: JwtPlant;
  readonly issue: IssueX509;
  readonly keeper: Keeper;
  /** Whose each key is, on all nodes. */
  readonly keyOwners: KeyOwners;
  readonly readCsr: ProofThread['readCsr'];
  readonly breathe: Breathe;
  readonly note: Rotation['note'];
  /** Told of what nodes shipped, once it is in the log. */
  readonly look: Alarms['look'];
  readonly complete: CompleteCoverage;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  readonly log: Log;
};

/**
 * Opens the registry of nodes and, unless it is off, the node API.
 * @throws MeshError `address_in_use`, `file_missing`, `config_invalid`
 */
export async function openNodes(parts: NodesParts): Promise<Nodes> {
  const { config, store, clock, authority } = parts;
  const registry = await openNodeRegistry(store, clock);
  const presences = createNodePresences(clock);
  const at = config.nodeAddress;
  const door = at === null ? null : await openDoor(parts, { registry, presences }, at);
  // After what can fail: a start that fails must come to its end.
  const forgetting = keepForgetting(registry, clock, (error) =>
    parts.log.error(publicError(error), 'nodes that are gone could not be forgotten'),
  );
  const address = at === null || door === null ? null : `${formatHost(at.host)}:${door.port}`;
  return {
    ports: {
      nodeAddress: address,
      registry,
      presence: presences.of,
      listJoinTokens: store.listJoinTokens,
      createJoinToken: store.createJoinToken,
      revokeJoinToken: store.revokeJoinToken,
      formatJoinSecret: (secret) => {
        const root = rootOf(authority);
        return formatJoinSecret({ secret, rootSha256: createHash('sha256').update(root).digest('hex') });
      },
    },
    report: () => nodesReport(registry.all(), presences, clock.now()),
    isOver: (certificate) => isOverForNode(parts.trustDomain, registry.find, certificate),
    close: async () => {
      await forgetting.close();
      await door?.close(config.shutdownGraceSeconds * 1_000);
    },
  };
}

async function openDoor(
  parts: NodesParts,
  { registry, presences }: { readonly registry: NodeRegistry; readonly presences: NodePresences },
  at: NonNullable<Config['nodeAddress']>,
): ReturnType<typeof startTlsGrpcListener> {
  const { config, trustDomain, store, holder, authority, keeper, clock, randomBytes, log } = parts;
  const bans = () => holder.current().bans;
  const refusals = createRefusals((event) => recordQuietly(event), clock, undefined, 'issue');
  const claimed = (issue: IssueX509): IssueX509 => claimKeys(issue, parts.keyOwners, refusals.add);
  const issueNode = nodeIssuer(parts, registry, claimed);
  const { attested, renewed, keeps } = createNodeCoverage(parts);
  const recordQuietly = (event: Parameters<Store['recordEvents']>[0][number]): void => {
    store
      .recordEvents([event])
      .catch((error: unknown) => log.error(publicError(error), 'event could not be recorded'));
  };
  const report = (error: unknown): void => log.error(publicError(error), 'a call of a node failed');
  const attestation = createAttestationService({
    trustDomain,
    registry,
    findJoinToken: store.findJoinToken,
    machineCas: readMachineCas(config.nodeCaFile),
    ...openClusters(config.nodeClustersFile, clock, log),
    issue: issueNode,
    readCsr: parts.readCsr,
    bundle: authority.bundle,
    bans,
    recordRefusal: recordQuietly,
    delivering: attested,
    randomBytes,
    clock,
    report,
  });
  const node = createNodeService({
    breathe: parts.breathe,
    checkPresented: createCheckPresented({ trustDomain, bundle: authority.bundle, bans, clock }),
    check: createCheckPeer({ trustDomain, bundle: authority.bundle, bans, node: registry.find, clock }),
    certify: registry.certify,
    issueNode,
    issue: claimed(parts.issue),
    mintJwt: parts.jwt.mint,
    readCsr: parts.readCsr,
    bundle: authority.bundle,
    view: await viewPort(parts, registry),
    cover: (notes) => {
      for (const { isConfirmed, client, name, content, at: time } of notes) {
        parts.note(isConfirmed, client, name, content, time);
      }
    },
    storeShipment: async ({ events: shipped, ...shipment }) => {
      const events = await parts.complete(shipped);
      const isNew = await store.recordShipment(shipment, events);
      if (isNew) parts.look(events);
      return isNew;
    },
    delivering: renewed,
    keeps,
    enforces: watchAhead(holder, clock, log),
    presences,
    clock,
    report,
  });
  const own = await keepOwnCertificate(keeper, { door: 'server', trustDomain, dnsNames: ['localhost'] });
  // The root goes along, for agents that know nothing but its digest.
  const shown = ({ certificate, privateKey }: DoorCertificate) => ({
    certificate: certificate + encodePem('CERTIFICATE', rootOf(authority)),
    privateKey,
  });
  const listener = await startTlsGrpcListener({
    at,
    shown: shown(own.current()),
    services: [
      traceCalls(attestation, 'countersign.node.v1.Attestation'),
      traceCalls(node, 'countersign.node.v1.Node'),
    ],
    log: (message, detail) => log.info(detail, message),
  });
  own.watch((certificate) => {
    try {
      listener.renew(shown(certificate));
    } catch (error) {
      log.error(publicError(error), 'the certificate of the node API could not be renewed');
    }
  });
  const close = async (graceMs: number): Promise<void> => {
    await listener.close(graceMs);
    refusals.close();
  };
  return { ...listener, close };
}

/** INVARIANT: a certificate of a node is signed only while the node is not evicted. */
function nodeIssuer(
  parts: NodesParts,
  registry: NodeRegistry,
  claimed: (issue: IssueX509) => IssueX509,
): IssueNodeCertificate {
  const { authority, crl, store, clock, holder, trustDomain } = parts;
  const issue = claimed(
    createIssuer({
      authority: crl.signer,
      mayStillSign: authority.mayStillSign,
      record: store.recordProven,
      clock,
      isCurrent: ({ id }) => registry.find(id.slice(nodeEntryPrefix.length))?.evictedAt === null,
      bans: () => holder.current().bans,
      policyRevision: () => holder.current().mesh.policyRevision?.number,
    }),
  );
  return (node, publicKey) =>
    issue({
      entry: entryOf(trustDomain, node.name),
      publicKey,
      attestation: { selectors: [], caller: { pid: 0, uid: 0, gid: 0, node: node.name } },
    });
}

function entryOf(trustDomain: TrustDomain, name: string): RegistrationEntry {
  return {
    id: `${nodeEntryPrefix}${name}`,
    spiffeId: nodeSpiffeId(trustDomain, name),
    selectors: [],
    ttlSeconds: nodeTtlSeconds,
    dnsNames: [],
    labels: {},
    hint: '',
    expiresAt: null,
    revision: 0,
  };
}

async function viewPort(
  { holder, authority, crl, jwt, settings, config, clock, store }: NodesParts,
  registry: NodeRegistry,
): Promise<ViewPort> {
  const auditLogKey = await store.readMeta('audit_verifier_key');
  const makeView = createViewMaker();
  const namesInEntries = createNamesInEntries();
  const withNodes = createFleetCount(() => {
    const now = clock.now();
    return registry.all().filter(({ evictedAt, notAfter }) => evictedAt === null && notAfter > now).length;
  });
  const viewSettings: NodeView['settings'] = {
    trustDomain: settings.trustDomain.name,
    rootNamespace: settings.rootNamespace,
    ttlSeconds: settings.ttlSeconds,
    maxStalenessSeconds: config.maxStalenessSeconds,
    ...(auditLogKey === null ? {} : { auditLogKey }),
  };
  return {
    current: (node) => {
      const { mesh } = holder.current();
      const source = {
        mesh,
        bundle: authority.bundle(),
        jwtBundle: jwt.bundle(),
        crls: crl.published(),
        outgoing: withNodes(outgoingIssuers(authority.state(), clock.now())),
        settings: viewSettings,
      };
      return makeView(namesInEntries(node, mesh.aliases), source, 0);
    },
    onChange: (listener) => {
      const all = [holder, authority, crl, jwt, registry].map(({ onChange }) => onChange(listener));
      return () => all.forEach((unsubscribe) => unsubscribe());
    },
  };
}

/**
 * Says of each CA that is on its way out how many nodes there were when that began: a number that followed every node
 * that comes and goes would be news to all of them.
 */
function createFleetCount(
  count: () => number,
): (issuers: readonly Omit<OutgoingIssuer, 'nodes'>[]) => readonly OutgoingIssuer[] {
  let known = new Map<string, number>();
  return (issuers) => {
    if (issuers.length !== known.size || issuers.some(({ keyId }) => !known.has(keyId))) {
      const nodes = count();
      known = new Map(issuers.map(({ keyId }) => [keyId, known.get(keyId) ?? nodes]));
    }
    return issuers.map((issuer) => ({ ...issuer, nodes: known.get(issuer.keyId) ?? 0 }));
  };
}

/** The root that the CA which signs now leads to. */
function rootOf(authority: KeptAuthority): Uint8Array {
  const [root] = authority.current().bundle.x509Authorities;
  if (root === undefined) throw new MeshError('authority_invalid', 'the CA has no root');
  return root;
}

function readMachineCas(file: string | null): readonly Uint8Array[] {
  if (file === null) return [];
  try {
    return decodePem(readListFile(file, maxCaFileBytes), 'CERTIFICATE', { maxBytes: maxCaFileBytes });
  } catch (cause) {
    if (!(cause instanceof MeshError) || cause.code !== 'der_invalid') throw cause;
    throw new MeshError('config_invalid', 'nodeCaFile holds no certificates in PEM', {
      fix: 'put the CAs of the machine certificates there, one after the other',
      cause,
    });
  }
}

function formatHost(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

const maxCaFileBytes = 262_144;
