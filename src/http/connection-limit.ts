import type { Server } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import { addressKey } from '../grpc/address-key.ts';

/** How many connections a door on the network holds at once, and for how long. */
export type ConnectionLimits = {
  /** Of everybody. What comes beyond is closed by the kernel's side of the server, before TLS. */
  readonly total: number;
  /** Of one address, as `addressKey` reads it. */
  readonly perAddress: number;
  /** None lives longer, whatever it does; without it only idle and slow ones are closed. */
  readonly maxAgeMs?: number;
};

/** Why a connection was closed before a byte of it was read. */
export type TurnedAway = 'total' | 'address' | 'rate';

/** The most connections of one address, at every door on the network. */
export const connectionsPerAddress = 64;

/**
 * Bounds the connections of a server, before their TLS handshake: it is the handshake that costs.
 * @param admit says whether one more of an address may come now; without it nothing bounds how fast they come
 * @param turnedAway told of each that was closed
 */
export function limitConnections(
  server: Server | HttpsServer,
  limits: ConnectionLimits,
  admit: (address: string) => boolean = () => true,
  turnedAway: (why: TurnedAway) => void = () => undefined,
): void {
  const open = new Map<string, number>();
  // The server's own listener would begin TLS on a socket that is closed already: it runs behind the gate.
  const serve = server.listeners('connection');
  server.removeAllListeners('connection');
  server.maxConnections = limits.total;
  server.on('drop', () => turnedAway('total'));
  server.on('connection', (socket: Socket) => {
    const address = addressKey(socket.remoteAddress);
    const ofAddress = open.get(address) ?? 0;
    const why = ofAddress >= limits.perAddress ? 'address' : admit(address) ? undefined : 'rate';
    if (why !== undefined) {
      turnedAway(why);
      socket.destroy();
      return;
    }
    open.set(address, ofAddress + 1);
    const expiry =
      limits.maxAgeMs === undefined ? undefined : setTimeout(() => socket.destroy(), limits.maxAgeMs);
    socket.once('close', () => {
      clearTimeout(expiry);
      const left = (open.get(address) ?? 1) - 1;
      if (left > 0) open.set(address, left);
      else open.delete(address);
    });
    for (const listener of serve) listener.call(server, socket);
  });
}
