/** How a proxy rewrites a path before policy and the application see it: Istio's `pathNormalization`. */
export const pathNormalizations = ['NONE', 'BASE', 'MERGE_SLASHES', 'DECODE_AND_MERGE_SLASHES'] as const;
export type PathNormalization = (typeof pathNormalizations)[number];

/**
 * The path that Envoy 1.40 compares under a normalization, without query; null when Envoy answers the request with 400
 * before any policy.
 * @param raw `:path` with its query
 */
export function normalizedPath(raw: string, normalization: PathNormalization): string | null {
  // Refused whatever the normalization: a fragment, and what is no path (of `*` and of absolute URLs).
  if (raw.includes('#') || !raw.startsWith('/')) return null;
  const query = raw.indexOf('?');
  const path = query === -1 ? raw : raw.slice(0, query);
  if (normalization === 'NONE') return path;
  const decoded =
    normalization === 'DECODE_AND_MERGE_SLASHES' ? path.replace(/%2f/gi, '/').replace(/%5c/gi, '\\') : path;
  if (/%00|\u0000/.test(decoded)) return null;
  const resolved = escapeReserved(resolveDots(decodeUnreserved(decoded)));
  if (normalization === 'BASE') return resolved;
  return resolved.replace(/\/{2,}/g, '/');
}

/**
 * Dot segments resolved as they are met, backslashes turned. An empty segment is one like any other for `..`.
 * @see RFC 3986 section 5.2.4; url::CanonicalizePath of Chromium, which Envoy uses
 */
function resolveDots(path: string): string {
  const segments = path.replaceAll('\\', '/').slice(1).split('/');
  const out: string[] = [];
  for (const [index, segment] of segments.entries()) {
    const isLast = index === segments.length - 1;
    const name = parameterless(segment);
    if (name === '..') out.pop();
    if (name !== '..' && name !== '.') out.push(segment);
    else if (isLast) out.push('');
  }
  return `/${out.join('/')}`;
}

/** `..;a=b` is `..` to Envoy 1.40, whatever the parameters are. */
function parameterless(segment: string): string {
  const semicolon = segment.indexOf(';');
  return semicolon === -1 ? segment : segment.slice(0, semicolon);
}

/** Once: what comes out is not decoded again. @see RFC 3986 section 6.2.2.2 */
function decodeUnreserved(path: string): string {
  return path.replace(/%([0-9a-fA-F]{2})/g, (whole, digits: string) => {
    const decoded = String.fromCharCode(Number.parseInt(digits, 16));
    return /[A-Za-z0-9._~-]/.test(decoded) ? decoded : whole;
  });
}

/** What may not stand plainly in a path is encoded. */
function escapeReserved(path: string): string {
  return path.replace(/[\u0001-\u0020"<>^`{|}\u007f-\uffff]+/g, (text) =>
    [...Buffer.from(text, 'utf8')]
      .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)
      .join(''),
  );
}
