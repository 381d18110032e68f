import type { Command } from 'commander';
import { MeshError, quote } from '../errors.ts';
import type { SourceFile } from '../identity/plan.ts';
import { type AdminClient, openAdminClient } from './client.ts';
import type { ExitCode } from './failure.ts';
import { globalOptions } from './global-options.ts';
import { readText } from './read-text.ts';
import { printable, printableJson } from './text.ts';

/** What a command has of the process. One per run. */
export type Session = {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly write: (text: string | Uint8Array) => void;
  /** Talk that is no result: standard error. */
  readonly say: (text: string) => void;
  readonly isRoot: boolean;
  /** How this program is called, for hints: `countersign`, or `bin/countersign` in a checkout. */
  readonly program: string;
  /** From this call on SIGINT and SIGTERM abort the signal instead of ending the process; a second one ends it. */
  readonly catchSignals: () => AbortSignal;
  /** Texts read in this run, by the name errors call them. */
  readonly texts: Map<string, string>;
  /** What the run will exit with, when nothing fails. */
  exitCode: ExitCode;
};

/** A client for the server that the options and the environment name. */
export function clientOf(session: Session, command: Command): AdminClient {
  return openAdminClient(globalOptions(command), session);
}

/** Prints a result: as JSON when asked so, else as `table` makes it. */
export function print(session: Session, command: Command, value: unknown, table: () => string): void {
  session.write(globalOptions(command).output === 'json' ? `${printableJson(value)}\n` : table());
}

/** Says what is no mistake, and should be known. */
export function sayWarnings(session: Session, warnings: readonly string[] = []): void {
  for (const text of warnings) session.say(`warning: ${printable(text)}\n`);
}

/**
 * Reads files for a command; `-` is standard input, once.
 * @throws MeshError `file_missing`, `file_permissions`, `document_too_large`
 */
export function readSources(session: Session, files: readonly string[]): readonly SourceFile[] {
  return files.map((file) => {
    const name = file === '-' ? '<stdin>' : file;
    if (session.texts.has(name)) {
      throw new MeshError('usage', `file ${quote(name)} is given twice`, { fix: 'name it once' });
    }
    const text = readText(file === '-' ? 0 : file, name, maxSourceBytes);
    session.texts.set(name, text);
    return { file: name, text };
  });
}

// As many as yaml.ts takes, which commands that ask a server do without.
const maxSourceBytes = 1_048_576;
