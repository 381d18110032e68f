import { styleText } from 'node:util';
import { type ErrorCode, formatPlace, MeshError, type Place } from '../errors.ts';
import { printable } from './text.ts';

/** Exit codes of every command; docs/cli.md and each --help list them. */
export const exitCodes = {
  ok: 0,
  /** The answer is no: authz check says deny, audit verify finds a change. */
  negative: 1,
  /** The input is wrong, or the server refused it. */
  refused: 2,
  usage: 64,
  unavailable: 69,
  internal: 70,
  permission: 77,
} as const;
/** One of {@link exitCodes}. */
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** Texts read in this run by the name errors call them, so that an error can show the line it speaks of. */
export type ReadTexts = ReadonlyMap<string, string>;

/** The exit code for a code: the same table whether the error was made here or came from the server. */
export function exitCodeOf(error: unknown): ExitCode {
  if (!(error instanceof MeshError)) return exitCodes.internal;
  const own = ownExitCodes.get(error.code);
  if (own !== undefined) return own;
  switch (error.kind) {
    case 'unauthenticated':
    case 'forbidden':
      return exitCodes.permission;
    case 'unavailable':
    case 'exhausted':
      return exitCodes.unavailable;
    case 'internal':
      return exitCodes.internal;
    case 'invalid':
    case 'too_large':
    case 'not_found':
    case 'conflict':
    case 'precondition':
      return exitCodes.refused;
    default:
      return error.kind satisfies never;
  }
}

/** An error for people: code and message, the place with its line and a caret, and what to do. */
export function formatFailure(error: unknown, texts: ReadTexts, stream: NodeJS.WriteStream): string {
  const { code, message, place, fix } = failureOf(error);
  const head = styleText(['bold', 'red'], `error[${code}]`, { stream });
  const lines = [`${head}: ${printable(message)}`];
  if (place !== undefined) lines.push(...formatSource(place, texts));
  if (fix !== undefined) lines.push(`${styleText('bold', 'fix', { stream })}: ${printable(fix)}`);
  return `${lines.join('\n')}\n`;
}

/** The same as one JSON object on one line. */
export function formatFailureJson(error: unknown): string {
  return `${JSON.stringify({ error: { ...failureOf(error), exitCode: exitCodeOf(error) } })}\n`;
}

type Failure = {
  readonly code: ErrorCode;
  readonly message: string;
  readonly place?: Place;
  readonly fix?: string;
};

function failureOf(error: unknown): Failure {
  if (!(error instanceof MeshError)) {
    return {
      code: 'internal',
      message: error instanceof Error ? `unexpected: ${error.message}` : 'unexpected error',
      fix: 'this is a mistake of ours: please report it with the command you ran',
    };
  }
  return {
    code: error.code,
    message: error.message,
    ...(error.place === undefined ? {} : { place: error.place }),
    ...(error.fix === undefined ? {} : { fix: error.fix }),
  };
}

function formatSource(place: Place, texts: ReadTexts): readonly string[] {
  const arrow = ` --> ${printable(formatPlace(place))}`;
  const line = texts.get(place.file)?.split('\n', place.line)[place.line - 1];
  if (line === undefined || line.length > maxShownLine) return [arrow];
  const number = `${place.line}`;
  // A tab keeps its width under itself, so the caret stands where the editor's cursor would.
  const indent = line.slice(0, Math.max(0, place.column - 1)).replace(/[^\t]/g, ' ');
  return [arrow, ` ${number} | ${printable(line)}`, ` ${' '.repeat(number.length)} | ${indent}^`];
}

const maxShownLine = 500;

const ownExitCodes: ReadonlyMap<ErrorCode, ExitCode> = new Map<ErrorCode, ExitCode>([
  ['usage', exitCodes.usage],
  ['file_permissions', exitCodes.permission],
  ['platform_unsupported', exitCodes.unavailable],
  // The answer to `backup verify`.
  ['backup_invalid', exitCodes.negative],
  // The answer to `audit verify`.
  ['audit_signature_invalid', exitCodes.negative],
  ['audit_proof_invalid', exitCodes.negative],
  ['audit_quorum_missing', exitCodes.negative],
  ['audit_log_invalid', exitCodes.negative],
  ['audit_pack_invalid', exitCodes.negative],
  ['audit_log_shorter', exitCodes.negative],
  ['audit_log_forked', exitCodes.negative],
]);
