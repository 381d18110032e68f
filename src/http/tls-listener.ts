import type { Server } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { MeshError, quote } from '../errors.ts';

/** Where a door is opened: a name or an address of this machine, IPv6 without brackets; port 0 chooses a free one. */
export type HostPort = { readonly host: string; readonly port: number };

/** A server that listens on the network. */
export type BoundTls = {
  readonly server: HttpsServer;
  /** `https://host:port` with the real port. */
  readonly address: string;
  /** Stops accepting, lets requests under way finish for `graceMs` and cuts what is left. */
  readonly drain: (graceMs: number) => Promise<void>;
};

/**
 * Opens a server on the network.
 * @param option the one that named the address, for the message
 * @throws MeshError `address_in_use`, `config_invalid` for an address this machine does not have
 */
export async function bindTls(server: HttpsServer, at: HostPort, option: string): Promise<BoundTls> {
  const unfinished = trackSockets(server);
  // Before anybody answers it: an answer to a handshake that failed or took too long never leaves, and holds the socket.
  server.prependListener('tlsClientError', (_error, socket) => socket.destroy());
  const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    server.once('error', resolve);
    server.listen({ host: at.host, port: at.port }, () => {
      server.off('error', resolve);
      resolve(undefined);
    });
  });
  const authority = at.host.includes(':') ? `[${at.host}]` : at.host;
  if (error !== undefined) throw unusable(error, `${authority}:${at.port}`, option);
  const { port } = server.address() as AddressInfo;
  return {
    server,
    address: `https://${authority}:${port}`,
    drain: (graceMs) => drain(server, graceMs, unfinished),
  };
}

/**
 * Stops a server.
 * @param sockets further ones to cut in the end: those in a handshake are unknown to HTTP
 */
export async function drain(
  server: Server | HttpsServer,
  graceMs: number,
  sockets: ReadonlySet<Socket> = new Set(),
): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  server.closeIdleConnections();
  const cut = setTimeout(() => {
    server.closeAllConnections();
    for (const socket of sockets) socket.destroy();
  }, graceMs);
  await closed;
  clearTimeout(cut);
}

function trackSockets(server: HttpsServer): ReadonlySet<Socket> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  return sockets;
}

function unusable(cause: NodeJS.ErrnoException, address: string, option: string): MeshError {
  if (cause.code === 'EADDRINUSE') {
    return new MeshError('address_in_use', `another process listens on ${quote(address)}`, {
      fix: `stop it, or set ${option} to another port or to off`,
      cause,
    });
  }
  return new MeshError('config_invalid', `cannot listen on ${quote(address)}`, {
    fix: `set ${option} to an address of this machine, or to off`,
    cause,
  });
}
