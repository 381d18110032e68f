import { compileTexts } from './match.ts';
import { compileTemplate, isPathTemplate, templateFault } from './path-template.ts';
import type { TextMatch } from './policy.ts';

/** Many paths in one text, as a value of `paths` is written: each canonical path that it matches. */
export type PathPattern = TextMatch;

/**
 * Reads a value of `paths` out of a record. Undefined for what is none: then nothing is known of the paths.
 * @param text as `authz/path-pattern.ts` wrote it
 */
export function parsePathPattern(text: string): PathPattern | undefined {
  if (text === '' || text.includes('…')) return undefined;
  if (text === '*') return { kind: 'present' };
  if (isPathTemplate(text)) {
    if (templateFault(text) !== undefined) return undefined;
    return { kind: 'template', text, prefix: text.slice(0, text.indexOf('{')) };
  }
  if (text.startsWith('*')) return plain('suffix', text.slice(1));
  if (text.endsWith('*')) return plain('prefix', text.slice(0, -1));
  return plain('exact', text);
}

/** A path that the pattern matches. What is said of all its paths may be tried with this one. */
export function pathLike(pattern: PathPattern): string {
  switch (pattern.kind) {
    case 'present':
      return '/';
    case 'exact':
      return pattern.text;
    case 'prefix':
      return pattern.text;
    case 'suffix':
      return pattern.text.startsWith('/') ? pattern.text : `/${pattern.text}`;
    case 'template':
      return pattern.text.replaceAll('{*}', 'x').replace('{**}', '');
    default:
      return pattern satisfies never;
  }
}

/**
 * Whether one of several values matches all canonical paths of a pattern, or none, or it depends on which (`some`). Sound: `all`
 * and `none` hold of every one of them. `some` is said too where it is not plain to see.
 */
export function coverOf(pattern: PathPattern, values: readonly TextMatch[]): 'all' | 'none' | 'some' {
  if (pattern.kind === 'exact') return compileTexts(values)(pattern.text) ? 'all' : 'none';
  const paths = simplified(pattern);
  let isNone = true;
  for (const value of values) {
    const cover = coverOfOne(paths, simplified(value));
    if (cover === 'all') return 'all';
    if (cover !== 'none') isNone = false;
  }
  return isNone ? 'none' : 'some';
}

function plain(kind: 'exact' | 'prefix' | 'suffix', text: string): PathPattern | undefined {
  if (text === '' || text.includes('*')) return undefined;
  // No path begins otherwise.
  return kind === 'suffix' || text.startsWith('/') ? { kind, text } : undefined;
}

/** What is the same of canonical paths: each begins with a slash, and `{**}` at the end takes whatever comes. */
function simplified(match: TextMatch): TextMatch {
  if (match.kind === 'present') return { kind: 'prefix', text: '/' };
  const isTail = match.kind === 'template' && match.text === `${match.prefix}{**}`;
  return isTail ? { kind: 'prefix', text: match.prefix } : match;
}

function coverOfOne(paths: TextMatch, value: TextMatch): 'all' | 'none' | 'some' {
  if (value.kind === 'exact') return matchOne(paths, value.text) ? 'some' : 'none';
  if (value.kind === 'present' || paths.kind === 'present' || paths.kind === 'exact') return 'some';
  if (paths.kind === 'template' && value.kind === 'template' && paths.text === value.text) return 'all';
  if (value.kind === 'suffix') {
    const end = endOf(paths);
    if (end.endsWith(value.text)) return 'all';
    return value.text.endsWith(end) ? 'some' : 'none';
  }
  const [begins, wanted] = [beginOf(paths), beginOf(value)];
  if (value.kind === 'prefix' && begins.startsWith(wanted)) return 'all';
  return begins.startsWith(wanted) || wanted.startsWith(begins) ? 'some' : 'none';
}

/** What all of them begin with. */
function beginOf(match: TextMatch): string {
  if (match.kind === 'prefix') return match.text;
  return match.kind === 'template' ? match.prefix : '/';
}

/** What all of them end with. */
function endOf(match: TextMatch): string {
  if (match.kind === 'suffix') return match.text;
  return match.kind === 'template' ? match.text.slice(match.text.lastIndexOf('}') + 1) : '';
}

function matchOne(paths: TextMatch, path: string): boolean {
  return paths.kind === 'template' ? compileTemplate(paths.text)(path) : compileTexts([paths])(path);
}
