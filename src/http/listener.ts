import type { Server } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { MeshError, quote } from '../errors.ts';
import { bindSocket } from '../grpc/socket-path.ts';
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
      await drain(app, server, graceMs);
    },
  };
}

/**
 * Opens an app with a tls door. An app that cannot be opened is closed.
 * @param at.port 0 chooses a free one
 * @throws MeshError `address_in_use`, `config_invalid` for an address this machine does not have
 */
export async function listenTls(
  app: FastifyInstance,
  at: { readonly host: string; readonly port: number },
): Promise<TlsListener> {
  const server = app.server as unknown as HttpsServer;
  const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    server.once('error', resolve);
    server.listen({ host: at.host, port: at.port }, () => {
      server.off('error', resolve);
      resolve(undefined);
    });
  });
  const authority = at.host.includes(':') ? `[${at.host}]` : at.host;
  if (error !== undefined) return abandon(app, unusable(error, `${authority}:${at.port}`));
  const { port } = server.address() as AddressInfo;
  return {
    address: `https://${authority}:${port}`,
    renew: (certificate, privateKey) => {
      server.setSecureContext(tlsSettings(certificate, privateKey));
    },
    close: (graceMs) => drain(app, server, graceMs),
  };
}

// An app that nobody can reach still counts attempts, and would keep the process from ending.
async function abandon(app: FastifyInstance, error: unknown): Promise<never> {
  await app.close();
  throw error;
}

async function drain(app: FastifyInstance, server: Server | HttpsServer, graceMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  server.closeIdleConnections();
  const cut = setTimeout(() => server.closeAllConnections(), graceMs);
  await closed;
  clearTimeout(cut);
  await app.close();
}

function unusable(cause: NodeJS.ErrnoException, address: string): MeshError {
  if (cause.code === 'EADDRINUSE') {
    return new MeshError('address_in_use', `another process listens on ${quote(address)}`, {
      fix: 'stop it, or set adminAddress to another port or to off',
      cause,
    });
  }
  return new MeshError('config_invalid', `cannot listen on ${quote(address)}`, {
    fix: 'set adminAddress to an address of this machine, or to off',
    cause,
  });
}
