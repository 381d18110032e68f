import type { handleClientStreamingCall, ServiceDefinition } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { MeshError, publicError } from '../errors.ts';
import { type ClientMessages, type ClientStreamLimits, createClientStreams } from '../grpc/client-streams.ts';
import type { Breathe } from '../identity/breath.ts';
import type { Attestation, UnixPeer } from '../identity/evidence.ts';
import { createRefusals, type RecordRefusal } from '../identity/refusals.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { AccessLogServiceService } from '../wire/access_log.ts';
import type { AccessLog, Reporter } from './access-log.ts';
import { type Call, readEntry, type Seen } from './entry.ts';
import { type Frame, framesOf } from './frames.ts';
import type { ToldRules } from './told-rules.ts';

/** The parts of the service. */
export type AccessLogServiceOptions = {
  /**
   * What the process at the other end was attested as, a moment ago at most.
   * @throws MeshError `attestation_failed` (also as a rejection)
   */
  readonly attested: (peer: UnixPeer) => Attestation | Promise<Attestation>;
  /** The identities of a caller at this moment, its default one first. */
  readonly entitledIds: (attestation: Attestation) => readonly SpiffeId[];
  readonly trustDomain: TrustDomain;
  readonly accessLog: Pick<AccessLog, 'call' | 'connection' | 'lose'> & {
    readonly tally: Pick<AccessLog['tally'], 'told'>;
  };
  /** Rules that a proxy names, held against the policies in force; when it is left out none is known. */
  readonly toldRules?: ToldRules;
  readonly recordRefusal: RecordRefusal;
  readonly clock: Clock;
  readonly breathe: Breathe;
  /** Told of failures of ours. */
  readonly report: (error: unknown) => void;
  readonly limits?: Partial<ClientStreamLimits>;
};

/** The service, as a gRPC listener takes it. */
export type AccessLogDoor = {
  /** `envoy.service.accesslog.v3.AccessLogService`, with bytes for messages. */
  readonly definition: ServiceDefinition<{ streamAccessLogs: handleClientStreamingCall<Buffer, Buffer> }>;
  readonly implementation: { readonly streamAccessLogs: handleClientStreamingCall<Buffer, Buffer> };
  /** Ends every stream with OK: proxies open others, elsewhere. */
  readonly close: () => void;
};

/**
 * The access log service of proxies. INVARIANT: who tells is known by its process, and tells of itself alone; the identifier
 * that comes with a stream, and the destination in an entry, are not read.
 *
 * Streams fail with `attestation_failed`, `identity_none`, `stream_limit` and `shutting_down`. An entry that cannot be read
 * is a loss, and the stream goes on.
 */
export function createAccessLogService(options: AccessLogServiceOptions): AccessLogDoor {
  const { accessLog, clock, breathe, trustDomain } = options;
  const refusals = createRefusals(options.recordRefusal, clock, undefined, 'access_log');
  const streams = createClientStreams({
    limits: { ...ordinaryLimits, ...options.limits },
    report: options.report,
    crowded: (peer, error) => {
      refuse(peer, [], error);
      // What has come of a message is lost with its stream.
      accessLog.lose(1, 'stream_broken');
    },
  });

  return {
    definition,
    implementation: { streamAccessLogs: (call, callback) => void streams.serve(call, callback, take) },
    close: () => {
      streams.close();
      refusals.close();
    },
  };

  /** Reads a stream to its end: one message after the other, the next one only when there is room for what was read. */
  async function take(messages: ClientMessages, peer: UnixPeer): Promise<void> {
    // INVARIANT: before anything is read: who may not tell takes up no room.
    let known: Known = { ids: await identify(peer), at: clock.now().getTime() };
    let hasTold = false;
    for (;;) {
      const message = await messages.next();
      if (message === 'end') {
        // A stream that is cut ends first; that it was cut comes right after.
        await clock.sleep(cutMs);
        if (!messages.isCut()) return;
      }
      if (typeof message === 'string') {
        if (hasTold) accessLog.lose(1, 'stream_broken');
        return;
      }
      hasTold = true;
      known = await identifyAgain(peer, known, message);
      await read(message, known.ids, peer);
    }
  }

  /** A proxy that has just ended tells its last: whoever it was a moment ago is who wrote it. */
  async function identifyAgain(peer: UnixPeer, known: Known, message: Buffer): Promise<Known> {
    const at = clock.now().getTime();
    try {
      return { ids: entitle(peer, await options.attested(peer)), at };
    } catch (error) {
      const isLate = at < known.at || at - known.at > lastWordMs;
      const isGone = error instanceof MeshError && error.code === 'attestation_failed';
      if (isGone && !isLate) return known;
      accessLog.lose(countFrames(message), 'reporter_unknown');
      throw error;
    }
  }

  /** @throws MeshError `attestation_failed`, `identity_none`, each recorded as a refusal */
  async function identify(peer: UnixPeer): Promise<Identities> {
    let attestation: Attestation;
    try {
      attestation = await options.attested(peer);
    } catch (error) {
      refuse(peer, [], error);
      throw error;
    }
    return entitle(peer, attestation);
  }

  function entitle(peer: UnixPeer, attestation: Attestation): Identities {
    const [own, ...others] = options.entitledIds(attestation);
    if (own !== undefined) return [own, ...others];
    const error = new MeshError('identity_none', 'the proxy has no identity here');
    refuse(
      peer,
      attestation.selectors.map(({ text }) => text),
      error,
    );
    throw error;
  }

  function refuse({ pid, uid, gid }: UnixPeer, selectors: readonly string[], error: unknown): void {
    const { code, message } = publicError(error);
    refusals.add({ code, message, resource: '', selectors, caller: { pid, uid, gid } });
  }

  async function read(message: Buffer, ids: Identities, peer: UnixPeer): Promise<void> {
    const reporterOf = createReporters(ids, peer);
    const frames = framesOf(message);
    for (;;) {
      const seen = readNext(frames);
      if (seen === undefined) return;
      const { ownUri, call, connection } = seen;
      const reporter = reporterOf(ownUri);
      if (seen.judgedMs !== undefined) accessLog.tally.told(reporter.caller, seen.judgedMs);
      if (connection !== undefined) accessLog.connection(connection, reporter);
      if (call !== undefined) accessLog.call(checkRule(call, options.toldRules), reporter);
      const turn = breathe();
      if (turn !== undefined) await turn;
    }
  }

  /** Undefined at the end. */
  function readNext(frames: Generator<Frame, void>): Seen | undefined {
    try {
      // A generator that has thrown is done.
      const next = frames.next();
      return next.done === true ? undefined : readEntry(next.value, trustDomain, clock.now());
    } catch {
      accessLog.lose(1, 'undecodable');
      return { ownUri: undefined };
    }
  }
}

/** INVARIANT: a rule is one of the policies in force, or is left to the name of the leaf. */
function checkRule(call: Call, toldRules: ToldRules = () => undefined): Call {
  if (call.judged === undefined || call.judged.rule === '') return call;
  const pathPattern = toldRules(call.judged.rule, call.judged.path);
  if (pathPattern !== undefined) return { ...call, judged: { ...call.judged, pathPattern } };
  return { ...call, rule: '', judged: { ...call.judged, rule: '' } };
}

type Identities = readonly [SpiffeId, ...SpiffeId[]];
type Known = { readonly ids: Identities; readonly at: number };

/** A process may stand for several: the certificate it has shown says for which. What it may not be it is not. */
function createReporters(
  ids: Identities,
  { pid, uid, gid }: UnixPeer,
): (ownUri: string | undefined) => Reporter {
  const caller = { pid, uid, gid };
  const own: Reporter = { destination: ids[0].text, caller };
  const all = new Map(ids.map(({ text }) => [text, { destination: text, caller }]));
  return (ownUri) => (ownUri === undefined ? own : (all.get(ownUri) ?? own));
}

function countFrames(message: Buffer): number {
  const frames = framesOf(message);
  let count = 0;
  try {
    while (frames.next().done !== true) count += 1;
  } catch {
    count += 1;
  }
  return count;
}

const cutMs = 50;
const lastWordMs = 30_000;
/** Envoy opens a stream for each logger and each of its threads. */
const ordinaryLimits: ClientStreamLimits = {
  ...{ streamsPerConnection: 256, streams: 8_192 },
  ...{ partialBytesPerUid: 67_108_864, partialBytes: 268_435_456 },
};
const passBytes = (bytes: Buffer): Buffer => bytes;
const definition: AccessLogDoor['definition'] = {
  streamAccessLogs: {
    path: AccessLogServiceService.streamAccessLogs.path,
    requestStream: true,
    responseStream: false,
    requestSerialize: passBytes,
    requestDeserialize: passBytes,
    responseSerialize: passBytes,
    responseDeserialize: passBytes,
  },
};
