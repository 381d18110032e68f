import { writeFileSync } from 'node:fs';
import { MeshError, quote } from '../errors.ts';

/**
 * Writes a file that is not there yet.
 * @throws MeshError `file_exists`, `file_permissions`
 */
export function writeNewFile(file: string, text: string, mode = 0o644): void {
  try {
    writeFileSync(file, text, { mode, flag: 'wx' });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') {
      throw new MeshError('file_exists', `${quote(file)} exists already`, {
        fix: 'choose another name, or remove it',
        cause,
      });
    }
    throw new MeshError('file_permissions', `${quote(file)} cannot be written`, {
      fix: 'check the directory',
      cause,
    });
  }
}
