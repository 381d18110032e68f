import { type CallContext, untold } from '../authz/context.ts';
import { ambiguous, malformed, type Rejection } from '../authz/rejection.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { formatAddress, portOf, readContext } from './context.ts';
import { isForeign } from './foreign-header.ts';
import type { ReadPeerCertificate } from './peer-certificate.ts';
import { type CheckParts, readQuickly } from './quick-read.ts';
import { readSlowly } from './slow-read.ts';

/**
 * A Check as the proxy sent it, read once. Only what the proxy's own TLS layer and connection vouch for is taken as
 * fact: the caller's verified certificate and the connection's port. `x-forwarded-client-cert`, `context_extensions`,
 * labels and the `service` names can be set by the caller or the workload and are never read. The destination is a
 * claim until the service has compared it with what the proxy is entitled to.
 */
export type Check = {
  readonly protocol: 'http' | 'tcp';
  /** The caller; null when it presented no certificate. */
  readonly source: SpiffeId | null;
  /** Lower-case hex, or empty when the proxy does not send the certificate. */
  readonly sourceSerial: string;
  /** SHA-256 of the caller's public key (SPKI), lower-case hex, or empty like the serial. */
  readonly sourceKey: string;
  /** SHA-256 of what was signed of the caller's certificate, lower-case hex, or empty like the serial. */
  readonly sourceTbsSha256: string;
  /** `address:port` or a path; for the record only. */
  readonly sourceAddress: string;
  /** `destination.principal`; empty when the proxy named none. */
  readonly claimedDestination: string;
  /** As on the wire, not yet canonical; empty for TCP. */
  readonly method: string;
  readonly authority: string;
  readonly path: string;
  /** Of the connection's local address; 0 when it has none. */
  readonly port: number;
  /** Names of request headers that only we may set, to be removed before the application sees the request. */
  readonly foreignHeaders: readonly string[];
  /** What else the proxy tells of the call. */
  readonly context: CallContext;
  /** Why the request cannot be judged, or null. The other fields are then for the record only. */
  readonly rejection: Rejection | null;
};

/**
 * Reads the bytes of a CheckRequest, with headers as a map or as raw bytes (`encode_raw_headers`). It never throws:
 * what cannot be read is a rejection.
 * @see envoy.service.auth.v3.AttributeContext
 */
export function readCheck(bytes: Uint8Array, readCertificate: ReadPeerCertificate): Check {
  let parts: CheckParts | undefined;
  try {
    parts = (Buffer.isBuffer(bytes) ? readQuickly(bytes) : undefined) ?? readSlowly(bytes);
  } catch {
    return { ...emptyCheck, rejection: malformed('the check is not a CheckRequest message') };
  }
  if (parts === undefined) return { ...emptyCheck, rejection: malformed('the check has no attributes') };
  const source = readSource(parts, readCertificate);
  const http = readHttp(parts);
  return {
    protocol: http.protocol,
    source: source.source,
    sourceSerial: source.sourceSerial,
    sourceKey: source.sourceKey,
    sourceTbsSha256: source.sourceTbsSha256,
    sourceAddress: formatAddress(parts.source?.address),
    claimedDestination: parts.destination?.principal ?? '',
    method: http.method,
    authority: http.authority,
    path: http.path,
    port: portOf(parts.destination?.address),
    foreignHeaders: http.foreignHeaders,
    context: readContext(parts),
    rejection: source.rejection ?? http.rejection,
  };
}

type Source = Pick<Check, 'source' | 'sourceSerial' | 'sourceKey' | 'sourceTbsSha256' | 'rejection'>;

function readSource({ source }: CheckParts, readCertificate: ReadPeerCertificate): Source {
  const principal = source?.principal ?? '';
  const certificate = source?.certificate ?? '';
  if (principal === '' && certificate === '') return { ...nobody, rejection: null };
  const id = parseWorkload(principal);
  if (id === undefined) return refuse("the caller's certificate names no SPIFFE ID of a workload");
  if (certificate === '') return { ...nobody, source: id, rejection: null };
  const names = readCertificate(certificate);
  if (names === undefined) return refuse("the caller's certificate cannot be read");
  // X509-SVID section 2: exactly one URI SAN. With two, the proxy reports the first and others may use the second.
  if (names.uriSans.length !== 1) {
    return refuse(`the caller's certificate has ${names.uriSans.length} URI names instead of one`);
  }
  if (names.uriSans[0] !== id.text) return refuse("the caller's certificate and its principal differ");
  const { serial: sourceSerial, spkiSha256: sourceKey, tbsSha256: sourceTbsSha256 } = names;
  return { source: id, sourceSerial, sourceKey, sourceTbsSha256, rejection: null };
}

const nobody = { source: null, sourceSerial: '', sourceKey: '', sourceTbsSha256: '' } as const;

function refuse(why: string): Source {
  return { ...nobody, rejection: malformed(why) };
}

type HttpParts = Pick<Check, 'protocol' | 'method' | 'authority' | 'path' | 'foreignHeaders' | 'rejection'>;

function readHttp({ http }: CheckParts): HttpParts {
  if (http === undefined) return tcp;
  const { headers } = http;
  const method = agree('method', http.method, headers.valuesOf(':method'));
  const path = agree('path', http.path, headers.valuesOf(':path'));
  // Envoy folds `host` into `:authority`; both may only be there when they say the same.
  const hosts = [...headers.valuesOf(':authority'), ...headers.valuesOf('host')];
  const authority = agree('authority', http.host, hosts);
  const names = headers.select(isForeign);
  const foreignHeaders =
    names.length === 0 ? names : names.filter((name) => removableName.test(name)).slice(0, maxForeignHeaders);
  const hidden =
    foreignHeaders.length < names.length
      ? malformed('headers that only the mesh may set cannot be removed')
      : null;
  const doubled =
    headers.doubled === undefined ? null : ambiguous(`the header ${headers.doubled} is there twice`);
  const torn = headers.isTorn ? ambiguous('a header has one value as text and another as bytes') : null;
  return {
    protocol: 'http',
    method: method.value,
    path: path.value,
    authority: authority.value,
    foreignHeaders,
    rejection: doubled ?? torn ?? method.rejection ?? path.rejection ?? authority.rejection ?? hidden,
  };
}

const tcp: HttpParts = {
  protocol: 'tcp',
  method: '',
  authority: '',
  path: '',
  foreignHeaders: [],
  rejection: null,
};

/** The value all sources agree on. An empty field is an absent one: Envoy fills the fields and the headers separately. */
function agree(
  what: string,
  field: string,
  lines: readonly string[],
): { value: string; rejection: Rejection | null } {
  const value = field === '' ? (lines[0] ?? '') : field;
  return lines.every((line) => line === value)
    ? { value, rejection: null }
    : { value, rejection: ambiguous(`the request names more than one ${what}`) };
}

/** The same few callers come with call after call. */
function parseWorkload(text: string): SpiffeId | undefined {
  const known = knownCallers.get(text);
  if (known !== undefined) return known;
  try {
    const id = SpiffeId.parseWorkload(text);
    // Who asks may name anybody.
    if (knownCallers.size >= maxKnownCallers) knownCallers.clear();
    knownCallers.set(text, id);
    return id;
  } catch {
    return undefined;
  }
}

const knownCallers = new Map<string, SpiffeId>();
const maxKnownCallers = 4_096;

// RFC 9110 section 5.6.2, in the lower case that HTTP/2 requires.
const removableName = /^[!#$%&'*+.^_`|~0-9a-z-]{1,256}$/;
const maxForeignHeaders = 32;

const emptyCheck: Check = {
  protocol: 'tcp',
  source: null,
  sourceSerial: '',
  sourceKey: '',
  sourceTbsSha256: '',
  sourceAddress: '',
  claimedDestination: '',
  method: '',
  authority: '',
  path: '',
  port: 0,
  foreignHeaders: [],
  context: untold,
  rejection: null,
};
