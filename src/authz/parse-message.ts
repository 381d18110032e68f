import type { YamlNode } from '../yaml-node.ts';
import type { MetadataMatch, StringMatch, TokenMatch } from './policy.ts';
import { invalid, parseMatch } from './string-match.ts';

/**
 * A value of a header. What is in the line of the request has one form in policy: `methods`, `paths`, `hosts`.
 * @param name lower case
 * @throws MeshError `policy_invalid`, `document_field_type`
 */
export function parseHeader(node: YamlNode, name: string): StringMatch {
  const text = node.string();
  const field = fieldOf.get(name);
  if (field !== undefined) {
    throw invalid(node, text, `is of ${name}, which is no header here`, `write it under ${field}`);
  }
  if (!/^[!#$%&'*+.^_`|~0-9a-z-]{1,256}$/.test(name)) {
    throw invalid(node, text, 'is of a header that no request can have', 'correct the name in the brackets');
  }
  const match = parseMatch(node, text);
  if (match.kind === 'present') return match;
  const outside = match.kind === 'prefix' ? /^[ \t]/ : match.kind === 'suffix' ? /[ \t]$/ : /^[ \t]|[ \t]$/;
  if (!/^[\t -~]{1,8192}$/.test(match.text) || outside.test(match.text)) {
    throw invalid(
      node,
      text,
      'can match no header, because it has outer spaces or other characters than ASCII',
      'write the value as it is sent',
    );
  }
  return match;
}

const fieldOf: ReadonlyMap<string, string> = new Map([
  [':authority', 'hosts'],
  ['host', 'hosts'],
  [':method', 'methods'],
  [':path', 'paths'],
]);

/**
 * A value of `requestPrincipals`, `<issuer>/<subject>`; the issuer may be a URL, so the last slash divides the two.
 * @throws MeshError `policy_invalid`, `document_field_type`
 */
export function parseToken(node: YamlNode): TokenMatch {
  const text = node.string();
  const present: StringMatch = { kind: 'present' };
  const match = parseMatch(node, text);
  if (match.kind === 'present') return { issuer: present, subject: present };
  const slash = match.text.lastIndexOf('/');
  const before = match.text.slice(0, Math.max(slash, 0));
  const after = match.text.slice(slash + 1);
  if (slash === -1) {
    if (match.kind === 'suffix') return { issuer: present, subject: { kind: 'suffix', text: after } };
    if (match.kind === 'prefix') return { issuer: { kind: 'prefix', text: after }, subject: present };
  }
  const fix = 'write <issuer>/<subject>, with at most one * first or last';
  if (slash === -1) throw invalid(node, text, 'names no subject', fix);
  if (match.kind !== 'suffix' && before === '') throw invalid(node, text, 'names no issuer', fix);
  if (match.kind !== 'prefix' && after === '') throw invalid(node, text, 'names no subject', fix);
  if (match.kind === 'suffix') {
    return {
      issuer: before === '' ? present : { kind: 'suffix', text: before },
      subject: { kind: 'exact', text: after },
    };
  }
  const subject: StringMatch = match.kind === 'exact' ? { kind: 'exact', text: after } : prefixOf(after);
  return { issuer: { kind: 'exact', text: before }, subject };
}

function prefixOf(text: string): StringMatch {
  return text === '' ? { kind: 'present' } : { kind: 'prefix', text };
}

/** A value of a filter's metadata: `[v]` looks into a list. @throws MeshError `policy_invalid`, `document_field_type` */
export function parseMetadata(node: YamlNode): MetadataMatch {
  const text = node.string();
  const inList = text.startsWith('[') && text.endsWith(']');
  return { inList, match: parseMatch(node, inList ? text.slice(1, -1) : text) };
}
