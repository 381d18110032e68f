import { MeshError, quote } from '../errors.ts';
import { SpiffeId } from '../spiffe/id.ts';
import type { YamlNode } from '../yaml-node.ts';
import { canonicalHost } from './host.ts';
import { canonicalPath } from './path.ts';
import type { HostMatch, Predicate, PredicateField, StringMatch } from './policy.ts';
import { isMethod } from './request.ts';

type Values = Predicate extends infer P
  ? P extends Predicate
    ? Pick<P, 'field' | 'matches'>
    : never
  : never;

/**
 * The values of one field. A value that could match no canonical request is an error, because a DENY that never matches
 * looks like protection.
 * @throws MeshError `policy_invalid`, `policy_unsupported`, `document_field_type`
 */
export function parseValues(field: PredicateField, nodes: readonly YamlNode[]): Values {
  if (field === 'ports') return { field, matches: nodes.map(parsePort) };
  if (field === 'hosts') return { field, matches: nodes.map(parseHost) };
  return { field, matches: nodes.map(textParsers[field]) };
}

const textParsers = {
  principals: parsePrincipal,
  namespaces: parseNamespace,
  methods: parseMethod,
  paths: parsePath,
};

/** Istio's string matching: a first `*` is a suffix match, else a last `*` a prefix match, alone it means present. */
function parseMatch(node: YamlNode, text: string): StringMatch {
  if (text === '') throw invalid(node, text, 'is empty', 'write a value, or * for any');
  if (text === '*') return { kind: 'present' };
  const kind = text.startsWith('*') ? 'suffix' : text.endsWith('*') ? 'prefix' : 'exact';
  const rest = kind === 'suffix' ? text.slice(1) : kind === 'prefix' ? text.slice(0, -1) : text;
  if (rest.includes('*')) {
    throw invalid(node, text, 'has a * that is not the only one at its end', 'put one * first or last');
  }
  return { kind, text: rest };
}

function parsePrincipal(node: YamlNode): StringMatch {
  const text = node.string();
  if (text.startsWith('spiffe://')) {
    throw invalid(node, text, 'begins with spiffe://', 'leave spiffe:// away');
  }
  const match = parseMatch(node, text);
  if (match.kind === 'present') return match;
  const fix = 'write it as <trust domain>/ns/<namespace>/sa/<service account>, or with one * first or last';
  if (match.kind === 'exact') {
    try {
      SpiffeId.parseWorkload(`spiffe://${match.text}`);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      throw node.error('policy_invalid', `is no SPIFFE ID: ${error.message}`, fix);
    }
  } else if (
    !/^[A-Za-z0-9._/-]+$/.test(match.text) ||
    match.text.includes('//') ||
    match.text.length > 2_048
  ) {
    throw invalid(node, text, 'is no part of a SPIFFE ID', fix);
  } else if (match.kind === 'prefix' && !/^[a-z0-9._-]+(?:\/|$)/.test(match.text)) {
    throw invalid(node, text, 'does not begin with a trust domain', fix);
  } else if (match.kind === 'suffix' && match.text.endsWith('/')) {
    throw invalid(node, text, 'ends with a slash', fix);
  }
  return match;
}

function parseNamespace(node: YamlNode): StringMatch {
  const text = node.string();
  const match = parseMatch(node, text);
  if (match.kind === 'present' || /^[A-Za-z0-9._-]{1,253}$/.test(match.text)) return match;
  throw invalid(node, text, 'is no namespace', 'write one name, with at most one * first or last');
}

function parseMethod(node: YamlNode): StringMatch {
  const text = node.string();
  const match = parseMatch(node, text);
  if (match.kind === 'present' || isMethod(match.text)) return match;
  throw invalid(node, text, 'is no HTTP method', 'write it as in GET, in its own letter case');
}

function parsePath(node: YamlNode): StringMatch {
  const text = node.string();
  if (/[{}]/.test(text)) {
    throw node.error(
      'policy_unsupported',
      `is ${quote(text)}, a path template, which is not supported yet`,
      'list the paths, or end one with *',
    );
  }
  const match = parseMatch(node, text);
  if (match.kind === 'present') return match;
  if (match.kind !== 'suffix' && !match.text.startsWith('/')) {
    throw invalid(node, text, 'does not begin with /', 'begin it with / or *');
  }
  // A suffix is judged behind a path, a prefix before the rest of its segment: each is then the shape of a whole path.
  const whole =
    match.kind === 'suffix' ? `/x${match.text}` : match.kind === 'prefix' ? `${match.text}x` : match.text;
  const canonical = canonicalPath(whole);
  if (typeof canonical !== 'string') {
    throw invalid(
      node,
      text,
      `can match no request, because a path that ${canonical.why} is refused`,
      pathFix,
    );
  }
  if (canonical !== whole) {
    throw invalid(node, text, 'is not in canonical form', `compare with ${quote(canonical)}: ${pathFix}`);
  }
  return match;
}

const pathFix = 'write the path without query, escapes of plain characters, //, /./ and /../';

function parsePort(node: YamlNode): number {
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

/** Strict mode splits a host into name and port, as it does with the request; `:*` is any port. */
function parseHost(node: YamlNode): HostMatch {
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

function invalid(node: YamlNode, text: string, what: string, fix: string): MeshError {
  return node.error('policy_invalid', `is ${quote(text)}, which ${what}`, fix);
}
