import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ErrorCode } from '../errors.ts';
import type { RouteName } from './roles.ts';

/** The routes of AuthZEN, by what they are for. */
export const authzenRoutes = {
  configuration: 'GET /.well-known/authzen-configuration',
  evaluation: 'POST /access/v1/evaluation',
  evaluations: 'POST /access/v1/evaluations',
  searchSubject: 'POST /access/v1/search/subject',
  searchResource: 'POST /access/v1/search/resource',
  searchAction: 'POST /access/v1/search/action',
} as const satisfies Record<string, RouteName>;

/**
 * Sends the X-Request-ID of a request back: with every answer of an AuthZEN route, refusals included.
 * @see AuthZEN Authorization API 1.0, Request Identification
 */
export function echoRequestId(request: FastifyRequest, reply: FastifyReply): void {
  const id = request.headers['x-request-id'];
  if (isAuthzen(request) && typeof id === 'string') reply.header('x-request-id', id);
}

/**
 * The body of an answer, as bytes where a request id goes with it: Node writes a header together with a text in UTF-8, which
 * changes ids that are not ASCII.
 */
export function besideRequestId(reply: FastifyReply, payload: unknown): unknown {
  return typeof payload === 'string' && reply.hasHeader('x-request-id') ? Buffer.from(payload) : payload;
}

/** What a body of another media type is refused with: AuthZEN wants 400. */
export function mediaTypeCode(
  request: FastifyRequest,
): Extract<ErrorCode, 'media_type_unsupported' | 'body_invalid'> {
  return isAuthzen(request) ? 'body_invalid' : 'media_type_unsupported';
}

function isAuthzen({ method, routeOptions: { url } }: FastifyRequest): boolean {
  return url !== undefined && names.has(`${method} ${url}`);
}

const names: ReadonlySet<string> = new Set(Object.values(authzenRoutes));
