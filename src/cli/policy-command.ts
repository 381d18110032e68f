import { Command } from 'commander';
import { MeshError, quote } from '../errors.ts';
import type { PolicyView } from '../http/policy-routes.ts';
import { listAll, pageOptions, type PageOptions } from './paging.ts';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatTable, printable, printableLines } from './text.ts';

/** `countersign policy ...`. */
export function policyCommand(session: Session): Command {
  const group = new Command('policy')
    .description('look at and delete policies; `apply` writes them')
    .addHelpText('after', examples('policy list', 'policy show shop/orders'));
  pageOptions(group.command('list').description('list policies'))
    .addHelpText('after', examples('policy list', 'policy list -o json'))
    .action(async (options: PageOptions, command: Command) => {
      const page = await listAll<PolicyView>(clientOf(session, command), '/v1/policies', options);
      print(session, command, page, () =>
        formatTable(
          ['NAME', 'REVISION', 'FROM', 'SHA-256'],
          page.items.map(({ key, revision, file, line, sha256 }) => [
            key,
            `${revision}`,
            `${file}:${line}`,
            sha256.slice(0, 16),
          ]),
        ),
      );
    });
  group
    .command('show <namespace/name>')
    .description('print a policy as its author wrote it')
    .addHelpText('after', examples('policy show shop/orders'))
    .action(async (key: string, _options: unknown, command: Command) => {
      const policy = await clientOf(session, command).get<PolicyView & { source: string }>(pathOf(key));
      print(session, command, policy, () => printableLines(policy.source));
    });
  group
    .command('delete <namespace/name>')
    .description('delete a policy; it stops to apply at once')
    .addHelpText('after', examples('policy delete shop/orders'))
    .action(async (key: string, _options: unknown, command: Command) => {
      await clientOf(session, command).delete(pathOf(key));
      print(session, command, { deleted: key }, () => `deleted ${printable(key)}\n`);
    });
  return group;
}

function pathOf(key: string): string {
  const [namespace, name, ...more] = key.split('/');
  if (!namespace || !name || more.length > 0) {
    throw new MeshError('usage', `${quote(key)} is not namespace/name`, { fix: 'write it as shop/orders' });
  }
  return `/v1/policies/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
}
