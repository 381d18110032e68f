import { MeshError } from '../errors.ts';

/** Where counting goes on, and the window of time the first answer was asked for. */
export type CountCursor = {
  /** Whether kept counts answer, or a walk through the log; `read`: that is not known yet, and nothing is counted. */
  readonly way: (typeof ways)[number];
  /** Of the parts that the window is counted in, the one to go on in, and where in it: an index, or an hour since 1970. */
  readonly part: number;
  readonly at: number;
  readonly since: Date | null;
  readonly until: Date | null;
};

/** Writes a cursor as an opaque token. It is no secret and no capability: a forged one is only another question. */
export function formatCountCursor({ way, part, at, since, until }: CountCursor): string {
  const parts = [way, part, at, since?.getTime() ?? '', until?.getTime() ?? ''];
  return Buffer.from(`count1/${parts.join('/')}`).toString('base64url');
}

/** Reads what {@link formatCountCursor} wrote. @throws MeshError `audit_cursor_invalid` */
export function parseCountCursor(token: string): CountCursor {
  const text = token.length <= maxTokenLength ? Buffer.from(token, 'base64url').toString('latin1') : '';
  const groups = pattern.exec(text)?.groups;
  if (groups === undefined || Buffer.from(text, 'latin1').toString('base64url') !== token) {
    throw new MeshError('audit_cursor_invalid', 'the cursor is not one of ours', {
      fix: 'pass the "next" value of an answer unchanged, or leave the cursor out to begin anew',
    });
  }
  return {
    way: ways.find((way) => way === groups['way']) ?? 'walk',
    part: Number(groups['part']),
    at: Number(groups['at']),
    since: timeOf(groups['since']),
    until: timeOf(groups['until']),
  };
}

function timeOf(text: string | undefined): Date | null {
  return text === undefined || text === '' ? null : new Date(Number(text));
}

const ways = ['kept', 'walk', 'read'] as const;
const maxTokenLength = 120;
const pattern =
  /^count1\/(?<way>kept|walk|read)\/(?<part>[0-9])\/(?<at>-?[0-9]{1,15})\/(?<since>-?[0-9]{1,15}|)\/(?<until>-?[0-9]{1,15}|)$/;
