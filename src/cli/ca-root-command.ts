import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { type Config, loadConfig } from '../config.ts';
import { MeshError } from '../errors.ts';
import { TrustDomain } from '../spiffe/id.ts';
import { keyTypeOption, secretOptions } from './ca-hierarchy-commands.ts';
import { examples } from './help.ts';
import { readInput } from './inspect-input.ts';
import { parseLifetime } from './lifetime.ts';
import { writeNewFile } from './new-file.ts';
import { print, type Session } from './session.ts';
import { formatPairs } from './text.ts';

type SecretFlags = Partial<Record<'passphraseFile' | 'passphraseFd' | 'passphraseCredential', string>>;

/** `countersign ca root ...`: the tool for the machine apart. It needs no server, no store and no network. */
export function rootCommand(session: Session): Command {
  const group = new Command('root')
    .description('make a root CA on a machine apart, and sign with it')
    .addHelpText(
      'after',
      examples(
        'ca root create --trust-domain example.org --dir ./root --passphrase-fd 3 3<passphrase',
        'ca root sign --dir ./root --csr request.pem --out chain.pem --passphrase-fd 3 3<passphrase',
      ),
    );

  secretOptions(
    group
      .command('create')
      .description('make a root: its key, sealed with a passphrase, and its certificate')
      .addHelpText(
        'after',
        examples('ca root create --trust-domain example.org --dir ./root --passphrase-fd 3 3<passphrase'),
      )
      .requiredOption('--trust-domain <name>', 'the trust domain it is for')
      .requiredOption('--dir <directory>', 'a new directory to keep it in')
      .addOption(keyTypeOption('--key-type <type>', 'kind of its key').default('ec-p384'))
      .option('--ttl <time>', 'how long it lives, such as 3650d', parseLifetime)
      .addOption(constraintsOption()),
  ).action(async (options: CreateOptions, command: Command) => {
    const { createOfflineRoot } = await import('../up-offline-root.ts');
    const root = await createOfflineRoot({
      dir: resolve(options.dir),
      trustDomain: TrustDomain.parse(options.trustDomain),
      keyType: options.keyType,
      ttlSeconds: options.ttl,
      nameConstraints: options.nameConstraints,
      secret: await passphraseOf(session, options),
    });
    const { trustDomain, keyId, certificatePem, notAfter } = root;
    print(session, command, { trustDomain: trustDomain.name, keyId, certificatePem, notAfter }, () =>
      formatPairs([
        ['trust domain', trustDomain.name],
        ['key', keyId],
        ['until', notAfter.toISOString()],
        ['directory', options.dir],
      ]),
    );
  });

  secretOptions(
    group
      .command('sign')
      .description("sign the request of a server's intermediate CA")
      .addHelpText(
        'after',
        examples(
          'ca root sign --dir ./root --csr request.pem --out chain.pem --passphrase-fd 3 3<passphrase',
          'ca root sign --dir ./root --csr request.pem --key 3f… --passphrase-file ./passphrase',
        ),
      )
      .requiredOption('--dir <directory>', 'as `ca root create` made it')
      .requiredOption('--csr <file>', 'as `ca csr` prints it; - for standard input')
      .option('--out <file>', 'where to write intermediate and root; else they are printed')
      .option('--key <id>', 'the key id that `ca csr` showed: sign nothing else')
      .option('--ttl <time>', 'how long the intermediate lives, at most 365d', parseLifetime)
      .addOption(constraintsOption()),
  ).action(async (options: SignOptions, command: Command) => {
    const { checkRootTask, readOfflineRoot, signRootTask } = await import('../up-offline-root.ts');
    const dir = resolve(options.dir);
    const root = readOfflineRoot(dir);
    const { bytes } = await readInput(options.csr);
    const task = checkRootTask(root, bytes, options.key);
    session.say(
      formatPairs([
        ['signs', `an intermediate CA of ${task.trustDomain.id}, path length 0`],
        ['key', `${task.keyId} (${task.publicKey.kind})`],
        ['SHA-256', task.publicKey.spkiSha256],
        ['root', root.keyId],
      ]),
    );
    const signed = await signRootTask(root, task, {
      dir,
      ttlSeconds: options.ttl,
      nameConstraints: options.nameConstraints,
      secret: await passphraseOf(session, options),
    });
    if (options.out !== undefined) writeNewFile(options.out, signed.chainPem);
    const answer = { keyId: task.keyId, chainPem: signed.chainPem, notAfter: signed.notAfter };
    print(session, command, answer, () => (options.out === undefined ? signed.chainPem : ''));
    session.say(`signed until ${signed.notAfter.toISOString()}\n`);
  });
  return group;
}

type CreateOptions = SecretFlags & {
  readonly trustDomain: string;
  readonly dir: string;
  readonly keyType: string;
  readonly ttl?: number;
  readonly nameConstraints: string;
};
type SignOptions = SecretFlags & {
  readonly dir: string;
  readonly csr: string;
  readonly out?: string;
  readonly key?: string;
  readonly ttl?: number;
  readonly nameConstraints: string;
};

async function passphraseOf(
  session: Session,
  { passphraseFile, passphraseFd, passphraseCredential }: SecretFlags,
) {
  const flags: Partial<Record<keyof Config, string>> = {
    passphraseFile: passphraseFile ?? '',
    passphraseFd: passphraseFd ?? '',
    passphraseCredential: passphraseCredential ?? '',
  };
  const { readPassphrase } = await import('../up-secret.ts');
  // Of the environment only where credentials are: what seals a server's keys must not seal the root's by accident.
  const { CREDENTIALS_DIRECTORY } = session.environment;
  const environment = CREDENTIALS_DIRECTORY === undefined ? {} : { CREDENTIALS_DIRECTORY };
  const secret = readPassphrase(loadConfig({ flags, environment, file: null, isRoot: session.isRoot }));
  if (secret !== undefined) return secret;
  throw new MeshError('usage', 'a root needs a passphrase', {
    fix: 'give --passphrase-fd, --passphrase-file or --passphrase-credential',
  });
}

function constraintsOption(): Option {
  return new Option('--name-constraints <kind>', 'uri: confine it to URI names of the trust domain')
    .choices(['off', 'uri'])
    .default('off');
}
