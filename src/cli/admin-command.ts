import { Command, Option } from 'commander';
import type { GrantView } from '../http/grant-routes.ts';
import { adminRoles, formatNamespaces } from '../identity/access.ts';
import { examples } from './help.ts';
import { listAll, pageOptions, type PageOptions } from './paging.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatPairs, formatTable, printable } from './text.ts';

type CreateOptions = {
  readonly role: string;
  readonly spiffeId?: string;
  readonly oidcIssuer?: string;
  readonly oidcSubject?: string;
  readonly oidcGroup?: string;
  readonly namespace?: readonly string[];
  readonly allNamespaces?: boolean;
};

/** `countersign admin ...`. */
export function adminCommand(session: Session): Command {
  const group = new Command('admin')
    .description('who may administer')
    .addHelpText('after', examples('admin grant list'));
  group.addCommand(grantCommand(session));
  return group;
}

function grantCommand(session: Session): Command {
  const group = new Command('grant')
    .description('roles given to SPIFFE IDs and to people; documents of kind AdminGrant do the same')
    .addHelpText(
      'after',
      examples(
        'admin grant create deployer --role operator --spiffe-id spiffe://example.org/ns/ci/sa/deployer',
        'admin grant list',
      ),
    );
  group
    .command('create <name>')
    .description('give a role to a SPIFFE ID, an OIDC subject or an OIDC group')
    .addOption(new Option('--role <role>', 'what they may do').choices(adminRoles).makeOptionMandatory())
    .option('--spiffe-id <id>', 'whoever shows a live certificate of this identity')
    .option('--oidc-issuer <url>', 'the issuer of the ID tokens, with one of the next two')
    .option('--oidc-subject <sub>', 'one person, as the sub of their ID token has it')
    .option('--oidc-group <name>', 'whoever has this group in their ID token')
    .option('--namespace <name...>', 'confine them to these namespaces')
    .option('--all-namespaces', 'a policy-author for the whole mesh, the root namespace included')
    .addHelpText(
      'after',
      examples(
        'admin grant create deployer --role operator --spiffe-id spiffe://example.org/ns/ci/sa/deployer',
        'admin grant create shop --role policy-author --namespace shop --oidc-issuer https://login.example.org --oidc-group shop',
      ),
    )
    .action(async (name: string, options: CreateOptions, command: Command) => {
      const { role, namespace: namespaces, allNamespaces, ...subject } = options;
      const { spiffeId, oidcIssuer, oidcSubject, oidcGroup } = subject;
      const made = await clientOf(session, command).post<GrantView>('/v1/admin/grants', {
        name,
        subject: { spiffeId, oidcIssuer, oidcSubject, oidcGroup },
        role,
        namespaces,
        allNamespaces,
      });
      print(session, command, made, () =>
        formatPairs(rowOf(made).map((value, i) => [labels[i] ?? '', value])),
      );
    });
  pageOptions(group.command('list').description('list grants'))
    .addHelpText('after', examples('admin grant list'))
    .action(async (options: PageOptions, command: Command) => {
      const page = await listAll<GrantView>(clientOf(session, command), '/v1/admin/grants', options);
      print(session, command, page, () =>
        formatTable(
          labels.map((label) => label.toUpperCase()),
          page.items.map(rowOf),
        ),
      );
    });
  group
    .command('delete <name>')
    .description('take a grant away; the next request under it is refused')
    .addHelpText('after', examples('admin grant delete shop'))
    .action(async (name: string, _options: unknown, command: Command) => {
      await clientOf(session, command).delete(`/v1/admin/grants/${encodeURIComponent(name)}`);
      print(session, command, { deleted: name }, () => `deleted ${printable(name)}\n`);
    });
  return group;
}

function rowOf({ name, subject, role, namespaces }: GrantView): readonly string[] {
  return [name, role, formatNamespaces({ role, namespaces }), subjectText(subject)];
}

function subjectText(subject: GrantView['subject']): string {
  if ('spiffeId' in subject) return subject.spiffeId;
  const who = 'oidcGroup' in subject ? `group ${subject.oidcGroup}` : subject.oidcSubject;
  return `${who} of ${subject.oidcIssuer}`;
}

const labels = ['name', 'role', 'namespaces', 'subject'];
