import { Command } from 'commander';
import { systemClock } from '../clock.ts';
import { MeshError } from '../errors.ts';
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
import { noIdentity, workloadSocketOf } from './svid-source.ts';
import type { FetchedSvid, SvidSource } from './svid-stream.ts';
import { printable, printableJson } from './text.ts';

type SvidOptions = {
  readonly spiffeId?: string;
  readonly workloadSocket?: string;
  readonly write?: string;
  readonly timeout?: number;
  readonly jwt?: boolean;
  readonly audience?: readonly string[];
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
      .option(
        '--workload-socket <path>',
        "the server's workload socket (left out: the configured one, or that of SPIFFE_ENDPOINT_SOCKET)",
      )
      .option(
        '--write <dir>',
        'write svid.pem, key.pem (0600), bundle.pem and svid.tlog-proof there, all at once',
      );
  add('fetch', 'fetch the certificate once, verify it and show what it says; the key is never shown')
    .option('--timeout <duration>', 'how long to wait, such as 5s', parseLifetime, defaultTimeoutSeconds)
    .option('--jwt', 'fetch a JWT-SVID instead and print it: whoever reads it may use it')
    .option('--audience <name...>', 'whom the JWT-SVID is for; at least one')
    .addHelpText(
      'after',
      examples('svid fetch', 'svid fetch --write ./certs -o json', 'svid fetch --jwt --audience orders'),
    )
    .action((options: SvidOptions, self: Command) => fetchSvid(session, options, self));
  add('watch', 'print one line for each new certificate, until a signal stops it')
    .addHelpText('after', examples('svid watch', 'svid watch --write ./certs -o json'))
    .action((options: SvidOptions, self: Command) => watchSvid(session, options, self));
  return group;
}

async function fetchSvid(session: Session, options: SvidOptions, command: Command): Promise<void> {
  if (options.jwt === true) return fetchJwt(session, options, command);
  if (options.audience !== undefined) {
    throw new MeshError('usage', '--audience goes with --jwt', { fix: 'add --jwt, or leave --audience out' });
  }
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
  if (svid === undefined) throw await noIdentity(source.name, timeout);
  const report = reportOf(svid);
  // What breaks a rule is shown, and never laid where a service would load it.
  if (options.write !== undefined && report.ok) writeSvidFiles(options.write, svid);
  const written = options.write !== undefined && report.ok ? { directory: options.write } : {};
  const proof = svid.proof === undefined ? {} : { issuanceProof: svid.proof };
  print(session, command, { ...report, ...written, ...proof }, () => {
    const note = report.ok ? `written to ${printable(options.write ?? '')}` : 'nothing was written';
    return `${formatReport(report, new Date())}${options.write === undefined ? '' : `${note}\n`}`;
  });
  if (!report.ok) session.exitCode = exitCodes.negative;
}

async function fetchJwt(session: Session, options: SvidOptions, command: Command): Promise<void> {
  const { audience = [], spiffeId, timeout = defaultTimeoutSeconds } = options;
  if (audience.length === 0 || options.write !== undefined) {
    throw new MeshError('usage', '--jwt takes at least one --audience, and no --write', {
      fix: 'name the service the token is for: --jwt --audience orders',
    });
  }
  const { socket } = sourceOf(session, options, command);
  const { fetchTokens } = await import('./svid-token.ts');
  const tokens = await fetchTokens({ socket, spiffeId: spiffeId ?? '', audience }, timeout * 1_000);
  // One line for a shell: that of the identity asked for, or of the default one.
  print(session, command, { svids: tokens }, () => `${printable(tokens[0]?.token ?? '')}\n`);
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
  const { message, fix } = await noIdentity(source.name, defaultTimeoutSeconds);
  session.say(`${printable(message)}; still waiting\nfix: ${printable(fix ?? '')}\n`);
}

function sourceOf(session: Session, options: SvidOptions, command: Command): SvidSource {
  const socket = workloadSocketOf(session, globalOptions(command), options.workloadSocket);
  const name = options.spiffeId === undefined ? 'default' : SpiffeId.parseWorkload(options.spiffeId).text;
  return { socket, name };
}

const defaultTimeoutSeconds = 5;
const firstWaitMs = 1_000;
const longestWaitMs = 30_000;
// What may be over by itself: a server that starts again, a queue that empties.
const passing: ReadonlySet<string> = new Set(['unavailable', 'exhausted', 'unauthenticated']);
