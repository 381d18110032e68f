import { Command, InvalidArgumentError, Option } from 'commander';
import type { Finding, LintReport } from '../authz/lint.ts';
import { loadConfig } from '../config.ts';
import type { SourceFile } from '../identity/plan.ts';
import { exitCodes } from './failure.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { clientOf, print, readSources, type Session } from './session.ts';
import { count, printable } from './text.ts';

type LintOptions = {
  readonly file?: readonly string[];
  readonly failOn: 'error' | 'warning';
  readonly istio?: boolean;
  readonly limit: number;
};

/** `countersign policy lint`. */
export function policyLintCommand(session: Session): Command {
  return new Command('lint')
    .description('look at policies for what is easily got wrong, and for what Istio reads otherwise')
    .option(
      '-f, --file <file...>',
      'files of policies, and of entries to compare them with, instead of a server',
    )
    .option('--istio', 'also say what Istio would read otherwise (notes)')
    .addOption(
      new Option('--fail-on <severity>', 'the least that makes the exit code 1')
        .choices(['warning', 'error'])
        .default('error'),
    )
    .option('--limit <findings>', 'the most to print', parseLimit, 100)
    .addHelpText(
      'after',
      examples(
        'policy lint',
        'policy lint -f policies.yaml -f entries.yaml --fail-on warning',
        'policy lint --istio -o json',
      ),
    )
    .action(async ({ file, failOn, istio = false, limit }: LintOptions, command: Command) => {
      const report =
        file === undefined
          ? await clientOf(session, command).get<LintAnswer>('/v1/policy-lint', {
              limit: `${limit}`,
              ...(istio ? { notes: 'true' } : {}),
            })
          : await lintOf(session, command, readSources(session, file), {
              notes: istio,
              limit,
              compare: true,
            });
      const told = { ...report, findings: report.findings.map((one) => ({ ...one, docs: docsOf(one) })) };
      print(session, command, told, () => formatReport(report, istio));
      if (report.errors > 0 || (failOn === 'warning' && report.warnings > 0)) {
        session.exitCode = exitCodes.negative;
      }
    });
}

/** What a server or files answer: findings, and whether there was something to compare policies with. */
export type LintAnswer = LintReport & { readonly inventory: boolean; readonly policies: number };

/**
 * How many warnings there are about the policies of files, for whoever has applied them. With what is registered they are not
 * compared: the files may have a part of it. It never throws: what was applied stays applied.
 */
export async function countWarnings(
  session: Session,
  command: Command,
  files: readonly SourceFile[],
): Promise<number> {
  try {
    const options = { notes: false, limit: 1, compare: false };
    const { errors, warnings } = await lintOf(session, command, files, options);
    return errors + warnings;
  } catch {
    return 0;
  }
}

async function lintOf(
  session: Session,
  command: Command,
  files: readonly SourceFile[],
  options: { readonly notes: boolean; readonly limit: number; readonly compare: boolean },
): Promise<LintAnswer> {
  const { config = null } = globalOptions(command);
  const { rootNamespace, trustDomain } = loadConfig({
    flags: {},
    environment: session.environment,
    file: config,
    isRoot: session.isRoot,
  });
  const { lintFiles } = await import('./lint-files.ts');
  return lintFiles(files, { rootNamespace, trustDomain, ...options });
}

function formatReport(report: LintAnswer, istio: boolean): string {
  const { findings, errors, warnings, notes, omitted, inventory, policies } = report;
  const lines = findings.flatMap(formatFinding);
  if (omitted > 0) lines.push(`and ${omitted} more: --limit shows them`, '');
  if (!inventory) {
    lines.push(
      'no entries to compare with: unknown workloads, identities and namespaces were not looked for',
    );
  }
  const noted =
    istio || notes === 0 ? '' : `, ${count(notes, 'note', 'notes')} about Istio (--istio shows them)`;
  const shownNotes = istio ? `, ${count(notes, 'note', 'notes')}` : '';
  lines.push(
    `${count(policies, 'policy', 'policies')}: ${count(errors, 'error', 'errors')}, ${count(warnings, 'warning', 'warnings')}${shownNotes}${noted}`,
  );
  return `${lines.join('\n')}\n`;
}

function formatFinding(finding: Finding): readonly string[] {
  const { code, severity, why, fix, place, at } = finding;
  const lines = [`${severity}[${code}]: ${printable(why)}`];
  if (place !== '') lines.push(` --> ${printable(place)}`);
  if (at !== null) {
    const number = `${at.line}`;
    lines.push(` ${number} | ${printable(at.text)}`);
    // A long line is cut: what is behind that is at its place, and nowhere here.
    if (at.column <= at.text.length) {
      const length = Math.max(1, Math.min(at.length, at.text.length - at.column + 1));
      lines.push(` ${' '.repeat(number.length)} | ${' '.repeat(at.column - 1)}${'^'.repeat(length)}`);
    }
  }
  return [...lines, `fix: ${printable(fix)}`, `docs: ${docsOf(finding)}`, ''];
}

/** Where a finding is explained; the path is that of a checkout and of the package. */
function docsOf({ code }: Finding): string {
  return code.startsWith('istio_') ? 'docs/policy.md#strict-mode' : `docs/policy-lint.md#${code}`;
}

function parseLimit(text: string): number {
  if (/^[1-9][0-9]{0,3}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It is not a whole number from 1 to 9999.');
}
