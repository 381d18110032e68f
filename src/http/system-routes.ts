import type { FastifyInstance } from 'fastify';
import type { Readiness, StatusReport } from './status-report.ts';
import { addRoute } from './route.ts';

/** What health, status and metrics need of the house. */
export type SystemPorts = {
  readonly status: () => Promise<StatusReport>;
  readonly readiness: () => Readiness;
  /** Prometheus text format. */
  readonly metricsText: () => string;
  /** The trust domain's CA certificates, PEM. */
  readonly trustBundlePem: () => string;
};

/** Health, readiness, metrics, status and the trust bundle. */
export function addSystemRoutes(app: FastifyInstance, ports: SystemPorts): void {
  addRoute(app, 'GET /healthz', async () => ({ status: 'ok' }));
  addRoute(app, 'GET /readyz', async (_request, reply) => {
    const { ready, causes } = ports.readiness();
    return reply.code(ready ? 200 : 503).send({ ready, causes });
  });
  addRoute(app, 'GET /metrics', async (_request, reply) =>
    reply.type('text/plain; version=0.0.4; charset=utf-8').send(ports.metricsText()),
  );
  addRoute(app, 'GET /v1/status', async () => ports.status());
  addRoute(app, 'GET /v1/trust-bundle', async (_request, reply) =>
    reply.type('application/x-pem-file').send(ports.trustBundlePem()),
  );
}
