import { Argument, Command } from 'commander';
import { MeshError } from '../errors.ts';
import type { BanView } from '../http/ban-routes.ts';
import { banKinds } from '../identity/ban.ts';
import { actorText } from './actor-text.ts';
import { examples } from './help.ts';
import { listAll, pageOptions, type PageOptions } from './paging.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatTable, printable } from './text.ts';

/** `countersign ban ...`. */
export function banCommand(session: Session): Command {
  const group = new Command('ban')
    .description('deny an identity, a certificate or a key at once, whatever the policies say')
    .addArgument(kindArgument())
    .argument('<value>', valueHelp)
    // Asked for below: commander would ask `ban list` for it too.
    .option('--reason <text>', 'why, for the log and for other operators; must be given')
    .option(
      '--until <when>',
      'when it ends, such as 2h, 30d or 2027-01-31T12:00:00Z (until lifted when left out)',
    )
    .addHelpText(
      'after',
      examples(
        `ban spiffe-id ${web} --reason 'host 7 taken over'`,
        "ban serial 40ab --reason 'leaked in a core dump' --until 2h",
        'ban list',
      ),
    )
    .action(async (kind: string, value: string, options: BanOptions, command: Command) => {
      if (options.reason === undefined) {
        throw new MeshError('usage', 'a ban needs a --reason', {
          fix: `for example: countersign ban ${kind} ${value} --reason 'host 7 taken over'`,
        });
      }
      const body = { kind, value, ...options };
      const ban = await clientOf(session, command).post<BanView>('/v1/bans', body);
      print(
        session,
        command,
        ban,
        () =>
          `${printable(`banned ${ban.kind} ${ban.value} until ${ban.until ?? 'it is lifted'}${stillValid(ban)}`)}\n`,
      );
    });
  pageOptions(group.command('list').description('list bans: what, until when, by whom and why'))
    .addHelpText('after', examples('ban list', 'ban list -o json'))
    .action(async (options: PageOptions, command: Command) => {
      const page = await listAll<BanView>(clientOf(session, command), '/v1/bans', options);
      print(session, command, page, () => formatTable(headings, page.items.map(rowOf)));
    });
  return group;
}

/** `countersign unban`. */
export function unbanCommand(session: Session): Command {
  return new Command('unban')
    .description('lift a ban')
    .addArgument(kindArgument())
    .argument('<value>', valueHelp)
    .addHelpText('after', examples(`unban spiffe-id ${web}`, 'unban serial 40ab'))
    .action(async (kind: string, value: string, _options: unknown, command: Command) => {
      const path = `/v1/bans/${encodeURIComponent(kind)}/${encodeURIComponent(value)}`;
      const ban = await clientOf(session, command).delete<BanView>(path);
      print(session, command, ban, () => `${printable(`lifted the ban of ${ban.kind} ${ban.value}`)}\n`);
    });
}

type BanOptions = { readonly reason?: string; readonly until?: string };

function kindArgument(): Argument {
  return new Argument('<kind>', 'what is banned').choices(banKinds);
}

function stillValid({ kind, certificatesValidUntil }: BanView): string {
  if (kind !== 'spiffe-id') return '';
  return certificatesValidUntil === null
    ? '; no certificate issued to it is valid any more'
    : `; its calls are denied, and certificates already issued to it stay valid until ${certificatesValidUntil}`;
}

function rowOf(ban: BanView): readonly string[] {
  const { kind, value, until, inForce, actor, certificatesValidUntil, reason } = ban;
  const end = until ?? 'lifted';
  return [
    kind,
    value,
    inForce ? end : `${end} (over)`,
    actorText(actor),
    kind === 'spiffe-id' ? (certificatesValidUntil ?? 'none') : '',
    reason,
  ];
}

const web = 'spiffe://mesh.internal/ns/shop/sa/web';
const valueHelp = 'a SPIFFE ID, a serial in hex, or the SHA-256 of a public key (SPKI) in hex';
const headings = ['KIND', 'VALUE', 'UNTIL', 'BY', 'CERTIFICATES VALID UNTIL', 'REASON'];
