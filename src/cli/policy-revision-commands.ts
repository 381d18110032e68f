import { Command, InvalidArgumentError } from 'commander';
import type { ActivationView, RevisionPage, RevisionView } from '../http/revision-routes.ts';
import type { PolicyInForce } from '../identity/policy-revision.ts';
import { policyKeyId } from '../identity/policy-signature.ts';
import { actorText } from './actor-text.ts';
import type { AdminClient } from './client.ts';
import { examples } from './help.ts';
import { listAll, pageOptions, type PageOptions } from './paging.ts';
import { activeNumber, diffRevisions, formatDiff } from './policy-diff.ts';
import { verifyRevisions } from './policy-verify.ts';
import { clientOf, print, sayWarnings, type Session } from './session.ts';
import { formatTable, printable, printableLines } from './text.ts';

/** `countersign policy log|activate|rollback|renumber`. */
export function policyRevisionCommands(session: Session): readonly Command[] {
  return [logCommand(session), activateCommand(session), rollbackCommand(session), renumberCommand(session)];
}

/** Adds `-m`, why policies change. */
export function messageOption(command: Command): Command {
  return command.option('-m, --message <text>', 'why, for those who look for a revision later');
}

/** Parses the number of a revision. */
export function parseRevision(text: string): number {
  if (/^[1-9][0-9]{0,14}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It is not the number of a revision.');
}

type LogOptions = PageOptions & { readonly verify?: boolean; readonly keyId?: string };
type MoveOptions = { readonly message?: string; readonly dryRun?: boolean };

function logCommand(session: Session): Command {
  return pageOptions(new Command('log').description('list the revisions of the policies, the latest first'))
    .option('--verify', 'check signatures, order, authors and messages; fail at the first that is wrong')
    .option('--key-id <hex>', 'with --verify: the key that must have signed them')
    .addHelpText('after', examples('policy log --limit 20', 'policy log --verify', 'policy log -o json'))
    .action(async ({ verify, keyId, ...options }: LogOptions, command: Command) => {
      const client = clientOf(session, command);
      const page = await listAll<RevisionView>(client, '/v1/policy-revisions', options);
      if (verify === true || keyId !== undefined) {
        const { trustDomain } = await client.get<RevisionPage>('/v1/policy-revisions', { limit: '1' });
        const found = verifyRevisions({ items: page.items, trustDomain }, keyId);
        print(session, command, found, () => {
          const hidden =
            found.hidden === 0 ? '' : `; of ${found.hidden} you may not see the author and message`;
          return `${found.revisions} revisions verified, signed by the key ${found.keyId}${hidden}\n`;
        });
        return;
      }
      print(session, command, page, () =>
        formatTable(['', 'NUMBER', 'ID', 'TIME', 'AUTHOR', 'CHANGES', 'MESSAGE'], page.items.map(rowOf)),
      );
    });
}

function activateCommand(session: Session): Command {
  return messageOption(
    new Command('activate')
      .description('put the policies of a revision in force again, under a number of their own')
      .argument('<revision>', 'its number', parseRevision)
      .option('--dry-run', 'show what would change, and change nothing'),
  )
    .addHelpText('after', examples('policy activate 4 --dry-run', "policy activate 4 -m 'before the move'"))
    .action(async (number: number, options: MoveOptions, command: Command) => {
      await move(session, command, `${number}`, options);
    });
}

function rollbackCommand(session: Session): Command {
  return messageOption(
    new Command('rollback')
      .description('put the policies of the revision before this one in force again')
      .option('--dry-run', 'show what would change, and change nothing'),
  )
    .addHelpText('after', examples('policy rollback --dry-run', "policy rollback -m 'checkout was denied'"))
    .action(async (options: MoveOptions, command: Command) => {
      await move(session, command, 'previous', options);
    });
}

function renumberCommand(session: Session): Command {
  return messageOption(
    new Command('renumber')
      .description('after a restore from a backup: go on above a number that agents have enforced')
      .requiredOption('--after <number>', 'the highest number that an agent has enforced', parseRevision),
  )
    .addHelpText('after', examples("policy renumber --after 57 -m 'restored from the backup of Monday'"))
    .action(
      async ({ after, message }: { readonly after: number; readonly message?: string }, command: Command) => {
        const body = { after, ...(message === undefined ? {} : { message }) };
        const active = await clientOf(session, command).post<PolicyInForce>(
          '/v1/policy-revisions/renumber',
          body,
        );
        print(session, command, { active }, () =>
          printableLines(`the same policies are in force as revision ${active.number}\n`),
        );
      },
    );
}

async function move(
  session: Session,
  command: Command,
  to: string,
  { message, dryRun = false }: MoveOptions,
): Promise<void> {
  const client = clientOf(session, command);
  // Of two who roll back at once the second shall not go back twice.
  const expectActive = await activeNumber(client);
  const body = { dryRun, expectActive, ...(message === undefined ? {} : { message }) };
  const result = await client.post<ActivationView>(`/v1/policy-revisions/${to}/activate`, body);
  sayWarnings(session, result.warnings);
  const diff = dryRun ? await diffRevisions(client, expectActive, result.restores) : undefined;
  print(session, command, { ...result, dryRun, ...(diff === undefined ? {} : { diff }) }, () => {
    if (diff !== undefined) return `${formatDiff(diff)}dry run: nothing was changed\n`;
    if (result.changes.length === 0) {
      return printableLines(
        `revision ${result.active.number} has the policies of revision ${result.restores} already\n`,
      );
    }
    const table = formatTable(
      ['NAME', 'NOW'],
      result.changes.map(({ key, action }) => [key, action]),
    );
    return `${table}${printable(`revision ${result.active.number} is in force: the policies of revision ${result.restores}`)}\n`;
  });
}

function rowOf({ active, number, id, time, author, changes, message, restores }: RevisionView): string[] {
  const { created, updated, deleted } = changes;
  return [
    active ? '*' : '',
    `${number}`,
    id.slice(0, 12),
    time,
    author === null ? '' : actorText(author),
    `+${created} ~${updated} -${deleted}`,
    [restores === null ? '' : `(as ${restores})`, message ?? ''].join(' ').trim(),
  ];
}

/** A revision as people read it. */
export async function showRevision(session: Session, command: Command, number: number): Promise<void> {
  const client: AdminClient = clientOf(session, command);
  const revision = await client.get<RevisionView>(`/v1/policy-revisions/${number}`);
  const policies = await listAll<{ readonly key: string; readonly sha256: string }>(
    client,
    '/v1/policies',
    {},
    { policyRevision: `${number}` },
  );
  print(session, command, { ...revision, policies: policies.items }, () => {
    const { id, parent, restores, time, author, message, changes, active, publicKey } = revision;
    const lines = [
      `revision ${number}${active ? ', in force' : ''}`,
      `id       ${id}`,
      `follows  ${parent === null ? 'none' : parent.number}${restores === null ? '' : `, as ${restores}`}`,
      `time     ${time}`,
      `author   ${author === null ? 'not shown' : actorText(author)}`,
      `message  ${message ?? 'not shown'}`,
      `changes  +${changes.created} ~${changes.updated} -${changes.deleted}`,
      `signed   by the key ${policyKeyId(publicKey)}`,
      '',
    ];
    const table = formatTable(
      ['NAME', 'SHA-256'],
      policies.items.map(({ key, sha256 }) => [key, sha256.slice(0, 16)]),
    );
    return `${lines.map((line) => `${printable(line)}\n`).join('')}${table}`;
  });
}
