import { readFileSync } from 'node:fs';
import { MeshError, quote } from '../errors.ts';

/**
 * Reads a text file, which must be UTF-8.
 * @param from a path, or a file descriptor
 * @throws MeshError `file_missing`, `file_permissions`, `input_unreadable`
 */
export function readText(from: string | number, name: string): string {
  const bytes = readBytes(from, name);
  try {
    // Fatal: bytes that are replaced on the way are not what the author wrote. The mark stays for the reader to refuse.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new MeshError('input_unreadable', `${quote(name)} is not UTF-8 text`, {
      fix: 'save it as UTF-8',
      cause,
    });
  }
}

function readBytes(from: string | number, name: string): Buffer {
  try {
    return readFileSync(from);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'EACCES' || code === 'EPERM') {
      throw new MeshError('file_permissions', `may not read ${quote(name)}`, {
        fix: 'check its owner and mode',
        cause,
      });
    }
    const why = code === 'EISDIR' ? 'is a directory' : 'cannot be read';
    throw new MeshError('file_missing', `${quote(name)} ${code === 'ENOENT' ? 'does not exist' : why}`, {
      fix: 'check the path',
      cause,
    });
  }
}
