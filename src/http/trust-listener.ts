import { createServer } from 'node:https';
import { limitConnections, type TurnedAway, connectionsPerAddress } from './connection-limit.ts';
import { answerUnread, serverLimits } from './hardening.ts';
import type { TlsListener } from './listener.ts';
import { bindTls, type HostPort } from './tls-listener.ts';
import { type OldestTls, tlsSettings } from './tls-settings.ts';
import { createTrustHandler, type TrustPorts } from './trust-app.ts';

export type TrustListenerOptions = {
  readonly at: HostPort;
  /** PEM, leaf first. */
  readonly certificate: string;
  /** PKCS#8 PEM. */
  readonly privateKey: string;
  readonly oldestTls: OldestTls;
  readonly ports: TrustPorts;
  /** Told of each connection that was closed unread. */
  readonly turnedAway: (why: TurnedAway) => void;
  readonly limits?: Partial<TrustLimits>;
};

/** What strangers can make the server hold. */
export type TrustLimits = {
  readonly connections: number;
  readonly connectionsPerAddress: number;
  readonly connectionAgeMs: number;
  readonly requestsPerConnection: number;
  /** For the TLS handshake, and again for the header of a request. */
  readonly arrivalMs: number;
};

export const defaultTrustLimits: TrustLimits = {
  connections: 512,
  connectionsPerAddress,
  connectionAgeMs: 60_000,
  requestsPerConnection: 100,
  arrivalMs: 5_000,
};

/**
 * Opens the trust endpoint.
 * @throws MeshError `address_in_use`, `config_invalid` for an address this machine does not have
 */
export async function listenTrust(options: TrustListenerOptions): Promise<TlsListener> {
  const { at, certificate, privateKey, oldestTls, ports, turnedAway } = options;
  const limits = { ...defaultTrustLimits, ...options.limits };
  const handler = createTrustHandler(ports);
  const server = createServer(
    {
      ...serverLimits,
      headersTimeout: limits.arrivalMs,
      requestTimeout: limits.arrivalMs,
      connectionsCheckingInterval: Math.min(serverLimits.connectionsCheckingInterval, limits.arrivalMs),
      ...tlsSettings(certificate, privateKey, oldestTls),
      ALPNProtocols: ['http/1.1'],
      handshakeTimeout: limits.arrivalMs,
    },
    handler,
  );
  server.maxRequestsPerSocket = limits.requestsPerConnection;
  server.on('clientError', answerUnread);
  // Whoever waits for leave to send a body is answered at once instead, but for a checkpoint: no other body is read here.
  server.on('checkContinue', handler);
  server.on('checkExpectation', handler);
  limitConnections(
    server,
    {
      total: limits.connections,
      perAddress: limits.connectionsPerAddress,
      maxAgeMs: limits.connectionAgeMs,
    },
    ports.takeTurn,
    turnedAway,
  );
  const door = await bindTls(server, at, 'trustAddress');
  return {
    address: door.address,
    renew: (nextCertificate, nextPrivateKey) =>
      server.setSecureContext(tlsSettings(nextCertificate, nextPrivateKey, oldestTls)),
    close: door.drain,
  };
}
