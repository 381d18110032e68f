import type { Socket } from 'node:net';
import { MeshError } from '../errors.ts';
import type { Peer, UnixPeer } from '../identity/evidence.ts';
import type { PeerCredentials } from './peer-credentials.ts';

/** How many connections a listener holds at once. */
export type ConnectionLimits = { readonly perUid: number; readonly total: number };

/** The open connections of one listener. */
export type Connections = {
  /**
   * Takes a connection in and names it, so that `call.getPeer()` answers with its id.
   * @throws MeshError `stream_limit` when the uid or the listener is at its limit; the caller closes the socket
   */
  readonly admit: (socket: Socket, credentials: PeerCredentials) => UnixPeer;
  readonly count: () => number;
  /** Resolves when no connection is left. */
  readonly emptied: () => Promise<void>;
  readonly destroyAll: () => void;
};

/** A call of grpc-js, as far as its peer matters. */
export type PeerCall = { readonly getPeer: () => string };

/**
 * The process at the other end of a call.
 * @throws MeshError `unauthenticated` when the call did not come over a Unix listener of ours, or has closed
 */
export function peerOf(call: PeerCall): UnixPeer {
  const peer = openConnections.get(call.getPeer())?.peer;
  if (peer?.kind !== 'unix') throw new MeshError('unauthenticated', 'the connection names no process');
  return peer;
}

/**
 * The process at the other end of a call, or whoever has shown a certificate there that counts.
 * @throws MeshError `unauthenticated` when the connection is neither, or has closed
 */
export function anyPeerOf(call: PeerCall): Peer {
  const open = openConnections.get(call.getPeer());
  if (open === undefined) throw new MeshError('unauthenticated', 'the connection names nobody');
  return open.peer;
}

/** Names a peer of another listener, for {@link anyPeerOf}. The caller has proven who it is. */
export function enrollPeer(peer: Peer, socket: Socket): void {
  if (socket.destroyed || openConnections.has(peer.connectionId)) return;
  openConnections.set(peer.connectionId, { peer, socket });
  socket.once('close', () => openConnections.delete(peer.connectionId));
}

/** Cuts the whole connection of a call: for a peer that does not read, where an orderly end would never arrive. */
export function disconnect(peer: Peer): void {
  openConnections.get(peer.connectionId)?.socket.destroy();
}

export function createConnections(limits: ConnectionLimits): Connections {
  const sockets = new Set<Socket>();
  const perUid = new Map<number, number>();
  const waiting = new Set<() => void>();
  return {
    admit: (socket, credentials) => {
      const ofUid = perUid.get(credentials.uid) ?? 0;
      if (sockets.size >= limits.total) throw full(`the listener holds ${limits.total} connections`);
      if (ofUid >= limits.perUid) throw full(`uid ${credentials.uid} holds ${limits.perUid} connections`);
      const peer = nameConnection(socket, credentials);
      sockets.add(socket);
      perUid.set(peer.uid, ofUid + 1);
      openConnections.set(peer.connectionId, { peer, socket });
      socket.once('close', () => {
        credentials.close();
        openConnections.delete(peer.connectionId);
        sockets.delete(socket);
        const left = (perUid.get(peer.uid) ?? 1) - 1;
        if (left > 0) perUid.set(peer.uid, left);
        else perUid.delete(peer.uid);
        if (sockets.size === 0) for (const resolve of waiting) resolve();
      });
      return peer;
    },
    count: () => sockets.size,
    emptied: () =>
      new Promise((resolve) => {
        if (sockets.size === 0) resolve();
        else waiting.add(resolve);
      }),
    destroyAll: () => {
      for (const socket of sockets) socket.destroy();
    },
  };
}

function nameConnection(socket: Socket, credentials: PeerCredentials): UnixPeer {
  lastConnection += 1;
  const { pid, uid, gid, isAlive } = credentials;
  const connectionId = `unix-${lastConnection}`;
  // grpc-js reads remoteAddress for getPeer(); a Unix socket has none of its own, so nobody else sets it.
  Object.defineProperty(socket, 'remoteAddress', { value: connectionId });
  return { kind: 'unix', connectionId, pid, uid, gid, isAlive };
}

function full(why: string): MeshError {
  return new MeshError('stream_limit', why);
}

// By connection id, over all listeners of the process: grpc-js hands a handler nothing but that text.
const openConnections = new Map<string, { readonly peer: Peer; readonly socket: Socket }>();
let lastConnection = 0;
