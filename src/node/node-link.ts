import type { Clock } from '../clock.ts';
import { MeshError, publicError } from '../errors.ts';
import type { GenerateKeyPair } from '../identity/keeper.ts';
import { aborted, createNotice } from '../identity/notice.ts';
import { applyDelta, type NodeView } from '../identity/view.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import { TrustDomain } from '../spiffe/id.ts';
import { checkX509SvidLeaf } from '../spiffe/svid.ts';
import type { NodeCertificate, NodeClient, ViewUpdate } from '../wire/node.ts';
import { createBelievedBundle } from './believed-bundle.ts';
import { makeCertificateRequest } from './certificate-request.ts';
import {
  ask,
  attestNode,
  type ChannelOptions,
  defaultLinkTimes,
  type Evidence,
  hasFailed,
  isConnected,
  type LinkTimes,
  type NodeIdentity,
  openNodeChannel,
  watchView,
} from './node-client.ts';
import { backOff, keepIdentity, mayPass, type ShownKeys, type Trouble, troubleOf } from './node-identity.ts';
import type { ServerAddress, ServerTrust } from './server-trust.ts';
import { bundleFromWire, deltaFromWire, viewFromWire } from './view-wire.ts';

/** The connection of an agent to its server: it is made again whenever it is cut. */
export type NodeLink = {
  readonly identity: () => NodeIdentity;
  /** For calls; may be cut at any time. */
  readonly client: () => NodeClient;
  readonly view: () => NodeView;
  /** What the server is verified with from the next connection on: that of the view, or a newer one. */
  readonly bundle: () => TrustBundle;
  /** When the server last confirmed the view: now, while it is watched. */
  readonly freshAt: () => Date;
  readonly isWatching: () => boolean;
  /** Since when it is watched, or is not. */
  readonly since: () => Date;
  /** What the link lacks to be well, such as a new join token; null when it lacks nothing. */
  readonly trouble: () => Trouble | null;
  /** Calls back when the view or the identity has changed. */
  readonly onChange: (listener: () => void) => () => void;
  readonly close: () => Promise<void>;
};

export type NodeLinkParts = {
  readonly server: ServerAddress;
  /** Whom to believe at the first start, worked out when the server answers; it is asked again after what may pass. */
  readonly learnTrust: (signal: AbortSignal) => ServerTrust | Promise<ServerTrust>;
  /** What the machine can show now; null when it can only go on from what it has. Asked anew at each attempt. */
  readonly evidence: () => Evidence | null | Promise<Evidence | null>;
  /** What an earlier process has kept. */
  readonly kept: { readonly identity: NodeIdentity; readonly view: NodeView; readonly freshAt: Date } | null;
  readonly generateKeyPair: GenerateKeyPair;
  readonly shownKeys?: ShownKeys | undefined;
  /** Whether a view can be used here. @throws MeshError; then the one before it stays */
  readonly accept: (view: NodeView) => void;
  readonly agentVersion: string;
  readonly clock: Clock;
  /** 0 to 1, evenly spread. */
  readonly random: () => number;
  readonly log: (level: 'info' | 'warn' | 'error', message: string, detail: Trouble) => void;
  readonly signal: AbortSignal;
  /** Default: {@link defaultLinkTimes}. */
  readonly times?: Partial<LinkTimes>;
};

/**
 * Opens the link. With what an earlier process has kept it is open at once, whether or not the server is there; else it
 * waits for the server, attests, and takes the first view. What can pass is tried again until the signal ends it.
 * @throws MeshError what the server refuses the evidence with; `node_evidence_invalid` when there is none;
 *   `server_untrusted`
 */
export async function openNodeLink(parts: NodeLinkParts): Promise<NodeLink> {
  const { clock, kept } = parts;
  const times = { ...defaultLinkTimes, ...parts.times };
  const notice = createNotice();
  const stop = new AbortController();
  const signal = AbortSignal.any([parts.signal, stop.signal]);
  const complain = createComplaints(parts);
  const trust = kept === null ? await learn() : trustOf(kept.view);
  const { trustDomain } = trust;
  const believed = createBelievedBundle(kept?.view.bundle ?? null);
  let trouble: Trouble | null = null;
  let line: Line | undefined;
  const identities = await keepIdentity({
    ...parts,
    kept: kept?.identity ?? null,
    attest: async (evidence, key) =>
      take(await attestNode(channelOf(), evidence, key, signal), key.privateKey),
    renew: async (_, key) => {
      const csr = Buffer.from(makeCertificateRequest(key.publicKey, key.privateKey));
      const own = currentLine().client;
      const answer = await ask<NodeCertificate>(
        (metadata, options, done) => own.renew({ csr }, metadata, options, done),
        signal,
      );
      return take(answer, key.privateKey);
    },
    complain: (error) => complain('the certificate of this node is not up to date', error),
    signal,
  });
  let view: NodeView | undefined = kept?.view;
  let freshAt = kept?.freshAt ?? clock.now();
  let isWatching = false;
  let highest = view?.mesh.revision ?? 0;
  let setBack: Trouble | null = null;
  let since = freshAt;
  let reconnect = new AbortController();
  const first = Promise.withResolvers<void>();
  if (view !== undefined) first.resolve();

  async function learn(): Promise<ServerTrust> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await parts.learnTrust(signal);
      } catch (error) {
        if (signal.aborted) throw stopped();
        if (!mayPass(error)) throw error;
        complain('the server cannot be reached yet', error);
        await clock.sleep(backOff(attempt, parts.random), signal);
        if (signal.aborted) throw stopped();
      }
    }
  }

  function currentLine(): Line {
    const identity = identities.current();
    return (line ??= { identity, client: openNodeChannel(channelOf(), identity) });
  }

  /** The next one has the roots and the certificate of now; calls on this one may end, if it ever came up. */
  function leaveLine(): void {
    const left = line;
    line = undefined;
    if (left === undefined) return;
    const lingers = isConnected(left.client) ? lingerMs : 0;
    void clock.sleep(lingers, stop.signal).then(() => left.client.close());
  }

  function channelOf(): ChannelOptions {
    return { server: parts.server, roots: believed.current()?.x509Authorities ?? trust.roots, trustDomain };
  }

  /** @throws MeshError when it is not what was asked for */
  function take({ certificates, bundle }: NodeCertificate, privateKey: Uint8Array): NodeIdentity {
    const made: NodeIdentity = { certificates: certificates.map((der) => new Uint8Array(der)), privateKey };
    checkX509SvidLeaf(made.certificates[0] ?? new Uint8Array(0));
    if (bundle !== undefined) believed.withCertificate(bundleFromWire(bundle, trustDomain));
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
    noteSetBack(next);
    if (!isWatching) since = clock.now();
    view = next;
    believed.withView(next.bundle, kind?.$case === 'full');
    identities.leave(next.outgoing);
    [freshAt, isWatching, trouble] = [clock.now(), true, null];
    first.resolve();
    notice.announce();
  }

  /** The server's word counts, and whoever runs it may have put an old state back; but it is said, for it takes bans away. */
  function noteSetBack({ mesh: { revision } }: NodeView): void {
    if (revision >= highest) [highest, setBack] = [revision, null];
    if (revision >= (view?.mesh.revision ?? 0)) return;
    setBack = troubleOf(
      new MeshError(
        'view_set_back',
        `the server has gone back from revision ${highest} of the mesh to ${revision}: what was changed between them, policies and bans too, is undone`,
        { fix: 'apply it again if the server was restored from a backup; find out why if it was not' },
      ),
    );
    parts.log('error', 'the server has gone back', setBack);
  }

  async function watch(): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      reconnect = new AbortController();
      const cut = AbortSignal.any([signal, reconnect.signal]);
      // Somebody else's call may have found nobody there a while ago: it is time to look again.
      if (line !== undefined && hasFailed(line.client)) leaveLine();
      const { client, identity } = currentLine();
      let isRefused = false;
      try {
        const policyNumber = view?.mesh.policyRevision?.number ?? 0;
        const about = { agentVersion: parts.agentVersion, policyNumber };
        for await (const message of watchView(client, about, cut, times)) {
          update(message);
          identities.taken(identity);
          failures = 0;
        }
      } catch (error) {
        failures += 1;
        isRefused = error instanceof MeshError && error.code === 'node_refused';
        if (isRefused) identities.refused(identity);
        trouble = troubleOf(error);
        complain('the view is not up to date', error);
      }
      if (isWatching) [freshAt, since] = [clock.now(), clock.now()];
      isWatching = false;
      if (signal.aborted) break;
      leaveLine();
      if (reconnect.signal.aborted) continue;
      const waitMs = isRefused ? parts.random() * refusedMs : backOff(failures, parts.random);
      // Another certificate ends the wait.
      await clock.sleep(waitMs, AbortSignal.any([signal, reconnect.signal]));
    }
  }

  identities.onChange(() => {
    leaveLine();
    notice.announce();
    reconnect.abort('another certificate');
  });
  const running = Promise.all([watch(), identities.run()]);
  const close = async (): Promise<void> => {
    stop.abort('closed');
    await running;
    line?.client.close();
  };
  await Promise.race([first.promise, aborted(signal)]);
  const opened = view;
  if (opened === undefined) {
    await close();
    throw stopped();
  }
  return {
    identity: identities.current,
    client: () => currentLine().client,
    view: () => view ?? opened,
    bundle: () => believed.current() ?? opened.bundle,
    freshAt: () => (isWatching ? clock.now() : freshAt),
    isWatching: () => isWatching,
    since: () => since,
    trouble: () => identities.trouble() ?? trouble ?? setBack,
    onChange: notice.subscribe,
    close,
  };
}

function trustOf({ bundle }: NodeView): ServerTrust {
  return { roots: bundle.x509Authorities, trustDomain: bundle.trustDomain };
}

/** A channel, and whose it is. */
type Line = { readonly client: NodeClient; readonly identity: NodeIdentity };

/** An outage is one line in a minute, not one at each attempt; what is new is said at once. */
function createComplaints({
  clock,
  log,
}: Pick<NodeLinkParts, 'clock' | 'log'>): (message: string, error: unknown) => void {
  const said = new Map<string, { readonly code: string; readonly atMs: number }>();
  return (message, error) => {
    const { code } = publicError(error);
    const atMs = clock.now().getTime();
    const last = said.get(message);
    if (last?.code === code && Math.abs(atMs - last.atMs) < complainEveryMs) return;
    said.set(message, { code, atMs });
    log(mayPass(error) ? 'warn' : 'error', message, troubleOf(error));
  };
}

function stopped(): MeshError {
  return new MeshError('shutting_down', 'the agent is stopped before the server was reached');
}

const lingerMs = 20_000;
const complainEveryMs = 60_000;
// Whoever was refused comes back seldom: only a ban that is lifted mends that without another certificate.
const refusedMs = 30_000;
