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
import type { Acknowledgement } from '../../src/sds/observer.ts';
import { secretTypeUrl } from '../../src/sds/secret.ts';
import { createSdsService, type SdsLimits, type SdsOptions } from '../../src/sds/service.ts';
import type { DiscoveryRequest, DiscoveryResponse } from '../../src/wire/discovery.ts';
import { SecretDiscoveryServiceClient } from '../../src/wire/sds.ts';
import { Secret } from '../../src/wire/tls.ts';

/** Credentials that a test changes by hand: level-triggered, like the real watch. */
export type Source = {
  readonly watch: WatchCredentials;
  /** What every caller has from now on, by what was attested of it. */
  readonly publish: (credentialsFor: (attestation: Attestation) => WorkloadCredentials) => void;
  readonly watchers: () => number;
};

export function createSource(first: (attestation: Attestation) => WorkloadCredentials): Source {
  let current = first;
  let changed = Promise.withResolvers<void>();
  let watchers = 0;
  return {
    watchers: () => watchers,
    publish: (credentialsFor) => {
      current = credentialsFor;
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
  readonly client: () => SecretDiscoveryServiceClient;
  readonly closeService: () => void;
  readonly close: (graceMs?: number) => Promise<void>;
};

/** The service on a real Unix socket with the real attestor. */
export async function startSds(
  watch: WatchCredentials,
  options: { limits?: Partial<SdsLimits>; attest?: Attest } = {},
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
      opened: () => void (streams += 1),
      closed: () => void (streams -= 1),
      pushed: (push) => void pushed.push(push),
      acknowledged: (one) => void acknowledged.push(one),
      rejected: ({ message }) => void rejected.push(message),
    },
  };
  const service = createSdsService(sds);
  const listener = await startGrpcListener({ path: join(directory, 's'), mode: 0o666, services: [service] });
  const clients: SecretDiscoveryServiceClient[] = [];
  const client = (): SecretDiscoveryServiceClient => {
    const made = new SecretDiscoveryServiceClient(`unix:${listener.path}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    });
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
  const arrived: (DiscoveryResponse | StatusObject)[] = [];
  let wake = Promise.withResolvers<void>();
  const add = (one: DiscoveryResponse | StatusObject): void => {
    arrived.push(one);
    wake.resolve();
    wake = Promise.withResolvers<void>();
  };
  call
    .on('data', add)
    .on('status', add)
    .on('error', () => undefined);
  const next: TestStream['next'] = async (ms = 5_000) => {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, ms);
    if (arrived.length === 0) await Promise.race([wake.promise, late.promise]);
    clearTimeout(timer);
    return arrived.shift();
  };
  const send: TestStream['send'] = (request) => void call.write({ ...emptyRequest, ...request });
  return {
    call,
    send,
    next,
    response: async () => {
      const one = await next();
      if (one === undefined || !('resources' in one))
        throw new Error(`no response but ${JSON.stringify(one)}`);
      return one;
    },
    status: async () => {
      const one = await next();
      if (one === undefined || !('details' in one))
        throw new Error(`the stream goes on: ${JSON.stringify(one)}`);
      return one;
    },
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

/** The secrets of a response, checked to be of the right type. */
export function secretsOf(response: DiscoveryResponse): Secret[] {
  return response.resources.map(({ typeUrl, value }) => {
    if (typeUrl !== secretTypeUrl) throw new Error(`type ${typeUrl}`);
    return Secret.decode(value);
  });
}

export async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (done()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('it never came to be');
}

export const emptyRequest: DiscoveryRequest = {
  versionInfo: '',
  node: undefined,
  resourceNames: [],
  typeUrl: secretTypeUrl,
  responseNonce: '',
  errorDetail: undefined,
};
