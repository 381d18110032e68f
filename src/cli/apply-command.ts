import { Command } from 'commander';
import { MeshError, quote } from '../errors.ts';
import type { ApplyResult } from '../identity/administration.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { messageOption } from './policy-revision-commands.ts';
import { countWarnings } from './lint-command.ts';
import { clientOf, print, readSources, sayWarnings, type Session } from './session.ts';
import { formatTable, printable } from './text.ts';

type ApplyOptions = {
  readonly file: readonly string[];
  readonly dryRun?: boolean;
  readonly message?: string;
};

/** `countersign apply`. */
export function applyCommand(session: Session): Command {
  return applyOptions(
    session,
    new Command('apply').description(
      'create or update the entries, policies and node aliases of YAML files, all or nothing',
    ),
    false,
  ).addHelpText(
    'after',
    examples(
      'apply -f mesh.yaml',
      'apply -f entries.yaml -f policies.yaml --dry-run',
      'apply -f - < mesh.yaml',
    ),
  );
}

/** `countersign policy apply`. */
export function policyApplyCommand(session: Session): Command {
  return applyOptions(
    session,
    new Command('apply').description('create or update the policies of YAML files, all or nothing'),
    true,
  ).addHelpText('after', examples("policy apply -f shop.yaml -m 'let web reach orders'"));
}

function applyOptions(session: Session, command: Command, policiesOnly: boolean): Command {
  return messageOption(command)
    .requiredOption('-f, --file <file...>', 'a file of documents, or - for standard input; may be repeated')
    .option('--dry-run', 'check everything and change nothing')
    .action(async ({ file, dryRun = false, message }: ApplyOptions, own: Command) => {
      const files = readSources(session, file);
      const result = await clientOf(session, own).post<ApplyResult>('/v1/apply', {
        files,
        dryRun,
        ...(message === undefined ? {} : { message }),
        ...(policiesOnly ? { policiesOnly } : {}),
      });
      // A pipeline that lost its input must not look like one that worked.
      if (result.changes.length === 0) {
        throw new MeshError('usage', `no document is in ${files.map((one) => quote(one.file)).join(', ')}`, {
          fix: 'give files with entries and policies',
        });
      }
      sayWarnings(session, result.warnings);
      const lintWarnings = result.changes.some(({ kind }) => kind === 'policy')
        ? await countWarnings(session, own, files)
        : 0;
      print(session, own, { ...result, dryRun, lintWarnings }, () => formatResult(result, dryRun));
      if (lintWarnings > 0 && globalOptions(own).output !== 'json') {
        const those = lintWarnings === 1 ? '1 warning' : `${lintWarnings} warnings`;
        const given = file.map((name) => ` -f ${name}`).join('');
        session.say(`${those} about these policies: ${session.program} policy lint${printable(given)}\n`);
      }
    });
}

function formatResult({ revision, changes }: ApplyResult, dryRun: boolean): string {
  const table = formatTable(
    ['KIND', 'NAME', dryRun ? 'WOULD BE' : 'NOW'],
    changes.map(({ kind, key, action }) => [kind, key, action]),
  );
  return `${table}${dryRun ? 'dry run: nothing was changed\n' : `mesh revision ${revision}\n`}`;
}
