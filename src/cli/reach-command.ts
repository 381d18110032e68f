import { Command } from 'commander';
import type { OpenRule, Reach } from '../authz/reach.ts';
import { parsePort } from './arguments.ts';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatTable, printableLines } from './text.ts';

type CallOptions = {
  readonly method?: string;
  readonly path?: string;
  readonly host?: string;
  readonly port?: number;
};

type Row = Reach & { readonly banned: boolean };
type Answer<T> = { readonly items: readonly (T & Row)[]; readonly next: string | null };
type WhoCan = Answer<{ readonly caller: string }> & { readonly anybody: Reach };

/** `countersign authz who-can`. */
export function whoCanCommand(session: Session): Command {
  return callOptions(
    new Command('who-can')
      .description('name everybody who may make a call, and by which rule')
      .requiredOption('--to <id>', 'SPIFFE ID of the called service'),
  )
    .addHelpText(
      'after',
      examples('authz who-can --to spiffe://mesh.internal/ns/pay/sa/ledger --method POST'),
    )
    .action(async ({ to, ...call }: CallOptions & { readonly to: string }, command: Command) => {
      const body = { destination: to, ...call };
      const answer = await askAll<WhoCan>(session, command, '/v1/authz/who-can', body);
      print(session, command, answer, () =>
        printableLines(
          [
            formatRows('CALLER', answer.items, ({ caller }) => caller, 'may not'),
            ...describeAnybody(answer.anybody),
          ].join(''),
        ),
      );
    });
}

/** `countersign authz can-reach`. */
export function canReachCommand(session: Session): Command {
  return callOptions(
    new Command('can-reach')
      .description('name everything that a caller may call, and by which rule')
      .requiredOption('--from <id>', 'SPIFFE ID of the caller'),
  )
    .addHelpText('after', examples('authz can-reach --from spiffe://mesh.internal/ns/shop/sa/web'))
    .action(async ({ from, ...call }: CallOptions & { readonly from: string }, command: Command) => {
      type CanReach = Answer<{ readonly destination: string }>;
      const body = { source: from, ...call };
      const answer = await askAll<CanReach>(session, command, '/v1/authz/can-reach', body);
      print(session, command, answer, () =>
        printableLines(formatRows('DESTINATION', answer.items, ({ destination }) => destination, 'never')),
      );
    });
}

function callOptions(command: Command): Command {
  return command
    .option('--method <method>', 'HTTP method; any when left out')
    .option('--path <path>', 'HTTP path without query; any when left out')
    .option('--host <host>', 'Host of the request; any when left out')
    .option('--port <port>', 'port of the called service; any when left out', parsePort);
}

/** All pages as one answer. */
async function askAll<T extends Answer<unknown>>(
  session: Session,
  command: Command,
  path: string,
  body: object,
): Promise<T> {
  const client = clientOf(session, command);
  const first = await client.post<T>(path, { ...body, limit: pageSize });
  const items = [...first.items];
  for (let next = first.next; next !== null;) {
    const page: T = await client.post<T>(path, { ...body, limit: pageSize, cursor: next });
    items.push(...page.items);
    next = page.next;
  }
  return { ...first, items, next: null };
}

const pageSize = 200;

function formatRows<T extends Row>(
  heading: string,
  items: readonly T[],
  nameOf: (row: T) => string,
  never: string,
): string {
  const rows = items.filter(({ reach }) => reach !== 'never');
  const others = items.length - rows.length;
  const table = formatTable(
    ['MAY', heading, 'BY'],
    rows.map((row) => [row.reach, nameOf(row), describeRow(row)]),
  );
  const identities = others === 1 ? '1 other registered identity' : `${others} other registered identities`;
  return `${rows.length === 0 ? '' : table}${identities} ${never}\n`;
}

function describeRow({ reach, allow, unless, allowOmitted, unlessOmitted }: Row): string {
  const [first] = allow;
  if (first === undefined) return '';
  if (reach === 'always') return first.rule;
  const others = allow.length - 1 + allowOmitted;
  const more = others > 0 ? `, and ${others} more` : '';
  const against = [
    ...unless.map(describeRule),
    ...(unlessOmitted > 0 ? [`one of ${unlessOmitted} more`] : []),
  ];
  const but = unless.length === 0 ? '' : `; unless ${against.join(', or ')}`;
  return `${describeRule(first)}${more}${but}`;
}

/** `pay/ledger rule[0] where methods is GET`. */
export function describeRule({ rule, from, to, when, glass }: OpenRule): string {
  const parts = [from, to, when].filter((entries) => entries.length > 0).map(describeEntries);
  const name = glass === undefined ? rule : `${rule} (${glass})`;
  return parts.length === 0 ? name : `${name} where ${parts.join(' and ')}`;
}

function describeEntries(entries: readonly (readonly string[])[]): string {
  const texts = entries.map((conditions) => conditions.join(' and '));
  return texts.length === 1 ? (texts[0] ?? '') : `(${texts.join(', or ')})`;
}

function describeAnybody({ reach, allow, unless, allowOmitted, unlessOmitted }: Reach): readonly string[] {
  if (reach === 'never') return ['\nnobody may, registered or not\n'];
  const more = (kind: string, omitted: number) =>
    omitted === 0 ? [] : [`  ${kind}  one of ${omitted} more\n`];
  return [
    '\nrules, for whoever has a certificate\n',
    ...allow.map((rule) => `  allow   ${describeRule(rule)}  ${rule.place}\n`),
    ...more('allow ', allowOmitted),
    ...unless.map((rule) => `  unless  ${describeRule(rule)}  ${rule.place}\n`),
    ...more('unless', unlessOmitted),
  ];
}
