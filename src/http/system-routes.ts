import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { parseInput } from './input.ts';
import type { ServerReadiness, StatusReport } from './status-report.ts';
import { addRoute } from './route.ts';

/** What health, status and metrics need of the house. */
export type SystemPorts = {
  readonly status: () => Promise<StatusReport>;
  readonly readiness: () => ServerReadiness;
  /** OpenMetrics text. */
  readonly metricsText: () => string;
  /** The trust domain's CA certificates, PEM. */
  readonly trustBundlePem: () => string;
  /** The same and the keys of its tokens, as a SPIFFE bundle document. */
  readonly trustBundleDocument: () => string;
};

/** Health, readiness, metrics, status and the trust bundle. */
export function addSystemRoutes(app: FastifyInstance, ports: SystemPorts): void {
  addRoute(app, 'GET /healthz', async () => ({ status: 'ok' }));
  addRoute(app, 'GET /readyz', async (_request, reply) => {
    const { ready, causes, warnings, conditions } = ports.readiness();
    return reply.code(ready ? 200 : 503).send({ ready, causes, warnings, conditions });
  });
  addRoute(app, 'GET /metrics', async (_request, reply) =>
    reply.type(openMetricsType).send(ports.metricsText()),
  );
  addRoute(app, 'GET /v1/status', async () => ports.status());
  addRoute(app, 'GET /v1/trust-bundle', async (request, reply) => {
    const { format } = parseInput(bundleQuery, request.query, 'query_invalid');
    return format === 'spiffe'
      ? reply.type('application/json').send(ports.trustBundleDocument())
      : reply.type('application/x-pem-file').send(ports.trustBundlePem());
  });
}

/** Prometheus takes it whether it asks for it or not; its older text format has other names for counters. */
export const openMetricsType = 'application/openmetrics-text; version=1.0.0; charset=utf-8';
/** The query of `GET /v1/trust-bundle`. */
export const bundleQuery = z.strictObject({ format: z.enum(['pem', 'spiffe']).optional() });
