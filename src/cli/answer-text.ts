import type { Cell, AnswerRow, AnswerTable } from '../identity/questions/answer.ts';
import type { Answer } from '../identity/questions/ask.ts';
import type { Travelled } from '../http/travelled.ts';
import { describeBasis } from './audit-coverage.ts';
import { formatCsv } from './csv.ts';
import { formatTable, printable } from './text.ts';
import { unifiedHunks } from './unified-diff.ts';

/** An answer as it comes from the API. */
export type ToldAnswer = Travelled<Answer>;

/**
 * An answer for a terminal: sentences, a table for each kind of rows, what the answer does not have, what it covers, and
 * under which head it is proven.
 */
export function formatAnswer(answer: ToldAnswer): string {
  const parts = [
    answer.says.map((sentence) => `${printable(sentence)}\n`).join(''),
    ...answer.tables.map(formatRows),
    formatBasis(answer),
  ];
  return parts.filter((part) => part !== '').join('\n');
}

/** The rows of one table, all of their columns. */
export function formatAnswerCsv({ columns, details, items }: AnswerTable): string {
  const names = [...columns, ...details];
  return formatCsv(
    names,
    items.map((row) => names.map((name) => cellText(row[name] ?? null))),
  );
}

/** What an answer rests on: what it does not have, what was lost of what it is made of, and the head that proves it. */
export function formatBasis(answer: Pick<ToldAnswer, 'missing' | 'coverage' | 'head'>): string {
  const missing = answer.missing.map((what) => `${'not here'.padEnd(11)} ${printable(what)}\n`);
  return `${missing.join('')}${describeBasis(answer)}`;
}

function formatRows(table: AnswerTable): string {
  const { name, columns, items, more } = table;
  const title = printable(name);
  if (items.length === 0) return `${title}: none\n`;
  const shown = name === 'differences' ? items.map(formatDifference).join('') : formatColumns(columns, items);
  return `${title}\n${shown}${more ? 'there are more\n' : ''}`;
}

function formatColumns(columns: readonly string[], items: readonly AnswerRow[]): string {
  return formatTable(
    columns.map(heading),
    items.map((row) => columns.map((name) => cellText(row[name] ?? null))),
  );
}

/** `notAfter` as `NOT-AFTER`. */
function heading(name: string): string {
  return name.replaceAll(/[A-Z0-9]+/g, (part) => `-${part}`).toUpperCase();
}

function cellText(value: Cell): string {
  if (value === null) return '';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return typeof value === 'object' ? value.join(', ') : `${value}`;
}

function formatDifference({ index, before, after }: AnswerRow): string {
  if (typeof before !== 'string' || typeof after !== 'string') {
    return `entry ${index}: a document of it is not in the log\n`;
  }
  const hunks = unifiedHunks(before, after);
  return [`entry ${index}`, ...(hunks.length === 0 ? ['the same text'] : hunks)]
    .map((line) => `${printable(line)}\n`)
    .join('');
}
