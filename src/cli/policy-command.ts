import { Command } from 'commander';
import { MeshError, quote } from '../errors.ts';
import type { PolicyView } from '../http/policy-routes.ts';
import { listAll, pageOptions, type PageOptions } from './paging.ts';
import { examples } from './help.ts';
import { policyApplyCommand } from './apply-command.ts';
import { policyLintCommand } from './lint-command.ts';
import { policyOf } from './policy-diff.ts';
import { policyDiffCommand } from './policy-diff-command.ts';
import { policyProveCommand } from './policy-prove-command.ts';
import {
  messageOption,
  parseRevision,
  policyRevisionCommands,
  showRevision,
} from './policy-revision-commands.ts';
import { policyRolloutCommands } from './policy-rollout-commands.ts';
import { clientOf, print, type Session } from './session.ts';
import { policyReplayCommand } from './replay-command.ts';
import { policySuggestCommand } from './suggest-command.ts';
import { policyTestCommand } from './policy-test-command.ts';
import { describeTerms, formatPolicies } from './policy-text.ts';
import { printable, printableLines } from './text.ts';

/** `countersign policy ...`. */
export function policyCommand(session: Session): Command {
  const group = new Command('policy')
    .description('look at policies, write them, and go back to what they were')
    .addHelpText('after', examples('policy list', 'policy show shop/orders'));
  group.addCommand(policyApplyCommand(session));
  group.addCommand(policyLintCommand(session));
  group.addCommand(policyTestCommand(session));
  group.addCommand(policyProveCommand(session));
  group.addCommand(policyDiffCommand(session));
  group.addCommand(policyReplayCommand(session));
  group.addCommand(policySuggestCommand(session));
  pageOptions(group.command('list').description('list policies'))
    .option('--revision <number>', 'as they were in a revision', parseRevision)
    .addHelpText('after', examples('policy list', 'policy list --revision 4', 'policy list -o json'))
    .action(async ({ revision: past, ...options }: PageOptions & PastOption, command: Command) => {
      const query = past === undefined ? {} : { policyRevision: `${past}` };
      const page = await listAll<PolicyView>(clientOf(session, command), '/v1/policies', options, query);
      print(session, command, page, () => formatPolicies(page.items, new Date()));
    });
  group
    .command('show [namespace/name]')
    .description('print a policy as its author wrote it, or what a revision is')
    .option('--revision <number>', 'as it was in a revision', parseRevision)
    .addHelpText(
      'after',
      examples('policy show shop/orders', 'policy show shop/orders --revision 4', 'policy show --revision 4'),
    )
    .action(async (key: string | undefined, { revision }: PastOption, command: Command) => {
      if (key === undefined) {
        if (revision !== undefined) return showRevision(session, command, revision);
        throw new MeshError('usage', 'name a policy, a --revision, or both', {
          fix: 'for example: countersign policy show shop/orders',
        });
      }
      checkKey(key);
      const policy = await policyOf(clientOf(session, command), key, revision);
      const terms = describeTerms(policy.terms, new Date());
      // Beside the text, which can be applied again as it is.
      if (terms !== '') session.say(`${printable(`${key}: ${terms}`)}\n`);
      return print(session, command, policy, () => printableLines(policy.source));
    });
  messageOption(
    group
      .command('delete <namespace/name>')
      .description('delete a policy; it stops to apply at once')
      .addHelpText('after', examples('policy delete shop/orders', "policy delete shop/orders -m 'unused'")),
  ).action(async (key: string, { message }: { readonly message?: string }, command: Command) => {
    checkKey(key);
    const [namespace = '', name = ''] = key.split('/');
    const path = `/v1/policies/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
    const query = message === undefined ? '' : `?message=${encodeURIComponent(message)}`;
    await clientOf(session, command).delete(`${path}${query}`);
    print(session, command, { deleted: key }, () => `deleted ${printable(key)}\n`);
  });
  for (const command of policyRevisionCommands(session)) group.addCommand(command);
  for (const command of policyRolloutCommands(session)) group.addCommand(command);
  return group;
}

type PastOption = { readonly revision?: number };

function checkKey(key: string): void {
  const [namespace, name, ...more] = key.split('/');
  if (!namespace || !name || more.length > 0) {
    throw new MeshError('usage', `${quote(key)} is not namespace/name`, { fix: 'write it as shop/orders' });
  }
}
