import { MeshError, quote } from '../errors.ts';

/** One PEM block: `-----BEGIN <label>-----`, base64 in lines of 64, `-----END <label>-----`, newline at the end. */
export function encodePem(label: string, der: Uint8Array): string {
  const text = Buffer.from(der.buffer, der.byteOffset, der.length).toString('base64');
  let lines = '';
  for (let at = 0; at < text.length; at += lineLength) lines += `${text.slice(at, at + lineLength)}\n`;
  return `-----BEGIN ${label}-----\n${lines}-----END ${label}-----\n`;
}

/**
 * The blocks of a PEM text, all of which must carry `label`; at least one. Time grows in step with the text. Only blank
 * lines may stand between blocks: no explanatory text, no headers, no padding but the last, no stray bits.
 * @param limits.maxBytes of the text; more is refused before it is read
 * @throws MeshError `der_invalid`
 * @see RFC 7468 section 3 (the strict grammar, with line ends LF or CRLF and lines up to 76)
 */
export function decodePem(text: string, label: string, limits: { readonly maxBytes: number }): Uint8Array[] {
  if (text.length > limits.maxBytes) refuse(0, `is longer than ${limits.maxBytes} bytes`);
  const begin = `-----BEGIN ${label}-----`;
  const end = `-----END ${label}-----`;
  const blocks: Uint8Array[] = [];
  let body: string[] | undefined;
  let lineNumber = 0;
  for (const line of lines(text)) {
    lineNumber++;
    if (body === undefined) {
      if (line === begin) body = [];
      else if (line !== '') refuse(lineNumber, `has ${quote(line.slice(0, 40))} where ${begin} belongs`);
    } else if (line === end) {
      blocks.push(decodeBody(body.join(''), lineNumber));
      body = undefined;
    } else if (line.length === 0 || line.length > maxLineLength) {
      refuse(lineNumber, `has a line of ${line.length} characters within a block`);
    } else {
      body.push(line);
    }
  }
  if (body !== undefined) refuse(lineNumber, `ends before ${end}`);
  if (blocks.length === 0) refuse(lineNumber, `has no block of label ${label}`);
  return blocks;
}

function* lines(text: string): Generator<string> {
  for (let at = 0; at < text.length;) {
    const newline = text.indexOf('\n', at);
    const next = newline === -1 ? text.length : newline;
    yield text.slice(at, text[next - 1] === '\r' && next > at ? next - 1 : next);
    at = next + 1;
  }
}

function decodeBody(base64: string, lineNumber: number): Uint8Array {
  const bytes = Buffer.from(base64, 'base64');
  // Node's decoder skips what it does not know: only text that comes back unchanged was base64.
  if (bytes.length === 0 || bytes.toString('base64') !== base64)
    refuse(lineNumber, 'has a block that is not base64');
  return new Uint8Array(bytes);
}

function refuse(lineNumber: number, why: string): never {
  throw new MeshError('der_invalid', `the PEM text ${why}${lineNumber === 0 ? '' : ` (line ${lineNumber})`}`);
}

const lineLength = 64;
const maxLineLength = 76;
