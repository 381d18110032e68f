import type { CallContext } from './context.ts';
import { trimSpaces } from './header-line.ts';

/** Lower-case name and line of a header. */
export type HeaderPair = readonly [name: string, line: string];

/** The lines of headers that are known one by one; of those that could be taken for others, none can be told. */
export function headerLinesOf(headers: readonly HeaderPair[]): NonNullable<CallContext['headerLines']> {
  const linesOf = (wanted: string): readonly string[] =>
    headers.filter(([name]) => name === wanted).map(([, line]) => line);
  const names = headers.map(([name]) => name);
  return (name) => (isBlurred(name, names, linesOf('connection')) ? undefined : linesOf(name));
}

/**
 * Whether a program behind the proxy could read something else under a name than the lines of that name: another header
 * has a spelling that becomes the same variable in CGI, WSGI and PHP (`x_role` and `x.role` beside `x-role`), or
 * `Connection` names the header as one that the next hop drops.
 * @param name lower case, as are `names`
 * @see RFC 3875 section 4.1.18, RFC 9110 section 7.6.1
 */
export function isBlurred(
  name: string,
  names: Iterable<string>,
  connection: readonly string[] = [],
): boolean {
  const folded = foldHeaderName(name);
  for (const other of names) {
    // Folding keeps the length: most names are told apart by it.
    if (other.length === name.length && other !== name && foldHeaderName(other) === folded) return true;
  }
  return connection.some((line) => line.split(',').some((one) => trimSpaces(one).toLowerCase() === name));
}

/** What a name becomes where everything but letters and digits is one sign. @param name lower case */
export function foldHeaderName(name: string): string {
  return name.replace(/[^a-z0-9]/g, '-');
}
