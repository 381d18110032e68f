import { Command } from 'commander';
import { parseMoment } from '../audit/moment.ts';
import { MeshError, quote } from '../errors.ts';
import { exitCodes } from './failure.ts';
import { examples } from './help.ts';
import { inspectBatch } from './inspect-batch.ts';
import { type InspectInput, readInput } from './inspect-input.ts';
import { type InspectAgainst, inspectBundle, inspectInput, type InspectKind } from './inspect-kinds.ts';
import { formatReport } from './inspect-report.ts';
import { print, type Session } from './session.ts';
import { printableJson } from './text.ts';

type InspectOptions = {
  readonly batch?: boolean;
  readonly trustBundle?: string;
  readonly bundle?: string;
  readonly at?: string;
};

/** `countersign inspect ...`: needs no server. */
export function inspectCommand(session: Session): Command {
  const group = new Command('inspect')
    .description('say what an ID, request, certificate, bundle or token holds, and every rule it breaks')
    .addHelpText('after', examples('inspect svid svid.pem', 'inspect bundle - < bundle.json'));
  for (const [kind, description, lines] of kinds) {
    const argument = kind === 'id' ? '[id-or-file]' : '[file]';
    const command = group
      .command(kind)
      .argument(argument, '- is standard input')
      .description(description)
      .option(
        '--batch',
        'inspect JSON lines of standard input, and answer each with a line (see docs/cli.md)',
      );
    if (kind === 'svid') {
      command.option('--trust-bundle <file>', 'verify the chain against these authorities: PEM, DER or JSON');
    }
    if (kind === 'jwt') command.option('--bundle <file>', 'verify signature and dates with this JSON bundle');
    if (kind === 'svid' || kind === 'jwt') {
      command.option('--at <time>', 'judge dates at this time: RFC 3339, or ago such as 2h');
    }
    command
      .addHelpText('after', examples(...lines))
      .action((file: string | undefined, options: InspectOptions, self: Command) =>
        inspect(session, kind, file, options, self),
      );
  }
  return group;
}

async function inspect(
  session: Session,
  kind: InspectKind,
  file: string | undefined,
  options: InspectOptions,
  command: Command,
): Promise<void> {
  const now = new Date();
  if ((file === undefined) !== (options.batch === true)) {
    throw new MeshError('usage', 'give a file or --batch, and not both', { fix: 'see --help' });
  }
  const bundleFile = options.trustBundle ?? options.bundle;
  if (bundleFile === '-' && (file === '-' || options.batch === true)) {
    throw new MeshError('usage', 'standard input is named twice', { fix: 'give the bundle as a file' });
  }
  const against = await readAgainst(bundleFile, options.at, now);
  if (file === undefined) {
    for await (const answer of inspectBatch(kind, process.stdin, against)) {
      session.write(`${printableJson(answer, 0)}\n`);
    }
    return;
  }
  const report = await inspectInput(kind, await inputOf(kind, file), against);
  print(session, command, report, () => formatReport(report, now));
  if (!report.ok) session.exitCode = exitCodes.negative;
}

async function readAgainst(
  file: string | undefined,
  at: string | undefined,
  now: Date,
): Promise<InspectAgainst> {
  const moment = at === undefined ? undefined : parseMoment(at, now);
  if (at !== undefined && moment === undefined) {
    throw new MeshError('usage', `--at ${quote(at)} is no time`, { fix: 'write it as 2026-01-31T12:00:00Z' });
  }
  if (file === undefined) return moment === undefined ? {} : { at: moment };
  return { bundles: inspectBundle(await readInput(file)).usable, at: moment ?? now };
}

function inputOf(kind: InspectKind, argument: string): InspectInput | Promise<InspectInput> {
  // No path that one would type has :// in it, and every ID has.
  const isId = kind === 'id' && argument.includes('://');
  return isId ? { bytes: Buffer.from(argument, 'utf8'), exact: true } : readInput(argument);
}

const kinds: readonly (readonly [InspectKind, string, readonly string[]])[] = [
  [
    'id',
    'inspect a SPIFFE ID',
    ['inspect id spiffe://example.org/ns/shop/sa/web', 'inspect id --batch < ids.jsonl'],
  ],
  ['csr', 'inspect a certificate request (PEM or DER)', ['inspect csr web.csr', 'inspect csr - < web.csr']],
  [
    'svid',
    'inspect a certificate and its chain, the leaf first (PEM or DER)',
    ['inspect svid svid.pem', 'inspect svid svid.pem --trust-bundle bundle.pem --at 2026-01-31T12:00:00Z'],
  ],
  [
    'bundle',
    'inspect a trust bundle (PEM, DER or SPIFFE JSON)',
    ['inspect bundle bundle.pem', 'inspect bundle bundle.json -o json'],
  ],
  ['jwt', 'inspect a JWT-SVID', ['inspect jwt token.jwt', 'inspect jwt - --bundle bundle.json < token.jwt']],
];
