import type { FastifyInstance } from 'fastify';

/**
 * Begins the trace of a request; owned by the admin API.
 * @param route the pattern, never the raw URL
 * @returns ends it with the status of the answer; undefined when nobody wants to know
 */
export type TraceRequest = (
  method: string,
  route: string,
  traceparent: string | undefined,
) => ((status: number) => void) | undefined;

/** Tells of each request that is routed, from its headers to the last byte of its answer. */
export function addTrace(app: FastifyInstance, begin: TraceRequest | undefined): void {
  if (begin === undefined) return;
  const open = new WeakMap<object, (status: number) => void>();
  app.addHook('onRequest', async (request) => {
    const { traceparent } = request.headers;
    const route = request.routeOptions.url ?? '(none)';
    const end = begin(request.method, route, typeof traceparent === 'string' ? traceparent : undefined);
    if (end !== undefined) open.set(request, end);
  });
  app.addHook('onResponse', async (request, reply) => open.get(request)?.(reply.statusCode));
}
