import type { FastifyInstance } from 'fastify';
import { createOpenApiDocument } from './openapi.ts';
import { addRoute } from './route.ts';

/** The OpenAPI document of the admin API. */
export function addOpenApiRoutes(app: FastifyInstance): void {
  let document: string | undefined;
  addRoute(app, 'GET /v1/openapi.json', async (_request, reply) => {
    document ??= JSON.stringify(createOpenApiDocument());
    return reply.type('application/json; charset=utf-8').send(document);
  });
}
