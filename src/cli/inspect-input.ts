import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { MeshError, quote } from '../errors.ts';
import { DerReader } from '../spiffe/der.ts';
import { decodePem } from '../spiffe/pem.ts';

/** The most bytes of one input. */
export const maxInputBytes = 1_048_576;

/** What is to be inspected, as it came. */
export type InspectInput = {
  readonly bytes: Uint8Array;
  /** Whether every byte counts; else, as in a file of one line, the newline at its end does not. */
  readonly exact: boolean;
};

/**
 * Reads what is to be inspected; `-` is standard input.
 * @param onlyFiles refuses pipes and devices, which may never end
 * @throws MeshError `file_missing`, `file_permissions`, `input_too_large`
 */
export async function readInput(from: string, onlyFiles = false): Promise<InspectInput> {
  if (from === '-') return { bytes: await collect(process.stdin, '<stdin>'), exact: false };
  const name = quote(from);
  try {
    // Without O_NONBLOCK opening a pipe nobody writes to would wait for ever.
    const file = await open(from, constants.O_RDONLY | (onlyFiles ? constants.O_NONBLOCK : 0));
    try {
      const found = await file.stat();
      if (found.isDirectory() || (onlyFiles && !found.isFile())) {
        throw new MeshError('file_missing', `${name} is not a file`, { fix: 'check the path' });
      }
      return { bytes: await collect(file.createReadStream({ autoClose: false }), name), exact: false };
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'EACCES' || code === 'EPERM') {
      throw new MeshError('file_permissions', `may not read ${name}`, {
        fix: 'check its owner and mode',
        cause,
      });
    }
    const why = code === 'ENOENT' ? 'does not exist' : 'cannot be read';
    throw new MeshError('file_missing', `${name} ${why}`, { fix: 'check the path', cause });
  }
}

/**
 * The text of an input.
 * @throws MeshError `input_unreadable` when it is not UTF-8
 */
export function textOfInput({ bytes, exact }: InspectInput): string {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new MeshError('input_unreadable', 'the input is not UTF-8', { fix: 'give it as text', cause });
  }
  return exact ? text : text.replace(/\r?\n$/, '');
}

/**
 * The objects of an input: PEM blocks of `label`, or DER ones, one behind the other.
 * @throws MeshError `der_invalid`
 */
export function blocksOf({ bytes }: InspectInput, label: string): readonly Uint8Array[] {
  if (bytes[0] !== derSequence) {
    return decodePem(Buffer.from(bytes).toString('latin1'), label, { maxBytes: maxInputBytes });
  }
  const blocks: Uint8Array[] = [];
  const reader = DerReader.over(bytes);
  while (reader.peek() !== undefined) blocks.push(reader.element(derSequence));
  return blocks;
}

async function collect(stream: AsyncIterable<Buffer>, name: string): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > maxInputBytes) {
      throw new MeshError('input_too_large', `${name} is longer than ${maxInputBytes} bytes`, {
        fix: 'give one object only',
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const derSequence = 0x30;
