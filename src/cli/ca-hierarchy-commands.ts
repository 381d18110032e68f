import { existsSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { type Config, loadConfig } from '../config.ts';
import { MeshError } from '../errors.ts';
import { encodePem } from '../spiffe/pem.ts';
import type { SetUp } from '../up-hierarchy.ts';
import type { KeyAnswer } from './ca-command.ts';
import { examples } from './help.ts';
import { globalOptions } from './global-options.ts';
import { writeNewFile } from './new-file.ts';
import { clientOf, print, readSources, type Session } from './session.ts';
import { formatPairs } from './text.ts';

type SecretFlags = Pick<
  Record<keyof Config, string>,
  'passphraseFile' | 'passphraseFd' | 'passphraseCredential'
>;

/** `countersign ca init`, `ca csr` and `ca import`: a root that is kept elsewhere. */
export function addHierarchyCommands(
  group: Command,
  session: Session,
  show: (command: Command, answer: KeyAnswer) => void,
): void {
  const settings = (command: Command, flags: Partial<Record<keyof Config, string>> = {}): Config => {
    const { config: file = null, dataDir } = globalOptions(command);
    return loadConfig({
      flags: { ...flags, ...(dataDir === undefined ? {} : { dataDir }) },
      environment: session.environment,
      file,
      isRoot: session.isRoot,
    });
  };

  secretOptions(
    group
      .command('init')
      .description('prepare a new data directory before the first `up`')
      .addHelpText(
        'after',
        examples('ca init --offline-root --data-dir ./data --trust-domain example.org --out request.pem'),
      )
      .requiredOption('--offline-root', 'the root is kept elsewhere, and signs a request')
      .option('--trust-domain <name>', 'the trust domain (COUNTERSIGN_TRUST_DOMAIN)')
      .addOption(
        keyTypeOption('--authority-key-type <type>', 'kind of the key (COUNTERSIGN_AUTHORITY_KEY_TYPE)'),
      )
      .option('--out <file>', 'where to write the certificate request; else it is printed'),
  ).action(
    async (
      { out, ...flags }: Partial<SecretFlags> & { out?: string; trustDomain?: string },
      command: Command,
    ) => {
      const { initOfflineRoot } = await import('../up-hierarchy.ts');
      const { offlineRoot: _, ...named } = flags as typeof flags & { offlineRoot: true };
      const made = await initOfflineRoot(settings(command, named));
      if (made.request === null) throw new MeshError('internal', 'no request was made');
      tellRequest(session, command, { ...made, request: made.request }, out);
    },
  );

  group
    .command('csr')
    .description('print the certificate request of the key that waits')
    .addHelpText('after', examples('ca csr > request.pem', 'ca csr --data-dir ./data --out request.pem'))
    .option('--out <file>', 'where to write it; else it is printed')
    .action(async ({ out }: { out?: string }, command: Command) => {
      await orWithoutServer(
        session,
        command,
        async () => {
          const { keyId, pem } = await clientOf(session, command).get<{ keyId: string; pem: string }>(
            '/v1/ca/csr',
          );
          tellPem(session, command, { keyId, pem }, out);
        },
        async () => {
          const { readWaitingRequest } = await import('../up-hierarchy.ts');
          tellRequest(session, command, await readWaitingRequest(settings(command)), out);
        },
        settings,
      );
    });

  secretOptions(
    group
      .command('import')
      .description('take in the signed certificate of the key that waits')
      .argument('<chain>', 'PEM file: the intermediate first, then up to the root; - for standard input')
      .addHelpText('after', examples('ca import chain.pem', 'ca import --data-dir ./data chain.pem')),
  ).action(async (file: string, flags: Partial<SecretFlags>, command: Command) => {
    const [chain] = readSources(session, [file]);
    if (chain === undefined) throw new MeshError('internal', 'no file was read');
    await orWithoutServer(
      session,
      command,
      async () =>
        show(
          command,
          await clientOf(session, command).post<KeyAnswer>('/v1/ca/import', {
            pem: chain.text,
            file: chain.file,
          }),
        ),
      async () => {
        const { importChain } = await import('../up-hierarchy.ts');
        const done = await importChain(settings(command, flags), chain);
        print(session, command, answerOf(done), () => formatSetUp(session, done));
      },
      settings,
    );
  });
}

/**
 * Asks the server, or works on the data directory when none runs on it. INVARIANT: who holds the directory decides that,
 * not the answer: a server that starts meanwhile keeps us out by its lock.
 */
async function orWithoutServer(
  session: Session,
  command: Command,
  online: () => Promise<void>,
  offline: () => Promise<void>,
  settings: (command: Command) => Config,
): Promise<void> {
  try {
    await online();
  } catch (error) {
    const isAway = error instanceof MeshError && error.code === 'server_unreachable';
    const isLocal = !clientOf(session, command).address.startsWith('https:');
    if (!isAway || !isLocal || !existsSync(settings(command).dataDir)) throw error;
    await offline();
  }
}

function tellRequest(
  session: Session,
  command: Command,
  { request }: { readonly request: NonNullable<SetUp['request']> },
  out: string | undefined,
): void {
  const pem = encodePem('CERTIFICATE REQUEST', request.csr);
  tellPem(session, command, { keyId: request.keyId, pem }, out);
}

function tellPem(
  session: Session,
  command: Command,
  { keyId, pem }: { readonly keyId: string; readonly pem: string },
  out: string | undefined,
): void {
  if (out !== undefined) writeNewFile(out, pem);
  // Read out to whoever signs, it proves that nobody has changed the file on its way.
  session.say(`key ${keyId}${out === undefined ? '' : `, request in ${out}`}\n`);
  print(session, command, { keyId, pem }, () => (out === undefined ? pem : ''));
}

function answerOf({ trustDomain, request, authorities }: SetUp) {
  return {
    trustDomain: trustDomain.name,
    waiting: request === null ? null : { keyId: request.keyId },
    authorities,
  };
}

function formatSetUp(session: Session, { trustDomain, authorities }: SetUp): string {
  const facts = formatPairs([
    ['trust domain', trustDomain.name],
    ...authorities.map(
      ({ kind, keyId, notAfter }) => [`${kind} CA`, `${keyId} until ${notAfter.toISOString()}`] as const,
    ),
  ]);
  return `${facts}\nNext: ${session.program} up\n`;
}

/** Where a passphrase may come from. */
export function secretOptions(command: Command): Command {
  return command
    .option('--passphrase-file <file>', 'file with the passphrase that seals keys, mode 0600')
    .option('--passphrase-fd <number>', 'file descriptor to read it from, such as 0 or 3')
    .option('--passphrase-credential <name>', 'systemd credential with it');
}

/** An option for the kind of a CA key. */
export function keyTypeOption(flags: string, description: string): Option {
  return new Option(flags, description).choices(['ec-p256', 'ec-p384']);
}
