import { readdirSync, readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { expect, test } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import type { Session } from '../../src/cli/session.ts';
import { runCli } from './run-cli.ts';

const commands = allCommands(createProgram(silentSession()));

test('the tree holds the commands that docs/cli.md promises', () => {
  expect(commands.map(([path]) => path).sort()).toEqual([
    '',
    'admin',
    'admin grant',
    'admin grant create',
    'admin grant delete',
    'admin grant list',
    'agent',
    'agent files',
    'apply',
    'audit',
    'audit ask',
    'audit cert',
    'audit count',
    'audit export',
    'audit graph',
    'audit key',
    'audit list',
    'audit pack',
    'audit pack page',
    'audit pack verify',
    'audit prove',
    'audit shred',
    'audit verify',
    'audit why',
    'audit witnesses',
    'authz',
    'authz can-reach',
    'authz check',
    'authz eval',
    'authz explain',
    'authz who-can',
    'backup',
    'backup verify',
    'ban',
    'ban list',
    'ca',
    'ca activate',
    'ca crl',
    'ca csr',
    'ca import',
    'ca init',
    'ca retire',
    'ca root',
    'ca root create',
    'ca root sign',
    'ca rotate',
    'ca status',
    'ca taint',
    'check',
    'entry',
    'entry create',
    'entry delete',
    'entry list',
    'entry show',
    'entry update',
    'envoy',
    'envoy bootstrap',
    'inspect',
    'inspect bundle',
    'inspect csr',
    'inspect id',
    'inspect jwt',
    'inspect svid',
    'jwt',
    'jwt bundle',
    'jwt mint',
    'jwt validate',
    'node',
    'node alias',
    'node alias delete',
    'node alias list',
    'node alias show',
    'node ban',
    'node evict',
    'node list',
    'node show',
    'node token',
    'node token create',
    'node token list',
    'node token revoke',
    'node unban',
    'openapi',
    'policy',
    'policy abort',
    'policy activate',
    'policy apply',
    'policy canary',
    'policy delete',
    'policy diff',
    'policy enforce',
    'policy lint',
    'policy list',
    'policy log',
    'policy prove',
    'policy renumber',
    'policy replay',
    'policy rollback',
    'policy rollout',
    'policy shadow',
    'policy show',
    'policy suggest',
    'policy test',
    'restore',
    'server',
    'status',
    'svid',
    'svid fetch',
    'svid watch',
    'token',
    'token create',
    'token list',
    'token revoke',
    'trust-bundle',
    'unban',
    'up',
    'version',
  ]);
});

test.each(commands)(
  '%s --help has a description, an example, the exit codes and -o json',
  (path, command) => {
    let text = '';
    command.configureOutput({ writeOut: (part) => (text += part) });
    command.outputHelp();
    expect(command.description()).not.toBe('');
    expect(text).toMatch(new RegExp(`\\$ countersign ${path}`));
    expect(text).toContain('Exit codes:');
    expect(text).toMatch(/-o, --output <format>/);
    for (const option of command.options) expect(option.description, option.flags).not.toBe('');
  },
);

test.each(commands)('%s takes no secret as an argument', (_, command) => {
  const names = command.options.map(({ long }) => long);
  expect(names.filter((name) => /^--(token|password|passphrase|secret)$/.test(name ?? ''))).toEqual([]);
});

// Commander's own, those of the kubelet, Docker and Node, and those of our benches.
const ofOthers = new Set([
  ...['--help', '--cgroup-root', '--cgroup-parent', '--use-largepages', '--heap-growing-percent'],
  ...['--outage-minutes', '--nodes', '--sample'],
]);

test.each([
  'README.md',
  ...readdirSync('docs').flatMap((name) => (name.endsWith('.md') ? [`docs/${name}`] : [])),
])('%s names options that there are', (file) => {
  const known = new Set(commands.flatMap(([, { options }]) => options.map(({ long }) => long ?? '')));
  const text = readFileSync(file, 'utf8');
  const ours = [
    ...text.matchAll(/`(--[a-z][a-z0-9-]*)|^(?:bin\/)?countersign ([^#|\n]*(?:\\\n[^#|\n]*)*)/gm),
  ];
  const named = ours.flatMap(([, alone, line = '']) =>
    alone === undefined ? (line.split(' -- ')[0]?.match(/(?<=\s)--[a-z][a-z0-9-]*/g) ?? []) : [alone],
  );
  expect(named.filter((name) => !known.has(name) && !ofOthers.has(name))).toEqual([]);
});

test.each([
  [['--help'], 0, 'out'],
  [['entry', 'create', '--help'], 0, 'out'],
  [[], 64, 'err'],
  [['entry'], 64, 'err'],
] as const)('%j exits %i and helps on %s', async (args, code, stream) => {
  const outcome = await runCli(args);
  expect(outcome.code).toBe(code);
  expect(outcome[stream]).toContain('Usage: countersign');
  expect(outcome[stream === 'out' ? 'err' : 'out']).toBe('');
});

function allCommands(program: Command): [string, Command][] {
  const walk = (path: readonly string[], command: Command): [string, Command][] => [
    [path.join(' '), command],
    ...command.commands.flatMap((inner) => walk([...path, inner.name()], inner)),
  ];
  return walk([], program);
}

function silentSession(): Session {
  return {
    environment: {},
    write: () => undefined,
    say: () => undefined,
    isRoot: false,
    program: 'countersign',
    catchSignals: () => new AbortController().signal,
    texts: new Map(),
    exitCode: 0,
  };
}
