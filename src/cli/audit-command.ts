import { Command } from 'commander';
import { questionCommands } from './ask-command.ts';
import { auditCountCommand, countExamples } from './audit-count-command.ts';
import { auditListCommand, listExamples } from './audit-list-command.ts';
import { auditPackCommand } from './audit-pack-command.ts';
import { auditProofCommands } from './audit-proof-commands.ts';
import { examples } from './help.ts';
import type { Session } from './session.ts';
import { shredCommand } from './shred-command.ts';

/** `countersign audit list|count|ask|why|cert|graph|verify|export|prove|key|pack|shred`. */
export function auditCommand(session: Session): Command {
  const group = new Command('audit')
    .description('ask the audit log what was issued, decided and changed, and prove it')
    .addHelpText('after', examples(...listExamples, ...countExamples));
  group.addCommand(auditListCommand(session));
  group.addCommand(auditCountCommand(session));
  for (const command of [...questionCommands(session), ...auditProofCommands(session)])
    group.addCommand(command);
  return group.addCommand(auditPackCommand(session)).addCommand(shredCommand(session));
}
