import { Command } from 'commander';
import type { ClassExample, Comparison, DifferenceClass } from '../authz/analysis/compare.ts';
import { MeshError, quote } from '../errors.ts';
import type { ComparisonView } from '../http/proof-routes.ts';
import type { SourceFile } from '../identity/plan.ts';
import { analyseFiles, demandOwnNames, readTree } from './analysis-files.ts';
import { asText, decisionLine, indented, ruleLines, unprovenLines, witnessLines } from './analysis-text.ts';
import type { AdminClient } from './client.ts';
import { exitCodes } from './failure.ts';
import { examples } from './help.ts';
import { activeNumber, diffRevisions, formatDiff } from './policy-diff.ts';
import { clientOf, print, type Session } from './session.ts';
import { count } from './text.ts';

/** A set of policies: of a revision, those in force, or files. */
type Side = { readonly revision: number | 'active' } | { readonly path: string };

type DiffOptions = { readonly text?: boolean; readonly exitCode?: boolean; readonly trustDomain?: string };

/** `countersign policy diff`. */
export function policyDiffCommand(session: Session): Command {
  return new Command('diff')
    .description(
      'show which calls two sets of policies decide differently, or with --text how their texts differ',
    )
    .argument('<from>', 'the number of a revision, active, or a file or directory', parseSide)
    .argument('[to]', 'another one; active when left out', parseSide)
    .option('--text', 'line by line, of two revisions')
    .option('--exit-code', 'exit 1 when any call is decided differently, 2 when that cannot be told of some')
    .option(
      '--trust-domain <name>',
      'that of the mesh, for files alone (default: as configured, or that of the entries)',
    )
    .addHelpText(
      'after',
      examples(
        'policy diff 4',
        'policy diff 4 6 --text',
        'policy diff active candidate.yaml --exit-code',
        'policy diff before/ after/ --trust-domain example.org -o json',
      ),
    )
    .action(async (from: Side, to: Side | undefined, options: DiffOptions, command: Command) => {
      const other = to ?? { revision: 'active' };
      if (options.text === true) return textual(session, command, from, other);
      const comparison =
        'path' in from && 'path' in other
          ? await compareFiles(session, command, from.path, other.path, options.trustDomain)
          : await ask(session, command, from, other);
      print(session, command, comparison, () => asText(formatComparison(comparison)));
      if (options.exitCode !== true) return undefined;
      const isSame = comparison.newlyAllowed.length + comparison.newlyDenied.length === 0;
      if (!isSame) session.exitCode = exitCodes.negative;
      else if (comparison.unproven.length > 0) session.exitCode = exitCodes.refused;
      return undefined;
    });
}

function parseSide(text: string): Side {
  if (text === 'active') return { revision: 'active' };
  return /^[1-9][0-9]{0,14}$/.test(text) ? { revision: Number(text) } : { path: text };
}

async function textual(session: Session, command: Command, from: Side, to: Side): Promise<void> {
  const client = clientOf(session, command);
  const diff = await diffRevisions(client, await numberOf(client, from), await numberOf(client, to));
  print(session, command, diff, () => formatDiff(diff));
}

async function numberOf(client: AdminClient, side: Side): Promise<number> {
  if ('path' in side) {
    throw new MeshError(
      'usage',
      `${quote(side.path)} is not the number of a revision, and --text compares revisions`,
      {
        fix: 'use diff to compare texts of files',
      },
    );
  }
  return side.revision === 'active' ? activeNumber(client) : side.revision;
}

async function ask(session: Session, command: Command, from: Side, to: Side): Promise<ComparisonView> {
  const sideOf = (
    side: Side,
  ): { readonly revision: number | 'active' } | { readonly files: readonly SourceFile[] } =>
    'path' in side ? { files: readTree(session, [side.path]) } : side;
  const body = { from: sideOf(from), to: sideOf(to) };
  return clientOf(session, command).post<ComparisonView>('/v1/policy-comparisons', body);
}

/** Of files alone: each side is all there is. */
async function compareFiles(
  session: Session,
  command: Command,
  from: string,
  to: string,
  trustDomain: string | undefined,
): Promise<ComparisonView> {
  const [{ comparePolicies }, { finish }, { onTop, relabelled }] = await Promise.all([
    import('../authz/analysis/compare.ts'),
    import('../authz/steps.ts'),
    import('../identity/policy-analysis.ts'),
  ]);
  const before = await analyseFiles(session, command, readTree(session, [from]), trustDomain);
  const named = trustDomain ?? before.ground.trustDomain.name;
  const after = await analyseFiles(session, command, readTree(session, [to]), named);
  const sides = [before, after].map(({ analysed }) => [...analysed.policies.values()]);
  const [was = [], is = []] = sides;
  if (was.length + is.length === 0) {
    throw new MeshError('usage', 'no policy is in the files', { fix: 'give files with policies' });
  }
  demandOwnNames([before.analysed, after.analysed], before.ground);
  const workloads = [...onTop(before.analysed, after.analysed).workloads.values()];
  const compared = finish(comparePolicies({ ...before.ground, workloads }, was, is, new Date()));
  const unproven = [...relabelled(before.analysed, after.analysed), ...compared.unproven];
  return { ...compared, unproven, from: null, to: null };
}

function formatComparison(comparison: Comparison): readonly string[] {
  const { newlyAllowed, newlyDenied, unproven, destinations, madeUp } = comparison;
  const isSame = newlyAllowed.length + newlyDenied.length === 0;
  const made = madeUp === 0 ? '' : `, ${madeUp} of them made up`;
  return [
    ...formatClasses('newly allowed', newlyAllowed),
    ...formatClasses('newly denied', newlyDenied),
    ...(isSame && unproven.length === 0 ? ['no call is decided differently'] : []),
    ...unprovenLines(unproven),
    `${count(destinations, 'destination', 'destinations')} compared${made}`,
  ];
}

function formatClasses(title: string, classes: readonly DifferenceClass[]): readonly string[] {
  return classes.flatMap(({ allows, denies, destinations, destinationsOmitted, examples }) => [
    `${title} at ${destinations.slice(0, maxNamed).join(', ')}${moreOf(destinations, destinationsOmitted)}`,
    ...indented([
      'calls that match',
      ...indented(ruleLines(allows), 2),
      ...(denies === null
        ? ['and no rule of the other side that allows']
        : ['and', ...indented(ruleLines(denies), 2)]),
      ...examples.flatMap(exampleLines),
    ]),
    '',
  ]);
}

function exampleLines({ kinds, witness, before, after }: ClassExample): readonly string[] {
  const like = kinds.map(
    ({ field, values, omitted }) =>
      `${field} like ${values.join(', ')}${omitted === 0 ? '' : ` and ${omitted} more`}`,
  );
  return [
    `for example${like.length === 0 ? '' : `, with ${like.join('; ')}`}`,
    ...indented(witnessLines(witness), 2),
    ...indented([`before  ${decisionLine(before)}`, `after   ${decisionLine(after)}`], 2),
  ];
}

const maxNamed = 3;

function moreOf({ length }: readonly string[], omitted: number): string {
  const more = Math.max(0, length - maxNamed) + omitted;
  return more === 0 ? '' : ` and ${more} more`;
}
