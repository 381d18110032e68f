import { type ClientDuplexStream, credentials, type StatusObject } from '@grpc/grpc-js';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createUnixAttestor } from '../../src/attest/unix.ts';
import type { RefusalEvent } from '../../src/audit/event.ts';
import { systemClock } from '../../src/clock.ts';
import { startGrpcListener } from '../../src/grpc/listener.ts';
import type { WatchCredentials, WorkloadCredentials } from '../../src/identity/credentials.ts';
import type { Attest, Attestation } from '../../src/identity/evidence.ts';
import { createNotice } from '../../src/identity/notice.ts';
import type { Acknowledgement, SdsObserver } from '../../src/xds/observer.ts';
import { secretTypeUrl } from '../../src/xds/secret.ts';
import { createSdsService, type SdsLimits, type SdsOptions } from '../../src/xds/service.ts';
import { AggregatedDiscoveryServiceClient } from '../../src/wire/ads.ts';
import type {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  DiscoveryRequest,
  DiscoveryResponse,
} from '../../src/wire/discovery.ts';
import { SecretDiscoveryServiceClient } from '../../src/wire/sds.ts';
import { Secret } from '../../src/wire/tls.ts';

/** Credentials that a test changes by hand: level-triggered, like the real watch. */
export type Source = {
  readonly watch: WatchCredentials;
  /** What every caller has from now on, by what was attested of it. */
  readonly publish: (credentialsFor: (attestation: Attestation) => WorkloadCredentials) => void;
  readonly onChange: (listener: () => void) => () => void;
  readonly watchers: () => number;
};

export function createSource(first: (attestation: Attestation) => WorkloadCredentials): Source {
  let current = first;
  let changed = Promise.withResolvers<void>();
  let watchers = 0;
  const notice = createNotice();
  return {
    watchers: () => watchers,
    onChange: notice.subscribe,
    publish: (credentialsFor) => {
      current = credentialsFor;
      notice.announce();
      changed.resolve();
      changed = Promise.withResolvers<void>();
    },
    watch: async function* (attestation, signal) {
      const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
      watchers += 1;
      try {
        while (!signal.aborted) {
          const wake = changed.promise;
          yield current(attestation);
          await Promise.race([wake, aborted]);
        }
      } finally {
        watchers -= 1;
      }
    },
  };
}

export type RunningSds = {
  readonly path: string;
  readonly refusals: RefusalEvent[];
  readonly acknowledged: Acknowledgement[];
  readonly rejected: string[];
  readonly pushed: { readonly names: readonly string[] }[];
  readonly log: string[];
  readonly streams: () => number;
  readonly connections: () => number;
  readonly open: (name?: string) => TestStream;
  readonly openDelta: () => DeltaStream;
  /** ADS, state of the world. */
  readonly openAds: () => TestStream;
  readonly openDeltaAds: () => DeltaStream;
  readonly client: () => SecretDiscoveryServiceClient;
  readonly closeService: () => void;
  readonly close: (graceMs?: number) => Promise<void>;
};

/** The service on a real Unix socket with the real attestor. */
export async function startSds(
  watch: WatchCredentials,
  options: { limits?: Partial<SdsLimits>; attest?: Attest; observer?: SdsObserver } = {},
): Promise<RunningSds> {
  const directory = await mkdtemp(join(tmpdir(), 'sds-'));
  await chmod(directory, 0o755);
  const [refusals, acknowledged, rejected, pushed, log]: [
    RefusalEvent[],
    Acknowledgement[],
    string[],
    { names: readonly string[] }[],
    string[],
  ] = [[], [], [], [], []];
  let streams = 0;
  const sds: SdsOptions = {
    attest: options.attest ?? createUnixAttestor(),
    watch,
    recordRefusal: (event) => void refusals.push(event),
    clock: systemClock,
    limits: options.limits ?? {},
    log: (_, message) => void log.push(message),
    observer: {
      ...options.observer,
      opened: () => void (streams += 1),
      closed: () => void (streams -= 1),
      pushed: (push) => void pushed.push(push),
      acknowledged: (one) => {
        acknowledged.push(one);
        options.observer?.acknowledged?.(one);
      },
      rejected: ({ message }) => void rejected.push(message),
    },
  };
  const service = createSdsService(sds);
  const listener = await startGrpcListener({
    path: join(directory, 's'),
    mode: 0o666,
    services: [service, service.aggregated],
  });
  const clients: { close: () => void }[] = [];
  const address = [`unix:${listener.path}`, credentials.createInsecure(), onItsOwn] as const;
  const client = (): SecretDiscoveryServiceClient => {
    const made = new SecretDiscoveryServiceClient(...address);
    clients.push(made);
    return made;
  };
  const adsClient = (): AggregatedDiscoveryServiceClient => {
    const made = new AggregatedDiscoveryServiceClient(...address);
    clients.push(made);
    return made;
  };
  return {
    path: listener.path,
    refusals,
    acknowledged,
    rejected,
    pushed,
    log,
    streams: () => streams,
    connections: listener.connections,
    client,
    open: () => followStream(client().streamSecrets()),
    openDelta: () => followDelta(client().deltaSecrets()),
    openAds: () => followStream(adsClient().streamAggregatedResources()),
    openDeltaAds: () => followDelta(adsClient().deltaAggregatedResources()),
    closeService: service.close,
    close: async (graceMs = 0) => {
      for (const one of clients) one.close();
      await listener.close(graceMs);
      await rm(directory, { recursive: true });
    },
  };
}

/** A stream of the client, read one event at a time. */
export type TestStream = {
  readonly call: ClientDuplexStream<DiscoveryRequest, DiscoveryResponse>;
  readonly send: (request: Partial<DiscoveryRequest>) => void;
  /** The next response or the end of the stream; undefined when neither comes in `ms`. */
  readonly next: (ms?: number) => Promise<DiscoveryResponse | StatusObject | undefined>;
  /** The next response, which must come. */
  readonly response: () => Promise<DiscoveryResponse>;
  /** The status the stream ends with, which must come. */
  readonly status: () => Promise<StatusObject>;
  readonly acknowledge: (response: DiscoveryResponse, names: readonly string[]) => void;
  readonly reject: (response: DiscoveryResponse, names: readonly string[], message?: string) => void;
};

export function followStream(call: ClientDuplexStream<DiscoveryRequest, DiscoveryResponse>): TestStream {
  const events = follow(call);
  const send: TestStream['send'] = (request) => void call.write({ ...emptyRequest, ...request });
  return {
    call,
    send,
    ...events,
    acknowledge: ({ nonce, versionInfo }, names) =>
      send({ resourceNames: [...names], responseNonce: nonce, versionInfo }),
    reject: ({ nonce }, names, message = 'bad') =>
      send({
        resourceNames: [...names],
        responseNonce: nonce,
        errorDetail: { code: 13, message, details: [] },
      }),
  };
}

/** An incremental stream of the client, read one event at a time. */
export type DeltaStream = Pick<TestStream, 'status'> & {
  readonly call: ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
  readonly send: (request: Partial<DeltaDiscoveryRequest>) => void;
  readonly next: (ms?: number) => Promise<DeltaDiscoveryResponse | StatusObject | undefined>;
  readonly response: () => Promise<DeltaDiscoveryResponse>;
  readonly acknowledge: (response: DeltaDiscoveryResponse) => void;
  readonly reject: (response: DeltaDiscoveryResponse, message?: string) => void;
};

export function followDelta(
  call: ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>,
): DeltaStream {
  const send: DeltaStream['send'] = (request) => void call.write({ ...emptyDeltaRequest, ...request });
  return {
    call,
    send,
    ...follow(call),
    acknowledge: ({ nonce }) => send({ responseNonce: nonce }),
    reject: ({ nonce }, message = 'bad') =>
      send({ responseNonce: nonce, errorDetail: { code: 13, message, details: [] } }),
  };
}

function follow<Request, Response extends { readonly nonce: string }>(
  call: ClientDuplexStream<Request, Response>,
) {
  const arrived: (Response | StatusObject)[] = [];
  let wake = Promise.withResolvers<void>();
  const add = (one: Response | StatusObject): void => {
    arrived.push(one);
    wake.resolve();
    wake = Promise.withResolvers<void>();
  };
  call
    .on('data', add)
    .on('status', add)
    .on('error', () => undefined);
  const next = async (ms = 5_000): Promise<Response | StatusObject | undefined> => {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, ms);
    if (arrived.length === 0) await Promise.race([wake.promise, late.promise]);
    clearTimeout(timer);
    return arrived.shift();
  };
  return {
    next,
    response: async (): Promise<Response> => {
      const one = await next();
      if (one === undefined || !('nonce' in one)) throw new Error(`no response but ${JSON.stringify(one)}`);
      return one;
    },
    status: async (): Promise<StatusObject> => {
      const one = await next();
      if (one === undefined || !('details' in one)) {
        throw new Error(`the stream goes on: ${JSON.stringify(one)}`);
      }
      return one;
    },
  };
}

/** The secrets of a response, checked to be of the right type. */
export function secretsOf(response: DiscoveryResponse): Secret[] {
  return response.resources.map(({ typeUrl, value }) => {
    if (typeUrl !== secretTypeUrl) throw new Error(`type ${typeUrl}`);
    return Secret.decode(value);
  });
}

export async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 2_000; i++) {
    if (done()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('it never came to be');
}

/** The secrets of an incremental response by name, checked to be of the right type. */
export function deltaSecretsOf({ resources }: DeltaDiscoveryResponse): Map<string, Secret> {
  return new Map(
    resources.map(({ name, resource }) => {
      if (resource?.typeUrl !== secretTypeUrl) throw new Error(`type ${resource?.typeUrl}`);
      return [name, Secret.decode(resource.value)];
    }),
  );
}

const onItsOwn = { 'grpc.use_local_subchannel_pool': 1 };

const emptyDeltaRequest: DeltaDiscoveryRequest = {
  node: undefined,
  typeUrl: secretTypeUrl,
  resourceNamesSubscribe: [],
  resourceNamesUnsubscribe: [],
  initialResourceVersions: {},
  responseNonce: '',
  errorDetail: undefined,
};

export const emptyRequest: DiscoveryRequest = {
  versionInfo: '',
  node: undefined,
  resourceNames: [],
  typeUrl: secretTypeUrl,
  responseNonce: '',
  errorDetail: undefined,
};
