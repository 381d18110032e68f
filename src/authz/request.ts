import type { SpiffeId } from '../spiffe/id.ts';
import { type CallContext, untold } from './context.ts';
import type { AuthzRequest } from './decision.ts';
import { splitAuthority } from './host.ts';
import { canonicalPath } from './path.ts';
import { ambiguous, malformed, type Rejection } from './rejection.ts';

export type { Rejection } from './rejection.ts';

/** An HTTP call as a proxy reports it, nothing interpreted. */
export type RawHttpRequest = {
  /** From the verified certificate; null when there was none. */
  readonly source: SpiffeId | null;
  /** The identity of the workload that is called, never what the caller says it is. */
  readonly destination: SpiffeId;
  readonly method: string;
  /** `:path` with its query. */
  readonly path: string;
  /** `:authority` or `Host`; the door has refused a call in which the two differ. */
  readonly authority: string;
  /** The destination's own port, 0 when unknown. */
  readonly port: number;
  /** Nothing more is known of it when left out. */
  readonly context?: CallContext;
};

/**
 * The canonical form of an HTTP call, or why it has none. Bounds: method 64 bytes, path 8,192, query 65,536,
 * authority 260. It never throws for bad input.
 */
export function canonicalizeHttp(raw: RawHttpRequest): AuthzRequest | Rejection {
  const { source, destination, method, port } = raw;
  if (!isPort(port)) return malformed('the port is not from 0 to 65535');
  if (!isMethod(method)) return malformed('the method is no token of at most 64 bytes');
  if (method === 'CONNECT') return malformed('the method is CONNECT, which has no path');
  if (raw.path === '') return malformed('the path is missing');
  const query = raw.path.indexOf('?');
  const path = canonicalPath(query === -1 ? raw.path : raw.path.slice(0, query));
  if (typeof path !== 'string') return about('path', path);
  const refused = query === -1 ? undefined : checkQuery(raw.path.slice(query + 1));
  if (refused !== undefined) return about('query', refused);
  const authority = splitAuthority(raw.authority);
  if ('reason' in authority) return about('host', authority);
  const { context = untold } = raw;
  return { source, destination, protocol: 'http', method, path, port, ...authority, context };
}

/** The canonical form of a connection whose content we do not see. It never throws for bad input. */
export function canonicalizeTcp(raw: {
  readonly source: SpiffeId | null;
  readonly destination: SpiffeId;
  readonly port: number;
  readonly context?: CallContext;
}): AuthzRequest | Rejection {
  const { source, destination, port, context = untold } = raw;
  if (!isPort(port)) return malformed('the port is not from 0 to 65535');
  const nothing = { method: '', host: '', hostPort: null, path: '' };
  return { source, destination, protocol: 'tcp', ...nothing, port, context };
}

/** Tells a rejection from a request. */
export function isRejection(value: AuthzRequest | Rejection): value is Rejection {
  return 'reason' in value;
}

/** A token of RFC 9110 section 5.6.2, of at most 64 bytes. */
export function isMethod(text: string): boolean {
  return /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$/.test(text);
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 0 && port <= 65_535;
}

/** No predicate reads the query, so only what could move its borders is refused. */
function checkQuery(query: string): Rejection | undefined {
  if (query.length > maxQueryBytes) return malformed(`is longer than ${maxQueryBytes} bytes`);
  if (query.includes('#')) return ambiguous('has a fragment');
  return /[\u0000-\u0020\u007f]/.test(query) ? malformed('has a space or a control character') : undefined;
}

const maxQueryBytes = 65_536;

function about(part: string, rejection: Rejection): Rejection {
  return { reason: rejection.reason, why: `the ${part} ${rejection.why}` };
}
