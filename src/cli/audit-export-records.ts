import { existsSync } from 'node:fs';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { toCloudEvent } from '../audit/export-cloudevents.ts';
import { toOcsf } from '../audit/export-ocsf.ts';
import { toOtlpLogs } from '../audit/export-otlp.ts';
import type { ExportRecord, ExportSource } from '../audit/export-record.ts';
import { parseMoment } from '../audit/moment.ts';
import { parseVerifierKey } from '../audit/note.ts';
import { auditEventTypes } from '../audit/question.ts';
import { systemClock } from '../clock.ts';
import { MeshError, quote } from '../errors.ts';
import { version } from '../version.ts';
import { repeated } from './arguments.ts';
import { formatPlaceMark, parsePlaceMark, type PlaceMark } from './audit-export-mark.ts';
import { type AuditRecord, readAuditRows } from './audit-rows.ts';
import { replaceFile } from './audit-source.ts';
import type { AdminClient } from './client.ts';
import { openOtlpSender, type SendLogs } from './otlp-sender.ts';
import { readText } from './read-text.ts';
import { clientOf, type Session } from './session.ts';
import { printableJson } from './text.ts';

/** The formats of others that records are written in. */
const formats = ['cloudevents', 'ocsf', 'otlp'] as const;
type Format = (typeof formats)[number];

/** The options of an export that is not a copy of the log. */
export type RecordOptions = {
  readonly format?: Format;
  readonly since?: string;
  readonly until?: string;
  readonly type?: readonly string[];
  readonly personal?: boolean;
  readonly to?: string;
  readonly cursorFile?: string;
  readonly follow?: boolean;
};

/** Adds them to `audit export`. */
export function recordOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--format <format>', 'write records as lines of JSON instead of a copy of the log').choices(
        formats,
      ),
    )
    .option('--since <time>', 'with --format: a time ago such as 10m, 2h or 7d, or RFC 3339')
    .option('--until <time>', 'with --format: the same')
    .option('--type <type>', `with --format: ${auditEventTypes.join(', ')}; may be repeated`, repeated)
    .option('--personal', 'with --format: values that may identify a person too; takes audit:personal')
    .option(
      '--to <url>',
      'with --format otlp: post to a collector, such as http://127.0.0.1:4318/v1/logs',
      parseUrl,
    )
    .option(
      '--cursor-file <file>',
      'with --format: go on where the run before ended, and keep where this one does',
    )
    .option('--follow', 'with --format: go on with what is recorded, until a signal');
}

/**
 * Writes records in a format of others, the oldest first. A record is written before the file says so: after a crash some come
 * twice, and none is left out.
 * @throws MeshError `usage`, `audit_cursor_invalid`, `collector_unreachable`, `collector_refused`, and what asking throws
 */
export async function exportRecords(
  session: Session,
  command: Command,
  options: RecordOptions,
): Promise<void> {
  const { format = 'cloudevents', follow = false, cursorFile } = options;
  const client = clientOf(session, command);
  const mark = await openMark(client, options, cursorFile);
  const stop = follow ? session.catchSignals() : undefined;
  const source: ExportSource = { origin: mark.origin, version };
  const send = options.to === undefined ? undefined : openOtlpSender(options.to, stop);
  const write = (records: readonly ExportRecord[]) => writeRecords(session, format, records, source, send);
  let after = mark.after;
  do {
    const { since, until, types } = mark;
    const query = { since: isoOf(since), until: isoOf(until), type: types };
    const place = after === null ? null : { index: after, since, until };
    for await (const rows of readAuditRows(client, query, place)) {
      if (rows.length === 0) continue;
      await write(rows.map((row) => withoutPersonal(row, options.personal === true)));
      after = rows.at(-1)?.index ?? after;
      if (cursorFile !== undefined) replaceFile(cursorFile, formatPlaceMark({ ...mark, after }));
      if (stop?.aborted === true) return;
    }
    if (cursorFile !== undefined) replaceFile(cursorFile, formatPlaceMark({ ...mark, after }));
    if (follow) await systemClock.sleep(followMs, stop);
  } while (stop?.aborted === false);
}

/**
 * Checks an export that names no directory, or a format.
 * @throws MeshError `usage`
 */
export function checkRecordOptions(
  directory: string | undefined,
  key: string | undefined,
  { format, to, follow, until }: RecordOptions,
): void {
  if (format === undefined) throw usage('an export needs a directory for a copy of the log, or a --format');
  if (directory !== undefined) throw usage('--format writes to standard output, not into a directory');
  if (key !== undefined) throw usage('--key goes with a copy of the log');
  if (to !== undefined && format !== 'otlp') throw usage('--to goes with --format otlp');
  if (follow === true && until !== undefined) throw usage('--follow has no --until');
}

/**
 * Checks a copy of the log, which is never a part of it.
 * @throws MeshError `usage`
 */
export function checkCopyOptions(options: RecordOptions): void {
  const { since, until, type, personal, to, cursorFile, follow } = options;
  const given = { since, until, type, personal, to, 'cursor-file': cursorFile, follow };
  const stray = Object.entries(given).find(([, value]) => value !== undefined);
  if (stray !== undefined) throw usage(`--${stray[0]} goes with --format`);
}

async function writeRecords(
  session: Session,
  format: Format,
  records: readonly ExportRecord[],
  source: ExportSource,
  send: SendLogs | undefined,
): Promise<void> {
  if (format === 'otlp') {
    for (const batch of batchesOf(records)) {
      const request = toOtlpLogs(batch, source);
      if (send === undefined) session.write(`${printableJson(request, 0)}\n`);
      else await send(JSON.stringify(request));
    }
    return;
  }
  const convert = format === 'ocsf' ? toOcsf : toCloudEvent;
  session.write(records.map((record) => `${printableJson(convert(record, source), 0)}\n`).join(''));
}

/** Collectors take so much at once: a few MiB. */
function batchesOf(records: readonly ExportRecord[]): readonly (readonly ExportRecord[])[] {
  const batches: ExportRecord[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const record of records) {
    bytes += record.leaf.length;
    if (bytes > maxBatchBytes || batches.at(-1)?.length === maxBatchRecords) {
      batches.push([]);
      bytes = record.leaf.length;
    }
    batches.at(-1)?.push(record);
  }
  return batches;
}

/** Where to begin: where the run before ended, when it asked the same. */
async function openMark(
  client: AdminClient,
  options: RecordOptions,
  cursorFile: string | undefined,
): Promise<PlaceMark> {
  const now = systemClock.now();
  const origin = parseVerifierKey((await client.getText('/v1/audit/log/key')).trimEnd()).name;
  const asked: PlaceMark = {
    origin,
    question: JSON.stringify([options.format, options.since, options.until, options.type ?? []]),
    types: options.type ?? [],
    since: momentOf('--since', options.since, now),
    until: momentOf('--until', options.until, now),
    after: null,
  };
  if (cursorFile === undefined || !existsSync(cursorFile)) return asked;
  const kept = parsePlaceMark(readText(cursorFile, cursorFile), cursorFile);
  if (kept.origin === origin && kept.question === asked.question) return kept;
  throw new MeshError('audit_cursor_invalid', `${quote(cursorFile)} is of another log or another question`, {
    fix: 'give the same --format, --since, --until and --type as before, or another --cursor-file',
  });
}

function withoutPersonal(row: AuditRecord, personal: boolean): ExportRecord {
  return personal ? row : { ...row, personal: {} };
}

function momentOf(option: string, text: string | undefined, now: Date): Date | null {
  const found = text === undefined ? null : parseMoment(text, now);
  if (found !== undefined) return found;
  throw usage(`${option}: ${quote(text ?? '')} is no time`, 'write 10m, 2h, 7d or 2026-01-31T12:00:00Z');
}

function isoOf(time: Date | null): string | undefined {
  return time?.toISOString();
}

function parseUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:'))
    throw new InvalidArgumentError('It is no http or https URL.');
  if (url.username !== '' || url.password !== '')
    throw new InvalidArgumentError('A URL has no place for a password.');
  // Records say who calls whom.
  if (url.protocol === 'http:' && !/^(?:localhost|127\.[0-9.]+|\[::1\])$/.test(url.hostname))
    throw new InvalidArgumentError('Without TLS it may only be this machine, such as 127.0.0.1.');
  return url.href;
}

function usage(message: string, fix = 'see countersign audit export --help'): MeshError {
  return new MeshError('usage', message, { fix });
}

const maxBatchRecords = 500;
const maxBatchBytes = 1_048_576;
const followMs = 2_000;
