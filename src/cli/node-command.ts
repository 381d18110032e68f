import { rmSync, writeFileSync } from 'node:fs';
import { Command } from 'commander';
import type { JoinTokenView, NodeView } from '../http/node-routes.ts';
import type { Travelled } from '../http/travelled.ts';
import { examples } from './help.ts';
import { parseLifetimeUpTo } from './lifetime.ts';
import { nodeAliasCommand } from './node-alias-command.ts';
import { nodeBanCommand, nodeUnbanCommand } from './node-ban-command.ts';
import { listAll, pageOptions, type PageOptions } from './paging.ts';
import { nodeProxyPairs } from './proxy-text.ts';
import { clientOf, print, type Session } from './session.ts';
import { createSecretFile } from './token-command.ts';
import { formatPairs, formatTable, printable } from './text.ts';

type NodeAnswer = Travelled<NodeView>;
type TokenAnswer = Travelled<JoinTokenView>;
type CreateOptions = { readonly life?: number; readonly out?: string };

/** `countersign node ...`. */
export function nodeCommand(session: Session): Command {
  const group = new Command('node')
    .description('machines that run an agent, and the tokens that let them in')
    .addHelpText('after', examples('node list', 'node token create web-1 --out web-1.token'));
  pageOptions(group.command('list').description('list nodes'))
    .addHelpText('after', examples('node list'))
    .action(async (options: PageOptions, command: Command) => {
      const page = await listAll<NodeAnswer>(clientOf(session, command), '/v1/nodes', options);
      print(session, command, page, () =>
        formatTable(
          ['NAME', 'STATE', 'CONNECTED', 'LAST CONTACT', 'AGENT', 'METHOD', 'RENEWED', 'CERTIFICATE ENDS'],
          page.items.map(({ name, state, method, renewedAt, notAfter, presence }) => [
            name,
            state,
            connectedText(presence),
            presence.lastContactAt ?? 'not since the start',
            presence.agentVersion,
            method,
            renewedAt,
            notAfter,
          ]),
        ),
      );
    });
  group
    .command('show <name>')
    .description('show one node')
    .addHelpText('after', examples('node show web-1'))
    .action(async (name: string, _options: unknown, command: Command) => {
      const node = await clientOf(session, command).get<NodeAnswer>(pathOf(name));
      print(session, command, node, () => formatNode(node));
    });
  group
    .command('evict <name>')
    .description('refuse every certificate of a node from now on; it may attest again')
    .addHelpText('after', examples('node evict web-1'))
    .action(async (name: string, _options: unknown, command: Command) => {
      const node = await clientOf(session, command).post<NodeAnswer>(`${pathOf(name)}/evict`, {});
      print(session, command, node, () => formatNode(node));
    });
  group.addCommand(nodeBanCommand(session));
  group.addCommand(nodeUnbanCommand(session));
  group.addCommand(nodeAliasCommand(session));
  group.addCommand(tokenCommand(session));
  return group;
}

function tokenCommand(session: Session): Command {
  const group = new Command('token')
    .description('join tokens: each lets one machine in, once')
    .addHelpText('after', examples('node token create web-1 --life 10m --out web-1.token'));
  group
    .command('create <node>')
    .description('make a join token for a node of this name; it is shown once and never again')
    .option('--life <duration>', 'how long it may be used, 1m to 7d (1h when left out)', parseLifetimeUpTo(7))
    .option('--out <file>', 'write the token to a new file, 0600, instead of printing it')
    .addHelpText('after', examples('node token create web-1 --out web-1.token'))
    .action(async (node: string, { life, out }: CreateOptions, command: Command) => {
      // Made before the token: a path that cannot be written would lose a secret that is shown once.
      if (out !== undefined) createSecretFile(out);
      const { token, ...made } = await clientOf(session, command)
        .post<TokenAnswer & { token: string; nodeAddress: string }>('/v1/join-tokens', {
          node,
          lifeSeconds: life,
        })
        .catch((error: unknown) => {
          if (out !== undefined) rmSync(out);
          throw error;
        });
      if (out !== undefined) writeFileSync(out, `${token}\n`);
      print(session, command, { ...made, ...(out === undefined ? { token } : { file: out }) }, () =>
        formatPairs([
          out === undefined ? ['token', token] : ['file', out],
          ['id', made.id],
          ['node', made.node],
          ['expires', made.expiresAt],
          ['server', made.nodeAddress],
        ]),
      );
    });
  pageOptions(group.command('list').description('list join tokens, without their secrets'))
    .addHelpText('after', examples('node token list'))
    .action(async (options: PageOptions, command: Command) => {
      const page = await listAll<TokenAnswer>(clientOf(session, command), '/v1/join-tokens', options);
      print(session, command, page, () =>
        formatTable(
          ['ID', 'NODE', 'EXPIRES', 'USED'],
          page.items.map(({ id, node, expiresAt, usedAt }) => [id, node, expiresAt, usedAt ?? 'no']),
        ),
      );
    });
  group
    .command('revoke <id>')
    .description('take a join token back; a node that has used it stays')
    .addHelpText('after', examples('node token revoke 0123456789abcdef'))
    .action(async (id: string, _options: unknown, command: Command) => {
      await clientOf(session, command).delete(`/v1/join-tokens/${encodeURIComponent(id)}`);
      print(session, command, { revoked: id }, () => `revoked ${printable(id)}\n`);
    });
  return group;
}

function pathOf(name: string): string {
  return `/v1/nodes/${encodeURIComponent(name)}`;
}

function formatNode(node: NodeAnswer): string {
  return formatPairs([
    ['name', node.name],
    ['state', node.state],
    ['method', node.method],
    ['selectors', node.selectors.join(' ')],
    ['attested', node.attestedAt],
    ['renewed', node.renewedAt],
    ['certificate ends', node.notAfter],
    ['serials', node.serials.join(' ')],
    ['evicted', node.evictedAt ?? 'no'],
    ...presencePairs(node.presence),
  ]);
}

function presencePairs(presence: NodeAnswer['presence']): readonly (readonly [string, string])[] {
  const { since, lastContactAt, agentVersion, viewSent, viewInForce, behindSince, report } = presence;
  return [
    ['connected', `${connectedText(presence)}${since === null ? '' : ` since ${since}`}`],
    ['last contact', lastContactAt ?? 'not since the server started'],
    ['agent', agentVersion === '' ? 'not known' : `version ${agentVersion}`],
    [
      'view',
      `revision ${viewSent} sent, ${viewInForce} in force${behindSince === null ? '' : `, behind since ${behindSince}`}`,
    ],
    ...(report === null
      ? []
      : ([
          [
            'workloads',
            `${report.workloads}${report.darkAt === null ? '' : `, the first dark at ${report.darkAt}`}`,
          ],
          ['events', `${report.eventsQueued} waiting there, ${report.eventsLost} lost`],
          ...nodeProxyPairs(report.proxyPolicies),
        ] as const)),
  ];
}

function connectedText({ connected, behindSince }: NodeAnswer['presence']): string {
  if (!connected) return 'no';
  return behindSince === null ? 'yes' : 'yes, behind';
}
