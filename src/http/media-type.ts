import type { FastifyRequest } from 'fastify';
import { type ErrorCode, MeshError } from '../errors.ts';
import { soleHeader } from './origin.ts';

/**
 * Refuses a body of any other type than `application/json`, written exactly so or with `charset=utf-8`. Exact, because
 * near misses (a tab, a space, a second value) have led frameworks past their own checks.
 * @throws MeshError `code`
 */
export function checkMediaType(
  request: FastifyRequest,
  code: Extract<ErrorCode, 'media_type_unsupported' | 'body_invalid'> = 'media_type_unsupported',
): void {
  if (!carriesBody(request)) return;
  const type = soleHeader(request.raw, 'content-type');
  if (type !== undefined && /^application\/json(?:; ?charset=utf-8)?$/i.test(type)) return;
  throw new MeshError(code, 'the body is not application/json', {
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
