import type { ToldDecision, ToldRule, Unproven } from '../authz/analysis/compare.ts';
import type { Witness } from '../authz/analysis/witness.ts';
import { printable } from './text.ts';

/** A rule with its place and what it asks of calls, as lines. */
export function ruleLines({ rule, place, action, from, to, when }: ToldRule): readonly string[] {
  return [`${rule}  ${action}  ${place}`, ...part('from', from), ...part('to', to), ...part('when', when)];
}

function part(name: string, entries: readonly (readonly string[])[]): readonly string[] {
  return entries.map((words, i) => `  ${(i === 0 ? name : 'or').padEnd(4)}  ${words.join(', ')}`);
}

/** The command that puts a call to the engine; what `authz check` has no option for is said behind it. */
export function witnessLines(witness: Witness): readonly string[] {
  const { protocol, source, destination, method, path, authority, port, headers, sourceIp, sni, at } =
    witness;
  if (protocol === 'tcp') {
    return [
      `TCP  ${source} -> ${destination}  port ${port === 0 ? 'not told' : port}`,
      ...beside(witness, at),
    ];
  }
  const options: readonly (readonly [string, string])[] = [
    ['--from', source],
    ['--to', destination],
    ['--method', method],
    ['--path', path],
    ['--host', authority],
    ...(port === 0 ? [] : [['--port', `${port}`] as const]),
    ...headers.map(([name, line]) => ['--header', `${name}: ${line}`] as const),
    ...(sourceIp === null ? [] : [['--source-ip', sourceIp] as const]),
    ...(sni === null ? [] : [['--sni', sni] as const]),
    ...(witness.claims === null ? [['--claims', 'none'] as const] : []),
  ];
  const command = options.map(([name, value]) => `${name} ${shellWord(value)}`).join(' ');
  return [`countersign authz check ${command}`, ...beside(witness, at)];
}

function beside({ claims, metadata, destinationIp }: Witness, at: string): readonly string[] {
  return [
    `at ${at}`,
    ...(claims === undefined || claims === null ? [] : [`with the claims ${JSON.stringify(claims)}`]),
    ...(metadata === undefined ? [] : [`with the metadata ${JSON.stringify(metadata)}`]),
    ...(destinationIp === null ? [] : [`to the address ${destinationIp}`]),
  ];
}

/** Text as a shell reads it back. */
function shellWord(text: string): string {
  return /^[A-Za-z0-9@%+=:,./_-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** How a call is decided, in one line. */
export function decisionLine({ verdict, why }: ToldDecision): string {
  return `${verdict}: ${why}`;
}

/** What could not be settled. */
export function unprovenLines(unproven: readonly Unproven[]): readonly string[] {
  return unproven.map(({ about, why }) => `unproven: ${about}: ${why}`);
}

/** Lines under another, safe to print. */
export function indented(lines: readonly string[], by = 4): readonly string[] {
  return lines.map((line) => `${' '.repeat(by)}${line}`);
}

/** Lines as they are printed. */
export function asText(lines: readonly string[]): string {
  return lines.map((line) => `${printable(line)}\n`).join('');
}
