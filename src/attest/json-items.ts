/** Takes a JSON document apart as it arrives. */
export type JsonItems = {
  /** @throws Error when the document is not of the form expected */
  readonly push: (chunk: Buffer) => void;
  /** Says that there is no more. @throws Error when the document is not whole */
  readonly end: () => void;
};

/**
 * Hands out the elements of the array `items` of one JSON object, each as it becomes whole, so that a long list is
 * neither held nor parsed in one piece. `null` in place of the array has no elements. The rest of the document is only
 * weighed for its brackets.
 * @param onItem takes the text of an element, which it has to parse
 */
export function createJsonItems(maxItemBytes: number, onItem: (text: string) => void): JsonItems {
  let depth = 0;
  let inString = false;
  let isEscaped = false;
  let isOver = false;
  let seen: 'not yet' | 'inside' | 'done' = 'not yet';
  let key: number[] = [];
  let isKey = false;
  let lastKey = '';
  let item: Buffer[] = [];
  let itemBytes = 0;
  let inItem = false;
  let isNull = false;

  const push = (chunk: Buffer): void => {
    let begin = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] as number;
      if (inString) {
        if (isEscaped) {
          isEscaped = false;
        } else if (byte === backslash) {
          isEscaped = true;
        } else if (byte === quotation) {
          inString = false;
        } else if (!isKey) {
          // Most of a document is in strings: on to the next byte that matters in one.
          at = nextOf(chunk, at) - 1;
          continue;
        }
        if (isKey && inString && key.length < maxKeyBytes) key.push(byte);
        continue;
      }
      if (byte === space || byte === newline || byte === carriageReturn || byte === tab) continue;
      if (isOver) throw new Error('there is something after the document');
      if (depth === 0 && byte !== openBrace) throw new Error('the document is not an object');
      switch (byte) {
        case quotation:
          if (depth === 2 && seen === 'inside') throw new Error('an item is not an object');
          inString = true;
          isKey = depth === 1 && lastKey === '';
          key = [];
          break;
        case colon:
          if (depth === 1) {
            lastKey = Buffer.from(key).toString('latin1');
            isKey = false;
          }
          break;
        case openBrace:
        case openBracket:
          depth += 1;
          if (depth === 2 && lastKey === 'items') {
            if (byte !== openBracket || seen !== 'not yet') throw new Error('items is not one array');
            seen = 'inside';
          } else if (depth === 3 && seen === 'inside') {
            inItem = true;
            begin = at;
          }
          if (depth > maxDepth) throw new Error('the document is too deep');
          break;
        case closeBrace:
        case closeBracket:
          depth -= 1;
          if (depth === 2 && inItem) {
            take(chunk.subarray(begin, at + 1));
            inItem = false;
            const text = Buffer.concat(item).toString('utf8');
            item = [];
            itemBytes = 0;
            onItem(text);
          }
          if (depth === 1) {
            if (seen === 'inside') seen = 'done';
            lastKey = '';
          }
          if (depth === 0) isOver = true;
          break;
        case comma:
          if (depth === 1) lastKey = '';
          break;
        default:
          if (depth === 2 && seen === 'inside') throw new Error('an item is not an object');
          isNull ||= depth === 1 && lastKey === 'items' && byte === letterN;
      }
    }
    if (inItem) take(chunk.subarray(begin));
  };
  const take = (part: Buffer): void => {
    itemBytes += part.length;
    if (itemBytes > maxItemBytes) throw new Error('an item is too large');
    item.push(part);
  };
  return {
    push,
    end: () => {
      if (!isOver) throw new Error('the document is not whole');
      if (seen !== 'done' && !isNull) throw new Error('the document has no items');
    },
  };
}

/** Where the next quotation mark or backslash stands, or the end. */
function nextOf(chunk: Buffer, from: number): number {
  const end = chunk.indexOf(quotation, from);
  const part = end === -1 ? chunk : chunk.subarray(0, end);
  const escape = part.indexOf(backslash, from);
  return escape !== -1 ? escape : part.length;
}

const [space, newline, carriageReturn, tab] = [0x20, 0x0a, 0x0d, 0x09];
const [quotation, backslash, colon, comma] = [0x22, 0x5c, 0x3a, 0x2c];
const [openBrace, closeBrace, openBracket, closeBracket] = [0x7b, 0x7d, 0x5b, 0x5d];
const letterN = 0x6e;
const maxDepth = 64;
const maxKeyBytes = 64;
