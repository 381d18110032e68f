import { MeshError } from '../errors.ts';

/** Where a page of the log begins, and the window of time the first page was asked for. */
export type AuditCursor = {
  readonly order: 'newest' | 'oldest';
  /** The last row of the page before; the next page begins beyond it. */
  readonly index: number;
  readonly since: Date | null;
  readonly until: Date | null;
};

/**
 * Writes a cursor as an opaque token of at most 100 URL-safe characters. It is no secret and no capability: it says
 * where to go on, and a forged one is only another question.
 */
export function formatCursor(cursor: AuditCursor): string {
  const parts = [cursor.order, cursor.index, cursor.since?.getTime() ?? '', cursor.until?.getTime() ?? ''];
  return Buffer.from(`${version}/${parts.join('/')}`).toString('base64url');
}

/**
 * Reads what {@link formatCursor} wrote.
 * @throws MeshError `audit_cursor_invalid`
 */
export function parseCursor(token: string): AuditCursor {
  const text = token.length <= maxTokenLength ? Buffer.from(token, 'base64url').toString('latin1') : '';
  const match = pattern.exec(text);
  const index = Number(match?.groups?.['index']);
  if (match?.groups === undefined || !Number.isSafeInteger(index) || rewritten(text) !== token) {
    throw new MeshError('audit_cursor_invalid', 'the cursor is not one of ours', {
      fix: 'pass the "next" value of a page unchanged, or leave the cursor out to begin anew',
    });
  }
  return {
    order: match.groups['order'] === 'newest' ? 'newest' : 'oldest',
    index,
    since: parseTime(match.groups['since']),
    until: parseTime(match.groups['until']),
  };
}

function rewritten(text: string): string {
  return Buffer.from(text, 'latin1').toString('base64url');
}

function parseTime(text: string | undefined): Date | null {
  return text === undefined || text === '' ? null : new Date(Number(text));
}

const version = 'audit1';
const maxTokenLength = 100;
const pattern =
  /^audit1\/(?<order>newest|oldest)\/(?<index>0|[1-9][0-9]{0,15})\/(?<since>-?[0-9]{1,16}|)\/(?<until>-?[0-9]{1,16}|)$/;
