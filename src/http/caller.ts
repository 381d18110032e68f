import { MeshError } from '../errors.ts';
import type { AdminCaller } from './authenticate.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks; null on a public route only. */
    caller: AdminCaller | null;
    /** What the request was answered with, when it was no success. */
    failure: { readonly code: string; readonly detail: string } | null;
  }
}

/**
 * The caller of a route that is not public.
 * @throws MeshError `internal` on a public route
 */
export function callerOf(request: { readonly caller: AdminCaller | null }): AdminCaller {
  if (request.caller === null) throw new MeshError('internal', 'a public route asked who calls');
  return request.caller;
}
