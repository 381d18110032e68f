import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { MeshError, quote } from '../errors.ts';
import { bindSocket } from '../grpc/socket-path.ts';
import { type AgentDoor, type AgentPorts, createAgentHandler } from './agent-app.ts';
import { answerUnread, serverLimits } from './hardening.ts';
import type { AdminListener } from './listener.ts';
import { drain, type HostPort } from './tls-listener.ts';

/**
 * Opens what an agent tells of itself on a Unix socket, 0600.
 * @throws MeshError those of `bindSocket`
 */
export async function listenAgent(
  ports: AgentPorts,
  door: Extract<AgentDoor, { kind: 'unix' }>,
  path: string,
): Promise<AdminListener> {
  const server = serverOf(ports, door);
  const bound = await bindSocket(server, path, 0o600);
  return {
    address: path,
    close: async (graceMs) => {
      await bound.unlink();
      await drain(server, graceMs);
    },
  };
}

/**
 * Opens health and metrics to everybody on this machine, for Prometheus.
 * @param at a loopback address; port 0 chooses a free one
 * @throws MeshError `address_in_use`, `config_invalid` for an address this machine does not have
 */
export async function listenMetrics(ports: Omit<AgentPorts, 'status'>, at: HostPort): Promise<AdminListener> {
  const server = serverOf(ports, { kind: 'loopback' });
  const host = at.host.includes(':') ? `[${at.host}]` : at.host;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: at.host, port: at.port }, () => {
      server.off('error', reject);
      resolve();
    });
  }).catch((cause: NodeJS.ErrnoException) => {
    const isTaken = cause.code === 'EADDRINUSE';
    const where = quote(`${host}:${at.port}`);
    throw new MeshError(
      isTaken ? 'address_in_use' : 'config_invalid',
      isTaken ? `another process listens on ${where}` : `cannot listen on ${where}`,
      { fix: 'set metricsAddress to another address of this machine, or to off', cause },
    );
  });
  return {
    address: `http://${host}:${(server.address() as AddressInfo).port}`,
    close: (graceMs) => drain(server, graceMs),
  };
}

function serverOf(ports: AgentPorts, door: AgentDoor): Server {
  const handler = createAgentHandler(ports, door);
  const server = createServer(serverLimits, handler);
  server.maxConnections = maxConnections;
  server.maxRequestsPerSocket = 1_000;
  server.on('clientError', answerUnread);
  // Whoever waits for leave to send a body is answered at once instead: no body is read here.
  server.on('checkContinue', handler);
  server.on('checkExpectation', handler);
  return server;
}

const maxConnections = 64;
