import { ambiguous, malformed, type Rejection } from './rejection.ts';

/** The name and the port of an authority; no port is null. */
export type Authority = { readonly host: string; readonly hostPort: number | null };

/**
 * Splits an authority into a canonical host and its port. User information, spaces, percent-encodings, characters
 * outside ASCII and bad ports are refused.
 * @see RFC 3986 section 3.2, RFC 9110 section 7.2
 */
export function splitAuthority(authority: string): Authority | Rejection {
  if (authority === '') return malformed('is missing');
  if (authority.length > maxAuthorityBytes) return malformed(`is longer than ${maxAuthorityBytes} bytes`);
  if (authority.includes('@')) return ambiguous('has user information');
  const end = authority.startsWith('[') ? authority.indexOf(']') + 1 : authority.indexOf(':');
  const name = end <= 0 ? authority : authority.slice(0, end);
  const rest = end <= 0 ? '' : authority.slice(end);
  if (rest !== '' && !/^:[0-9]{1,5}$/.test(rest)) return malformed('has a bad port');
  const hostPort = rest === '' ? null : Number(rest.slice(1));
  if (hostPort !== null && (hostPort === 0 || hostPort > 65_535)) return malformed('has a bad port');
  const host = canonicalHost(name.toLowerCase());
  return typeof host === 'string' ? { host, hostPort } : host;
}

/** A host name of 253 bytes with its trailing dot, a colon and a port. */
const maxAuthorityBytes = 260;

/**
 * The one spelling of a host: lower case, one trailing dot dropped, IPv6 compressed as RFC 5952 says and in brackets.
 * @param name lower case; a DNS name (letters, digits, hyphen, underscore), IPv4 or `[IPv6]`
 */
export function canonicalHost(name: string): string | Rejection {
  if (name.startsWith('[')) return canonicalIpv6(name);
  const host = name.endsWith('.') ? name.slice(0, -1) : name;
  if (host === '') return malformed('has no name');
  if (host.length > 253) return malformed('is longer than 253 bytes');
  const labels = host.split('.');
  for (const label of labels) {
    if (label === '') return malformed('has an empty label');
    if (!/^[a-z0-9_-]{1,63}$/.test(label)) return malformed('has a label that no DNS name may have');
  }
  // `127.1` and `0x7f000001` are addresses to a resolver and names to everybody else.
  if (/^(?:[0-9]+|0x[0-9a-f]*)$/.test(labels.at(-1) ?? '') && !ipv4.test(host)) {
    return ambiguous('looks like an IP address in an unusual form');
  }
  return host;
}

const octet = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])';
const ipv4 = new RegExp(`^(?:${octet}\\.){3}${octet}$`);

function canonicalIpv6(name: string): string | Rejection {
  const bad = malformed('has a bad IPv6 address');
  if (!name.endsWith(']')) return bad;
  const text = name.slice(1, -1);
  if (text.includes('%')) return ambiguous('has an IPv6 zone');
  if (text.includes('.')) return ambiguous('has an IPv6 address that embeds an IPv4 address');
  const halves = text.split('::');
  if (halves.length > 2) return bad;
  const [head = [], tail] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const written = [...head, ...(tail ?? [])];
  if (!written.every((group) => /^[0-9a-f]{1,4}$/.test(group))) return bad;
  if (tail === undefined ? written.length !== 8 : written.length > 7) return bad;
  const zeros = Array.from({ length: 8 - written.length }, () => '0');
  const groups = [...head, ...zeros, ...(tail ?? [])].map((group) => Number.parseInt(group, 16).toString(16));
  return `[${compress(groups)}]`;
}

/** Replaces the first longest run of two or more zero groups by `::`. */
function compress(groups: readonly string[]): string {
  let best = { start: 0, length: 1 };
  for (let start = 0; start < groups.length; start++) {
    let end = start;
    while (groups[end] === '0') end += 1;
    if (end - start > best.length) best = { start, length: end - start };
  }
  if (best.length < 2) return groups.join(':');
  return `${groups.slice(0, best.start).join(':')}::${groups.slice(best.start + best.length).join(':')}`;
}
