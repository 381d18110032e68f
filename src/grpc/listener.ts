import { createServer, type Socket } from 'node:net';
import {
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { MeshError } from '../errors.ts';
import { createRoundRobin } from '../identity/round-robin.ts';
import { createConnections } from './connections.ts';
import { openPeerCredentials, type ReadPeerCredentials } from './peer-credentials.ts';
import { bindSocket } from './socket-path.ts';

/** A service of a listener. */
export type GrpcService = {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
  /** The largest request of this service, when it is less than the listener's; a larger one fails with INTERNAL. */
  readonly requestBytes?: number;
  /** Ends the long-lived streams of the service; without it they hold up a graceful close until its end. */
  readonly close?: () => void;
};

/** What a caller can make us keep or decode. */
export type GrpcLimits = {
  readonly connectionsPerUid: number;
  readonly connections: number;
  readonly streamsPerConnection: number;
  readonly messageBytes: number;
  readonly headerBytes: number;
  /** What one HTTP/2 session may hold, in MiB. */
  readonly sessionMebibytes: number;
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
  /** A connection without any stream is closed after so long; never when left out. */
  readonly idleMs?: number;
};

export const defaultGrpcLimits: GrpcLimits = {
  connectionsPerUid: 1_024,
  connections: 4_096,
  streamsPerConnection: 1_000,
  messageBytes: 1_048_576,
  headerBytes: 16_384,
  sessionMebibytes: 64,
  keepaliveMs: 30_000,
  keepaliveTimeoutMs: 10_000,
};

/** Told of connections that were turned away and of sockets that failed. */
export type LogListener = (message: string, detail: Readonly<Record<string, unknown>>) => void;

export type GrpcListenerOptions = {
  /** Absolute, at most 107 bytes. */
  readonly path: string;
  /**
   * Permission bits of the socket. 0o666 where callers are told apart by attestation, not by who may connect.
   */
  readonly mode: number;
  readonly services: readonly GrpcService[];
  readonly limits?: Partial<GrpcLimits>;
  readonly log?: LogListener;
};

export type GrpcListener = {
  readonly path: string;
  readonly connections: () => number;
  /**
   * Stops accepting and gives the path free at once, ends the services' streams, waits up to `graceMs` for the calls
   * that run, then cuts what is left. A second close waits for the first.
   */
  readonly close: (graceMs: number) => Promise<void>;
};

/**
 * Serves gRPC on a Unix socket on which every connection is named by the kernel: `peerOf(call)` says which process
 * calls. A connection whose process cannot be read is closed before it is served.
 * @throws MeshError `platform_unsupported`, `socket_path_too_long`, `socket_path_unsafe`, `socket_in_use`,
 * `file_missing`, `file_permissions`
 */
export async function startGrpcListener(options: GrpcListenerOptions): Promise<GrpcListener> {
  const limits = { ...defaultGrpcLimits, ...options.limits };
  const log = inMeasure(options.log ?? (() => undefined));
  const readPeer = await openPeerCredentials();
  const grpc = createGrpcServer(limits, options.services);
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  const connections = createConnections({ perUid: limits.connectionsPerUid, total: limits.connections });
  const turnAway = (socket: Socket, error: unknown): void => {
    log('connection turned away', { error: error instanceof Error ? error.message : 'unknown' });
    socket.destroy();
  };
  const letIn = (socket: Socket): void => {
    try {
      if (!socket.destroyed) injector.injectConnection(socket);
    } catch (error) {
      turnAway(socket, error);
    }
  };
  const serve = oneInTurn(letIn, undefined, unixPace);
  const server = createServer((socket) => {
    // Without a handler the reset of any client would end the process.
    socket.on('error', (error) => log('connection failed', { error: error.message }));
    try {
      admit(socket, readPeer, connections.admit);
      serve(socket);
    } catch (error) {
      turnAway(socket, error);
    }
  });
  const bound = await bindSocket(server, options.path, options.mode);
  server.on('error', (error) => log('listener failed', { error: error.message }));

  let closing: Promise<void> | undefined;
  const close = async (graceMs: number): Promise<void> => {
    await bound.unlink();
    server.close();
    for (const service of options.services) service.close?.();
    // Not tryShutdown: it does not wait for injected connections, and waits for ever on an open stream of others.
    injector.drain(graceMs);
    await atMost(graceMs, connections.emptied());
    grpc.forceShutdown();
    connections.destroyAll();
  };
  return {
    path: options.path,
    connections: connections.count,
    close: (graceMs) => (closing ??= close(graceMs)),
  };
}

/** Whoever connects can make a line of log each time: sixty a minute are told, the others counted with the next. */
export function inMeasure(log: LogListener): LogListener {
  let left = linesPerMinute;
  let sinceMs = performance.now();
  let untold = 0;
  return (message, detail) => {
    const nowMs = performance.now();
    if (nowMs - sinceMs >= 60_000) [left, sinceMs] = [linesPerMinute, nowMs];
    if (left === 0) {
      untold += 1;
      return;
    }
    left -= 1;
    log(message, untold === 0 ? detail : { ...detail, untold });
    untold = 0;
  };
}

const linesPerMinute = 60;

function admit(
  socket: Socket,
  readPeer: ReadPeerCredentials,
  take: (socket: Socket, credentials: ReturnType<ReadPeerCredentials>) => unknown,
): void {
  const credentials = readPeer(socket);
  try {
    take(socket, credentials);
  } catch (error) {
    credentials.close();
    throw error;
  }
}

/** How many sockets are let in: in one turn of the event loop, and how many turns in 10 ms. */
export type LettingIn = { readonly perTurn: number; readonly turns: number };

/**
 * Serves one socket in each turn of the event loop, and four in 10 ms, of one owner after the other, or as many as it is
 * told. After an outage thousands of clients are back at once, and each has all its streams to open as soon as it is
 * served: the kernel would hand over the first bytes of all of them in one turn.
 * @param ownerOf asked once, when the socket comes: whoever sends many keeps nobody else waiting for all of them
 */
export function oneInTurn<T extends Socket>(
  work: (one: T) => void,
  ownerOf: (one: T) => string = () => '',
  { perTurn, turns }: LettingIn = { perTurn: 1, turns: 4 },
): (one: T) => void {
  const waiting = createRoundRobin<T>();
  let burst = 0;
  let burstAtMs = 0;
  const next = (): void => {
    const these: T[] = [];
    while (these.length < perTurn) {
      const one = waiting.take();
      if (one === undefined) break;
      // Those that have gone meanwhile take nobody's turn.
      if (!one.destroyed) these.push(one);
    }
    if (waiting.size() > 0) plan();
    for (const one of these) work(one);
  };
  const plan = (): void => {
    const nowMs = performance.now();
    if (nowMs - burstAtMs >= burstMs) [burst, burstAtMs] = [0, nowMs];
    burst += 1;
    if (burst <= turns) setImmediate(next);
    // Late when the event loop is: then those who were let in come first.
    else setTimeout(next, burstMs);
  };
  return (one) => {
    waiting.put(ownerOf(one), one);
    if (waiting.size() === 1) plan();
  };
}

const burstMs = 10;
// No handshake to make, and the first streams of all are answered before more of those who came first.
const unixPace: LettingIn = { perTurn: 3, turns: 7 };

/** A server of grpc-js with every limit set and the services on it; connections are injected. */
export function createGrpcServer(limits: GrpcLimits, services: readonly GrpcService[]): Server {
  const server = new Server({
    'grpc.max_concurrent_streams': limits.streamsPerConnection,
    'grpc.max_receive_message_length': limits.messageBytes,
    'grpc.keepalive_time_ms': limits.keepaliveMs,
    'grpc.keepalive_timeout_ms': limits.keepaliveTimeoutMs,
    ...(limits.idleMs === undefined ? {} : { 'grpc.max_connection_idle_ms': limits.idleMs }),
    'grpc.enable_channelz': 0,
    'grpc-node.max_session_memory': limits.sessionMebibytes,
  });
  limitHeaders(server, limits.headerBytes);
  for (const service of services) server.addService(limitRequests(service), service.implementation);
  return server;
}

/** grpc-js limits messages per server only. The bytes have arrived by now; what is spared is decoding them. */
function limitRequests({ definition, requestBytes }: GrpcService): ServiceDefinition {
  if (requestBytes === undefined) return definition;
  const limit = (name: string, method: MethodDefinition<object, object>): [string, typeof method] => {
    const requestDeserialize = (bytes: Buffer): object => {
      if (bytes.length > requestBytes) {
        throw new MeshError('message_too_large', `the request has more than ${requestBytes} bytes`);
      }
      return method.requestDeserialize(bytes);
    };
    return [name, { ...method, requestDeserialize }];
  };
  return Object.fromEntries(Object.entries(definition).map(([name, method]) => limit(name, method)));
}

/** grpc-js has no option for SETTINGS_MAX_HEADER_LIST_SIZE; test/grpc/listener.test.ts sees that this one holds. */
function limitHeaders(server: Server, headerBytes: number): void {
  const http2Options: unknown = Reflect.get(server, 'commonServerOptions');
  const settings: unknown =
    typeof http2Options === 'object' && http2Options !== null && Reflect.get(http2Options, 'settings');
  if (typeof settings === 'object' && settings !== null)
    Reflect.set(settings, 'maxHeaderListSize', headerBytes);
}

/** Waits for `done`, at most `ms`. */
export async function atMost(ms: number, done: Promise<void>): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, ms);
  await Promise.race([done, late.promise]);
  clearTimeout(timer);
}
