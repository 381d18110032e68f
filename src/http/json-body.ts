import { MeshError } from '../errors.ts';

/** The most bytes of a request body. */
export const maxBodyBytes = 2_097_152;
/** The deepest nesting of a request body. */
export const maxBodyDepth = 32;
/** The most commas between members and elements of a request body: a schema takes microseconds for each. */
export const maxBodyCommas = 20_000;

/**
 * Parses a JSON body of at most {@link maxBodyBytes}. Invalid UTF-8, nesting beyond {@link maxBodyDepth}, more than
 * {@link maxBodyCommas} and a key named `__proto__` are refused before anything walks the value.
 * @throws MeshError `body_invalid`
 */
export function parseJsonBody(bytes: Buffer): unknown {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new MeshError('body_invalid', 'the body is not UTF-8', { cause });
  }
  checkShape(text);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new MeshError('body_invalid', 'the body is not JSON', {
      cause,
      fix: 'send one JSON object',
    });
  }
  refuseProto(value);
  return value;
}

// Counts brackets and commas outside strings; on malformed text the count may be wrong, and JSON.parse refuses that text.
function checkShape(text: string): void {
  let depth = 0;
  let commas = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (inString) {
      if (c === backslash) i++;
      else if (c === doubleQuote) inString = false;
    } else if (c === doubleQuote) inString = true;
    else if (c === openBracket || c === openBrace) {
      if (++depth > maxBodyDepth) {
        throw new MeshError('body_invalid', `the body is nested deeper than ${maxBodyDepth} levels`);
      }
    } else if (c === closeBracket || c === closeBrace) depth--;
    else if (c === comma && ++commas > maxBodyCommas) {
      throw new MeshError(
        'body_invalid',
        `the body has more than ${maxBodyCommas} commas between its parts`,
        {
          fix: 'send it in several requests',
        },
      );
    }
  }
}

function refuseProto(value: unknown): void {
  if (typeof value !== 'object' || value === null) return;
  if (Object.hasOwn(value, '__proto__')) {
    throw new MeshError('body_invalid', 'the body has a key named "__proto__"', { fix: 'remove that key' });
  }
  for (const inner of Object.values(value)) refuseProto(inner);
}

const doubleQuote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const openBracket = 0x5b;
const closeBracket = 0x5d;
const openBrace = 0x7b;
const closeBrace = 0x7d;
