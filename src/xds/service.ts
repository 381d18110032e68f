import type { handleBidiStreamingCall, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { anyPeerOf } from '../grpc/connections.ts';
import { guardPipe, guardUnary } from '../grpc/guard.ts';
import type { WatchCredentials } from '../identity/credentials.ts';
import {
  accountOf,
  type Attest,
  type AttestCertified,
  attestEither,
  type Peer,
} from '../identity/evidence.ts';
import { createRefusals, type RecordRefusal } from '../identity/refusals.ts';
import { AggregatedDiscoveryServiceService } from '../wire/ads.ts';
import type { DiscoveryRequest } from '../wire/discovery.ts';
import { ExtensionConfigDiscoveryServiceService } from '../wire/ecds.ts';
import { SecretDiscoveryServiceService } from '../wire/sds.ts';
import { fetchOnce } from './fetch.ts';
import { deltaForm, type Form, type WireRequest, worldForm } from './form.ts';
import { type LogSds, reportIgnored, reportRejections } from './notices.ts';
import type { SdsObserver } from './observer.ts';
import { createPipeDeadlines, openPipe, type Pipe, type PipeLimits, type PipeParts } from './pipe.ts';
import { extensionTypeUrl } from './policy-resource.ts';
import { createSecretSource, type ResourceSource } from './source.ts';
import { createTurn } from './turn.ts';

export type SdsLimits = PipeLimits & {
  /** Streams of one uid, or of one identity that has shown its certificate, over all its connections. */
  readonly streamsPerUid: number;
  readonly streams: number;
  /** How long a fetch waits for the certificate of its caller to be made. */
  readonly offerMs: number;
};

export const defaultSdsLimits: SdsLimits = {
  firstRequestMs: 30_000,
  writeMs: 10_000,
  answerMs: 30_000,
  streamsPerUid: 16_384,
  streams: 65_536,
  offerMs: 10_000,
};

export type SdsOptions = {
  readonly attest: Attest;
  /** For callers that have shown a certificate; without it they are refused. */
  readonly attestCertified?: AttestCertified;
  readonly watch: WatchCredentials;
  /**
   * Calls back, at once, when anything changed that credentials are made of. With it the streams of one process share
   * watches.
   */
  readonly onChange?: (listener: () => void) => () => void;
  readonly recordRefusal: RecordRefusal;
  readonly clock: Clock;
  readonly observer?: SdsObserver;
  readonly log?: LogSds;
  /** The policies of proxies; without it none are served. For callers that a process is known of, and no others. */
  readonly policies?: ResourceSource;
  readonly limits?: Partial<SdsLimits>;
};

/** Envoy's discovery services for secrets and for policies, and the aggregated one, all to be handed to a listener. */
export type SdsService = {
  readonly definition: typeof secretDefinition;
  readonly implementation: UntypedServiceImplementation;
  /** ADS: any number of kinds of resource on one stream, of which secrets are one. */
  readonly aggregated: {
    readonly definition: typeof aggregateDefinition;
    readonly implementation: UntypedServiceImplementation;
  };
  /** The policies that proxies decide by themselves; without any it answers nothing. */
  readonly extensions: {
    readonly definition: typeof extensionDefinition;
    readonly implementation: UntypedServiceImplementation;
  };
  /** Ends every stream of all with OK, and turns new ones away with UNAVAILABLE. */
  readonly close: () => void;
};

/**
 * Serves secrets in every form Envoy asks for them: `StreamSecrets`, `DeltaSecrets`, `FetchSecrets`, and the two streams
 * of ADS. Who calls is told by the connection alone, never by anything the request says. Every stream is a caller of its
 * own: it sees what its process may have.
 *
 * Streams fail with `message_invalid` (another type_url), `resource_names_exceeded`, `attestation_failed`,
 * `identity_banned`, `stream_limit`, `stream_stalled` (no first request, or a response unanswered while a newer one
 * waits), `credentials_pending` (open it again) and `shutting_down`; for a fetch see {@link fetchOnce}.
 */
export function createSdsService(options: SdsOptions): SdsService {
  const { clock, log = () => undefined } = options;
  const limits = { ...defaultSdsLimits, ...options.limits };
  const refusals = createRefusals(options.recordRefusal, clock);
  const observer = reportRejections(options.observer ?? {}, log, clock);
  const parts: PipeParts = {
    ...createTurn(attestEither(options.attest, options.attestCertified)),
    refusals,
    clock,
    observer,
    ignored: reportIgnored(log, clock),
    deadlines: createPipeDeadlines(clock, limits),
  };
  const secrets = createSecretSource(options.watch, options.onChange);
  const pipes = new Set<Pipe>();
  const perAccount = new Map<string, number>();
  const closing = new AbortController();
  let open = 0;

  /** Counts a call among those of its caller. @returns ends that; to be called once */
  const admit = (peer: Peer): (() => void) => {
    const account = accountOf(peer);
    if (closing.signal.aborted) throw new MeshError('shutting_down', 'the service is shutting down');
    const ofAccount = perAccount.get(account) ?? 0;
    if (open >= limits.streams || ofAccount >= limits.streamsPerUid) {
      throw new MeshError('stream_limit', `${account} has ${ofAccount} streams open`);
    }
    open += 1;
    perAccount.set(account, ofAccount + 1);
    return () => {
      open -= 1;
      const left = (perAccount.get(account) ?? 1) - 1;
      if (left > 0) perAccount.set(account, left);
      else perAccount.delete(account);
    };
  };
  const serve = <Wire extends WireRequest, State, Request>(
    form: Form<Wire, State, Request>,
    sources: readonly ResourceSource[],
    isAggregated = false,
  ): handleBidiStreamingCall<Wire, Buffer> => {
    const cargo = { sources, isAggregated };
    return guardPipe<Wire, Buffer>(
      (call, finish) => {
        const peer = anyPeerOf(call);
        const leave = admit(peer);
        const pipe = openPipe(call, peer, form, cargo, parts, (error) => {
          pipes.delete(pipe);
          leave();
          observer.closed?.(peer);
          finish(error);
        });
        pipes.add(pipe);
        observer.opened?.(peer);
        return pipe.leave;
      },
      { report },
    );
  };
  const report = (error: unknown, method: string): void => log('error', 'stream failed', { error, method });
  const serveFetch = (source: ResourceSource) =>
    guardUnary<DiscoveryRequest, Buffer>(
      async (call, signal) => {
        const peer = anyPeerOf(call);
        const over = AbortSignal.any([signal, closing.signal]);
        const { offerMs } = limits;
        const leave = admit(peer);
        try {
          return await fetchOnce(call.request, peer, over, source, { ...parts, offerMs });
        } finally {
          leave();
        }
      },
      { report },
    );
  const { policies = noPolicies } = options;
  // On the aggregated stream a kind without a source is told as one that is not served.
  const all = options.policies === undefined ? [secrets] : [secrets, options.policies];
  return {
    definition: secretDefinition,
    implementation: {
      streamSecrets: serve(worldForm, [secrets]),
      deltaSecrets: serve(deltaForm, [secrets]),
      fetchSecrets: serveFetch(secrets),
    },
    aggregated: {
      definition: aggregateDefinition,
      implementation: {
        streamAggregatedResources: serve(worldForm, all, true),
        deltaAggregatedResources: serve(deltaForm, all, true),
      },
    },
    extensions: {
      definition: extensionDefinition,
      implementation: {
        streamExtensionConfigs: serve(worldForm, [policies]),
        deltaExtensionConfigs: serve(deltaForm, [policies]),
        fetchExtensionConfigs: serveFetch(policies),
      },
    },
    close: () => {
      closing.abort();
      for (const pipe of pipes) pipe.shutDown();
      refusals.close();
    },
  };
}

/** Responses are encoded by whoever writes them. */
const asItIs = { responseSerialize: (bytes: Buffer): Buffer => bytes };
const ofSecrets = SecretDiscoveryServiceService;
const aggregates = AggregatedDiscoveryServiceService;
const ofExtensions = ExtensionConfigDiscoveryServiceService;

const secretDefinition = {
  streamSecrets: { ...ofSecrets.streamSecrets, ...asItIs },
  deltaSecrets: { ...ofSecrets.deltaSecrets, ...asItIs },
  fetchSecrets: { ...ofSecrets.fetchSecrets, ...asItIs },
} as const;

const extensionDefinition = {
  streamExtensionConfigs: { ...ofExtensions.streamExtensionConfigs, ...asItIs },
  deltaExtensionConfigs: { ...ofExtensions.deltaExtensionConfigs, ...asItIs },
  fetchExtensionConfigs: { ...ofExtensions.fetchExtensionConfigs, ...asItIs },
} as const;

/** Nobody is answered. */
const noPolicies: ResourceSource = { typeUrl: extensionTypeUrl, forNode: () => () => () => undefined };

const aggregateDefinition = {
  streamAggregatedResources: { ...aggregates.streamAggregatedResources, ...asItIs },
  deltaAggregatedResources: { ...aggregates.deltaAggregatedResources, ...asItIs },
} as const;
