import type { handleClientStreamingCall, ServiceDefinition } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { type ClientMessages, type ClientStreamLimits, createClientStreams } from '../grpc/client-streams.ts';
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
  readonly limits?: Partial<ClientStreamLimits>;
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
  const limits = { ...ordinaryLimits, ...options.limits };
  const streams = createClientStreams({ limits, report: options.report });

  return {
    definition,
    implementation: { streamMetrics: (call, callback) => void streams.serve(call, callback, take) },
    close: streams.close,
  };

  async function take(messages: ClientMessages, peer: UnixPeer): Promise<void> {
    const { pid, uid, gid } = peer;
    const caller = { pid, uid, gid };
    // INVARIANT: before anything is read: who may not tell takes up no room.
    let known = { id: await identify(peer), at: clock.now().getTime() };
    let readMs = Number.NEGATIVE_INFINITY;
    let hasCounted = false;
    try {
      for (;;) {
        const message = await messages.next();
        if (typeof message === 'string') return;
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

const lastWordMs = 30_000;
const betweenMs = 500;
/** Envoy opens a stream for each sink. */
const ordinaryLimits: ClientStreamLimits = {
  ...{ streamsPerConnection: 4, streams: 4_096 },
  ...{ partialBytesPerUid: 67_108_864, partialBytes: 268_435_456 },
};
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
