import { Command, InvalidArgumentError } from 'commander';
import type {
  EnforcedView,
  RolloutEdgeView,
  RolloutReport,
  RolloutView,
  StagedView,
} from '../http/rollout-routes.ts';
import { actorText } from './actor-text.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { countWarnings } from './lint-command.ts';
import { messageOption } from './policy-revision-commands.ts';
import { clientOf, print, readSources, sayWarnings, type Session } from './session.ts';
import { count, formatPairs, formatTable, printable } from './text.ts';

/** `countersign policy shadow|rollout|canary|enforce|abort`. */
export function policyRolloutCommands(session: Session): readonly Command[] {
  return [
    shadowCommand(session),
    rolloutCommand(session),
    canaryCommand(session),
    enforceCommand(session),
    abortCommand(session),
  ];
}

type ShadowOptions = {
  readonly file: readonly string[];
  readonly prune?: boolean;
  readonly dryRun?: boolean;
  readonly message?: string;
};

function shadowCommand(session: Session): Command {
  return messageOption(
    new Command('shadow')
      .description(
        'try policies beside those in force: calls are judged by both, and decided as they are now',
      )
      .requiredOption('-f, --file <file...>', 'a file of policies, or - for standard input; may be repeated')
      .option('--prune', 'the candidate lacks the policies that the files do not name')
      .option('--dry-run', 'check everything and change nothing'),
  )
    .addHelpText(
      'after',
      examples("policy shadow -f shop.yaml -m 'GET only'", 'policy shadow -f all.yaml --prune --dry-run'),
    )
    .action(async ({ file, prune = false, dryRun = false, message }: ShadowOptions, command: Command) => {
      const files = readSources(session, file);
      const body = { files, prune, dryRun, ...messageOf(message) };
      const result = await clientOf(session, command).post<StagedView>('/v1/policy-rollout', body);
      sayWarnings(session, result.warnings);
      const lintWarnings = await countWarnings(session, command, files);
      print(session, command, { ...result, dryRun, lintWarnings }, () => {
        const table = formatTable(
          ['NAME', 'IN THE CANDIDATE'],
          result.changes.map(({ key, action }) => [key, action]),
        );
        const { rollout } = result;
        const end =
          rollout === null
            ? 'dry run: nothing was changed'
            : `rollout ${rollout.id.slice(0, 8)} beside revision ${rollout.base}: judged by, and decides nothing`;
        return `${table}${end}\n`;
      });
      if (lintWarnings > 0 && globalOptions(command).output !== 'json') {
        const given = file.map((name) => ` -f ${name}`).join('');
        const those = count(lintWarnings, 'warning', 'warnings');
        session.say(`${those} about these policies: ${session.program} policy lint${printable(given)}\n`);
      }
    });
}

function rolloutCommand(session: Session): Command {
  return new Command('rollout')
    .description('show the rollout: its stage, what each node has of it, and the calls it would change')
    .addHelpText('after', examples('policy rollout', 'policy rollout -o json'))
    .action(async (_options: unknown, command: Command) => {
      const report = await clientOf(session, command).get<RolloutReport>('/v1/policy-rollout');
      print(session, command, report, () => formatReport(report));
    });
}

type CanaryOptions = { readonly maxNewDenials?: number; readonly message?: string };

function canaryCommand(session: Session): Command {
  return messageOption(
    new Command('canary')
      .description('let the candidate decide the calls to a share of the workloads')
      .argument(
        '<percent>',
        'of all workloads, 1 to 100; those that were in stay in when it grows',
        parseCount,
      )
      .option(
        '--max-new-denials <n>',
        'newly denied calls before it ends by itself; 0, the default: the first ends it, and is allowed',
        parseCount,
      ),
  )
    .addHelpText('after', examples('policy canary 5', 'policy canary 50 --max-new-denials 10'))
    .action(async (percent: number, { maxNewDenials, message }: CanaryOptions, command: Command) => {
      const client = clientOf(session, command);
      const before = await client.get<RolloutReport>('/v1/policy-rollout');
      const body = {
        percent,
        ...(maxNewDenials === undefined ? {} : { maxNewDenials }),
        ...messageOf(message),
      };
      const rollout = await client.post<RolloutView>('/v1/policy-rollout/canary', body);
      sayWarnings(session, warningsBefore(before));
      print(
        session,
        command,
        rollout,
        () =>
          `rollout ${rollout.id.slice(0, 8)}: the candidate decides for ${rollout.percent}% of the workloads; ${budgetOf(rollout)}\n`,
      );
    });
}

type EnforceOptions = { readonly acceptDenials?: boolean; readonly message?: string };

function enforceCommand(session: Session): Command {
  return messageOption(
    new Command('enforce')
      .description('put the candidate in force, as a revision like any other')
      .option('--accept-denials', 'though it denies calls that were made and are allowed now'),
  )
    .addHelpText('after', examples('policy enforce', "policy enforce --accept-denials -m 'the job is gone'"))
    .action(async ({ acceptDenials = false, message }: EnforceOptions, command: Command) => {
      const body = { acceptDenials, ...messageOf(message) };
      const result = await clientOf(session, command).post<EnforcedView>('/v1/policy-rollout/enforce', body);
      sayWarnings(session, result.warnings);
      print(session, command, result, () => `revision ${result.active.number} is in force: the candidate\n`);
    });
}

function abortCommand(session: Session): Command {
  return messageOption(
    new Command('abort').description('end the rollout; what is in force stays, everywhere'),
  )
    .addHelpText('after', examples("policy abort -m 'checkout needs POST'"))
    .action(async ({ message }: { readonly message?: string }, command: Command) => {
      const query = message === undefined ? '' : `?message=${encodeURIComponent(message)}`;
      const rollout = await clientOf(session, command).delete<RolloutView>(`/v1/policy-rollout${query}`);
      print(
        session,
        command,
        rollout,
        () => `rollout ${rollout.id.slice(0, 8)} has ended; revision ${rollout.base} stays in force\n`,
      );
    });
}

function formatReport({ active, rollout, edges, nodes, ...counts }: RolloutReport): string {
  const inForce = active === null ? 'no policies are in force' : `revision ${active.number} is in force`;
  if (rollout === null) return `no rollout is under way; ${inForce}\n`;
  const { judged, newlyDenied, newlyAllowed, denied, fallenBack } = counts;
  const isOver = rollout.stage === 'ended';
  const stage = rollout.stage === 'canary' ? `canary, ${rollout.percent}% of the workloads` : rollout.stage;
  const states = ['in_step', 'behind', 'away', 'not_taking_part'] as const;
  const pairs: (readonly [string, string])[] = [
    ['rollout', `${rollout.id.slice(0, 8)} beside revision ${rollout.base}`],
    ['stage', `${stage}, since ${rollout.time} by ${actorText(rollout.author)}`],
    ['begun', `${rollout.startedAt} by ${actorText(rollout.startedBy)}`],
    ...(rollout.message === '' ? [] : [['message', rollout.message] as const]),
    ...(rollout.cause === '' ? [] : [['ended by', rollout.cause] as const]),
    ...(rollout.stage === 'canary' ? [['budget', budgetOf(rollout)] as const] : []),
    ...(isOver
      ? []
      : [['candidate', rollout.changes.map(({ key, action }) => `${key} ${action}`).join(', ')] as const]),
    ['judged', count(judged, 'call', 'calls')],
    ['newly denied', deniedText(newlyDenied, denied, fallenBack)],
    ['newly allowed', `${newlyAllowed}`],
    ...states.flatMap((state) => {
      const those = nodes.filter((node) => node.state === state).map(({ name }) => name);
      return those.length === 0 || isOver
        ? []
        : [[`nodes ${state.replaceAll('_', ' ')}`, namesOf(those)] as const];
    }),
  ];
  const table = formatTable(
    ['CHANGE', 'CALLS', 'CALLER', 'DESTINATION', 'CALL', 'BECAUSE'],
    edges.map(rowOf),
  );
  return edges.length === 0 ? formatPairs(pairs) : `${formatPairs(pairs)}\n${table}`;
}

function deniedText(all: number, denied: number, fallenBack: number): string {
  const parts = [
    ...(denied === 0 ? [] : [`${denied} by the candidate`]),
    ...(fallenBack === 0 ? [] : [`${fallenBack} saved by falling back`]),
  ];
  return parts.length === 0 ? `${all}` : `${all}, ${parts.join(', ')}`;
}

function rowOf(edge: RolloutEdgeView): readonly string[] {
  const { change, calls, source, destination, protocol, method, pathPattern } = edge;
  const call = protocol === 'tcp' ? 'tcp' : `${method} ${pathPattern}`;
  return [change.replace('_', ' '), `${calls}`, source || '(no certificate)', destination, call, whyOf(edge)];
}

function whyOf({ candidateRule, candidatePlace, candidateReason, rule, rulePlace }: RolloutEdgeView): string {
  if (candidateRule !== '') return at(candidateRule, candidatePlace);
  return rule === '' ? candidateReason : `${candidateReason}; so far ${at(rule, rulePlace)}`;
}

function at(rule: string, place: string): string {
  return place === '' ? rule : `${rule} at ${place}`;
}

function budgetOf({ maxNewDenials }: RolloutView): string {
  return maxNewDenials === 0
    ? 'the first newly denied call ends it, and is allowed'
    : `more than ${count(maxNewDenials, 'newly denied call ends', 'newly denied calls end')} it`;
}

/** What whoever goes on should know. */
function warningsBefore({ rollout, judged, newlyDenied }: RolloutReport): readonly string[] {
  if (rollout === null || rollout.stage !== 'shadow') return [];
  if (judged === 0) return ['no call has been judged by the candidate yet'];
  return newlyDenied === 0
    ? []
    : [`the candidate denies calls that are allowed now (${newlyDenied} so far): countersign policy rollout`];
}

function namesOf(names: readonly string[]): string {
  const shown = names.slice(0, maxNames).join(', ');
  return names.length > maxNames ? `${names.length}: ${shown} and more` : shown;
}

function messageOf(message: string | undefined): { readonly message?: string } {
  return message === undefined ? {} : { message };
}

function parseCount(text: string): number {
  if (/^[0-9]{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It is not a whole number.');
}

const maxNames = 8;
