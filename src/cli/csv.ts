import type { Command } from 'commander';
import { MeshError } from '../errors.ts';
import { globalOptions } from './global-options.ts';
import { printable } from './text.ts';

/**
 * Rows under headings as RFC 4180. A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, so that
 * one begins with an apostrophe. Characters that terminals act on are escaped.
 */
export function formatCsv(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  return [headings, ...rows].map((row) => `${row.map(formatCell).join(',')}\r\n`).join('');
}

/** Marks a command as one that prints CSV. */
export function offerCsv(command: Command): Command {
  offering.add(command);
  return command;
}

/** @throws MeshError `usage` for `-o csv` of a command that does not print it */
export function refuseCsv(command: Command): void {
  if (globalOptions(command).output !== 'csv' || offering.has(command)) return;
  throw new MeshError('usage', `${command.name()} does not print csv`, { fix: 'use -o table or -o json' });
}

function formatCell(text: string): string {
  const shown = printable(text).replaceAll('\t', ' ');
  // A minus before digits is a number, and none of ours is negative.
  const guarded = /^\s*[=+\-@]/.test(shown) ? `'${shown}` : shown;
  return /[",\r\n]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
}

const offering = new WeakSet<Command>();
