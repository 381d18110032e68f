import type { Command } from 'commander';
import { expect, test } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import type { Session } from '../../src/cli/session.ts';
import { configOptions } from '../../src/config.ts';

// What stands in a command line or in the environment is seen by `ps`, by children and by the shell's history.
const secret = /token|secret|pass|private|(^|-)key($|-)/i;
// They say where a secret is, or what kind of one to make.
const place = /(file|fd|credential|id|type)$/i;
const namesOfFiles = new Set(['--trust-tls-key', 'trustTlsKey', '--machine-key', '--client-key']);
// A name, or the key that verifies, which everybody may know.
const namesOfKeys = new Set([
  'ca root sign --key <id>',
  'audit verify --key <key>',
  'audit export --key <key>',
  'agent --audit-log-key <value>',
  'audit pack --key <key>',
  'audit pack verify --key <key>',
  'backup verify --key <key>',
  'restore --key <key>',
]);
const session = { write: () => undefined, say: () => undefined, environment: {} } as unknown as Session;

test('no option takes a secret: only a file that holds it', () => {
  const wrong = allCommands(createProgram(session)).flatMap(([path, command]) =>
    command.options
      .filter(({ long }) => isSecret(long ?? ''))
      .map(({ flags }) => `${path} ${flags}`)
      .filter((option) => !namesOfKeys.has(option)),
  );
  expect(wrong).toEqual([]);
});

test('no argument is a secret', () => {
  const wrong = allCommands(createProgram(session)).flatMap(([path, command]) =>
    command.registeredArguments
      .map((argument) => argument.name())
      .filter(isSecret)
      .map((name) => `${path} <${name}>`),
  );
  expect(wrong).toEqual([]);
});

test('no setting of the environment or the configuration is a secret', () => {
  const names = configOptions({ flags: {}, environment: {}, isRoot: false }).map(
    ({ name }) => name as string,
  );
  expect(names).toContain('passphraseFile');
  expect(names.filter(isSecret)).toEqual([]);
});

function isSecret(name: string): boolean {
  return secret.test(name) && !place.test(name) && !namesOfFiles.has(name);
}

function allCommands(command: Command, path = ''): readonly (readonly [string, Command])[] {
  const inner = command.commands.flatMap((one) => allCommands(one, `${path} ${one.name()}`.trim()));
  return [[path, command], ...inner];
}
