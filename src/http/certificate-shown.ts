import type { TLSSocket } from 'node:tls';
import type { Shown } from '../grpc/tls-certificate.ts';
import { shownBy } from '../grpc/tls-connections.ts';

/**
 * What the client of a connection has shown; the same value for the same connection, so that its signatures are proven
 * once. TLS 1.3 has no renegotiation, and tickets are off: what was shown in the handshake is all there is.
 */
export function certificateShown(socket: TLSSocket): Shown {
  const known = shown.get(socket);
  if (known !== undefined) return known;
  const certificates = { certificates: shownBy(socket) };
  shown.set(socket, certificates);
  return certificates;
}

const shown = new WeakMap<TLSSocket, Shown>();
