import { Command } from 'commander';
import { createUnixAttestor } from '../attest/unix.ts';
import { systemClock } from '../clock.ts';
import { loadConfig } from '../config.ts';
import { MeshError, quote } from '../errors.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { inspectChain } from '../spiffe/inspect-chain.ts';
import { exitCodes } from './failure.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import type { InspectReport } from './inspect-kinds.ts';
import { formatReport, formatSpan, formatTime } from './inspect-report.ts';
import { parseLifetime } from './lifetime.ts';
import { print, type Session } from './session.ts';
import { writeSvidFiles } from './svid-files.ts';
import type { FetchedSvid, SvidSource } from './svid-stream.ts';
import { printable, printableJson } from './text.ts';

type SvidOptions = {
  readonly spiffeId?: string;
  readonly workloadSocket?: string;
  readonly write?: string;
  readonly timeout?: number;
};

/** `countersign svid ...`: speaks to the workload socket, not to the admin API. */
export function svidCommand(session: Session): Command {
  const group = new Command('svid')
    .description('the certificate of this very process, from the workload socket')
    .addHelpText('after', examples('svid fetch', 'svid watch --write ./certs'));
  const add = (name: string, description: string): Command =>
    group
      .command(name)
      .description(description)
      .option('--spiffe-id <id>', 'which identity, when the process has several (the first when left out)')
      .option('--workload-socket <path>', "the server's workload socket (the configured one when left out)")
      .option('--write <dir>', 'write svid.pem, key.pem (0600) and bundle.pem there, all at once');
  add('fetch', 'fetch the certificate once, verify it and show what it says; the key is never shown')
    .option('--timeout <duration>', 'how long to wait, such as 5s', parseLifetime, defaultTimeoutSeconds)
    .addHelpText('after', examples('svid fetch', 'svid fetch --write ./certs -o json'))
    .action((options: SvidOptions, self: Command) => fetchSvid(session, options, self));
  add('watch', 'print one line for each new certificate, until a signal stops it')
    .addHelpText('after', examples('svid watch', 'svid watch --write ./certs -o json'))
    .action((options: SvidOptions, self: Command) => watchSvid(session, options, self));
  return group;
}

async function fetchSvid(session: Session, options: SvidOptions, command: Command): Promise<void> {
  const source = sourceOf(session, options, command);
  const { timeout = defaultTimeoutSeconds } = options;
  const done = new AbortController();
  const late = AbortSignal.timeout(timeout * 1_000);
  const { streamSvid } = await import('./svid-stream.ts');
  let svid: FetchedSvid | undefined;
  for await (const found of streamSvid(source, AbortSignal.any([late, done.signal]))) {
    svid = found;
    done.abort();
  }
  if (svid === undefined) throw await noIdentity(source, timeout);
  const report = reportOf(svid);
  // What breaks a rule is shown, and never laid where a service would load it.
  if (options.write !== undefined && report.ok) writeSvidFiles(options.write, svid);
  const written = options.write !== undefined && report.ok ? { directory: options.write } : {};
  print(session, command, { ...report, ...written }, () => {
    const note = report.ok ? `written to ${printable(options.write ?? '')}` : 'nothing was written';
    return `${formatReport(report, new Date())}${options.write === undefined ? '' : `${note}\n`}`;
  });
  if (!report.ok) session.exitCode = exitCodes.negative;
}

async function watchSvid(session: Session, options: SvidOptions, command: Command): Promise<void> {
  const source = sourceOf(session, options, command);
  const asJson = globalOptions(command).output === 'json';
  const stop = session.catchSignals();
  const { streamSvid } = await import('./svid-stream.ts');
  let shown = '';
  let waitMs = firstWaitMs;
  let isAway = false;
  void sayWhenWaiting(session, source, stop, () => shown === '' && !isAway);
  while (!stop.aborted) {
    try {
      isAway = false;
      for await (const svid of streamSvid(source, stop)) {
        waitMs = firstWaitMs;
        const report = reportOf(svid);
        const broken = report.broken.map(({ rule }) => rule);
        const [leaf] = report.facts.certificates;
        if (leaf === undefined) continue;
        if (report.ok && options.write !== undefined) writeSvidFiles(options.write, svid);
        // A new bundle alone is written, and is no rotation.
        if (leaf.sha256 === shown) continue;
        shown = leaf.sha256;
        const { spiffeId, serial, notBefore, notAfter, sha256 } = leaf;
        const time = new Date();
        const line = { time, spiffeId, serial, notBefore, notAfter, sha256, broken };
        session.write(`${asJson ? printableJson(line, 0) : formatLine(line)}\n`);
      }
    } catch (error) {
      if (!(error instanceof MeshError) || !passing.has(error.kind)) throw error;
      isAway = true;
      session.say(`${printable(error.message)}; trying again in ${formatSpan(waitMs)}\n`);
      await systemClock.sleep(waitMs, stop);
      waitMs = Math.min(waitMs * 2, longestWaitMs);
    }
  }
}

type Line = {
  readonly time: Date;
  readonly spiffeId: string | null;
  readonly serial: string;
  readonly notAfter: Date;
  readonly broken: readonly string[];
};

function formatLine({ time, spiffeId, serial, notAfter, broken }: Line): string {
  const left = formatSpan(notAfter.getTime() - time.getTime());
  const wrong = broken.length === 0 ? '' : `  BROKEN ${broken.join(', ')}`;
  return printable(
    `${formatTime(time)}  ${spiffeId ?? 'none'}  serial ${serial}  until ${formatTime(notAfter)}, ${left}${wrong}`,
  );
}

function reportOf({ certificates, authorities }: FetchedSvid): Extract<InspectReport, { kind: 'svid' }> {
  const { facts, broken } = inspectChain(certificates, { authorities, at: new Date() });
  return { kind: 'svid', ok: broken.length === 0, facts, broken };
}

async function sayWhenWaiting(
  session: Session,
  source: SvidSource,
  stop: AbortSignal,
  isWaiting: () => boolean,
): Promise<void> {
  await systemClock.sleep(defaultTimeoutSeconds * 1_000, stop);
  if (stop.aborted || !isWaiting()) return;
  const { message, fix } = await noIdentity(source, defaultTimeoutSeconds);
  session.say(`${printable(message)}; still waiting\nfix: ${printable(fix ?? '')}\n`);
}

/** The server never says who it takes the caller for, so what it will have seen is looked up here. */
async function noIdentity({ name }: SvidSource, seconds: number): Promise<MeshError> {
  const what = name === 'default' ? 'an identity' : quote(name);
  const selectors = await ownSelectors();
  return new MeshError(
    'identity_none',
    `no certificate within ${seconds} s: no entry gives this process ${what}`,
    {
      fix:
        selectors === undefined
          ? 'make an entry whose selectors this process has; countersign audit list --type refusal names them'
          : `make an entry whose selectors are among those of this process: ${selectors}`,
    },
  );
}

async function ownSelectors(): Promise<string | undefined> {
  const [uid, gid] = [process.geteuid?.(), process.getegid?.()];
  if (uid === undefined || gid === undefined) return undefined;
  const own = {
    kind: 'unix',
    connectionId: 'self',
    pid: process.pid,
    uid,
    gid,
    isAlive: () => true,
  } as const;
  try {
    return (await createUnixAttestor()(own)).selectors.map(({ text }) => text).join(', ');
  } catch {
    return undefined;
  }
}

function sourceOf(session: Session, options: SvidOptions, command: Command): SvidSource {
  const global = globalOptions(command);
  const { workloadSocket } = loadConfig({
    flags: {
      ...(options.workloadSocket === undefined ? {} : { workloadSocket: options.workloadSocket }),
      ...(global.dataDir === undefined ? {} : { dataDir: global.dataDir }),
    },
    environment: session.environment,
    file: global.config ?? null,
    isRoot: session.isRoot,
  });
  const name = options.spiffeId === undefined ? 'default' : SpiffeId.parseWorkload(options.spiffeId).text;
  return { socket: workloadSocket, name };
}

const defaultTimeoutSeconds = 5;
const firstWaitMs = 1_000;
const longestWaitMs = 30_000;
// What may be over by itself: a server that starts again, a queue that empties.
const passing: ReadonlySet<string> = new Set(['unavailable', 'exhausted', 'unauthenticated']);
