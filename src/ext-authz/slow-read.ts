import { droppedNames, isBlurred } from '../authz/header-alias.ts';
import { type AttributeContext_HttpRequest, CheckRequest } from '../wire/authz.ts';
import type { HeaderValue } from '../wire/core.ts';
import { decidingHeaders, type Headers } from './header-list.ts';
import type { CheckParts } from './quick-read.ts';

/**
 * Reads any CheckRequest with the generated decoder. Undefined when it has no attributes.
 * @throws Error when it is no such message
 */
export function readSlowly(bytes: Uint8Array): CheckParts | undefined {
  const { attributes } = CheckRequest.decode(bytes);
  if (attributes === undefined) return undefined;
  const { source, destination, request, tlsSession, metadataContext } = attributes;
  const http = request?.http;
  return {
    source,
    destination,
    http:
      http === undefined
        ? undefined
        : { method: http.method, path: http.path, host: http.host, headers: collectHeaders(http) },
    tlsSession,
    filterMetadata: metadataContext?.filterMetadata,
  };
}

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
  let dropped: ReadonlySet<string> | undefined;
  return {
    valuesOf,
    linesOf: (name) => {
      dropped ??= droppedNames(valuesOf('connection'));
      return joined.has(name) || isBlurred(name, lines.keys(), dropped) ? undefined : valuesOf(name);
    },
    select: (wanted) => [...lines.keys()].filter(wanted),
    doubled: decidingHeaders.find((name) => rawNames.indexOf(name) !== rawNames.lastIndexOf(name)),
    isTorn: raw.some(({ value, rawValue }) => rawValue.length > 0 && value !== ''),
  };
}

/** One character per byte: no byte sequence is an error, and none can turn into another one's text. */
function rawText(header: HeaderValue): string {
  return header.rawValue.length > 0 ? header.rawValue.toString('latin1') : header.value;
}
