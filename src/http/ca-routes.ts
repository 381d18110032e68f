import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { CaPort } from './ca-report.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { addRoute } from './route.ts';

/** What the CA's routes need of the house. */
export type CaPorts = { readonly ca: CaPort };

/** The CA's keys and their rotation. Every step answers with the report that follows it. */
export function addCaRoutes(app: FastifyInstance, { ca }: CaPorts): void {
  addRoute(app, 'GET /v1/ca', async () => ca.report());
  addRoute(app, 'POST /v1/ca/rotate', async (request) => {
    const { scope } = parseInput(rotateBody, request.body, 'body_invalid');
    return ca.rotate(scope, callerOf(request).actor);
  });
  addRoute(app, 'POST /v1/ca/activate', async (request) => {
    const { force = false } = parseInput(forceBody, request.body, 'body_invalid');
    return ca.activate(force, callerOf(request).actor);
  });
  addRoute(app, 'POST /v1/ca/retire', async (request) => {
    const { force = false } = parseInput(forceBody, request.body, 'body_invalid');
    return ca.retire(force, callerOf(request).actor);
  });
  addRoute(app, 'POST /v1/ca/taint', async (request) => {
    const { keyId } = parseInput(taintBody, request.body, 'body_invalid');
    return ca.taint(keyId, callerOf(request).actor);
  });
}

const rotateBody = z.strictObject({ scope: z.enum(['root', 'intermediate']) });
const forceBody = z.strictObject({ force: z.boolean().optional() });
const taintBody = z.strictObject({ keyId: z.string().regex(/^[0-9a-f]{40}$/, '40 lower-case hex digits') });
