import { Command, Option } from 'commander';
import type { CaReport } from '../http/ca-report.ts';
import type { KeyReport } from '../http/ca-routes.ts';
import type { Travelled } from '../http/travelled.ts';
import { addHierarchyCommands } from './ca-hierarchy-commands.ts';
import { rootCommand } from './ca-root-command.ts';
import { crlCommand } from './crl-command.ts';
import { examples } from './help.ts';
import { formatJwtKeys } from './jwt-key-report.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatPairs, formatTable } from './text.ts';

export type CaAnswer = Travelled<CaReport>;
/** With the keys that sign tokens. */
export type KeyAnswer = Travelled<KeyReport>;

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
  const show = (command: Command, answer: KeyAnswer): void =>
    print(session, command, answer, () => `${formatReport(answer)}\n${formatJwtKeys(answer)}`);
  const step = async (command: Command, path: string, body: unknown): Promise<void> =>
    show(command, await clientOf(session, command).post<KeyAnswer>(`/v1/ca/${path}`, body));

  add(
    'status',
    'show all keys, who has confirmed the bundle, and what is in the way of the next step',
    'ca status',
    'ca status -o json',
  ).action(async (_options, command: Command) =>
    show(command, await clientOf(session, command).get<KeyAnswer>('/v1/ca')),
  );
  add(
    'rotate',
    'make a new intermediate and sign with it; or prepare a new root and publish it',
    'ca rotate',
    'ca rotate --root',
    'ca rotate --jwt',
  )
    .option('--root', 'prepare a new root with its intermediate; `ca activate` puts them in force')
    .addOption(
      new Option(
        '--offline-root',
        'make a key and a request for a root that is kept elsewhere; `ca csr` prints it, `ca import` goes on',
      ).conflicts('root'),
    )
    .addOption(
      new Option('--jwt', 'prepare a new key for tokens; `ca activate --jwt` puts it in force').conflicts([
        'root',
        'offlineRoot',
      ]),
    )
    .action(async (options: RotateOptions, command: Command) => step(command, 'rotate', rotateBody(options)));
  add(
    'activate',
    'sign under the prepared root, once everybody with a certificate has confirmed it',
    'ca activate',
    'ca activate --force',
    'ca activate --jwt',
  )
    .option('--force', 'do it without the evidence; recorded, and some calls may fail')
    .option('--jwt', 'the prepared key for tokens, once every validator can have fetched it')
    .action(async (options: StepOptions, command: Command) => step(command, 'activate', stepBody(options)));
  add(
    'retire',
    'take old roots out of the bundle, once nobody can present a certificate under them',
    'ca retire',
    'ca retire --force',
    'ca retire --jwt',
  )
    .option('--force', 'do it without the evidence; recorded, and some calls may fail')
    .option('--jwt', 'old keys for tokens, once every token they signed has expired')
    .action(async (options: StepOptions, command: Command) => step(command, 'retire', stepBody(options)));
  add('taint', 'replace a key that is believed stolen, as fast as that is safe', 'ca taint 3f…')
    .argument('<keyId>', 'as `ca status` shows it')
    .action(async (keyId: string, _options, command: Command) => step(command, 'taint', { keyId }));
  addHierarchyCommands(group, session, show);
  group.addCommand(rootCommand(session));
  group.addCommand(crlCommand(session));
  return group;
}

type RotateOptions = { readonly root?: boolean; readonly offlineRoot?: boolean; readonly jwt?: boolean };

function rotateBody({ root = false, offlineRoot = false, jwt = false }: RotateOptions): object {
  if (jwt) return { scope: 'jwt' };
  if (offlineRoot) return { scope: 'root', offline: true };
  return { scope: root ? 'root' : 'intermediate' };
}

type StepOptions = { readonly force?: boolean; readonly jwt?: boolean };

function stepBody({ force = false, jwt = false }: StepOptions): object {
  return jwt ? { force, scope: 'jwt' } : { force };
}

/** The report as people read it. */
export function formatReport(report: CaAnswer): string {
  const { coverage, next, laggards, moreLaggards, doubt, waiting, warnings } = report;
  const keys = formatTable(
    ['KIND', 'KEY', 'STATE', 'FROM', 'UNTIL', 'CERTIFICATE SHA-256'],
    report.authorities.map(
      ({ kind, keyId, state, tainted, offline, notBefore, notAfter, certificateSha256 }) => [
        offline ? `${kind}, offline` : kind,
        keyId,
        tainted ? `${state}, tainted` : state,
        notBefore,
        notAfter,
        certificateSha256.slice(0, 16),
      ],
    ),
  );
  const facts = formatPairs([
    ['bundle', `${report.bundleSequence}`],
    [
      'coverage',
      `${coverage.confirmed} of ${coverage.holders} with a certificate have confirmed bundle ${coverage.sequence}`,
    ],
    ['next', nextStep(next, laggards.length + moreLaggards)],
    ...(waiting === null
      ? []
      : [['waiting', `key ${waiting.keyId} for its certificate: see \`ca csr\``] as const]),
    ...warnings.map((warning) => ['warning', warning] as const),
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
