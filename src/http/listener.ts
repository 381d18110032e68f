import type { Server as HttpsServer } from 'node:https';
import type { FastifyInstance } from 'fastify';
import { bindSocket } from '../grpc/socket-path.ts';
import { bindTls, drain, type HostPort } from './tls-listener.ts';
import { tlsSettings } from './tls-settings.ts';

/** An open door of the admin API. */
export type AdminListener = {
  /** The socket's path, or `https://host:port` with the real port. */
  readonly address: string;
  /** Stops accepting, lets requests under way finish for `graceMs`, cuts what is left and closes the app. */
  readonly close: (graceMs: number) => Promise<void>;
};

/** A TLS door whose certificate can be replaced while it is open. */
export type TlsListener = AdminListener & {
  /** From now on new connections see this certificate (PEM, leaf first; PKCS#8 PEM). */
  readonly renew: (certificate: string, privateKey: string) => void;
};

/**
 * Opens an app with a unix door on `path`, 0600. An app that cannot be opened is closed.
 * @throws MeshError those of `bindSocket`
 */
export async function listenUnix(app: FastifyInstance, path: string): Promise<AdminListener> {
  const { server } = app;
  const bound = await bindSocket(server, path, 0o600).catch((error: unknown) => abandon(app, error));
  return {
    address: path,
    close: async (graceMs) => {
      await bound.unlink();
      await drain(server, graceMs);
      await app.close();
    },
  };
}

/**
 * Opens an app with a tls door. An app that cannot be opened is closed.
 * @param at.port 0 chooses a free one
 * @throws MeshError `address_in_use`, `config_invalid` for an address this machine does not have
 */
export async function listenTls(app: FastifyInstance, at: HostPort): Promise<TlsListener> {
  const door = await bindTls(app.server as unknown as HttpsServer, at, 'adminAddress').catch(
    (error: unknown) => abandon(app, error),
  );
  return {
    address: door.address,
    renew: (certificate, privateKey) => door.server.setSecureContext(tlsSettings(certificate, privateKey)),
    close: async (graceMs) => {
      await door.drain(graceMs);
      await app.close();
    },
  };
}

// An app that nobody can reach still counts attempts, and would keep the process from ending.
async function abandon(app: FastifyInstance, error: unknown): Promise<never> {
  await app.close();
  throw error;
}
