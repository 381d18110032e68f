import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { MeshError } from '../errors.ts';
import { addressKey } from './address-key.ts';
import type { PresentedCertificate } from '../identity/evidence.ts';
import { enrollPeer, type PeerCall } from './connections.ts';

/** Whoever is at the other end of a TLS connection. TLS has proven the key of the certificate, and nothing else. */
export type TlsPeer = {
  /** Unique per connection within this process. */
  readonly connectionId: string;
  /** As the kernel gives it, without the port. */
  readonly remoteAddress: string;
  /** DER, the peer's own first, then what it sent along that issued it. Empty when it showed none. */
  readonly certificates: readonly Uint8Array[];
};

/** How many connections a TLS listener holds at once; an address counts as `addressKey` reads it. */
export type TlsConnectionLimits = { readonly total: number; readonly perAddress: number };

/** The open connections of one listener, those in their handshake among them. */
export type TlsConnections = {
  /**
   * Counts a connection until it closes.
   * @throws MeshError `stream_limit` when its address or the listener is at its limit; the caller closes the socket
   */
  readonly admit: (socket: Socket) => void;
  /** Names a connection whose handshake is over, so that `call.getPeer()` answers with its id. */
  readonly name: (socket: TLSSocket) => TlsPeer;
  readonly count: () => number;
  /** Those whose handshake is over. */
  readonly named: () => Iterable<{ readonly peer: TlsPeer; readonly socket: TLSSocket }>;
  /** Resolves when no connection is left. */
  readonly emptied: () => Promise<void>;
  readonly destroyAll: () => void;
};

/**
 * The peer of a call.
 * @throws MeshError `unauthenticated` when the call did not come over a TLS listener of ours, or has closed
 */
export function tlsPeerOf(call: PeerCall): TlsPeer {
  const open = openConnections.get(call.getPeer());
  if (open === undefined) throw new MeshError('unauthenticated', 'the connection is not known');
  return open.peer;
}

/**
 * Lets the doors for processes know the peer of a call, by the certificate it has shown.
 * @param isAlive whether that certificate still counts
 */
export function enrollCertified(
  { connectionId }: TlsPeer,
  presented: PresentedCertificate,
  isAlive: () => boolean,
): void {
  const open = openConnections.get(connectionId);
  if (open === undefined) return;
  enrollPeer({ kind: 'certified', connectionId, pid: 0, uid: 0, gid: 0, isAlive, presented }, open.socket);
}

/** Cuts the whole connection of a call: for a peer that may not go on, or does not read. */
export function disconnectTls({ connectionId }: TlsPeer): void {
  openConnections.get(connectionId)?.socket.destroy();
}

export function createTlsConnections(limits: TlsConnectionLimits): TlsConnections {
  const sockets = new Set<Socket>();
  const named = new Map<string, { readonly peer: TlsPeer; readonly socket: TLSSocket }>();
  const perAddress = new Map<string, number>();
  const waiting = new Set<() => void>();
  return {
    admit: (socket) => {
      const address = addressKey(socket.remoteAddress);
      const ofAddress = perAddress.get(address) ?? 0;
      if (sockets.size >= limits.total) throw full(`the listener holds ${limits.total} connections`);
      if (ofAddress >= limits.perAddress) throw full(`${address} holds ${limits.perAddress} connections`);
      sockets.add(socket);
      perAddress.set(address, ofAddress + 1);
      socket.once('close', () => {
        sockets.delete(socket);
        const left = (perAddress.get(address) ?? 1) - 1;
        if (left > 0) perAddress.set(address, left);
        else perAddress.delete(address);
        if (sockets.size === 0) for (const resolve of waiting) resolve();
      });
    },
    name: (socket) => {
      lastConnection += 1;
      const peer: TlsPeer = {
        connectionId: `tls-${lastConnection}`,
        remoteAddress: addressOf(socket),
        certificates: shownBy(socket),
      };
      // grpc-js makes the answer of getPeer() of these two; only an own property is certain to be ours.
      Object.defineProperty(socket, 'remoteAddress', { value: peer.connectionId });
      Object.defineProperty(socket, 'remotePort', { value: undefined });
      openConnections.set(peer.connectionId, { peer, socket });
      named.set(peer.connectionId, { peer, socket });
      socket.once('close', () => {
        openConnections.delete(peer.connectionId);
        named.delete(peer.connectionId);
      });
      return peer;
    },
    count: () => sockets.size,
    named: () => named.values(),
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

/** The certificates that the other end of a connection has shown, DER, its own first. */
export function shownBy(socket: TLSSocket): readonly Uint8Array[] {
  const chain: Uint8Array[] = [];
  let next: ReturnType<typeof socket.getPeerCertificate> | undefined = socket.getPeerCertificate(true);
  // A self-signed one is its own issuer; without any the object is empty.
  while (next?.raw !== undefined && chain.length < maxShown) {
    chain.push(new Uint8Array(next.raw));
    const issuer: typeof next | undefined = (next as { issuerCertificate?: typeof next }).issuerCertificate;
    next = issuer === next ? undefined : issuer;
  }
  return chain;
}

/** An IPv4 peer of a socket that listens on both is the same as on one that listens on IPv4 alone. */
function addressOf(socket: Socket): string {
  return (socket.remoteAddress ?? 'unknown').replace(/^::ffff:(?=[0-9]+\.)/, '');
}

function full(why: string): MeshError {
  return new MeshError('stream_limit', why);
}

const maxShown = 5;
// By connection id, over all listeners of the process: grpc-js hands a handler nothing but that text.
const openConnections = new Map<string, { readonly peer: TlsPeer; readonly socket: TLSSocket }>();
let lastConnection = 0;
