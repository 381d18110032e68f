import { type CallContext, untold } from '../authz/context.ts';
import { isBlurred } from '../authz/header-alias.ts';
import { ambiguous, malformed, type Rejection } from '../authz/rejection.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { type AttributeContext, type AttributeContext_HttpRequest, CheckRequest } from '../wire/authz.ts';
import type { HeaderValue } from '../wire/core.ts';
import { formatAddress, portOf, readContext } from './context.ts';
import { isForeign } from './foreign-header.ts';
import type { ReadPeerCertificate } from './peer-certificate.ts';

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
  let attributes: AttributeContext | undefined;
  try {
    attributes = CheckRequest.decode(bytes).attributes;
  } catch {
    return { ...emptyCheck, rejection: malformed('the check is not a CheckRequest message') };
  }
  if (attributes === undefined) return { ...emptyCheck, rejection: malformed('the check has no attributes') };
  const source = readSource(attributes, readCertificate);
  const { headerLines, ...http } = readHttp(attributes.request?.http);
  return {
    ...emptyCheck,
    ...source,
    ...http,
    sourceAddress: formatAddress(attributes.source?.address),
    claimedDestination: attributes.destination?.principal ?? '',
    port: portOf(attributes.destination?.address),
    context: readContext(attributes, headerLines),
    rejection: source.rejection ?? http.rejection,
  };
}

function readSource(
  { source }: AttributeContext,
  readCertificate: ReadPeerCertificate,
): Pick<Check, 'source' | 'sourceSerial' | 'sourceKey' | 'rejection'> {
  const principal = source?.principal ?? '';
  const certificate = source?.certificate ?? '';
  const unknown = { source: null, sourceSerial: '', sourceKey: '' };
  const refused = (why: string) => ({ ...unknown, rejection: malformed(why) });
  if (principal === '' && certificate === '') return { ...unknown, rejection: null };
  const id = parseWorkload(principal);
  if (id === undefined) return refused("the caller's certificate names no SPIFFE ID of a workload");
  if (certificate === '') return { ...unknown, source: id, rejection: null };
  const names = readCertificate(certificate);
  if (names === undefined) return refused("the caller's certificate cannot be read");
  // X509-SVID section 2: exactly one URI SAN. With two, the proxy reports the first and others may use the second.
  if (names.uriSans.length !== 1) {
    return refused(`the caller's certificate has ${names.uriSans.length} URI names instead of one`);
  }
  if (names.uriSans[0] !== id.text) return refused("the caller's certificate and its principal differ");
  return { source: id, sourceSerial: names.serial, sourceKey: names.spkiSha256, rejection: null };
}

type HttpParts = Pick<Check, 'protocol' | 'method' | 'authority' | 'path' | 'foreignHeaders' | 'rejection'> &
  Pick<CallContext, 'headerLines'>;

function readHttp(http: AttributeContext_HttpRequest | undefined): HttpParts {
  const nothing = { method: '', authority: '', path: '', foreignHeaders: [], rejection: null } as const;
  if (http === undefined) return { protocol: 'tcp', ...nothing, headerLines: undefined };
  const headers = collectHeaders(http);
  const method = agree('method', http.method, headers.valuesOf(':method'));
  const path = agree('path', http.path, headers.valuesOf(':path'));
  // Envoy folds `host` into `:authority`; both may only be there when they say the same.
  const hosts = [...headers.valuesOf(':authority'), ...headers.valuesOf('host')];
  const authority = agree('authority', http.host, hosts);
  const names = headers.names.filter(isForeign);
  const foreignHeaders = names.filter((name) => removableName.test(name)).slice(0, maxForeignHeaders);
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
    headerLines: headers.linesOf,
    rejection: doubled ?? torn ?? method.rejection ?? path.rejection ?? authority.rejection ?? hidden,
  };
}

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

type Headers = {
  readonly names: readonly string[];
  readonly valuesOf: (name: string) => readonly string[];
  readonly linesOf: NonNullable<CallContext['headerLines']>;
  /** The first of the headers that decide about the request and appear more than once. */
  readonly doubled: string | undefined;
  /** Whether a header has both of what is one or the other. @see envoy.config.core.v3.HeaderValue */
  readonly isTorn: boolean;
};

function collectHeaders(http: AttributeContext_HttpRequest): Headers {
  const raw = http.headerMap?.headers ?? [];
  const pairs: [string, string][] = [
    ...raw.map((header): [string, string] => [header.key.toLowerCase(), rawText(header)]),
    ...Object.entries(http.headers).map(([key, value]): [string, string] => [key.toLowerCase(), value]),
  ];
  const rawNames = raw.map((header) => header.key.toLowerCase());
  const lines = new Map<string, string[]>();
  for (const [name, value] of pairs) {
    const known = lines.get(name);
    if (known === undefined) lines.set(name, [value]);
    else known.push(value);
  }
  // A map joins the lines of a header with commas, which may stand in a line as well.
  const joined = new Set<string>();
  for (const [key, value] of Object.entries(http.headers))
    if (value.includes(',')) joined.add(key.toLowerCase());
  // The decoder of a map loses it.
  if (raw.length === 0) joined.add('__proto__');
  const valuesOf = (name: string): readonly string[] => lines.get(name) ?? [];
  return {
    names: [...lines.keys()],
    valuesOf,
    linesOf: (name) =>
      joined.has(name) || isBlurred(name, lines.keys(), lines.get('connection')) ? undefined : valuesOf(name),
    doubled: decidingHeaders.find((name) => rawNames.indexOf(name) !== rawNames.lastIndexOf(name)),
    isTorn: raw.some(({ value, rawValue }) => rawValue.length > 0 && value !== ''),
  };
}

/** One character per byte: no byte sequence is an error, and none can turn into another one's text. */
function rawText(header: HeaderValue): string {
  return header.rawValue.length > 0 ? header.rawValue.toString('latin1') : header.value;
}

function parseWorkload(text: string): SpiffeId | undefined {
  try {
    return SpiffeId.parseWorkload(text);
  } catch {
    return undefined;
  }
}

const decidingHeaders = [':method', ':path', ':authority', 'host'];

// RFC 9110 section 5.6.2, in the lower case that HTTP/2 requires.
const removableName = /^[!#$%&'*+.^_`|~0-9a-z-]{1,256}$/;
const maxForeignHeaders = 32;

const emptyCheck: Check = {
  protocol: 'tcp',
  source: null,
  sourceSerial: '',
  sourceKey: '',
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
