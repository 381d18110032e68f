import { MeshError, quote } from '../errors.ts';

/** A JSON object by member name, and the names that stand twice in it or in any object within. */
export type JsonObject = {
  readonly members: ReadonlyMap<string, unknown>;
  readonly duplicates: readonly string[];
};

/**
 * Reads a text that is one JSON object. What JSON.parse passes over in silence, a member that stands twice, is told.
 * @param what names the text in errors
 * @throws MeshError `input_unreadable` when it is no JSON, no object, or nested deeper than 32 levels
 * @see RFC 8259
 */
export function readJsonObject(text: string, what: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new MeshError('input_unreadable', `${what} is not JSON`, { fix: 'give one JSON object', cause });
  }
  const members = membersOf(value);
  if (members === undefined) {
    throw new MeshError('input_unreadable', `${what} is not a JSON object`, { fix: 'give one JSON object' });
  }
  return { members, duplicates: duplicateMembers(text, what) };
}

/** The members of a parsed JSON object, or undefined when the value is none. */
export function membersOf(value: unknown): ReadonlyMap<string, unknown> | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return new Map(Object.entries(value));
}

/** Member names that stand twice, each quoted, at most 16. The text is JSON already: only its outline is walked. */
function duplicateMembers(text: string, what: string): readonly string[] {
  const open: Set<string>[] = [];
  const twice = new Set<string>();
  for (let at = 0; at < text.length; at++) {
    switch (text.charAt(at)) {
      case '{':
      case '[':
        open.push(new Set());
        if (open.length > maxDepth) {
          throw new MeshError('input_unreadable', `${what} is nested deeper than ${maxDepth} levels`);
        }
        break;
      case '}':
      case ']':
        open.pop();
        break;
      case '"': {
        const end = endOfString(text, at);
        let after = end;
        while (isSpace(text[after])) after++;
        if (text[after] === ':') {
          const name = JSON.parse(text.slice(at, end)) as string;
          const names = open.at(-1);
          if (names?.has(name) === true && twice.size < maxShown) twice.add(quote(name));
          names?.add(name);
        }
        at = after - 1;
        break;
      }
      default:
    }
  }
  return [...twice];
}

/** Where a string that begins at `start` is over. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === '"') return at + 1;
  }
  return text.length;
}

function isSpace(c: string | undefined): boolean {
  return c === ' ' || c === '\t' || c === '\n' || c === '\r';
}

const maxDepth = 32;
const maxShown = 16;
