import { Command } from 'commander';
import { MeshError } from '../errors.ts';
import type { BanView } from '../http/ban-routes.ts';
import type { StatusReport } from '../http/status-report.ts';
import { nodeSpiffeId } from '../identity/node.ts';
import { TrustDomain } from '../spiffe/id.ts';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';
import { printable } from './text.ts';

type BanOptions = { readonly reason?: string; readonly until?: string };

/** `countersign node ban`: the ban of a node's SPIFFE ID, which nobody has to write out. */
export function nodeBanCommand(session: Session): Command {
  return new Command('ban')
    .description('refuse every certificate of a node, and let it attest no more')
    .argument('<name>', 'of the node; it need not be there yet')
    .option('--reason <text>', 'why, for the log and for other operators; must be given')
    .option(
      '--until <when>',
      'when it ends, such as 2h, 30d or 2027-01-31T12:00:00Z (until lifted when left out)',
    )
    .addHelpText('after', examples("node ban web-1 --reason 'stolen'"))
    .action(async (name: string, options: BanOptions, command: Command) => {
      if (options.reason === undefined) {
        throw new MeshError('usage', 'a ban needs a --reason', {
          fix: "for example: countersign node ban web-1 --reason 'stolen'",
        });
      }
      const value = await idOf(session, command, name);
      const body = { kind: 'spiffe-id', value, ...options };
      const ban = await clientOf(session, command).post<BanView>('/v1/bans', body);
      print(
        session,
        command,
        ban,
        () =>
          `${printable(`banned the node ${name} (${ban.value}) until ${ban.until ?? 'it is lifted'}; certificates of its workloads are banned by their own IDs`)}\n`,
      );
    });
}

/** `countersign node unban`. */
export function nodeUnbanCommand(session: Session): Command {
  return new Command('unban')
    .description('lift the ban of a node')
    .argument('<name>', 'of the node')
    .addHelpText('after', examples('node unban web-1'))
    .action(async (name: string, _options: unknown, command: Command) => {
      const value = await idOf(session, command, name);
      const ban = await clientOf(session, command).delete<BanView>(
        `/v1/bans/spiffe-id/${encodeURIComponent(value)}`,
      );
      print(
        session,
        command,
        ban,
        () => `${printable(`lifted the ban of the node ${name} (${ban.value})`)}\n`,
      );
    });
}

/** @throws MeshError `node_name_invalid` */
async function idOf(session: Session, command: Command, name: string): Promise<string> {
  const { trustDomain } = await clientOf(session, command).get<StatusReport>('/v1/status');
  return nodeSpiffeId(TrustDomain.parse(trustDomain), name).text;
}
