import { InvalidArgumentError } from 'commander';

/** Collects the values of an option that may be repeated. */
export function repeated(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

/** Collects `key=value` pairs of an option that may be repeated; a key only once. */
export function parseLabel(
  value: string,
  before: readonly (readonly [string, string])[] = [],
): readonly (readonly [string, string])[] {
  const at = value.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('Write it as key=value.');
  const key = value.slice(0, at);
  if (before.some(([known]) => known === key)) throw new InvalidArgumentError('The key is given twice.');
  return [...before, [key, value.slice(at + 1)]];
}

/** Parses a port, 1 to 65,535. */
export function parsePort(text: string): number {
  const port = Number(text);
  if (!/^[1-9][0-9]{0,4}$/.test(text) || port > 65_535) {
    throw new InvalidArgumentError('It is not a port from 1 to 65535.');
  }
  return port;
}
