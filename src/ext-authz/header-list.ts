import type { CallContext } from '../authz/context.ts';
import { droppedNames, isBlurred } from '../authz/header-alias.ts';

/** The headers of a call, names in lower case. */
export type Headers = {
  readonly valuesOf: (name: string) => readonly string[];
  readonly linesOf: NonNullable<CallContext['headerLines']>;
  /** The names that are wanted, each once. */
  readonly select: (wanted: (name: string) => boolean) => readonly string[];
  /** The first of the headers that decide about the request and appear more than once. */
  readonly doubled: string | undefined;
  /** Whether a header has both of what is one or the other. @see envoy.config.core.v3.HeaderValue */
  readonly isTorn: boolean;
};

/** Headers that say what the request is. */
export const decidingHeaders = [':method', ':path', ':authority', 'host'] as const;

/** Where headers are in the bytes of a message: names, and for each where its value begins and ends. */
export type HeaderPlaces = {
  readonly bytes: Buffer;
  /** Lower case. */
  readonly names: readonly string[];
  readonly borders: readonly number[];
  /** Lines as bytes, or a map with one text for each name, in which lines are joined with commas. */
  readonly isRaw: boolean;
};

/** Headers whose values become text when somebody asks for them, and most nobody asks for. */
export function headersAt({ bytes, names, borders, isRaw }: HeaderPlaces): Headers {
  // One character for each raw byte: no byte sequence is an error, and none can turn into another one's text.
  const encoding = isRaw ? 'latin1' : 'utf8';
  const valuesOf = (name: string): readonly string[] => {
    const values: string[] = [];
    for (let i = names.indexOf(name); i !== -1; i = names.indexOf(name, i + 1)) {
      values.push(bytes.toString(encoding, borders[2 * i], borders[2 * i + 1]));
    }
    return values;
  };
  let dropped: ReadonlySet<string> | undefined;
  return {
    valuesOf,
    linesOf: (name) => {
      dropped ??= droppedNames(valuesOf('connection'));
      if (isBlurred(name, names, dropped)) return undefined;
      const values = valuesOf(name);
      // A comma may stand in a line as well.
      if (!isRaw && values.some((value) => value.includes(','))) return undefined;
      // The generated decoder of a map loses it.
      return name === '__proto__' && (!isRaw || names.length === 0) ? undefined : values;
    },
    select: (wanted) => {
      const found = names.filter(wanted);
      return found.length < 2 ? found : [...new Set(found)];
    },
    doubled: isRaw
      ? decidingHeaders.find((name) => names.indexOf(name) !== names.lastIndexOf(name))
      : undefined,
    isTorn: false,
  };
}
