import type { CallContext } from './context.ts';
import { trimSpaces } from './header-line.ts';

/** Lower-case name and line of a header. */
export type HeaderPair = readonly [name: string, line: string];

/** The lines of headers that are known one by one; of those that could be taken for others, none can be told. */
export function headerLinesOf(headers: readonly HeaderPair[]): NonNullable<CallContext['headerLines']> {
  const linesOf = (wanted: string): readonly string[] =>
    headers.filter(([name]) => name === wanted).map(([, line]) => line);
  const names = headers.map(([name]) => name);
  const dropped = droppedNames(linesOf('connection'));
  return (name) => (isBlurred(name, names, dropped) ? undefined : linesOf(name));
}

/**
 * The names, in lower case, of headers that `Connection` says the next hop drops. To be worked out once for a call: the
 * lines are the caller's and may be long, and policies ask about many headers.
 * @see RFC 9110 section 7.6.1
 */
export function droppedNames(connection: readonly string[]): ReadonlySet<string> {
  const names = new Set<string>();
  for (const line of connection)
    for (const one of line.split(',')) if (one !== '') names.add(trimSpaces(one).toLowerCase());
  return names;
}

/**
 * Whether a program behind the proxy could read something else under a name than the lines of that name: another header
 * has a spelling that becomes the same variable in CGI, WSGI and PHP (`x_role` and `x.role` beside `x-role`), or
 * `Connection` names the header as one that the next hop drops.
 * @param name lower case, as are `names`
 * @param dropped see {@link droppedNames}
 * @see RFC 3875 section 4.1.18
 */
export function isBlurred(name: string, names: Iterable<string>, dropped: ReadonlySet<string>): boolean {
  if (dropped.has(name)) return true;
  const folded = foldHeaderName(name);
  for (const other of names) {
    // Folding keeps the length: most names are told apart by it.
    if (other.length === name.length && other !== name && foldHeaderName(other) === folded) return true;
  }
  return false;
}

/** What a name becomes where everything but letters and digits is one sign. @param name lower case */
export function foldHeaderName(name: string): string {
  return name.replace(/[^a-z0-9]/g, '-');
}
