import type { Clock } from '../clock.ts';
import { MeshError, publicError } from '../errors.ts';
import type { GenerateKeyPair } from '../identity/keeper.ts';
import { aborted, createNotice } from '../identity/notice.ts';
import { applyDelta, type NodeView } from '../identity/view.ts';
import { TrustDomain } from '../spiffe/id.ts';
import { checkX509SvidLeaf } from '../spiffe/svid.ts';
import type { NodeCertificate, NodeClient, ViewUpdate } from '../wire/node.ts';
import { makeCertificateRequest } from './certificate-request.ts';
import {
  ask,
  attestNode,
  type ChannelOptions,
  type Evidence,
  type NodeIdentity,
  openNodeChannel,
  watchView,
} from './node-client.ts';
import type { ServerAddress, ServerTrust } from './server-trust.ts';
import { bundleFromWire, deltaFromWire, viewFromWire } from './view-wire.ts';

/** The connection of an agent to its server: it is made again whenever it is cut. */
export type NodeLink = {
  readonly identity: () => NodeIdentity;
  /** For calls; may be cut at any time. */
  readonly client: () => NodeClient;
  readonly view: () => NodeView;
  /** When the server last confirmed the view: now, while it is watched. */
  readonly freshAt: () => Date;
  readonly isWatching: () => boolean;
  /** Calls back when the view or the identity has changed. */
  readonly onChange: (listener: () => void) => () => void;
  readonly close: () => Promise<void>;
};

export type NodeLinkParts = {
  readonly server: ServerAddress;
  readonly trust: ServerTrust;
  /** Null when the node can only go on from what it has. */
  readonly evidence: Evidence | null;
  /** What an earlier process has kept. */
  readonly kept: { readonly identity: NodeIdentity; readonly view: NodeView; readonly freshAt: Date } | null;
  readonly generateKeyPair: GenerateKeyPair;
  /** Whether a view can be used here. @throws MeshError; then the one before it stays */
  readonly accept: (view: NodeView) => void;
  readonly agentVersion: string;
  readonly clock: Clock;
  /** 0 to 1, evenly spread. */
  readonly random: () => number;
  readonly log: (level: 'info' | 'warn' | 'error', message: string, detail: object) => void;
  readonly signal: AbortSignal;
};

/**
 * Opens the link. With what an earlier process has kept it is open at once, whether or not the server is there; else it
 * waits for the server, attests, and takes the first view.
 * @throws MeshError what the server refuses the evidence with; `node_evidence_invalid` when there is none
 */
export async function openNodeLink(parts: NodeLinkParts): Promise<NodeLink> {
  const { clock, kept, log } = parts;
  const notice = createNotice();
  const stop = new AbortController();
  const signal = AbortSignal.any([parts.signal, stop.signal]);
  const { trustDomain } = parts.trust;
  let roots = kept?.view.bundle.x509Authorities ?? parts.trust.roots;
  let isSpent = false;
  // Even one that has expired: what was kept is served, and the node is attested anew when the server is back.
  let identity = kept !== null ? kept.identity : await attest();
  let view: NodeView | undefined = kept?.view;
  let freshAt = kept?.freshAt ?? clock.now();
  let isWatching = false;
  let client = openNodeChannel(channelOf(), identity);
  let reconnect = new AbortController();
  const first = Promise.withResolvers<void>();
  if (view !== undefined) first.resolve();

  function channelOf(): ChannelOptions {
    return { server: parts.server, roots, trustDomain };
  }

  async function attest(): Promise<NodeIdentity> {
    const { evidence } = parts;
    if (evidence === null) {
      throw new MeshError(
        'node_evidence_invalid',
        'this node has no certificate that counts and nothing to show for one',
        {
          fix: 'give it a join token, or a machine certificate',
        },
      );
    }
    for (let attempt = 0; ; attempt += 1) {
      const key = await parts.generateKeyPair();
      try {
        return take(await attestNode(channelOf(), evidence, key), key.privateKey);
      } catch (error) {
        if (!mayPass(error) || signal.aborted) throw error;
        log('warn', 'the server cannot be reached; trying again', publicError(error));
        await clock.sleep(backOff(attempt, parts.random), signal);
        if (signal.aborted) throw error;
      }
    }
  }

  /** @throws MeshError when it is not what was asked for */
  function take({ certificates, bundle }: NodeCertificate, privateKey: Uint8Array): NodeIdentity {
    const made: NodeIdentity = { certificates: certificates.map((der) => new Uint8Array(der)), privateKey };
    checkX509SvidLeaf(made.certificates[0] ?? new Uint8Array(0));
    if (bundle !== undefined) roots = bundleFromWire(bundle, trustDomain).x509Authorities;
    return made;
  }

  function update({ kind }: ViewUpdate): void {
    const next =
      kind?.$case === 'full'
        ? viewFromWire(kind.full)
        : kind?.$case === 'delta' && view !== undefined
          ? applyDelta(view, deltaFromWire(kind.delta, trustDomain))
          : undefined;
    if (next === undefined) throw new MeshError('view_gap', 'the server sent no full view');
    if (!TrustDomain.parse(next.settings.trustDomain).equals(trustDomain)) {
      throw new MeshError('view_invalid', 'the view is of another trust domain');
    }
    parts.accept(next);
    view = next;
    roots = next.bundle.x509Authorities;
    [freshAt, isWatching] = [clock.now(), true];
    first.resolve();
    notice.announce();
  }

  async function watch(): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      reconnect = new AbortController();
      const cut = AbortSignal.any([signal, reconnect.signal]);
      const own = client;
      try {
        for await (const message of watchView(own, parts.agentVersion, cut)) {
          update(message);
          failures = 0;
        }
      } catch (error) {
        failures += 1;
        log(mayPass(error) ? 'warn' : 'error', 'the view is not up to date', publicError(error));
      }
      if (isWatching) freshAt = clock.now();
      isWatching = false;
      if (signal.aborted) break;
      // A new channel each time: with the roots and the certificate of now, and without a back-off of its own.
      client = openNodeChannel(channelOf(), identity);
      void clock.sleep(lingerMs, stop.signal).then(() => own.close());
      if (!reconnect.signal.aborted) await clock.sleep(backOff(failures, parts.random), signal);
    }
  }

  async function renew(): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      const { notBefore, notAfter } = datesOf(identity);
      const half = notBefore + (notAfter - notBefore) * (0.45 + parts.random() / 10);
      const dueMs = failures === 0 ? half - clock.now().getTime() : backOff(failures, parts.random);
      await clock.sleep(Math.max(0, Math.min(dueMs, longestSleepMs)), signal);
      if (signal.aborted) return;
      if (failures === 0 && clock.now().getTime() < half) continue;
      try {
        identity = await renewed();
        failures = 0;
        notice.announce();
        reconnect.abort('renewed');
      } catch (error) {
        failures += 1;
        log('error', 'the certificate of this node could not be renewed', publicError(error));
      }
    }
  }

  async function renewed(): Promise<NodeIdentity> {
    const own = client;
    try {
      if (!isLive(identity, clock.now())) throw new MeshError('node_refused', 'the certificate has expired');
      const key = await parts.generateKeyPair();
      const csr = Buffer.from(makeCertificateRequest(key.publicKey, key.privateKey));
      const answer = await ask<NodeCertificate>((metadata, options, done) =>
        own.renew({ csr }, metadata, options, done),
      );
      return take(answer, key.privateKey);
    } catch (error) {
      const isRefused = error instanceof MeshError && error.code === 'node_refused';
      if (!isRefused || parts.evidence === null || isSpent) throw error;
      // A machine certificate proves the node anew at any time. A join token may be a new one: it is tried once.
      isSpent = parts.evidence.kind === 'join_token';
      return attest();
    }
  }

  const running = Promise.all([watch(), renew()]);
  const close = async (): Promise<void> => {
    stop.abort('closed');
    await running;
    client.close();
  };
  await Promise.race([first.promise, aborted(signal)]);
  const current = view;
  if (current === undefined) {
    await close();
    throw new MeshError('shutting_down', 'the agent is stopped before the server was reached');
  }
  return {
    identity: () => identity,
    client: () => client,
    view: () => view ?? current,
    freshAt: () => (isWatching ? clock.now() : freshAt),
    isWatching: () => isWatching,
    onChange: notice.subscribe,
    close,
  };
}

/** Full jitter: anything from nothing to a bound that doubles, from a quarter of a second to ten. */
export function backOff(failures: number, random: () => number): number {
  return random() * Math.min(longestBackOffMs, firstBackOffMs * 2 ** Math.min(failures, 16));
}

function mayPass(error: unknown): boolean {
  return (
    error instanceof MeshError &&
    (error.kind === 'unavailable' || error.kind === 'exhausted' || error.code === 'view_gap')
  );
}

function isLive(identity: NodeIdentity, now: Date): boolean {
  return now.getTime() < datesOf(identity).notAfter;
}

function datesOf({ certificates }: NodeIdentity): { readonly notBefore: number; readonly notAfter: number } {
  const { notBefore, notAfter } = checkX509SvidLeaf(certificates[0] ?? new Uint8Array(0));
  return { notBefore: notBefore.getTime(), notAfter: notAfter.getTime() };
}

const firstBackOffMs = 250;
const longestBackOffMs = 10_000;
const longestSleepMs = 60_000;
const lingerMs = 20_000;
