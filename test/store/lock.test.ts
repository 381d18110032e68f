import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, onTestFinished, test } from 'vitest';
import { lockDataDirectory } from '../../src/store/lock.ts';
import { newDirectory } from './directories.ts';

const lockModule = fileURLToPath(new URL('../../src/store/lock.ts', import.meta.url));
const script = `
  import { lockDataDirectory } from ${JSON.stringify(lockModule)};
  try { lockDataDirectory(process.argv[1]); } catch (error) { console.log(error.code + ' ' + error.message); process.exit(3); }
  console.log('held');
  setTimeout(() => {}, 30_000);
`;
const argv = (dir: string) => ['--input-type=module', '-e', script, dir];

describe('a data directory', () => {
  test('is held by one lock at a time, in one process too', () => {
    const dir = newDirectory();
    const first = lockDataDirectory(dir);
    for (let attempt = 0; attempt < 3; attempt++) {
      expect(() => lockDataDirectory(dir)).toThrow(
        expect.objectContaining({
          code: 'store_locked',
          message: expect.stringContaining(`process ${process.pid}`),
        }),
      );
      // A refused attempt must not have taken the lock away (POSIX would, had it closed a descriptor of the file).
      const other = spawnSync(process.execPath, argv(dir), { encoding: 'utf8' });
      expect(other.stdout).toBe(`store_locked "${dir}" is in use by process ${process.pid}\n`);
    }
    first.release();
    first.release();
    lockDataDirectory(dir).release();
    expect(statSync(join(dir, 'lock')).mode & 0o777).toBe(0o600);
  });

  test('is free after SIGKILL, whatever the dead left behind', async () => {
    const dir = newDirectory();
    const child = spawn(process.execPath, argv(dir), { stdio: ['ignore', 'pipe', 'inherit'] });
    onTestFinished(() => {
      child.kill('SIGKILL');
    });
    await once(child.stdout, 'data');
    expect(() => lockDataDirectory(dir)).toThrow(
      expect.objectContaining({
        code: 'store_locked',
        message: expect.stringContaining(`process ${child.pid}`),
      }),
    );
    child.kill('SIGKILL');
    await once(child, 'close');
    expect(readFileSync(join(dir, 'lock.pid'), 'latin1')).toBe(`${child.pid}\n`);
    // A process ID that lives again, ours for instance, holds nothing.
    writeFileSync(join(dir, 'lock.pid'), `${process.pid}\n`);
    lockDataDirectory(dir).release();
  });

  test('names no holder it does not know', () => {
    const dir = newDirectory();
    const held = lockDataDirectory(dir);
    writeFileSync(join(dir, 'lock.pid'), '\u001b[31m');
    expect(() => lockDataDirectory(dir)).toThrow(
      expect.objectContaining({ message: expect.stringMatching(/is in use by another process$/) }),
    );
    held.release();
  });
});
