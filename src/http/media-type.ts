import type { FastifyRequest } from 'fastify';
import { MeshError } from '../errors.ts';
import { soleHeader } from './origin.ts';

/**
 * Refuses a body of any other type than `application/json`, written exactly so or with `charset=utf-8`. Exact, because
 * near misses (a tab, a space, a second value) have led frameworks past their own checks.
 */
export function checkMediaType(request: FastifyRequest): void {
  if (!carriesBody(request)) return;
  const type = soleHeader(request.raw, 'content-type');
  if (type !== undefined && /^application\/json(?:; ?charset=utf-8)?$/i.test(type)) return;
  throw new MeshError('media_type_unsupported', 'the body is not application/json', {
    fix: 'send content-type: application/json',
  });
}

function carriesBody(request: FastifyRequest): boolean {
  if (request.method === 'POST' || request.method === 'PATCH' || request.method === 'PUT') return true;
  const { headers } = request;
  return (
    headers['transfer-encoding'] !== undefined ||
    headers['content-type'] !== undefined ||
    (headers['content-length'] ?? '0') !== '0'
  );
}
