import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** A user or group of this machine; `gid` of a user is its primary group, null for a bare number without an account. */
export type Account = { readonly id: number; readonly gid: number | null };

/**
 * Finds a user or a group by its name or number: in /etc/passwd and /etc/group, then where else the machine looks
 * (`getent`), such as a directory service. A number needs no account.
 * @returns undefined for a name that nobody knows
 */
export function findAccount(kind: 'passwd' | 'group', name: string): Account | undefined {
  const isNumber = /^(?:0|[1-9][0-9]{0,9})$/.test(name) && Number(name) < 0xffff_ffff;
  // Never an option of getent, and no field separator.
  if (!isNumber && !/^[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?$/.test(name)) return undefined;
  const line =
    findLine(readLines(`/etc/${kind}`), name, isNumber) ?? findLine(askMachine(kind, name), name, isNumber);
  if (line === undefined) return isNumber ? { id: Number(name), gid: null } : undefined;
  const [, , id, gid] = line;
  return { id: Number(id), gid: kind === 'passwd' ? Number(gid) : Number(id) };
}

function findLine(lines: readonly string[], name: string, isNumber: boolean): readonly string[] | undefined {
  return lines
    .map((line) => line.split(':'))
    .find(
      (fields) => fields[isNumber ? 2 : 0] === name && /^[0-9]+$/.test(fields[2] ?? '') && fields.length > 3,
    );
}

function readLines(path: string): readonly string[] {
  try {
    return readFileSync(path, 'utf8').split('\n');
  } catch {
    return [];
  }
}

function askMachine(kind: string, name: string): readonly string[] {
  try {
    return execFileSync('getent', [kind, name], {
      encoding: 'utf8',
      timeout: 5_000,
      stdio: ['ignore', 'pipe', 'ignore'],
    }).split('\n');
  } catch {
    return [];
  }
}
