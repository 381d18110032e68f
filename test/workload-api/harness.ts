import { generateKeyPair, generateKeyPairSync, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  type StatusObject,
} from '@grpc/grpc-js';
import { createUnixAttestor } from '../../src/attest/unix.ts';
import type { AuditEvent, RefusalEvent } from '../../src/audit/event.ts';
import { systemClock } from '../../src/clock.ts';
import { startGrpcListener } from '../../src/grpc/listener.ts';
import { type BanList, indexBans } from '../../src/identity/ban-list.ts';
import { createBundleWatch } from '../../src/identity/bundle-watch.ts';
import { entitlementOf } from '../../src/identity/entitlement.ts';
import type { RegistrationEntry } from '../../src/identity/entry.ts';
import { createIssuer } from '../../src/identity/issuer.ts';
import { createJwtIssuer } from '../../src/identity/jwt-issuer.ts';
import { createJwtValidator } from '../../src/identity/jwt-validator.ts';
import { createKeeper } from '../../src/identity/keeper.ts';
import { createNotice } from '../../src/identity/notice.ts';
import { indexEntries } from '../../src/identity/registry.ts';
import { createWatch } from '../../src/identity/watch.ts';
import type { TrustBundle } from '../../src/spiffe/bundle.ts';
import { writeJwtBundle } from '../../src/spiffe/bundle-document.ts';
import type { JwtBundle } from '../../src/spiffe/jwt-bundle.ts';
import { createWorkloadApi, type WorkloadApiOptions } from '../../src/workload-api/service.ts';
import type { WorkloadCall, X509Delivery } from '../../src/workload-api/observer.ts';
import { SpiffeWorkloadAPIClient } from '../../src/wire/workload.ts';
import { makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import type { Scope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

/** The door on a real socket, with the real attestor, watch, keeper, issuers and validator behind it. */
export type RunningWorkloadApi = {
  readonly path: string;
  readonly ca: TestAuthority;
  readonly refusals: RefusalEvent[];
  readonly recorded: AuditEvent[];
  readonly deliveries: X509Delivery[];
  readonly answered: WorkloadCall[];
  readonly failures: unknown[];
  readonly streams: () => number;
  readonly keeperCount: () => number;
  readonly connections: () => number;
  readonly register: (entries: readonly RegistrationEntry[]) => void;
  readonly ban: (...ids: readonly string[]) => void;
  /** Changes the bundles that workloads may have: our own with another sequence, and foreign ones. */
  readonly publish: (sequence: number, ...foreign: readonly TrustBundle[]) => void;
  /** Changes our own JWT bundle. */
  readonly publishJwt: (sequence: number) => void;
  readonly client: () => SpiffeWorkloadAPIClient;
  readonly closeService: () => void;
};

/** What differs from the real parts. */
export type StartOptions = Partial<WorkloadApiOptions> & {
  /** Runs before anything is recorded, and so before anything is signed. */
  readonly beforeRecord?: () => Promise<void>;
};

export async function startWorkloadApi(
  scope: Scope,
  options: StartOptions = {},
): Promise<RunningWorkloadApi> {
  const { beforeRecord = () => Promise.resolve(), ...changes } = options;
  const directory = makeTempDir(scope);
  const clock = systemClock;
  const ca = await makeTestAuthority(new Date());
  const { trustDomain } = ca;
  let registry = indexEntries([]);
  let bans: BanList = indexBans([]);
  let bundles = new Map([[trustDomain.name, ca.authority.bundle]]);
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const publicKey = new Uint8Array(key.publicKey.export({ format: 'der', type: 'spki' }));
  let jwtBundle: JwtBundle = { trustDomain, authorities: [{ keyId: 'k1', publicKey }], sequence: 1 };
  const jwtBundles = () => new Map([[trustDomain.name, jwtBundle]]);
  const changed = createNotice();
  const recorded: AuditEvent[] = [];
  const record = async (events: readonly AuditEvent[]): Promise<readonly number[]> => {
    await beforeRecord();
    recorded.push(...events);
    return events.map((_, index) => index);
  };
  const isCurrent = (one: RegistrationEntry): boolean => registry.entry(one.id)?.revision === one.revision;
  const keeper = createKeeper({
    issue: createIssuer({
      authority: () => ca.authority,
      mayStillSign: () => true,
      record: async (event) => {
        await record([event]);
        return null;
      },
      clock,
      isCurrent,
      bans: () => bans,
    }),
    generateKeyPair: async () => {
      const pair = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' });
      return {
        publicKey: new Uint8Array(pair.publicKey.export({ type: 'spki', format: 'der' })),
        privateKey: new Uint8Array(pair.privateKey.export({ type: 'pkcs8', format: 'der' })),
      };
    },
    bans: () => bans,
    onChange: changed.subscribe,
    clock,
    random: Math.random,
    onFailure: () => undefined,
  });
  scope.defer(() => keeper.close());
  const watchParts = {
    trustDomain,
    registry: () => registry,
    bans: () => bans,
    bundles: () => bundles,
    jwtBundles,
    keeper,
    clock,
    onChange: changed.subscribe,
  };
  const refusals: RefusalEvent[] = [];
  const [deliveries, answered, failures]: [X509Delivery[], WorkloadCall[], unknown[]] = [[], [], []];
  let streams = 0;
  const service = createWorkloadApi({
    attest: createUnixAttestor(),
    watch: createWatch(watchParts),
    watchBundles: createBundleWatch(watchParts),
    entitled: (attestation) => entitlementOf(registry, bans, attestation, clock.now()),
    mintJwt: createJwtIssuer({
      signer: () => ({ keyId: 'k1', algorithm: 'ES256', privateKey: key.privateKey }),
      mayStillSign: () => true,
      record,
      clock,
      isCurrent,
      bans: () => bans,
      issuer: null,
      ttlSeconds: 300,
      newJwtId: () => randomBytes(16).toString('hex'),
    }),
    validateJwt: createJwtValidator({ bundles: jwtBundles, bans: () => bans, clock }),
    writeJwtBundle,
    recordRefusal: (event) => void refusals.push(event),
    clock,
    observer: {
      opened: () => void (streams += 1),
      closed: () => void (streams -= 1),
      delivering: (delivery) => void deliveries.push(delivery),
      answered: (call) => void answered.push(call),
    },
    report: (error) => void failures.push(error),
    ...changes,
  });
  const listener = await startGrpcListener({ path: join(directory, 's'), mode: 0o666, services: [service] });
  scope.defer(() => listener.close(200));
  return {
    path: listener.path,
    ca,
    refusals,
    recorded,
    deliveries,
    answered,
    failures,
    streams: () => streams,
    keeperCount: () => keeper.kept().length,
    connections: listener.connections,
    register: (entries) => {
      registry = indexEntries(entries);
      changed.announce();
    },
    ban: (...ids) => {
      bans = indexBans(
        ids.map((value) => ({
          kind: 'spiffe-id' as const,
          value,
          reason: 'test',
          until: null,
          createdAt: new Date(),
          actor: { kind: 'system' as const },
          revision: 1,
        })),
      );
      changed.announce();
    },
    publish: (sequence, ...foreign) => {
      const mine = { ...ca.authority.bundle, sequence };
      bundles = new Map([mine, ...foreign].map((one) => [one.trustDomain.name, one]));
      changed.announce();
    },
    publishJwt: (sequence) => {
      jwtBundle = { ...jwtBundle, sequence };
      changed.announce();
    },
    client: () => {
      const client = new SpiffeWorkloadAPIClient(`unix:${listener.path}`, credentials.createInsecure(), {
        'grpc.use_local_subchannel_pool': 1,
        'grpc.default_authority': 'localhost',
      });
      scope.defer(() => client.close());
      return client;
    },
    closeService: service.close,
  };
}

/** The metadata that every call must have. */
export function header(...values: readonly string[]): Metadata {
  const metadata = new Metadata();
  for (const value of values.length === 0 ? ['true'] : values) metadata.add('workload.spiffe.io', value);
  return metadata;
}

/** A stream of the client, read one event at a time. */
export type TestStream<Response> = {
  readonly call: ClientReadableStream<Response>;
  /** The next response, which must come. */
  readonly response: () => Promise<Response>;
  /** Our code and the gRPC status that the stream ends with, which must come. */
  readonly end: () => Promise<[code: string, status: number]>;
  /** Whether something comes within `ms`. */
  readonly quiet: (ms: number) => Promise<boolean>;
};

export function follow<Response>(call: ClientReadableStream<Response>): TestStream<Response> {
  const arrived: ({ response: Response } | { status: StatusObject })[] = [];
  let wake = Promise.withResolvers<void>();
  const add = (one: (typeof arrived)[number]): void => {
    arrived.push(one);
    wake.resolve();
    wake = Promise.withResolvers<void>();
  };
  call
    .on('data', (response: Response) => add({ response }))
    .on('status', (status: StatusObject) => add({ status }))
    .on('error', () => undefined);
  const next = async (ms = 5_000) => {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, ms);
    if (arrived.length === 0) await Promise.race([wake.promise, late.promise]);
    clearTimeout(timer);
    return arrived.shift();
  };
  return {
    call,
    response: async () => {
      const one = await next();
      if (one === undefined || !('response' in one))
        throw new Error(`no response but ${JSON.stringify(one)}`);
      return one.response;
    },
    end: async () => {
      const one = await next();
      if (one === undefined || !('status' in one)) throw new Error('the stream goes on');
      return [String(one.status.metadata.get('countersign-code')[0]), one.status.code];
    },
    quiet: async (ms) => (await next(ms)) === undefined,
  };
}

/** The answer of a unary call. */
export function unary<Response>(
  start: (callback: (error: ServiceError | null, response: Response) => void) => unknown,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    start((error, response) => (error === null ? resolve(response) : reject(error)));
  });
}

/** Our code, the gRPC status and the message that a unary call is refused with. */
export async function refusal(
  call: Promise<unknown>,
): Promise<[code: string, status: number, details: string]> {
  try {
    await call;
  } catch (error) {
    const { code, metadata, details } = error as ServiceError;
    return [String(metadata.get('countersign-code')[0]), code, details];
  }
  throw new Error('it was answered');
}

export async function until(done: () => boolean, withinMs = 20_000): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!done()) {
    if (Date.now() > deadline) throw new Error('it never came to be');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
