import type { CallContext } from '../authz/context.ts';
import type { Address } from '../wire/core.ts';
import type { CheckParts } from './quick-read.ts';

/**
 * What a proxy tells of a call beside who calls whom and how. All of it comes from its connection and its own filters,
 * but for the headers, which are the caller's. No proxy in front is trusted here: the client is the peer of the connection.
 * @see envoy.service.auth.v3.AttributeContext
 */
export function readContext({
  source,
  destination,
  http,
  tlsSession,
  filterMetadata: filters,
}: CheckParts): CallContext {
  const sourceIp = hostOf(source?.address);
  return {
    headerLines: http?.headers.linesOf,
    sourceIp,
    remoteIp: sourceIp,
    destinationIp: hostOf(destination?.address),
    sni: tlsSession?.sni,
    claims: readClaims(own(filters, jwtFilter)),
    metadata:
      filters === undefined
        ? undefined
        : new Map(Object.entries(filters).map(([name, keys]) => [name, new Map(Object.entries(keys ?? {}))])),
  };
}

const jwtFilter = 'envoy.filters.http.jwt_authn';

/** A key `__proto__` of a message is its prototype here, and nothing that anybody has said of a filter. */
function own<T>(record: Readonly<Record<string, T>> | undefined, key: string): T | undefined {
  return record !== undefined && Object.hasOwn(record, key) ? record[key] : undefined;
}

/** The filter keeps the claims of a verified token under a name of its configuration; under two, nobody knows which. */
function readClaims(keys: Readonly<Record<string, unknown>> | undefined): CallContext['claims'] {
  const kept = Object.values(keys ?? {}).filter((value) => typeof value === 'object' && value !== null);
  const [claims] = kept;
  return kept.length !== 1 || claims === undefined || claims === null || Array.isArray(claims)
    ? undefined
    : new Map(Object.entries(claims));
}

/** `address:port` or a path; empty when there is neither. */
export function formatAddress(address: Address | undefined): string {
  const kind = address?.address;
  if (kind?.$case === 'pipe') return kind.pipe.path;
  if (kind?.$case !== 'socketAddress') return '';
  const { address: host, portSpecifier } = kind.socketAddress;
  const text = host.includes(':') ? `[${host}]` : host;
  return portSpecifier?.$case === 'portValue' ? `${text}:${portSpecifier.portValue}` : text;
}

/** Of a socket address; 0 when it has none. */
export function portOf(address: Address | undefined): number {
  const kind = address?.address;
  if (kind?.$case !== 'socketAddress') return 0;
  const port = kind.socketAddress.portSpecifier;
  return port?.$case === 'portValue' && port.portValue <= 65_535 ? port.portValue : 0;
}

function hostOf(address: Address | undefined): string | undefined {
  const kind = address?.address;
  return kind?.$case === 'socketAddress' ? kind.socketAddress.address : undefined;
}
