import { randomBytes } from 'node:crypto';
import { Command, InvalidArgumentError } from 'commander';
import { parseMoment } from '../audit/moment.ts';
import { parseVerifierKey } from '../audit/note.ts';
import { checkSeed } from '../audit/pack.ts';
import { describeCalls } from '../audit/pack-calls.ts';
import type { PackManifest, PackReport } from '../audit/pack-manifest.ts';
import { buildPackPage, packScriptHash } from '../audit/pack-page.ts';
import { auditEventTypes } from '../audit/question.ts';
import { systemClock } from '../clock.ts';
import { MeshError, quote } from '../errors.ts';
import { repeated } from './arguments.ts';
import { readPack, writePack } from './audit-pack-files.ts';
import { proveComplete } from './audit-pack-log.ts';
import { collectPack, demandProven } from './audit-pack-source.ts';
import { verifierKeyText } from './audit-source.ts';
import { examples } from './help.ts';
import { writeNewFile } from './new-file.ts';
import { readText } from './read-text.ts';
import { clientOf, print, type Session } from './session.ts';
import { count, formatPairs, printable } from './text.ts';

type PackOptions = {
  readonly from?: string;
  readonly to?: string;
  readonly out?: string;
  readonly type?: readonly string[];
  readonly calls?: boolean;
  readonly sample: number;
  readonly seed?: string;
  readonly since?: string;
  readonly key?: string;
};

/** `countersign audit pack ...`. */
export function auditPackCommand(session: Session): Command {
  const group = new Command('pack')
    .description(
      'make a bundle of evidence for an auditor: all records of a window, a sample of them, proven',
    )
    // Those that must be given are asked for below: commander would ask `pack verify` for them too.
    .option('--from <time>', 'the first moment of the window: RFC 3339, a date, or a time ago such as 90d')
    .option('--to <time>', 'the moment at which it ends (now when left out)')
    .option('--out <path>', 'a new directory, or one page when it ends with .html')
    .option(
      '--type <type>',
      'only records of this type; may be repeated (all but calls when left out)',
      repeated,
    )
    .option('--calls', 'list decisions and allowed calls too, which are only counted otherwise')
    .option('--sample <records>', 'how many to draw and prove one by one', parseSample, 25)
    .option('--seed <text>', 'what the sample is drawn with; best is one that the auditor chose')
    .option('--since <file>', 'an older checkpoint: prove that nothing it covers was changed or lost')
    .option('--key <key>', 'the verifier key that you trust, or a file with it')
    .addHelpText(
      'after',
      examples(
        'audit pack --from 2026-01-01 --to 2026-04-01 --seed audit-2026-q1 --key log.key --out q1',
        'audit pack --from 90d --type policy_change --type grant_change --key log.key --out changes.html',
        'audit pack verify q1 --key log.key',
      ),
    )
    .action(async (options: PackOptions, command: Command) => {
      const { from, out } = options;
      if (from === undefined || out === undefined) throw usage('a pack needs --from and --out');
      const now = systemClock.now();
      const window = { from: moment('--from', from, now), until: moment('--to', options.to, now) };
      if (window.from >= window.until) throw usage('--from is not before --to');
      const client = clientOf(session, command);
      const keyText =
        options.key === undefined ? await statedKey(session, client) : verifierKeyText(options.key);
      const files = await collectPack(client, {
        ...window,
        now,
        key: parseVerifierKey(keyText),
        keyText,
        types: typesOf(options.type ?? []),
        calls: options.calls === true,
        since: options.since === undefined ? null : readText(options.since, options.since),
        seed: checkSeed(options.seed ?? randomBytes(8).toString('hex')),
        sampleSize: options.sample,
      });
      writePack(out, files);
      const manifest = JSON.parse(files.get('manifest.json') ?? '') as PackManifest;
      print(session, command, { out, manifest }, () =>
        formatPairs([...describe(manifest), ['written to', printable(out)]]),
      );
    });
  return group.addCommand(verifyCommand(session)).addCommand(pageCommand(session));
}

type VerifyOptions = { readonly key?: string; readonly log?: string };

function verifyCommand(session: Session): Command {
  return new Command('verify')
    .description('verify a pack without the server; exits 1 and names all that is wrong')
    .argument('<pack>', 'the directory or the page that audit pack made')
    .option('--key <key>', 'the verifier key of the log from elsewhere than the pack, or a file with it')
    .option('--log <directory>', 'an export of the log: prove besides that the population is complete')
    .addHelpText(
      'after',
      examples(
        'audit pack verify q1 --key log.key',
        'audit pack verify q1.html --key log.key --log ./export',
      ),
    )
    .action(async (path: string, _options: unknown, command: Command) => {
      // `pack` has a --key too, and may be the one that is given it.
      const options = command.optsWithGlobals<VerifyOptions>();
      if (options.key === undefined) {
        throw usage(
          'a pack is verified with --key',
          'give the key that audit key printed, not that of the pack',
        );
      }
      const key = verifierKeyText(options.key);
      parseVerifierKey(key);
      const { files, isOurPage } = readPack(path);
      const report = await demandProven(files, key);
      if (!isOurPage) {
        session.say(
          'warning: the page of the pack is not the one that this version makes of it: do not go by what it shows\n',
        );
      }
      const complete =
        options.log === undefined ? null : await proveComplete(files, report, options.log, key);
      const { verdict, checks, manifest } = report;
      print(session, command, { verdict, complete, checks, manifest }, () =>
        formatPairs([
          ...checks.map(({ name, words }) => [name, words] as const),
          ['complete', complete ?? 'not proven: give an export of the log with --log'],
          ['not proven', statedOf(report, complete !== null)],
        ]),
      );
    });
}

function pageCommand(session: Session): Command {
  return new Command('page')
    .description('make a page that verifies packs in a browser, without any pack in it')
    .argument('<file>', 'write it into this new file')
    .addHelpText('after', examples('audit pack page verify.html'))
    .action((out: string, _options: unknown, command: Command) => {
      writeNewFile(out, buildPackPage(null));
      const script = `sha256-${packScriptHash()}`;
      print(session, command, { out, script }, () =>
        formatPairs([
          ['written to', printable(out)],
          ['script', script],
        ]),
      );
    });
}

function describe({ log, window, population, calls, sample, coverage }: PackManifest) {
  const types = Object.entries(population.byType).map(([type, n]) => `${n} ${type}`);
  return [
    ['window', `from ${window.from}, before ${window.until}`],
    ['log', `${count(log.size, 'entry', 'entries')} under the checkpoint`],
    ['population', `${count(population.records, 'record', 'records')}: ${types.join(', ') || 'none'}`],
    ['calls', calls === null ? 'not counted' : `${describeCalls(calls)}, counted only`],
    ['sample', `${sample.indexes.length} drawn and proven, seed ${sample.seed}`],
    [
      'coverage',
      `${coverage.lost} records lost in ${count(coverage.losses, 'loss', 'losses')}, ${count(coverage.starts, 'start', 'starts')}, ${count(coverage.stops, 'stop', 'stops')}`,
    ],
  ] as const;
}

/** What stands in a pack on the word of who made it. */
function statedOf({ manifest }: PackReport, isComplete: boolean): string {
  const calls = isComplete ? null : (manifest?.calls ?? null);
  const counts = calls === null ? '' : `, ${describeCalls(calls)}`;
  return `stated by whoever made it: made at ${manifest?.madeAt ?? ''}${counts}`;
}

async function statedKey(session: Session, client: ReturnType<typeof clientOf>): Promise<string> {
  session.say(
    'warning: the key comes from the server itself; keep the output of audit key and give it with --key\n',
  );
  return (await client.getText('/v1/audit/log/key')).trimEnd();
}

function moment(option: string, text: string | undefined, now: Date): Date {
  const found = text === undefined ? now : parseMoment(text, now);
  if (found !== undefined) return found;
  throw usage(
    `${option}: ${quote(text ?? '')} is no time`,
    'write 2026-01-31, 2026-01-31T12:00:00Z, 10m or 7d',
  );
}

function typesOf(texts: readonly string[]): readonly string[] {
  const names = [...new Set(texts.flatMap((text) => text.split(',')).map((name) => name.trim()))];
  const unknown = names.find((name) => !auditEventTypes.some((type) => type === name));
  if (unknown === undefined) return names;
  throw usage(`--type: ${quote(unknown)} is unknown`, `use ${auditEventTypes.join(', ')}`);
}

function parseSample(text: string): number {
  if (/^[0-9]{1,5}$/.test(text) && Number(text) <= maxSample) return Number(text);
  throw new InvalidArgumentError(`It is not a whole number from 0 to ${maxSample}.`);
}

function usage(message: string, fix = 'see countersign audit pack --help'): MeshError {
  return new MeshError('usage', message, { fix });
}

const maxSample = 10_000;
