import { Command } from 'commander';
import type { NodeAliasReport } from '../http/node-alias-routes.ts';
import type { NodeAlias } from '../identity/node-alias.ts';
import { examples } from './help.ts';
import { listAll, pageOptions, type PageOptions } from './paging.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatPairs, formatTable, printable } from './text.ts';

/** `countersign node alias ...`. */
export function nodeAliasCommand(session: Session): Command {
  const group = new Command('alias')
    .description('names for all nodes with certain selectors; `apply` writes them')
    .addHelpText('after', examples('node alias list', 'node alias show edge'));
  pageOptions(group.command('list').description('list node aliases'))
    .addHelpText('after', examples('node alias list', 'node alias list -o json'))
    .action(async (options: PageOptions, command: Command) => {
      const page = await listAll<NodeAlias>(clientOf(session, command), '/v1/node-aliases', options);
      print(session, command, page, () =>
        formatTable(
          ['NAME', 'REVISION', 'SELECTORS'],
          page.items.map(({ name, revision, selectors }) => [name, `${revision}`, selectors.join(' ')]),
        ),
      );
    });
  group
    .command('show <name>')
    .description('show one node alias, the nodes behind it, and the entries that name it')
    .addHelpText('after', examples('node alias show edge'))
    .action(async (name: string, _options: unknown, command: Command) => {
      const alias = await clientOf(session, command).get<NodeAliasReport>(pathOf(name));
      print(session, command, alias, () =>
        formatPairs([
          ['name', alias.name],
          ['selectors', alias.selectors.join(' ')],
          ['nodes', listed(alias.nodes, alias.nodeCount)],
          ['entries', listed(alias.entries, alias.entryCount)],
          ['revision', `${alias.revision}`],
        ]),
      );
    });
  group
    .command('delete <name>')
    .description('delete a node alias that no entry names any more')
    .addHelpText('after', examples('node alias delete edge'))
    .action(async (name: string, _options: unknown, command: Command) => {
      await clientOf(session, command).delete(pathOf(name));
      print(session, command, { deleted: name }, () => `deleted ${printable(name)}\n`);
    });
  return group;
}

function pathOf(name: string): string {
  return `/v1/node-aliases/${encodeURIComponent(name)}`;
}

function listed(names: readonly string[], count: number): string {
  if (count === 0) return 'none';
  return names.length < count ? `${names.join(' ')} and ${count - names.length} more` : names.join(' ');
}
