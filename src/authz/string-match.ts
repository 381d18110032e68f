import { quote } from '../errors.ts';
import type { YamlNode } from '../yaml-node.ts';
import type { StringMatch } from './policy.ts';

/**
 * Istio's string matching: a first `*` is a suffix match, else a last `*` a prefix match, alone it means present.
 * @throws MeshError `policy_invalid` for another `*`, and for no text
 */
export function parseMatch(node: YamlNode, text: string): StringMatch {
  if (text === '') throw invalid(node, text, 'is empty', 'write a value, or * for any');
  if (text === '*') return { kind: 'present' };
  const kind = text.startsWith('*') ? 'suffix' : text.endsWith('*') ? 'prefix' : 'exact';
  const rest = kind === 'suffix' ? text.slice(1) : kind === 'prefix' ? text.slice(0, -1) : text;
  if (rest.includes('*')) {
    throw invalid(node, text, 'has a * that is not the only one at its end', 'put one * first or last');
  }
  return { kind, text: rest };
}

/** `is "x", which has no end`. */
export function invalid(node: YamlNode, text: string, why: string, fix: string): Error {
  return node.error('policy_invalid', `is ${quote(text)}, which ${why}`, fix);
}
