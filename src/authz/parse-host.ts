import type { YamlNode } from '../yaml-node.ts';
import { canonicalHost } from './host.ts';
import type { HostMatch } from './policy.ts';
import { invalid, parseMatch } from './string-match.ts';

/** A port from 1 to 65535, as text. @throws MeshError `policy_invalid`, `document_field_type` */
export function parsePort(node: YamlNode): number {
  const text = node.string();
  const port = readPort(text);
  if (port !== undefined) return port;
  throw invalid(node, text, 'is no port', 'write a number from 1 to 65535, in quotes');
}

function readPort(text: string): number | undefined {
  if (!/^[1-9][0-9]{0,4}$/.test(text)) return undefined;
  const port = Number(text);
  return port <= 65_535 ? port : undefined;
}

/**
 * Strict mode splits a host into name and port, as it does with the request; `:*` is any port.
 * @throws MeshError `policy_invalid`, `document_field_type`
 */
export function parseHost(node: YamlNode): HostMatch {
  const text = node.string();
  const split = /^(.*[^:]|\[[^\]]*\]):([0-9]+|\*)$/.exec(text);
  const written = split === null ? text : (split[1] ?? '');
  const port = split === null || split[2] === '*' ? null : readPort(split[2] ?? '');
  if (port === undefined)
    throw invalid(node, text, 'has no valid port', 'write a port from 1 to 65535, or :*');
  const match = parseMatch(node, written);
  if (match.kind === 'present') return { name: match, port };
  const name = match.text.toLowerCase();
  if (match.kind === 'exact') {
    const canonical = canonicalHost(name);
    if (typeof canonical !== 'string') {
      throw invalid(
        node,
        text,
        `can match no request, because a host that ${canonical.why} is refused`,
        hostFix,
      );
    }
    return { name: { kind: 'exact', text: canonical }, port };
  }
  const rest = match.kind === 'suffix' && name.length > 1 && name.endsWith('.') ? name.slice(0, -1) : name;
  if (!/^[a-z0-9._-]{1,253}$/.test(rest) || rest.includes('..')) {
    throw invalid(node, text, 'is no part of a host name', hostFix);
  }
  return { name: { kind: match.kind, text: rest }, port };
}

const hostFix =
  'write a DNS name or an IP address, with at most one * first or last, and a port if it matters';
