import { constants } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { ServerCredentials } from '@grpc/grpc-js';
import { MeshError, quote } from '../errors.ts';
import { addressKey } from './address-key.ts';
import { inFairTurns } from './fair-turns.ts';
import {
  atMost,
  createGrpcServer,
  defaultGrpcLimits,
  type GrpcLimits,
  type GrpcService,
  inMeasure,
  type LogListener,
  oneInTurn,
} from './listener.ts';
import { createTlsConnections, type TlsPeer } from './tls-connections.ts';

/** What a peer can make us keep, decode or wait for. */
export type TlsGrpcLimits = Omit<GrpcLimits, 'connectionsPerUid'> & {
  /** Of one IPv4 address, or one IPv6 network of 64 bits. */
  readonly connectionsPerAddress: number;
  readonly idleMs: number;
  /** From the first byte of a connection to the end of its handshake. */
  readonly handshakeMs: number;
};

export const defaultTlsGrpcLimits: TlsGrpcLimits = {
  connections: 16_384,
  // Many nodes may stand behind one address.
  connectionsPerAddress: 4_096,
  // An agent has some twenty open; before a certificate is judged each stream costs 6 KB.
  streamsPerConnection: 64,
  messageBytes: defaultGrpcLimits.messageBytes,
  headerBytes: defaultGrpcLimits.headerBytes,
  sessionMebibytes: 16,
  keepaliveMs: defaultGrpcLimits.keepaliveMs,
  keepaliveTimeoutMs: defaultGrpcLimits.keepaliveTimeoutMs,
  handshakeMs: 10_000,
  idleMs: 60_000,
};

/** What the listener shows: PEM, leaf first, and PKCS #8 PEM. */
export type ShownCertificate = { readonly certificate: string; readonly privateKey: string };

export type TlsGrpcListenerOptions = {
  /** Port 0 takes any. */
  readonly at: { readonly host: string; readonly port: number };
  readonly shown: ShownCertificate;
  readonly services: readonly GrpcService[];
  readonly limits?: Partial<TlsGrpcLimits>;
  readonly log?: LogListener;
};

export type TlsGrpcListener = {
  readonly port: number;
  readonly connections: () => number;
  /** Cuts the connections of those peers for which it is time, whatever runs on them. @returns how many */
  readonly cut: (isTime: (peer: TlsPeer) => boolean) => number;
  /** Shows another certificate from the next handshake on. @throws Error when it cannot be loaded */
  readonly renew: (shown: ShownCertificate) => void;
  /** As {@link GrpcListener.close}. */
  readonly close: (graceMs: number) => Promise<void>;
};

/**
 * Serves gRPC over TLS 1.3. A client may show a certificate or none; TLS proves that it holds the key, and whoever serves
 * a call judges the rest with `tlsPeerOf(call)`, at every call: a connection outlives what was true when it began. No
 * session is ever resumed, as what is resumed is not judged again.
 * @throws MeshError `address_in_use`
 */
export async function startTlsGrpcListener(options: TlsGrpcListenerOptions): Promise<TlsGrpcListener> {
  const limits = { ...defaultTlsGrpcLimits, ...options.limits };
  const log = inMeasure(options.log ?? (() => undefined));
  const grpc = createGrpcServer({ ...limits, connectionsPerUid: 0 }, options.services);
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  const connections = createTlsConnections({
    total: limits.connections,
    perAddress: limits.connectionsPerAddress,
  });
  const turnAway = (socket: Socket, error: unknown): void => {
    log('connection turned away', { error: error instanceof Error ? error.message : 'unknown' });
    socket.destroy();
  };
  // Its name takes the place of its address.
  const owners = new WeakMap<TLSSocket, string>();
  const ownerOf = (socket: TLSSocket): string => owners.get(socket) ?? '';
  const serve = oneInTurn((socket: TLSSocket) => {
    try {
      if (!socket.destroyed) injector.injectConnection(socket);
    } catch (error) {
      turnAway(socket, error);
    }
  }, ownerOf);
  const tls = createTlsServer(
    {
      ...contextOf(options.shown),
      ALPNProtocols: ['h2'],
      requestCert: true,
      // INVARIANT: whoever serves a call judges the certificate, against the bundle of that moment.
      rejectUnauthorized: false,
      handshakeTimeout: limits.handshakeMs,
    },
    (socket) => {
      try {
        if (socket.isSessionReused()) throw new MeshError('unauthenticated', 'the session was resumed');
        if (socket.alpnProtocol !== 'h2')
          throw new MeshError('message_invalid', 'the client does not offer h2');
        owners.set(socket, addressKey(socket.remoteAddress));
        connections.name(socket);
        serve(socket);
      } catch (error) {
        turnAway(socket, error);
      }
    },
  );
  // Without handlers the reset of any client would end the process.
  tls.on('secureConnection', (socket) =>
    socket.on('error', (error) => log('connection failed', { error: error.message })),
  );
  tls.on('tlsClientError', (error, socket) => {
    log('handshake failed', { error: error.message });
    socket.destroy();
  });
  // After an outage thousands are back at once, and the signature of a handshake is made on this thread. What a client
  // has sent by its turn waits in the socket.
  const greet = inFairTurns(
    (socket: Socket) => addressKey(socket.remoteAddress),
    (socket) => {
      if (!socket.destroyed) tls.emit('connection', socket);
    },
  );
  // Not the TLS server itself: a connection over the limit shall not cost us a handshake.
  const server = createServer((socket) => {
    socket.on('error', (error) => log('connection failed', { error: error.message }));
    try {
      connections.admit(socket);
      socket.setNoDelay(true);
      greet(socket);
    } catch (error) {
      turnAway(socket, error);
    }
  });
  const port = await bind(server, options.at);
  server.on('error', (error) => log('listener failed', { error: error.message }));

  let closing: Promise<void> | undefined;
  const close = async (graceMs: number): Promise<void> => {
    server.close();
    for (const service of options.services) service.close?.();
    injector.drain(graceMs);
    await atMost(graceMs, connections.emptied());
    grpc.forceShutdown();
    connections.destroyAll();
  };
  return {
    port,
    connections: connections.count,
    cut: (isTime) => {
      const over = [...connections.named()].filter(({ peer }) => isTime(peer));
      for (const { socket } of over) socket.destroy();
      return over.length;
    },
    renew: (shown) => tls.setSecureContext(contextOf(shown)),
    close: (graceMs) => (closing ??= close(graceMs)),
  };
}

function contextOf({ certificate, privateKey }: ShownCertificate) {
  return {
    cert: certificate,
    key: privateKey,
    // Nobody is trusted by TLS itself; without this line all web CAs would be.
    ca: [],
    minVersion: 'TLSv1.3' as const,
    secureOptions: constants.SSL_OP_NO_TICKET,
    sessionIdContext: 'countersign-node',
  };
}

function bind(server: ReturnType<typeof createServer>, at: TlsGrpcListenerOptions['at']): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const why = cause.message.replace(/^listen /, '');
      reject(
        new MeshError('address_in_use', `cannot listen on ${quote(`${at.host}:${at.port}`)}: ${why}`, {
          fix: 'choose another address, or stop what listens there',
          cause,
        }),
      );
    });
    server.listen({ host: at.host, port: at.port, backlog: 4_096 }, () => {
      server.removeAllListeners('error');
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : at.port);
    });
  });
}
