import { randomBytes } from 'node:crypto';
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { formatSpan, formatTime } from './inspect-report.ts';
import type { LaidCertificate } from './files-target.ts';
import { printable, printableJson } from './text.ts';

/** What happens to an output. */
export type FilesEvent =
  | { readonly kind: 'written' | 'unchanged'; readonly certificate: LaidCertificate | undefined }
  | { readonly kind: 'hook_ok'; readonly tookMs: number; readonly output: string }
  | {
      readonly kind: 'hook_failed';
      readonly why: string;
      readonly output: string;
      readonly retryMs: number | null;
    }
  /** Neither files nor their readers are touched: what was there stays. */
  | {
      readonly kind: 'source_failed' | 'write_failed';
      readonly code: string;
      readonly why: string;
      readonly fix: string | null;
      readonly retryMs: number | null;
    }
  | { readonly kind: 'expiring' | 'expired'; readonly certificate: LaidCertificate }
  | { readonly kind: 'banned'; readonly removed: boolean };

/** The events that are no trouble. */
export function isCalm({ kind }: FilesEvent): boolean {
  return kind === 'written' || kind === 'unchanged' || kind === 'hook_ok';
}

/** One line for people. */
export function formatEvent(output: string, event: FilesEvent, now: Date): string {
  return printable(`${formatTime(now)}  ${output}  ${textOf(event, now)}`);
}

/** The same as one JSON object on one line. */
export function formatEventJson(output: string, event: FilesEvent, now: Date): string {
  return printableJson({ time: now, output, ...event }, 0);
}

function textOf(event: FilesEvent, now: Date): string {
  const again = (ms: number | null): string => (ms === null ? '' : `; again in ${formatSpan(ms)}`);
  const last = (output: string): string => (output === '' ? '' : `: ${output.replaceAll('\n', ' | ')}`);
  switch (event.kind) {
    case 'written':
    case 'unchanged':
      return `${event.kind}  ${certificateText(event.certificate, now)}`;
    case 'hook_ok':
      return `hook ok  ${event.tookMs} ms${last(event.output)}`;
    case 'hook_failed':
      return `HOOK FAILED  ${event.why}${last(event.output)}${again(event.retryMs)}`;
    case 'source_failed':
      return `NO CERTIFICATE  ${event.why}${fixText(event.fix)}${again(event.retryMs)}; the files stay`;
    case 'write_failed':
      return `NOT WRITTEN  ${event.why}${fixText(event.fix)}${again(event.retryMs)}; the files stay`;
    case 'expiring':
      return `EXPIRES SOON  ${certificateText(event.certificate, now)}; no newer one has come`;
    case 'expired':
      return `EXPIRED  ${certificateText(event.certificate, now)}; the files stay`;
    case 'banned':
      return `BANNED  the identity is banned; the files ${event.removed ? 'are removed' : 'stay'}`;
    default:
      return event satisfies never;
  }
}

function fixText(fix: string | null): string {
  return fix === null ? '' : ` (fix: ${fix})`;
}

function certificateText(certificate: LaidCertificate | undefined, now: Date): string {
  if (certificate === undefined) return 'no certificate';
  const { spiffeId, serial, notAfter } = certificate;
  const left = notAfter.getTime() - now.getTime();
  const until =
    left < 0 ? `since ${formatTime(notAfter)}` : `until ${formatTime(notAfter)}, ${formatSpan(left)}`;
  return `${spiffeId ?? 'none'}  serial ${serial}  ${until}`;
}

/** Counts the events of outputs, for a file that Prometheus' node exporter collects. */
export type FilesMetrics = {
  readonly count: (output: string, event: FilesEvent) => void;
  readonly text: () => string;
};

export function createFilesMetrics(outputs: readonly string[]): FilesMetrics {
  const tallies = new Map(outputs.map((name) => [name, emptyTally()]));
  return {
    count: (output, event) => {
      const tally = tallies.get(output);
      if (tally === undefined) return;
      if (event.kind === 'written' || event.kind === 'unchanged') {
        tally.expiresMs = event.certificate?.notAfter.getTime() ?? 0;
        tally.failing = 0;
        if (event.kind === 'written') tally.swaps += 1;
      } else if (event.kind === 'expiring' || event.kind === 'expired') {
        tally.expiresMs = event.certificate.notAfter.getTime();
      } else if (event.kind === 'hook_ok') {
        tally.hooksOk += 1;
        tally.hookFailing = 0;
      } else if (event.kind === 'hook_failed') {
        tally.hooksFailed += 1;
        tally.hookFailing = 1;
      } else {
        tally.failures += 1;
        tally.failing = 1;
        if (event.kind === 'banned' && event.removed) tally.expiresMs = 0;
      }
    },
    text: () => formatTallies(tallies),
  };
}

/** Replaces the file whole: whoever reads it never sees half of it. @throws Error of the kernel */
export function writeMetrics(file: string, text: string): void {
  const temporary = `${file}.${randomBytes(8).toString('hex')}.tmp`;
  try {
    writeFileSync(temporary, text, { flag: 'wx', mode: 0o644 });
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

type Tally = ReturnType<typeof emptyTally>;

function emptyTally() {
  return { expiresMs: 0, swaps: 0, hooksOk: 0, hooksFailed: 0, hookFailing: 0, failures: 0, failing: 0 };
}

function formatTallies(tallies: ReadonlyMap<string, Tally>): string {
  const family = (
    name: string,
    type: string,
    help: string,
    read: (tally: Tally) => [string, number][],
  ): string =>
    [
      `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`,
      ...[...tallies].flatMap(([output, tally]) =>
        read(tally).map(([label, value]) => `${name}{output="${output}"${label}} ${value}\n`),
      ),
    ].join('');
  return [
    family(
      'countersign_files_expiry_timestamp_seconds',
      'gauge',
      'When the certificate in the files expires; 0 when there is none.',
      ({ expiresMs }) => [['', expiresMs / 1_000]],
    ),
    family('countersign_files_swaps_total', 'counter', 'How often the files were replaced.', ({ swaps }) => [
      ['', swaps],
    ]),
    family('countersign_files_hook_runs_total', 'counter', 'Runs of the hook.', (tally) => [
      [',result="ok"', tally.hooksOk],
      [',result="failed"', tally.hooksFailed],
    ]),
    family(
      'countersign_files_hook_failing',
      'gauge',
      'Whether the last run of the hook failed.',
      ({ hookFailing }) => [['', hookFailing]],
    ),
    family(
      'countersign_files_failures_total',
      'counter',
      'Failures to get a certificate or to write it.',
      ({ failures }) => [['', failures]],
    ),
    family(
      'countersign_files_failing',
      'gauge',
      'Whether the last try to get and write a certificate failed.',
      ({ failing }) => [['', failing]],
    ),
  ].join('');
}
