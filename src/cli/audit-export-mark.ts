import { MeshError, quote } from '../errors.ts';

/** Where an export ended, and what was asked: a file that the next run goes on from. */
export type PlaceMark = {
  /** The log. */
  readonly origin: string;
  /** As it was asked on the command line. */
  readonly question: string;
  readonly types: readonly string[];
  /** As they were on the first run: `7d` does not move. */
  readonly since: Date | null;
  readonly until: Date | null;
  /** The index of the last record that was written; null before the first. */
  readonly after: number | null;
};

export function formatPlaceMark({ since, until, ...mark }: PlaceMark): string {
  const times = { since: since?.toISOString() ?? null, until: until?.toISOString() ?? null };
  return `${JSON.stringify({ v: 1, ...mark, ...times })}\n`;
}

/** @throws MeshError `audit_cursor_invalid` */
export function parsePlaceMark(text: string, file: string): PlaceMark {
  try {
    const mark = JSON.parse(text) as Readonly<Record<string, unknown>>;
    const { v, origin, question, types, after } = mark;
    const [since, until] = [timeOf(mark['since']), timeOf(mark['until'])];
    const isMark =
      v === 1 &&
      typeof origin === 'string' &&
      typeof question === 'string' &&
      Array.isArray(types) &&
      types.every((type) => typeof type === 'string') &&
      (after === null || (Number.isSafeInteger(after) && Number(after) >= 0)) &&
      since !== undefined &&
      until !== undefined;
    if (isMark) return { origin, question, types, since, until, after: after as number | null };
  } catch {
    // What follows is said of it.
  }
  throw new MeshError('audit_cursor_invalid', `${quote(file)} was not written by an export`, {
    fix: 'give another --cursor-file, or remove it to begin anew',
  });
}

function timeOf(value: unknown): Date | null | undefined {
  if (value === null) return null;
  const time = new Date(typeof value === 'string' ? value : Number.NaN);
  return Number.isNaN(time.getTime()) ? undefined : time;
}
