import { Command, InvalidArgumentError, Option } from 'commander';
import { MeshError } from '../errors.ts';
import { formatCsv, offerCsv } from './csv.ts';
import { exitCodes } from './failure.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { parseRevision } from './policy-revision-commands.ts';
import { formatReplay, replayBasis, replayColumns, replayRow, type ToldReplay } from './replay-text.ts';
import { clientOf, print, readSources, sayWarnings, type Session } from './session.ts';
import { count } from './text.ts';

type ReplayOptions = {
  readonly file?: readonly string[];
  readonly without?: readonly string[];
  readonly revision?: number;
  readonly since: string;
  readonly until?: string;
  readonly destination?: string;
  readonly namespace?: string;
  readonly limit?: number;
  readonly allowDenials: number;
  readonly failOn: readonly string[];
  readonly allowUnjudged: boolean;
};

/** `countersign policy replay`. */
export function policyReplayCommand(session: Session): Command {
  const command = new Command('replay')
    .description(
      'judge recorded calls anew under other policies; exits 1 when one would newly be denied, 2 when none could be judged',
    )
    .argument('[files...]', 'files of documents, as apply takes them; - for standard input')
    .option('-f, --file <file...>', 'the same')
    .option('--without <policy...>', 'namespace/name of policies that would be deleted')
    .option('--revision <number>', 'a revision in place of files', parseRevision)
    .option('--allow-denials <calls>', 'exit 0 up to so many newly denied calls', parseCalls, 0)
    .addOption(
      new Option('--fail-on <what...>', 'exit 1 also for newly allowed calls, or those that cannot be told')
        .choices(['newly-allowed', 'unknown'])
        .default([], 'neither'),
    )
    .option('--allow-unjudged', 'exit 0 also when no call could be judged', false);
  return offerCsv(callsOptions(command, '7d'))
    .option('--limit <edges>', 'the most edges to show, 1 to 1000', parseLimit)
    .addHelpText(
      'after',
      examples(
        'policy replay --since 7d shop.yaml',
        'policy replay --since 30d --destination spiffe://mesh.internal/ns/pay/sa/ledger ledger.yaml -o json',
        'policy replay --without shop/everybody least.yaml --fail-on unknown',
        'policy replay --revision 4',
      ),
    )
    .action(async (named: readonly string[], options: ReplayOptions, own: Command) => {
      const { file = [], without, revision, allowDenials, failOn, allowUnjudged, ...asked } = options;
      const all = [...named, ...file];
      if ((all.length + (without?.length ?? 0) === 0) === (revision === undefined)) {
        throw new MeshError('usage', 'name files, --without, or else a --revision', {
          fix: 'for example: countersign policy replay --since 7d shop.yaml',
        });
      }
      const files = readSources(session, all);
      const body = {
        ...asked,
        ...(files.length === 0 ? {} : { files }),
        ...(without === undefined ? {} : { without }),
        ...(revision === undefined ? {} : { revision }),
      };
      const client = clientOf(session, own);
      const answer = await client.post<ToldReplay>('/v1/policy-replays', body, replayMs);
      // A pipeline that lost its input must not look like one that worked.
      if (revision === undefined && answer.candidate.changes.length === 0) {
        throw new MeshError('usage', 'no document is in these files', { fix: 'give files with policies' });
      }
      const { totals, candidate, complete } = answer;
      const passes =
        complete &&
        candidate.refused === null &&
        totals.newlyDenied <= allowDenials &&
        !(failOn.includes('newly-allowed') && totals.newlyAllowed > 0) &&
        !(failOn.includes('unknown') && totals.unknown > 0);
      const why = passes ? whyUnjudged(answer) : '';
      const ok = passes && (why === '' || allowUnjudged);
      sayWarnings(session, candidate.warnings);
      if (globalOptions(own).output === 'csv') {
        session.write(formatCsv(replayColumns, answer.edges.map(replayRow)));
        session.say(replayBasis(answer));
      } else
        print(session, own, { ok, judged: totals.calls - totals.unknown, ...answer }, () =>
          formatReplay(answer),
        );
      if (why !== '') sayWarnings(session, [`nothing was judged: ${why}`]);
      if (!ok) session.exitCode = passes ? exitCodes.refused : exitCodes.negative;
    });
}

/** Why the answer says nothing of a candidate that changes something; empty when it says something. */
function whyUnjudged({ totals: { calls, unknown, notHeld }, candidate }: ToldReplay): string {
  if (calls > unknown || candidate.changes.every(({ action }) => action === 'unchanged')) return '';
  if (calls > 0) return `${count(calls, 'recorded call', 'recorded calls')}, and none of them can be told`;
  return notHeld > 0
    ? 'the records of all calls that are meant are gone'
    : 'no call that is meant is in the log';
}

/** Options that say which calls are meant. */
export function callsOptions(command: Command, since: string): Command {
  return command
    .option('--since <time>', 'calls from this time on: 90s, 10m, 2h, 7d, 4w, or RFC 3339', since)
    .option('--until <time>', 'calls before this time')
    .option('--destination <id>', 'calls to this service: its SPIFFE ID')
    .option('--namespace <name>', 'calls to services of this namespace');
}

function parseCalls(text: string): number {
  if (/^(0|[1-9][0-9]{0,14})$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It is no number of calls.');
}

function parseLimit(text: string): number {
  if (/^[1-9][0-9]{0,3}$/.test(text) && Number(text) <= 1_000) return Number(text);
  throw new InvalidArgumentError('It is not a number from 1 to 1000.');
}

/** Longer than the server takes. */
export const replayMs = 150_000;
