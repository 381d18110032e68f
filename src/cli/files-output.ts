import { systemClock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { FilesOutput } from './files-configuration.ts';
import { type createTurns, type HookOutcome, runHook } from './files-hook.ts';
import type { FilesEvent } from './files-report.ts';
import type { FilesSource } from './files-source.ts';
import type { FilesTarget } from './files-target.ts';
import { type OfferedSvid, offerSvid } from './svid-stream.ts';

/** What an output needs of its surroundings. */
export type OutputParts = {
  readonly socket: string;
  readonly source: Pick<FilesSource, 'subscribe'>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly turns: ReturnType<typeof createTurns>;
  readonly report: (output: string, event: FilesEvent) => void;
  /** What to tell when the server is there and gives nothing. */
  readonly noIdentity: (identity: string) => Promise<MeshError>;
};

/**
 * Keeps the files of an output up to date until `stop` aborts, whatever fails meanwhile. Swaps and hooks take turns: a
 * certificate that comes while the hook runs is laid down after it, and the hook then runs once more, however many came.
 * The server is told that a bundle is in use only when the hook has succeeded with it.
 */
export async function keepFiles(
  output: FilesOutput,
  target: FilesTarget,
  parts: OutputParts,
  stop: AbortSignal,
): Promise<void> {
  let latest: OfferedSvid | 'banned' | undefined;
  let handled: typeof latest;
  let pause = new AbortController();
  let [retryMs, retryAt, swappedAt] = [firstRetryMs, 0, -Infinity];
  const bring = (found: OfferedSvid | 'banned'): void => {
    // What failed with the one before may go well with this one.
    [latest, retryAt, retryMs] = [found, 0, firstRetryMs];
    pause.abort();
  };
  // What is there already needs no line, unless it ends some trouble.
  let isTroubled = true;
  const complain = (event: FilesEvent): void => {
    isTroubled = true;
    parts.report(output.name, event);
  };
  parts.source.subscribe({
    identity: output.identity,
    bring,
    failed: (error, waitMs) => complain(failureOf('source_failed', error, waitMs)),
  });
  while (!stop.aborted) {
    const isDue = latest !== handled || target.isHookDue();
    // The steady clock: one that is put back must not put a retry off.
    const waitMs = isDue ? Math.max(retryAt, swappedAt + settleMs) - performance.now() : Infinity;
    if (waitMs > 0) {
      pause = new AbortController();
      await systemClock.sleep(waitMs, AbortSignal.any([pause.signal, stop]));
      continue;
    }
    const taken = latest;
    if (await handle(taken)) {
      [retryMs, retryAt] = [firstRetryMs, 0];
      // Not before: the authority drops an old root only once its readers have been told of the new one.
      if (typeof taken === 'object') void taken.confirm();
    } else {
      retryAt = performance.now() + retryMs;
      retryMs = Math.min(retryMs * 2, longestRetryMs);
    }
  }
  async function handle(found: typeof latest): Promise<boolean> {
    if (found !== undefined && found !== handled) {
      try {
        if (found === 'banned') forbid(output, target, parts);
        else {
          const kind = target.put(found, systemClock.now());
          if (kind === 'written') swappedAt = performance.now();
          if (kind === 'written' || isTroubled) {
            parts.report(output.name, { kind, certificate: target.certificate() });
          }
          isTroubled = false;
        }
        // A hook that fails is tried again without another swap.
        handled = found;
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        complain(failureOf('write_failed', error, retryMs));
        return false;
      }
    }
    if (!target.isHookDue()) return true;
    return (await tell(output, target, parts, retryMs)).ok;
  }
}

/**
 * Fills an output once. Outputs take turns: what one process confirms under one name counts for all of it.
 * @throws MeshError `hook_failed`, and whatever keeps the certificate from coming or being written
 */
export async function fillOnce(
  output: FilesOutput,
  target: FilesTarget,
  parts: OutputParts,
  deadline: AbortSignal,
): Promise<void> {
  const source = { socket: parts.socket, name: output.identity };
  for (;;) {
    try {
      for await (const svid of offerSvid(source, deadline)) {
        const kind = target.put(svid, systemClock.now());
        parts.report(output.name, { kind, certificate: target.certificate() });
        if (target.isHookDue()) await demandHook(output, target, parts);
        const confirmed = new AbortController();
        void svid.confirm().then(() => confirmed.abort());
        await systemClock.sleep(confirmMs, confirmed.signal);
        return;
      }
      throw await parts.noIdentity(output.identity);
    } catch (error) {
      // A server that starts at the same time may be there a moment later.
      if (!(error instanceof MeshError) || error.kind !== 'unavailable') throw error;
      await systemClock.sleep(firstRetryMs, deadline);
      if (deadline.aborted) throw error;
    }
  }
}

async function demandHook(output: FilesOutput, target: FilesTarget, parts: OutputParts): Promise<void> {
  const { ok, why, output: said } = await tell(output, target, parts, null);
  if (!ok) {
    throw new MeshError('hook_failed', `the files are written, and ${why}`, {
      fix: said === '' ? 'run it by hand' : `it said: ${said}`,
    });
  }
}

/** Warns, once for each certificate and each mark, as its end comes near. Call it about once a second. */
export function createExpiryWatch(
  report: OutputParts['report'],
): (output: string, target: Pick<FilesTarget, 'certificate'>, now: Date) => void {
  const told = new Map<string, string>();
  return (output, target, now) => {
    const certificate = target.certificate();
    if (certificate === undefined) return;
    const { notBefore, notAfter, serial } = certificate;
    const lifeMs = notAfter.getTime() - notBefore.getTime();
    const left = (notAfter.getTime() - now.getTime()) / (lifeMs > backdateMs ? lifeMs - backdateMs : lifeMs);
    const mark = left <= 0 ? 'expired' : warningMarks.find((share) => left < share)?.toString();
    const line = `${serial} ${mark}`;
    if (mark === undefined || told.get(output) === line) return;
    told.set(output, line);
    report(output, { kind: mark === 'expired' ? 'expired' : 'expiring', certificate });
  };
}

function forbid({ name, onBan }: FilesOutput, target: FilesTarget, { report }: OutputParts): void {
  if (onBan === 'remove') target.clear();
  report(name, { kind: 'banned', removed: onBan === 'remove' });
}

async function tell(
  output: FilesOutput,
  target: FilesTarget,
  { turns, environment, report }: OutputParts,
  retryMs: number | null,
): Promise<HookOutcome> {
  const { hook, hookTimeoutSeconds, name, directory } = output;
  if (hook === null) return { ok: true, why: '', output: '', tookMs: 0 };
  const told = { ...environment, COUNTERSIGN_FILES_OUTPUT: name, COUNTERSIGN_FILES_DIRECTORY: directory };
  const outcome = await turns(hook, () => runHook(hook, hookTimeoutSeconds * 1_000, told));
  if (!outcome.ok) {
    report(name, { kind: 'hook_failed', why: outcome.why, output: outcome.output, retryMs });
    return outcome;
  }
  report(name, { kind: 'hook_ok', tookMs: outcome.tookMs, output: outcome.output });
  try {
    target.noteHooked();
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    report(name, failureOf('write_failed', error, retryMs));
    return { ...outcome, ok: false, why: error.message };
  }
  return outcome;
}

function failureOf(
  kind: 'source_failed' | 'write_failed',
  { code, message, fix }: MeshError,
  retryMs: number | null,
): FilesEvent {
  return { kind, code, why: message, fix: fix ?? null, retryMs };
}

const firstRetryMs = 1_000;
const longestRetryMs = 60_000;
const confirmMs = 1_000;
// A server that changes its mind all the time makes nobody reload more often than this.
const settleMs = 1_000;
// Certificates are renewed at half their life: less than these shares left is not as it should be.
const warningMarks = [0.1, 1 / 3];
// A certificate begins half a minute before it is made, which is no part of the life that renewals go by.
const backdateMs = 30_000;
