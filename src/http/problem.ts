import { STATUS_CODES } from 'node:http';
import {
  type ErrorCode,
  type ErrorKind,
  type PublicError,
  MeshError,
  errorKinds,
  publicError,
} from '../errors.ts';

/** An error as RFC 9457 problem details; `code` is the stable part, `detail` is for people. */
export type Problem = {
  readonly type: 'about:blank';
  readonly title: string;
  readonly status: number;
  readonly code: ErrorCode;
  readonly detail: string;
  readonly place?: PublicError['place'];
  readonly fix?: string;
  /** Of an internal error: what to look for in the server's log. */
  readonly errorId?: string;
};

/** Tells the operator's log about an error whose message stays inside. */
export type ReportFailure = (errorId: string, error: unknown) => void;

/** The media type of {@link Problem} (RFC 9457 section 3). */
export const problemMediaType = 'application/problem+json; charset=utf-8';

/** The HTTP status of a code: by its kind, but for the few which HTTP has a number of its own for. */
export function statusOf(code: ErrorCode): number {
  return ownStatus.get(code) ?? statusOfKind[errorKinds[code]];
}

/**
 * Reduces any thrown value to problem details. Fastify's own errors (body too large, bad URL) become ours; anything
 * unknown is `internal`, and only its id leaves the process.
 */
export function problemOf(thrown: unknown, report: ReportFailure, newErrorId: () => string): Problem {
  const error = translated(thrown);
  const shown = publicError(error);
  const status = statusOf(shown.code);
  const errorId = status === 500 ? newErrorId() : undefined;
  if (errorId !== undefined) report(errorId, thrown);
  return {
    type: 'about:blank',
    title: STATUS_CODES[status] ?? 'Error',
    status,
    code: shown.code,
    detail: shown.message,
    ...(shown.place === undefined ? {} : { place: shown.place }),
    ...(shown.fix === undefined ? {} : { fix: shown.fix }),
    ...(errorId === undefined ? {} : { errorId }),
  };
}

const statusOfKind: Record<ErrorKind, number> = {
  invalid: 400,
  too_large: 413,
  unauthenticated: 401,
  forbidden: 403,
  not_found: 404,
  conflict: 409,
  precondition: 409,
  exhausted: 429,
  unavailable: 503,
  internal: 500,
};

const ownStatus: ReadonlyMap<ErrorCode, number> = new Map<ErrorCode, number>([
  // A browser led here by a rebound DNS name must not read the answer as this origin's (RFC 9110 section 15.5.20).
  ['host_not_allowed', 421],
  ['method_not_allowed', 405],
  ['witness_inconsistent', 422],
  ['media_type_unsupported', 415],
]);

function translated(thrown: unknown): unknown {
  if (thrown instanceof MeshError || !(thrown instanceof Error)) return thrown;
  switch ((thrown as { code?: unknown }).code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new MeshError('body_too_large', 'the body is larger than 2 MiB', { fix: 'send less at once' });
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
    case 'FST_ERR_CTP_INVALID_TYPE':
      return new MeshError('media_type_unsupported', 'the body is not application/json', {
        fix: 'send content-type: application/json',
      });
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
      return new MeshError('body_invalid', 'the body is not as long as its content-length says');
    case 'FST_ERR_BAD_URL':
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return new MeshError('route_not_found', 'no such route');
    default:
      return thrown;
  }
}
