import { Command, Option } from 'commander';
import { auditEventTypes } from '../audit/question.ts';
import { repeated } from './arguments.ts';
import { auditPackCommand } from './audit-pack-command.ts';
import { auditProofCommands } from './audit-proof-commands.ts';
import { type AuditItem, summarise } from './audit-summary.ts';
import { examples } from './help.ts';
import { parseRows } from './paging.ts';
import { clientOf, print, type Session } from './session.ts';
import { shredCommand } from './shred-command.ts';
import { formatTable } from './text.ts';

type ListOptions = {
  readonly since?: string;
  readonly until?: string;
  readonly type?: readonly string[];
  readonly source?: string;
  readonly destination?: string;
  readonly verdict?: string;
  readonly serial?: string;
  readonly order: string;
  readonly limit: number;
  readonly cursor?: string;
};
type AuditAnswer = {
  readonly items: readonly AuditItem[];
  readonly next: string | null;
  readonly size: number;
};

/** `countersign audit list|verify|export|prove|key|shred`. */
export function auditCommand(session: Session): Command {
  const group = new Command('audit')
    .description('ask the audit log what was issued, decided and changed, and prove it')
    .addHelpText('after', examples(...listExamples));
  group
    .command('list')
    .description('list records, the newest first; all given filters must hold')
    .option('--since <time>', 'a time ago such as 10m, 2h or 7d, or RFC 3339')
    .option('--until <time>', 'the same')
    .option('--type <type>', `${auditEventTypes.join(', ')}; may be repeated`, repeated)
    .option('--source <id>', 'SPIFFE ID of the caller, or of the owner of a certificate')
    .option('--destination <id>', 'SPIFFE ID of the called service')
    .addOption(new Option('--verdict <verdict>', 'of decisions').choices(['allow', 'deny']))
    .option('--serial <hex>', 'serial number of a certificate')
    .addOption(
      new Option('--order <order>', 'which end to begin at').choices(['newest', 'oldest']).default('newest'),
    )
    .option('--limit <rows>', 'the most rows to print', parseRows, 100)
    .option('--cursor <cursor>', 'go on where an earlier page ended')
    .addHelpText('after', examples(...listExamples))
    .action(async ({ limit, cursor, ...filters }: ListOptions, command: Command) => {
      const client = clientOf(session, command);
      const items: AuditItem[] = [];
      let next: string | null = cursor ?? null;
      let size: number;
      do {
        const rows = Math.min(limit - items.length, pageRows);
        const query = { ...filters, limit: `${rows}`, cursor: next ?? undefined };
        const page: AuditAnswer = await client.get('/v1/audit', query);
        items.push(...page.items);
        ({ next, size } = page);
      } while (next !== null && items.length < limit);
      print(session, command, { items, next, size }, () => {
        if (items.length === 0) session.say('no record matches\n');
        session.say(next === null ? '' : `more: --cursor ${next}\n`);
        return formatTable(['INDEX', 'TIME', 'TYPE', 'WHAT'], items.map(summarise));
      });
    });
  for (const command of auditProofCommands(session)) group.addCommand(command);
  return group.addCommand(auditPackCommand(session)).addCommand(shredCommand(session));
}

const listExamples = [
  'audit list --since 10m --type decision --verdict deny',
  'audit list --type issuance --source spiffe://mesh.internal/ns/shop/sa/web -o json',
];
const pageRows = 1_000;
