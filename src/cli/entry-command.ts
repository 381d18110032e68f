import { Command } from 'commander';
import { MeshError } from '../errors.ts';
import type { EntryView } from '../http/entry-routes.ts';
import { parseLabel, repeated } from './arguments.ts';
import { examples } from './help.ts';
import { parseLifetime } from './lifetime.ts';
import { listAll, pageOptions, type PageOptions } from './paging.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatPairs, formatTable } from './text.ts';

type FieldOptions = {
  readonly spiffeId?: string;
  readonly selector?: readonly string[];
  readonly ttl?: number;
  readonly dnsName?: readonly string[];
  readonly label?: readonly (readonly [string, string])[];
  readonly hint?: string;
  readonly expiresAt?: string;
  readonly node?: readonly string[];
};

/** `countersign entry ...`. */
export function entryCommand(session: Session): Command {
  const group = new Command('entry')
    .description('registration entries: which workload gets which identity')
    .addHelpText('after', examples('entry list', create));
  fieldOptions(group.command('create <id>').description('register a workload'))
    .addHelpText('after', examples(create))
    .action(async (id: string, options: FieldOptions, command: Command) => {
      if (options.spiffeId === undefined || options.selector === undefined) {
        throw new MeshError('usage', 'an entry needs --spiffe-id and at least one --selector', {
          fix: `for example: countersign ${create}`,
        });
      }
      const body = { id, ...fieldsOf(options) };
      const entry = await clientOf(session, command).post<EntryView>('/v1/entries', body);
      print(session, command, entry, () => formatEntry(entry));
    });
  pageOptions(group.command('list').description('list entries'))
    .addHelpText('after', examples('entry list', 'entry list -o json'))
    .action(async (options: PageOptions, command: Command) => {
      const page = await listAll<EntryView>(clientOf(session, command), '/v1/entries', options);
      print(session, command, page, () =>
        formatTable(
          ['ID', 'SPIFFE ID', 'TTL', 'EXPIRES', 'NODES', 'SELECTORS'],
          page.items.map((entry) => [
            entry.id,
            entry.spiffeId,
            `${entry.ttlSeconds}s`,
            entry.expiresAt ?? 'never',
            (entry.nodes ?? []).join(' ') || 'none',
            entry.selectors.join(' '),
          ]),
        ),
      );
    });
  group
    .command('show <id>')
    .description('show one entry')
    .addHelpText('after', examples('entry show web'))
    .action(async (id: string, _options: unknown, command: Command) => {
      const entry = await clientOf(session, command).get<EntryView>(pathOf(id));
      print(session, command, entry, () => formatEntry(entry));
    });
  fieldOptions(group.command('update <id>').description('replace the given fields of an entry'))
    .option(
      '--clear <field>',
      'empty a field: dnsNames, labels, hint, expiresAt or nodes; may be repeated',
      repeated,
    )
    .addHelpText('after', examples('entry update web --ttl 30m', 'entry update web --clear expiresAt'))
    .action(async (id: string, options: FieldOptions & { clear?: readonly string[] }, command: Command) => {
      const patch = { ...clearedFields(options.clear ?? []), ...fieldsOf(options) };
      if (Object.keys(patch).length === 0) {
        throw new MeshError('usage', 'nothing to update', { fix: 'name a field; see entry update --help' });
      }
      const entry = await clientOf(session, command).patch<EntryView>(pathOf(id), patch);
      print(session, command, entry, () => formatEntry(entry));
    });
  group
    .command('delete <id>')
    .description('delete an entry, and say how long its certificates stay valid')
    .addHelpText('after', examples('entry delete web'))
    .action(async (id: string, _options: unknown, command: Command) => {
      const deleted = await clientOf(session, command).delete<Deleted>(pathOf(id));
      print(session, command, deleted, () => {
        const until = deleted.certificatesValidUntil;
        return until === null
          ? `deleted ${deleted.entry.id}; no certificate issued under it is valid any more\n`
          : `deleted ${deleted.entry.id}; certificates already issued under it stay valid until ${until}\n`;
      });
    });
  return group;
}

type Deleted = { readonly entry: EntryView; readonly certificatesValidUntil: string | null };

const create = 'entry create web --spiffe-id spiffe://mesh.internal/ns/shop/sa/web --selector unix:uid:1000';

function fieldOptions(command: Command): Command {
  return command
    .option('--spiffe-id <id>', 'the identity it gets')
    .option(
      '--selector <selector>',
      'what must be attested, such as unix:uid:1000; may be repeated',
      repeated,
    )
    .option('--ttl <duration>', 'lifetime of its certificates, 20s to 24h', parseLifetime)
    .option('--dns-name <name>', 'a DNS name in its certificates; may be repeated', repeated)
    .option('--label <key=value>', 'a label that policies can select; may be repeated', parseLabel)
    .option('--hint <text>', 'tells a workload with several identities which one this is')
    .option('--expires-at <time>', 'when the entry stops to match, such as 2027-01-31T00:00:00Z')
    .option(
      '--node <name>',
      'a node whose agent may serve it, alias:<name>, or * for every node; may be repeated',
      repeated,
    );
}

function fieldsOf(options: FieldOptions): Partial<EntryView> {
  const { spiffeId, selector, ttl, dnsName, label, hint, expiresAt, node } = options;
  return {
    ...(spiffeId === undefined ? {} : { spiffeId }),
    ...(selector === undefined ? {} : { selectors: selector }),
    ...(ttl === undefined ? {} : { ttlSeconds: ttl }),
    ...(dnsName === undefined ? {} : { dnsNames: dnsName }),
    ...(label === undefined ? {} : { labels: Object.fromEntries(label) }),
    ...(hint === undefined ? {} : { hint }),
    ...(expiresAt === undefined ? {} : { expiresAt }),
    ...(node === undefined
      ? {}
      : { nodes: node.map((name) => (/^\*$|:/.test(name) ? name : `node:${name}`)) }),
  };
}

function clearedFields(names: readonly string[]): Partial<EntryView> {
  const cleared = names.map((name) => {
    const empty = emptyFields.get(name);
    if (empty !== undefined) return empty;
    throw new MeshError('usage', `the field ${JSON.stringify(name)} cannot be cleared`, {
      fix: `use ${[...emptyFields.keys()].join(', ')}`,
    });
  });
  return Object.assign({}, ...cleared) as Partial<EntryView>;
}

const emptyFields: ReadonlyMap<string, Partial<EntryView>> = new Map<string, Partial<EntryView>>([
  ['dnsNames', { dnsNames: [] }],
  ['labels', { labels: {} }],
  ['hint', { hint: '' }],
  ['expiresAt', { expiresAt: null }],
  ['nodes', { nodes: [] }],
]);

function pathOf(id: string): string {
  return `/v1/entries/${encodeURIComponent(id)}`;
}

/** An entry without nodes is served by no agent: whoever reads the list should see it. */
function nodesText({ nodes = [] }: Partial<EntryView>): string {
  return nodes.length === 0 ? 'none: only countersign up serves it' : nodes.join(' ');
}

function formatEntry(entry: EntryView): string {
  return formatPairs([
    ['id', entry.id],
    ['SPIFFE ID', entry.spiffeId],
    ['selectors', entry.selectors.join(' ')],
    ['TTL', `${entry.ttlSeconds}s`],
    ['DNS names', entry.dnsNames.join(' ')],
    [
      'labels',
      Object.entries(entry.labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(' '),
    ],
    ['hint', entry.hint],
    ['expires', entry.expiresAt ?? 'never'],
    ['nodes', nodesText(entry)],
    ['revision', `${entry.revision}`],
  ]);
}
