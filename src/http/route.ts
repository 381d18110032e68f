import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { RouteName } from './roles.ts';

/** Adds a route of the table in `roles.ts`. What the handler resolves to is sent; what it throws becomes a problem. */
export function addRoute<P = unknown>(
  app: FastifyInstance,
  name: RouteName,
  handler: (request: FastifyRequest<{ Params: P }>, reply: FastifyReply) => Promise<unknown>,
): void {
  const [method = '', url = ''] = name.split(' ');
  app.route<{ Params: P }>({ method, url, handler: async (request, reply) => handler(request, reply) });
}
