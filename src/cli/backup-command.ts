import { Command } from 'commander';
import { loadConfig } from '../config.ts';
import { MeshError, quote } from '../errors.ts';
import { TrustDomain } from '../spiffe/id.ts';
import type { CheckedArchive, Expected } from '../store/archive-check.ts';
import { version } from '../version.ts';
import { readVerifierKey } from './audit-source.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { readText } from './read-text.ts';
import { print, type Session } from './session.ts';
import { formatPairs, printable } from './text.ts';

type BackupOptions = { readonly unsealed?: boolean; readonly withoutSeal?: boolean };
type ExpectedOptions = { readonly digest?: string; readonly key?: string; readonly trustDomain?: string };

/** `countersign backup` and `countersign backup verify`. */
export function backupCommand(session: Session): Command {
  const command = new Command('backup')
    .description('copy a data directory, whole and proven, while a server runs on it or not')
    .argument('<directory>', 'a new directory for the backup')
    .option('--unsealed', 'take the key file along that opens the keys: whoever has the backup has the CA')
    .option('--without-seal', 'leave that file out: you keep it elsewhere, and a restore needs it')
    .addHelpText(
      'after',
      examples('backup ./monday --data-dir /var/lib/countersign', 'backup verify ./monday --key log.key'),
    )
    .action(async (directory: string, { unsealed, withoutSeal }: BackupOptions, self: Command) => {
      if (unsealed === true && withoutSeal === true)
        throw usage('--unsealed and --without-seal exclude each other');
      const dataDir = dataDirOf(session, self);
      const { makeArchive } = await import('../store/archive.ts');
      const sealingKey = unsealed === true ? 'include' : withoutSeal === true ? 'leave_out' : 'refuse';
      const checked = await makeArchive({ dataDir, target: directory, sealingKey, now: new Date(), version });
      if (checked.manifest.seal === 'key_file')
        session.say('warning: the backup opens its own keys: whoever has it has the CA\n');
      if (checked.manifest.seal === 'key_file_left_out')
        session.say(
          `warning: keys/key-encryption-key is not in it: keep a copy elsewhere, or it cannot be started\n`,
        );
      report(session, self, directory, checked);
    });
  expecting(
    command
      .command('verify')
      .description(
        'prove that a backup is whole: files, database, keys and the whole log; exits 1 when it is not',
      )
      .argument('<directory>', 'as countersign backup has made it')
      .addHelpText('after', examples('backup verify ./monday', 'backup verify ./monday --key log.key')),
  ).action(async (directory: string, options: ExpectedOptions, self: Command) => {
    const { checkArchive } = await import('../store/archive-check.ts');
    report(session, self, directory, await checkArchive(directory, expectedOf(options)));
  });
  return command;
}

/** `countersign restore`. */
export function restoreCommand(session: Session): Command {
  return expecting(
    new Command('restore')
      .description('make a data directory from a backup; it is proven first, and is all there or not at all')
      .argument('<directory>', 'as countersign backup has made it')
      .addHelpText('after', examples('restore ./monday --data-dir ./data')),
  ).action(async (directory: string, options: ExpectedOptions, self: Command) => {
    const dataDir = dataDirOf(session, self);
    const { restoreArchive } = await import('../store/archive.ts');
    const checked = await restoreArchive({
      from: directory,
      dataDir,
      expected: expectedOf(options),
      now: new Date(),
    });
    report(session, self, directory, checked, dataDir);
    session.say(nextSteps(session, checked, dataDir));
  });
}

function expecting(command: Command): Command {
  return command
    .option('--digest <sha256>', 'of its manifest, as countersign backup printed it')
    .option('--key <key>', 'the verifier key of the log that you trust, or a file with it')
    .option('--trust-domain <name>', 'the trust domain it must be of');
}

/** @throws MeshError `usage`, `audit_note_invalid`, `file_missing` */
function expectedOf({ digest, key, trustDomain }: ExpectedOptions): Expected {
  if (digest !== undefined && !/^[0-9a-f]{64}$/.test(digest)) throw usage(`${quote(digest)} is no SHA-256`);
  if (key !== undefined) readVerifierKey(key);
  const isText = key !== undefined && /^[^+]+\+[0-9a-f]{8}\+/.test(key);
  return {
    digest: digest ?? null,
    verifierKey: key === undefined ? null : isText ? key : readText(key, key).replace(/\r?\n$/, ''),
    trustDomain: trustDomain === undefined ? null : TrustDomain.parse(trustDomain).name,
  };
}

function dataDirOf(session: Session, command: Command): string {
  const { config: file = null, dataDir } = globalOptions(command);
  const flags = dataDir === undefined ? {} : { dataDir };
  return loadConfig({ flags, environment: session.environment, file, isRoot: session.isRoot }).dataDir;
}

function report(
  session: Session,
  command: Command,
  directory: string,
  { manifest, digest, census }: CheckedArchive,
  dataDir?: string,
): void {
  const { madeAt, by, schema, trustDomain, seal, log, files } = manifest;
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  const value = {
    ...{ directory, digest, madeAt, by, schema, trustDomain, seal, bytes },
    log: { size: log.size, pruned: census.pruned },
    ...(dataDir === undefined ? {} : { dataDir }),
  };
  print(session, command, { verified: true, ...value }, () =>
    formatPairs([
      ['backup', printable(directory)],
      ['made', `${printable(madeAt)} by ${printable(by)}`],
      ['trust domain', trustDomain],
      ['files', `${files.length}, ${bytes} bytes: as they were backed up`],
      ['keys', sealText(seal)],
      ['log', `${log.size} entries: as the checkpoint says${goneText(census.pruned)}`],
      ['digest', digest],
      ...(dataDir === undefined ? [] : [['restored to', printable(dataDir)] as const]),
    ]),
  );
}

function goneText(pruned: number): string {
  return pruned === 0 ? '' : `; of ${pruned} the contents are kept no longer`;
}

function sealText(seal: CheckedArchive['manifest']['seal']): string {
  switch (seal) {
    case 'passphrase':
      return 'sealed with your passphrase';
    case 'key_file':
      return 'opened by a key file that is in the backup';
    case 'key_file_left_out':
      return 'opened by keys/key-encryption-key, which is not in the backup';
    case 'none':
      return 'none';
    default:
      return seal satisfies never;
  }
}

function nextSteps(session: Session, { manifest }: CheckedArchive, dataDir: string): string {
  const { program } = session;
  return [
    'Next:',
    ...(manifest.seal === 'key_file_left_out'
      ? [`  put key-encryption-key into ${printable(dataDir)}/keys, mode 0600`]
      : []),
    '  make sure that the old server is off: two servers of one log are a fork',
    `  start the server, then apply what came after ${printable(manifest.madeAt)}, bans first`,
    `  ${program} policy renumber --after <number>   the highest that an agent has: the log of the server names them`,
    `  ${program} node list                          nodes that attested since then must attest again`,
    `  ${program} audit verify                       older checkpoints say audit_log_shorter: that is true`,
    `  ${program} audit witnesses                    one that has seen more of the log disputes it for ever: begin a new log`,
    '  a server that was a witness gets another key: give that to the owners of the logs',
    'docs/backup.md tells more.\n',
  ].join('\n');
}

function usage(message: string): MeshError {
  return new MeshError('usage', message, { fix: 'see countersign backup --help' });
}
