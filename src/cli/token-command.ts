import { rmSync, writeFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { MeshError, quote } from '../errors.ts';
import type { TokenView } from '../http/token-routes.ts';
import { adminRoles, formatNamespaces, type Grant } from '../identity/access.ts';
import { parseLifetimeUpTo } from './lifetime.ts';
import { examples } from './help.ts';
import { listAll, pageOptions, type PageOptions } from './paging.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatPairs, formatTable, printable } from './text.ts';

type CreateOptions = {
  readonly role: string;
  readonly namespace?: readonly string[];
  readonly allNamespaces?: boolean;
  readonly label?: string;
  readonly life?: number;
  readonly out?: string;
};
// What travels: times are text.
type TokenAnswer = Omit<TokenView, 'createdAt' | 'expiresAt'> & {
  readonly createdAt: string;
  readonly expiresAt: string;
};

/** `countersign token ...`. */
export function tokenCommand(session: Session): Command {
  const group = new Command('token')
    .description('bearer tokens for the admin API over TLS')
    .addHelpText(
      'after',
      examples('token create --role viewer --label dashboard --out viewer.token', 'token list'),
    );
  group
    .command('create')
    .description('make a token; it is shown once and never again')
    .addOption(new Option('--role <role>', 'what it may do').choices(adminRoles).makeOptionMandatory())
    .option('--namespace <name...>', 'confine it to these namespaces')
    .option('--all-namespaces', 'a policy-author for the whole mesh, the root namespace included')
    .option('--label <text>', 'what it is for')
    .option(
      '--life <duration>',
      'how long it lives, such as 12h or 30d; 365d at most (30d when left out)',
      parseLifetimeUpTo(365),
    )
    .option('--out <file>', 'write the token to a new file, 0600, instead of printing it')
    .addHelpText(
      'after',
      examples(
        'token create --role operator --label ci --life 90d --out ci.token',
        'token create --role policy-author --namespace shop --out shop.token',
      ),
    )
    .action(async (options: CreateOptions, command: Command) => {
      const { role, namespace: namespaces, allNamespaces, label, life, out } = options;
      // Made before the token: a path that cannot be written would lose a secret that is shown once.
      if (out !== undefined) createSecretFile(out);
      const { token, ...made } = await clientOf(session, command)
        .post<TokenAnswer & { token: string }>('/v1/tokens', {
          role,
          namespaces,
          allNamespaces,
          label,
          lifeSeconds: life,
        })
        .catch((error: unknown) => {
          if (out !== undefined) rmSync(out);
          throw error;
        });
      if (out !== undefined) writeFileSync(out, `${token}\n`);
      const where = out === undefined ? { token } : { file: out };
      print(session, command, { ...made, ...where }, () =>
        formatPairs([
          out === undefined ? ['token', token] : ['file', out],
          ['id', made.id],
          ['role', made.role],
          ['namespaces', whereOf(made.grants)],
          ['expires', made.expiresAt],
        ]),
      );
    });
  pageOptions(group.command('list').description('list tokens, without their secrets'))
    .addHelpText('after', examples('token list'))
    .action(async (options: PageOptions, command: Command) => {
      const page = await listAll<TokenAnswer>(clientOf(session, command), '/v1/tokens', options);
      print(session, command, page, () =>
        formatTable(
          ['ID', 'ROLE', 'NAMESPACES', 'EXPIRES', 'LABEL'],
          page.items.map(({ id, role, grants, expiresAt, label }) => [
            id,
            role,
            whereOf(grants),
            expiresAt,
            label,
          ]),
        ),
      );
    });
  group
    .command('revoke <id>')
    .description('revoke a token; the next request that carries it is refused')
    .addHelpText('after', examples('token revoke 0123456789abcdef'))
    .action(async (id: string, _options: unknown, command: Command) => {
      await clientOf(session, command).delete(`/v1/tokens/${encodeURIComponent(id)}`);
      print(session, command, { revoked: id }, () => `revoked ${printable(id)}\n`);
    });
  return group;
}

/** Where the grants of a token hold. */
function whereOf(grants: readonly Grant[]): string {
  return [...new Set(grants.map(formatNamespaces))].join(' ');
}

/** Makes an empty file, 0600, for a secret. @throws MeshError `file_permissions` when it exists or cannot be made */
export function createSecretFile(file: string): void {
  try {
    writeFileSync(file, '', { mode: 0o600, flag: 'wx' });
  } catch (cause) {
    const exists = (cause as NodeJS.ErrnoException).code === 'EEXIST';
    throw new MeshError(
      'file_permissions',
      `${quote(file)} ${exists ? 'exists already' : 'cannot be written'}`,
      {
        fix: exists ? 'choose another name: a secret is never written over a file' : 'check the directory',
        cause,
      },
    );
  }
}
