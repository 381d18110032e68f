import { MeshError, publicError } from '../errors.ts';
import { membersOf } from '../spiffe/inspect-json.ts';
import { type InspectAgainst, type InspectKind, inspectInput, type InspectReport } from './inspect-kinds.ts';
import { readJsonLines } from './json-lines.ts';
import { type InspectInput, maxInputBytes, readInput, textOfInput } from './inspect-input.ts';

/** The longest line read, newline not counted. What is beyond it is passed over, not kept. */
export const maxLineBytes = 2_097_152;

/** One line of the answer. */
export type BatchAnswer = {
  /** As it was given, or null when it was not. */
  readonly name: string | null;
  /** Whether the input was read and breaks no rule. */
  readonly ok: boolean;
  /** Null, or the first broken rule, or the code of the error that ended the reading. */
  readonly error: string | null;
  readonly detail: Omit<InspectReport, 'ok'> | { readonly message: string };
};

/**
 * Inspects inputs line by line, in order, holding one at a time. A line that cannot be read is answered too.
 * @param stream JSON lines: `{"name", "input" | "file", "encoding"?: "pem" | "der-base64" | "text"}`
 */
export async function* inspectBatch(
  kind: InspectKind,
  stream: AsyncIterable<Buffer>,
  against: InspectAgainst,
): AsyncGenerator<BatchAnswer> {
  for await (const line of readJsonLines(stream, maxLineBytes)) yield answerLine(kind, line, against);
}

async function answerLine(
  kind: InspectKind,
  line: Buffer | null,
  against: InspectAgainst,
): Promise<BatchAnswer> {
  let name: string | null = null;
  try {
    if (line === null) refuse('input_too_large', `the line is longer than ${maxLineBytes} bytes`);
    const members = readLine(line);
    const given = members.get('name');
    name = typeof given === 'string' ? given : null;
    const { ok, ...detail } = await inspectInput(kind, await inputOf(members), against);
    return { name, ok, error: detail.broken[0]?.rule ?? null, detail };
  } catch (error) {
    // One input must never end the others, not even by a mistake of ours.
    const { code, message } = publicError(error);
    return { name, ok: false, error: code, detail: { message } };
  }
}

function readLine(line: Buffer): ReadonlyMap<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(textOfInput({ bytes: line, exact: true }));
  } catch (cause) {
    throw new MeshError('input_unreadable', 'the line is not JSON', { cause });
  }
  return membersOf(value) ?? refuse('input_unreadable', 'the line is not a JSON object');
}

async function inputOf(members: ReadonlyMap<string, unknown>): Promise<InspectInput> {
  const [input, file, encoding] = ['input', 'file', 'encoding'].map((name) => {
    const value = members.get(name) ?? undefined;
    if (value !== undefined && typeof value !== 'string') refuse('input_unreadable', `${name} is not text`);
    return value;
  });
  if ((input === undefined) === (file === undefined)) {
    refuse('input_unreadable', 'the line has not exactly one of input and file');
  }
  if (encoding !== undefined && !encodings.has(encoding)) {
    refuse('input_unreadable', 'encoding is none of pem, der-base64 and text');
  }
  const raw =
    file === undefined
      ? { bytes: Buffer.from(input ?? '', 'utf8'), exact: true }
      : await readInput(file === '-' ? './-' : file, true);
  if (encoding === 'der-base64') return decode(raw);
  if (raw.bytes.length > maxInputBytes) {
    refuse('input_too_large', `the input is longer than ${maxInputBytes} bytes`);
  }
  return raw;
}

function decode(raw: InspectInput): InspectInput {
  const text = textOfInput(raw);
  const bytes = Buffer.from(text, 'base64');
  if (bytes.toString('base64') !== text) refuse('input_unreadable', 'the input is not base64');
  if (bytes.length > maxInputBytes) {
    refuse('input_too_large', `the input is longer than ${maxInputBytes} bytes`);
  }
  return { bytes, exact: true };
}

function refuse(code: 'input_unreadable' | 'input_too_large', message: string): never {
  throw new MeshError(code, message);
}

const encodings: ReadonlySet<string> = new Set(['pem', 'der-base64', 'text']);
