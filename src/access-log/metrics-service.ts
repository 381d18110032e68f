import type {
  handleClientStreamingCall,
  sendUnaryData,
  ServerReadableStream,
  ServiceDefinition,
} from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { peerOf } from '../grpc/connections.ts';
import { createPartialMessages } from '../grpc/partial-messages.ts';
import { grpcFailure } from '../grpc/status.ts';
import type { Breathe } from '../identity/breath.ts';
import type { Attestation, UnixPeer } from '../identity/evidence.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import { MetricsServiceService } from '../wire/metrics.ts';
import { readPolicyCounters } from './proxy-counters.ts';
import type { ProxyTally } from './proxy-tally.ts';

/** The parts of the service. */
export type MetricsServiceOptions = {
  /**
   * What the process at the other end was attested as, a moment ago at most.
   * @throws MeshError `attestation_failed` (also as a rejection)
   */
  readonly attested: (peer: UnixPeer) => Attestation | Promise<Attestation>;
  /** The identities of a caller at this moment, its default one first. */
  readonly entitledIds: (attestation: Attestation) => readonly SpiffeId[];
  readonly tally: Pick<ProxyTally, 'counted' | 'ended'>;
  readonly clock: Clock;
  readonly breathe: Breathe;
  /** Told of failures of ours. */
  readonly report: (error: unknown) => void;
  readonly limits?: Partial<MetricsLimits>;
};

export type MetricsLimits = {
  /** Envoy opens one for each sink. */
  readonly streamsPerConnection: number;
  readonly streams: number;
  /** Of messages that have not come to their end: of those of one uid, and of all. */
  readonly partialBytesPerUid: number;
  readonly partialBytes: number;
};

/** The service, as a gRPC listener takes it. */
export type MetricsDoor = {
  /** `envoy.service.metrics.v3.MetricsService`, with bytes for messages. */
  readonly definition: ServiceDefinition<{ streamMetrics: handleClientStreamingCall<Buffer, Buffer> }>;
  readonly implementation: { readonly streamMetrics: handleClientStreamingCall<Buffer, Buffer> };
  /** Ends every stream with OK: proxies open others, elsewhere. */
  readonly close: () => void;
};

/**
 * Takes the counters of proxies, of which those of policies are read and all others are left alone. Who counts is known by
 * its process, and counts for itself alone. Of several messages in half a second the first is read: counters are told whole
 * each time.
 *
 * Streams fail with `attestation_failed`, `identity_none`, `stream_limit`, `message_invalid` and `shutting_down`.
 */
export function createMetricsService(options: MetricsServiceOptions): MetricsDoor {
  const { tally, clock, breathe } = options;
  const { streamsPerConnection = 4, streams: maxStreams = 4_096 } = options.limits ?? {};
  const { partialBytesPerUid = 67_108_864, partialBytes = 268_435_456 } = options.limits ?? {};
  const partial = createPartialMessages({ bytesPerUid: partialBytesPerUid, bytes: partialBytes });
  const perConnection = new Map<string, number>();
  const open = new Set<Messages>();
  let isClosed = false;

  return {
    definition,
    implementation: { streamMetrics: (call, callback) => void serve(call, callback) },
    close: () => {
      isClosed = true;
      for (const messages of open) messages.stop();
    },
  };

  async function serve(
    call: ServerReadableStream<Buffer, Buffer>,
    callback: sendUnaryData<Buffer>,
  ): Promise<void> {
    let leave: (() => void) | undefined;
    let cut: (() => void) | undefined;
    const messages = openMessages(call);
    try {
      const peer = peerOf(call);
      leave = admit(messages, peer);
      const watched = partial.watch(call, peer.uid, () => {
        ({ cut } = watched);
        messages.refuse(new MeshError('stream_limit', 'too many messages are on their way and not whole'));
      });
      await take(messages, peer);
      callback(null, Buffer.alloc(0));
    } catch (error) {
      if (!(error instanceof MeshError) || error.kind === 'internal') options.report(error);
      callback(grpcFailure(error));
    } finally {
      leave?.();
      cut?.();
    }
  }

  function admit(messages: Messages, { connectionId }: UnixPeer): () => void {
    if (isClosed) throw new MeshError('shutting_down', 'the service is shutting down');
    const ofConnection = perConnection.get(connectionId) ?? 0;
    if (open.size >= maxStreams || ofConnection >= streamsPerConnection) {
      throw new MeshError('stream_limit', `the connection has ${ofConnection} streams of counters open`);
    }
    open.add(messages);
    perConnection.set(connectionId, ofConnection + 1);
    return () => {
      open.delete(messages);
      const left = (perConnection.get(connectionId) ?? 1) - 1;
      if (left > 0) perConnection.set(connectionId, left);
      else perConnection.delete(connectionId);
    };
  }

  async function take(messages: Messages, peer: UnixPeer): Promise<void> {
    const { pid, uid, gid } = peer;
    const caller = { pid, uid, gid };
    // INVARIANT: before anything is read: who may not tell takes up no room.
    let known = { id: await identify(peer), at: clock.now().getTime() };
    let readMs = Number.NEGATIVE_INFINITY;
    let hasCounted = false;
    try {
      for (;;) {
        const message = await messages.next();
        if (message === undefined) return;
        const at = clock.now().getTime();
        // The clock may have been put back.
        if (at >= readMs && at - readMs < betweenMs) continue;
        readMs = at;
        const counters = read(message);
        if (counters === undefined) continue;
        known = { id: await identifyAgain(peer, known, at), at };
        tally.counted({ ...counters, caller, destination: known.id.text });
        hasCounted = true;
        await breathe();
      }
    } finally {
      if (hasCounted) tally.ended(caller);
    }
  }

  /** A proxy that has just ended tells its last: whoever it was a moment ago is who counted. */
  async function identifyAgain(peer: UnixPeer, known: Known, at: number): Promise<SpiffeId> {
    try {
      return await identify(peer);
    } catch (error) {
      const isGone = error instanceof MeshError && error.code === 'attestation_failed';
      if (isGone && at >= known.at && at - known.at <= lastWordMs) return known.id;
      throw error;
    }
  }

  /** @throws MeshError `attestation_failed`, `identity_none` */
  async function identify(peer: UnixPeer): Promise<SpiffeId> {
    const [own] = options.entitledIds(await options.attested(peer));
    if (own === undefined) throw new MeshError('identity_none', 'the proxy has no identity here');
    return own;
  }
}

type Known = { readonly id: SpiffeId; readonly at: number };

function read(message: Buffer): ReturnType<typeof readPolicyCounters> {
  try {
    return readPolicyCounters(message);
  } catch (cause) {
    throw new MeshError('message_invalid', 'the message holds no metrics', { cause });
  }
}

type Messages = {
  /** Undefined at the end, however it came. */
  readonly next: () => Promise<Buffer | undefined>;
  /** Ends them for whoever waits. */
  readonly stop: () => void;
  /** Ends them with an error, which whoever waits is given. */
  readonly refuse: (error: Error) => void;
};

/** The messages of a stream, of which the next is taken off the connection when it is asked for. */
function openMessages(call: ServerReadableStream<Buffer, Buffer>): Messages {
  // Sixteen messages wait in a stream otherwise.
  const state: unknown = Reflect.get(call, '_readableState');
  if (typeof state === 'object' && state !== null) Reflect.set(state, 'highWaterMark', 1);
  let isOver = false;
  let refused: Error | undefined;
  let wake = (): void => undefined;
  for (const event of ['readable', 'end', 'cancelled', 'error', 'close']) {
    call.on(event, () => {
      if (event !== 'readable') isOver = true;
      wake();
    });
  }
  return {
    stop: () => {
      isOver = true;
      wake();
    },
    refuse: (error) => {
      refused = error;
      wake();
    },
    next: async () => {
      for (;;) {
        if (refused !== undefined) throw refused;
        const message: unknown = call.read();
        if (Buffer.isBuffer(message)) return message;
        if (isOver) return undefined;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}

const lastWordMs = 30_000;
const betweenMs = 500;
const passBytes = (bytes: Buffer): Buffer => bytes;
const definition: MetricsDoor['definition'] = {
  streamMetrics: {
    path: MetricsServiceService.streamMetrics.path,
    requestStream: true,
    responseStream: false,
    requestSerialize: passBytes,
    requestDeserialize: passBytes,
    responseSerialize: passBytes,
    responseDeserialize: passBytes,
  },
};
