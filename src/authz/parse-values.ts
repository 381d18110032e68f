import { MeshError, quote } from '../errors.ts';
import { SpiffeId } from '../spiffe/id.ts';
import type { YamlNode } from '../yaml-node.ts';
import { canonicalCidr, parseCidr } from './cidr.ts';
import type { Condition, WrittenAttribute } from './document.ts';
import { parseHost, parsePort } from './parse-host.ts';
import { parseHeader, parseMetadata, parseToken } from './parse-message.ts';
import { canonicalPath } from './path.ts';
import { isPathTemplate } from './path-template.ts';
import type { Matches, StringMatch, TextMatch } from './policy.ts';
import { isMethod } from './request.ts';
import { invalid, parseMatch } from './string-match.ts';

/**
 * The values of one condition. A value that could match no canonical request is an error, because a DENY that never
 * matches looks like protection.
 * @param namespace of the policy: that of a service account which names none
 * @throws MeshError `policy_invalid`, `document_field_type`
 */
export function parseValues(
  condition: Pick<Condition, 'attribute' | 'names'>,
  nodes: readonly YamlNode[],
  namespace: string,
): Matches {
  return parsers[condition.attribute](nodes, condition, namespace);
}

type Parser = (
  nodes: readonly YamlNode[],
  condition: Pick<Condition, 'attribute' | 'names'>,
  namespace: string,
) => Matches;

function texts(parse: (node: YamlNode) => TextMatch): Parser {
  return (nodes) => ({ kind: 'text', matches: nodes.map(parse) });
}

const addresses: Parser = (nodes) => ({ kind: 'address', matches: nodes.map(parseBlock) });
const claims = texts((node) => parseMatch(node, node.string()));

const parsers: Readonly<Record<WrittenAttribute, Parser>> = {
  'source.principal': texts(parsePrincipal),
  'source.namespace': texts(parseNamespace),
  'source.serviceAccount': (nodes, _, namespace) => ({
    kind: 'text',
    matches: nodes.map((node) => parseServiceAccount(node, namespace)),
  }),
  'source.trustDomain': texts(parseTrustDomain),
  'source.ip': addresses,
  'remote.ip': addresses,
  'request.auth.principal': (nodes) => ({ kind: 'token', matches: nodes.map(parseToken) }),
  'request.auth.audiences': claims,
  'request.auth.presenter': claims,
  'request.auth.claims': claims,
  'request.headers': (nodes, { names: [name = ''] }) => ({
    kind: 'text',
    matches: nodes.map((node) => parseHeader(node, name)),
  }),
  'request.host': (nodes) => ({ kind: 'host', matches: nodes.map(parseHost) }),
  'request.method': texts(parseMethod),
  'request.path': texts(parsePath),
  'destination.ip': addresses,
  'destination.port': (nodes) => ({ kind: 'port', matches: nodes.map(parsePort) }),
  'connection.sni': texts(parseServerName),
  'filter.metadata': (nodes) => ({ kind: 'metadata', matches: nodes.map(parseMetadata) }),
};

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

/** As facts have it: `namespace/account`. */
function parseServiceAccount(node: YamlNode, namespace: string): StringMatch {
  const text = node.string();
  const whole = text.includes('/') ? text : `${namespace}/${text}`;
  if (/^[A-Za-z0-9._-]+\/[A-Za-z0-9._-]+$/.test(whole)) return { kind: 'exact', text: whole };
  throw invalid(node, text, 'is no service account', 'write <namespace>/<name>, without wildcards');
}

function parseTrustDomain(node: YamlNode): StringMatch {
  const text = node.string();
  const match = parseMatch(node, text);
  if (match.kind === 'present' || /^[a-z0-9._-]{1,255}$/.test(match.text)) return match;
  throw invalid(node, text, 'is no trust domain', 'write it in lower case, with at most one * first or last');
}

function parseBlock(node: YamlNode) {
  const text = node.string();
  const block = parseCidr(text);
  if (block !== undefined) return canonicalCidr(block);
  throw invalid(node, text, 'is no address', 'write an IP address, or a block such as 10.0.0.0/8');
}

function parseMethod(node: YamlNode): StringMatch {
  const text = node.string();
  const match = parseMatch(node, text);
  if (match.kind === 'present' || isMethod(match.text)) return match;
  throw invalid(node, text, 'is no HTTP method', 'write it as in GET, in its own letter case');
}

function parsePath(node: YamlNode): TextMatch {
  const text = node.string();
  // The reader of the document has looked at the operators.
  if (isPathTemplate(text)) {
    checkCanonical(node, text, text.replace(/\{\*{1,2}\}/g, 'x'));
    return { kind: 'template', text, prefix: text.slice(0, text.indexOf('{')) };
  }
  const match = parseMatch(node, text);
  if (match.kind === 'present') return match;
  if (match.kind !== 'suffix' && !match.text.startsWith('/')) {
    throw invalid(node, text, 'does not begin with /', 'begin it with / or *');
  }
  // A suffix is judged behind a path, a prefix before the rest of its segment: each is then the shape of a whole path.
  checkCanonical(
    node,
    text,
    match.kind === 'suffix' ? `/x${match.text}` : match.kind === 'prefix' ? `${match.text}x` : match.text,
  );
  return match;
}

function checkCanonical(node: YamlNode, text: string, whole: string): void {
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
}

const pathFix = 'write the path without query, escapes of plain characters, //, /./ and /../';

/** As facts have it: a name that TLS asks for is a DNS name, without upper case and last dot. @see RFC 6066 section 3 */
function parseServerName(node: YamlNode): StringMatch {
  const text = node.string();
  const match = parseMatch(node, text);
  if (match.kind === 'present') return match;
  const name = match.kind === 'prefix' ? match.text : match.text.replace(/\.$/, '');
  if (/^[A-Za-z0-9._-]{1,253}$/.test(name)) return { kind: match.kind, text: name.toLowerCase() };
  throw invalid(node, text, 'is no DNS name', 'write a name, with at most one * first or last');
}
