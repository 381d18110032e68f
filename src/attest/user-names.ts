import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';

/** The login name of a uid, or undefined when it has none. */
export type UserName = (uid: number) => string | undefined;

/**
 * Reads names from a passwd file (passwd(5)), again whenever the file has changed. As in getpwuid(3) the first line of
 * a uid counts. An unreadable file, or one of more than 4 MiB, names nobody.
 */
export function createUserNames(path: string): UserName {
  let known: { readonly stamp: string; readonly names: ReadonlyMap<number, string> } | undefined;
  return (uid) => {
    try {
      const fd = openSync(path, 'r');
      try {
        const { dev, ino, size, mtimeNs, ctimeNs } = fstatSync(fd, { bigint: true });
        const stamp = [dev, ino, size, mtimeNs, ctimeNs].join(':');
        if (known?.stamp !== stamp) {
          known = { stamp, names: parsePasswd(size > maxBytes ? '' : readFileSync(fd, 'utf8')) };
        }
        return known.names.get(uid);
      } finally {
        closeSync(fd);
      }
    } catch {
      return undefined;
    }
  };
}

function parsePasswd(text: string): ReadonlyMap<number, string> {
  const names = new Map<number, string>();
  for (const line of text.split('\n')) {
    const [name, , uid] = line.split(':');
    if (name === undefined || name === '' || uid === undefined || !/^(0|[1-9][0-9]{0,9})$/.test(uid))
      continue;
    if (!names.has(Number(uid))) names.set(Number(uid), name);
  }
  return names;
}

const maxBytes = 4_194_304n;
