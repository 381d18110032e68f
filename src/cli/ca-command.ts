import { Command } from 'commander';
import type { CaReport } from '../http/ca-report.ts';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatPairs, formatTable } from './text.ts';

/** A report as it travels: times are text. */
type Travelled<T> = T extends Date
  ? string
  : T extends readonly (infer U)[]
    ? readonly Travelled<U>[]
    : T extends object
      ? { readonly [K in keyof T]: Travelled<T[K]> }
      : T;
export type CaAnswer = Travelled<CaReport>;

/** `countersign ca ...`. */
export function caCommand(session: Session): Command {
  const group = new Command('ca')
    .description('look at the keys of the CA, and rotate them')
    .addHelpText(
      'after',
      examples('ca status', 'ca rotate --root', 'ca activate', 'ca retire', 'ca taint 3f…'),
    );
  const add = (name: string, description: string, ...lines: readonly string[]): Command =>
    group
      .command(name)
      .description(description)
      .addHelpText('after', examples(...lines));
  const show = (command: Command, answer: CaAnswer): void =>
    print(session, command, answer, () => formatReport(answer));
  const step = async (command: Command, path: string, body: unknown): Promise<void> =>
    show(command, await clientOf(session, command).post<CaAnswer>(`/v1/ca/${path}`, body));

  add(
    'status',
    'show all keys, who has confirmed the bundle, and what is in the way of the next step',
    'ca status',
    'ca status -o json',
  ).action(async (_options, command: Command) =>
    show(command, await clientOf(session, command).get<CaAnswer>('/v1/ca')),
  );
  add(
    'rotate',
    'make a new intermediate and sign with it; or prepare a new root and publish it',
    'ca rotate',
    'ca rotate --root',
  )
    .option('--root', 'prepare a new root with its intermediate; `ca activate` puts them in force')
    .action(async ({ root = false }: { root?: boolean }, command: Command) =>
      step(command, 'rotate', { scope: root ? 'root' : 'intermediate' }),
    );
  add(
    'activate',
    'sign under the prepared root, once everybody with a certificate has confirmed it',
    'ca activate',
    'ca activate --force',
  )
    .option('--force', 'do it without the evidence; recorded, and some calls may fail')
    .action(async ({ force = false }: { force?: boolean }, command: Command) =>
      step(command, 'activate', { force }),
    );
  add(
    'retire',
    'take old roots out of the bundle, once nobody can present a certificate under them',
    'ca retire',
    'ca retire --force',
  )
    .option('--force', 'do it without the evidence; recorded, and some calls may fail')
    .action(async ({ force = false }: { force?: boolean }, command: Command) =>
      step(command, 'retire', { force }),
    );
  add('taint', 'replace a key that is believed stolen, as fast as that is safe', 'ca taint 3f…')
    .argument('<keyId>', 'as `ca status` shows it')
    .action(async (keyId: string, _options, command: Command) => step(command, 'taint', { keyId }));
  return group;
}

/** The report as people read it. */
export function formatReport(report: CaAnswer): string {
  const { coverage, next, laggards, moreLaggards, doubt } = report;
  const keys = formatTable(
    ['KIND', 'KEY', 'STATE', 'FROM', 'UNTIL', 'CERTIFICATE SHA-256'],
    report.authorities.map(({ kind, keyId, state, tainted, notBefore, notAfter, certificateSha256 }) => [
      kind,
      keyId,
      tainted ? `${state}, tainted` : state,
      notBefore,
      notAfter,
      certificateSha256.slice(0, 16),
    ]),
  );
  const facts = formatPairs([
    ['bundle', `${report.bundleSequence}`],
    [
      'coverage',
      `${coverage.confirmed} of ${coverage.holders} with a certificate have confirmed bundle ${coverage.sequence}`,
    ],
    ['next', nextStep(next, laggards.length + moreLaggards)],
    ...(doubt === null ? [] : [['doubt', doubt] as const]),
  ]);
  if (laggards.length === 0) return `${keys}\n${facts}`;
  const table = formatTable(
    ['IN THE WAY', 'NODE', 'LAST SEEN', 'WHY', 'UNTIL'],
    laggards.map(({ spiffeId, node, lastSeen, why, until }) => [spiffeId, node, lastSeen ?? '', why, until]),
  );
  return `${keys}\n${facts}\n${table}${moreLaggards > 0 ? `and ${moreLaggards} more\n` : ''}`;
}

function nextStep(next: CaAnswer['next'], inTheWay: number): string {
  if (next === null) return 'nothing is under way';
  if (next.safe) return `\`ca ${next.step}\` is safe now`;
  return `\`ca ${next.step}\` would be refused: ${inTheWay} in the way`;
}
