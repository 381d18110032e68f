import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { MeshError, quote } from '../errors.ts';
import { maxDocumentBytes } from '../yaml.ts';
import { readText } from './read-text.ts';

/**
 * Reads a file that a line of a batch names. Pipes and devices, which may never end, are not read.
 * @throws MeshError `document_too_large`, `input_unreadable`
 */
export function readPolicyFile(file: string): string {
  let descriptor: number;
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw new MeshError('input_unreadable', `cannot read ${quote(file)}`, { cause });
  }
  try {
    const { size, isFile } = describe(descriptor);
    if (!isFile) throw new MeshError('input_unreadable', `${quote(file)} is not a file`);
    if (size > maxDocumentBytes) {
      throw new MeshError('document_too_large', `${quote(file)} is larger than ${maxDocumentBytes} bytes`, {
        fix: 'split it into several files',
      });
    }
    return readText(descriptor, file);
  } finally {
    closeSync(descriptor);
  }
}

function describe(descriptor: number): { readonly size: number; readonly isFile: boolean } {
  const found = fstatSync(descriptor);
  return { size: found.size, isFile: found.isFile() };
}
