import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { MeshError, quote } from '../errors.ts';
import { peerOf } from '../grpc/connections.ts';
import { guardStream } from '../grpc/guard.ts';
import type { WatchCredentials } from '../identity/credentials.ts';
import type { Attest, Attestation, UnixPeer } from '../identity/evidence.ts';
import type { DiscoveryRequest } from '../wire/discovery.ts';
import { SecretDiscoveryServiceService } from '../wire/sds.ts';
import type { SdsObserver } from './observer.ts';
import { openPipe, type Pipe, type PipeLimits, type PipeParts } from './pipe.ts';
import { createRefusals, type RecordRefusal } from '../identity/refusals.ts';

export type SdsLimits = PipeLimits & {
  /** Streams of one uid over all its connections. */
  readonly streamsPerUid: number;
  readonly streams: number;
};

export const defaultSdsLimits: SdsLimits = {
  firstRequestMs: 30_000,
  writeMs: 10_000,
  answerMs: 30_000,
  streamsPerUid: 16_384,
  streams: 65_536,
};

/** Told what an operator should see. */
export type LogSds = (
  level: 'warn' | 'error',
  message: string,
  detail: Readonly<Record<string, unknown>>,
) => void;

export type SdsOptions = {
  readonly attest: Attest;
  readonly watch: WatchCredentials;
  readonly recordRefusal: RecordRefusal;
  readonly clock: Clock;
  readonly observer?: SdsObserver;
  readonly log?: LogSds;
  readonly limits?: Partial<SdsLimits>;
};

/** Envoy's secret discovery service, to be handed to a listener. */
export type SdsService = {
  readonly definition: typeof definition;
  readonly implementation: UntypedServiceImplementation;
  /** Ends every stream with OK, and turns new ones away with UNAVAILABLE. */
  readonly close: () => void;
};

/**
 * Serves `StreamSecrets`; `DeltaSecrets` and `FetchSecrets` answer UNIMPLEMENTED. Who calls is told by the connection
 * alone, never by anything the request says. Every stream is a caller of its own: it sees what its process may have.
 *
 * Streams fail with `message_invalid` (another type_url), `resource_names_exceeded`, `attestation_failed`,
 * `identity_banned`, `stream_limit`, `stream_stalled` (no first request, or a response unanswered while a newer one
 * waits) and `shutting_down`.
 */
export function createSdsService(options: SdsOptions): SdsService {
  const { clock, log = () => undefined } = options;
  const limits = { ...defaultSdsLimits, ...options.limits };
  const refusals = createRefusals(options.recordRefusal, clock);
  const observer = reportRejections(options.observer ?? {}, log, clock);
  const parts: PipeParts = {
    attest: oncePerTurn(options.attest),
    watch: options.watch,
    refusals,
    clock,
    observer,
    limits,
  };
  const pipes = new Set<Pipe>();
  const perUid = new Map<number, number>();
  let closed = false;

  const streamSecrets = guardStream<DiscoveryRequest, Buffer>(
    async (call, signal) => {
      const peer = peerOf(call);
      if (closed) throw new MeshError('shutting_down', 'the service is shutting down');
      const ofUid = perUid.get(peer.uid) ?? 0;
      if (pipes.size >= limits.streams || ofUid >= limits.streamsPerUid) {
        throw new MeshError('stream_limit', `uid ${peer.uid} has ${ofUid} streams open`);
      }
      const pipe = openPipe(call, peer, signal, parts);
      pipes.add(pipe);
      perUid.set(peer.uid, ofUid + 1);
      observer.opened?.(peer);
      try {
        await pipe.finished;
      } finally {
        pipes.delete(pipe);
        const left = (perUid.get(peer.uid) ?? 1) - 1;
        if (left > 0) perUid.set(peer.uid, left);
        else perUid.delete(peer.uid);
        observer.closed?.(peer);
      }
    },
    { report: (error, method) => log('error', 'stream failed', { error, method }) },
  );
  return {
    definition,
    // What is not here grpc-js answers with UNIMPLEMENTED.
    implementation: { streamSecrets },
    close: () => {
      closed = true;
      for (const pipe of pipes) pipe.shutDown();
      refusals.close();
    },
  };
}

/**
 * The streams of one connection have one process at their end: what was seen of it in this turn of the event loop is as
 * good as what would be seen again.
 */
function oncePerTurn(attest: Attest): Attest {
  const seen = new Map<UnixPeer, Promise<Attestation>>();
  return (peer) => {
    const known = seen.get(peer);
    if (known !== undefined) return known;
    if (seen.size === 0) setImmediate(() => seen.clear());
    const made = attest(peer);
    seen.set(peer, made);
    return made;
  };
}

/** Adds a log line for refused secrets, one a minute for each uid: a proxy may refuse as fast as it likes. */
function reportRejections(observer: SdsObserver, log: LogSds, clock: Clock): SdsObserver {
  const lastLogged = new Map<number, number>();
  return {
    ...observer,
    rejected: (rejection) => {
      observer.rejected?.(rejection);
      const { peer, nodeId, names, message } = rejection;
      const now = clock.now().getTime();
      const last = lastLogged.get(peer.uid);
      if (last !== undefined && Math.abs(now - last) < rejectionLogMs) return;
      if (lastLogged.size >= maxRejectingUids) lastLogged.clear();
      lastLogged.set(peer.uid, now);
      log('warn', 'a proxy refuses its secrets and keeps the last good ones until they expire', {
        pid: peer.pid,
        uid: peer.uid,
        node: quote(nodeId),
        names: names.slice(0, 8).map(quote),
        message: quote(message),
      });
    },
  };
}

const rejectionLogMs = 60_000;
const maxRejectingUids = 1_024;

const definition = {
  ...SecretDiscoveryServiceService,
  streamSecrets: {
    ...SecretDiscoveryServiceService.streamSecrets,
    responseSerialize: (bytes: Buffer): Buffer => bytes,
  },
} as const;
