import { readFileSync } from 'node:fs';
import { MeshError, quote } from '../errors.ts';

/**
 * Reads a text file.
 * @param from a path, or a file descriptor
 * @throws MeshError `file_missing`, `file_permissions`
 */
export function readText(from: string | number, name: string): string {
  try {
    return readFileSync(from, 'utf8');
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
