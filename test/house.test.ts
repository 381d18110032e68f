import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { expect, test } from 'vitest';

// The street: a file may import from its own room and from rooms further left. Rooms in one row are strangers.
const street: readonly (readonly string[])[] = [
  ['errors', 'clock', 'wire'],
  ['yaml'],
  ['spiffe'],
  ['audit'],
  ['ca', 'authz'],
  ['identity'],
  ['attest', 'store', 'grpc'],
  ['config', 'log', 'metrics', 'version'],
  ['xds', 'signing', 'workload-api', 'ext-authz', 'access-log', 'node', 'http'],
  ['tracing'],
  ['up'],
  ['server', 'agent'],
  ['cli'],
];

const core = ['spiffe', 'audit', 'ca', 'authz', 'identity'];
const coreMayNotImport =
  /^(node:(fs|net|http|https|http2|tls|os|path|child_process|worker_threads|dgram|dns|timers).*|better-sqlite3|@grpc\/.*|fastify|pino|koffi|commander)$/;
const coreMayNotSay = [
  /\bprocess\.env\b/,
  /\bDate\.now\(/,
  /\bnew Date\(\)/,
  /\bMath\.random\(/,
  /\bsetTimeout\(/,
  /\bsetInterval\(/,
];

// Only the composition roots and what sits beside them may name these.
const rootsOnly = ['store', 'attest', 'config', 'log', 'metrics', 'version'];
const roots = ['server', 'agent', 'up', 'config', 'log', 'metrics', 'tracing', 'cli'];

const source = resolve('src');
const files = readdirSync(source, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.startsWith('wire/'))
  .map((file) => ({ file, room: roomOf(file), text: readFileSync(join(source, file), 'utf8') }));

test('every file lives in a room of the street', () => {
  expect(files.filter(({ room }) => rank(room) === -1).map(({ file }) => file)).toEqual([]);
});

test('imports point left', () => {
  const wrong = files.flatMap(({ file, room, text }) =>
    localImports(file, text)
      .filter((imported) => imported.room !== room && rank(imported.room) >= rank(room))
      .map((imported) => `${file} imports ${imported.file}`),
  );
  expect(wrong).toEqual([]);
});

test('only composition roots name the store, the attestors and the configuration', () => {
  const wrong = files
    .filter(({ room }) => !roots.includes(room))
    .flatMap(({ file, room, text }) =>
      localImports(file, text)
        .filter((imported) => imported.room !== room && rootsOnly.includes(imported.room))
        .map((imported) => `${file} imports ${imported.file}`),
    );
  expect(wrong).toEqual([]);
});

test('the core does no input or output and reads no clock', () => {
  const wrong = files
    .filter(({ room }) => core.includes(room))
    .flatMap(({ file, text }) => [
      ...moduleNames(text)
        .filter((name) => coreMayNotImport.test(name))
        .map((name) => `${file} imports ${name}`),
      ...coreMayNotSay
        .filter((pattern) => pattern.test(text))
        .map((pattern) => `${file} says ${pattern.source}`),
    ]);
  expect(wrong).toEqual([]);
});

test('@peculiar/x509 is an oracle of the tests, and no part of the program', () => {
  const knowing = files.filter(({ text }) => moduleNames(text).some((name) => name.startsWith('@peculiar/')));
  expect(knowing.map(({ file }) => file)).toEqual([]);
});

test('one file knows jose', () => {
  const knowing = files.filter(({ text }) => moduleNames(text).some((name) => /^jose(\/|$)/.test(name)));
  expect(knowing.map(({ file }) => file)).toEqual(['spiffe/jwt-verify.ts']);
});

test('SQL stays in the store', () => {
  const wrong = files.filter(
    ({ room, text }) => room !== 'store' && moduleNames(text).includes('better-sqlite3'),
  );
  expect(wrong.map(({ file }) => file)).toEqual([]);
});

test('no drawer for odds and ends', () => {
  const drawers = /(^|\/)(index|utils?|helpers?|common|manager|misc|types)(\.ts|\/)/;
  expect(files.filter(({ file }) => drawers.test(file)).map(({ file }) => file)).toEqual([]);
});

function roomOf(file: string): string {
  const [first = ''] = file.split('/');
  // `up.ts` and `up-authority.ts` are one room; so are `yaml.ts` and `yaml-node.ts`.
  return first.endsWith('.ts') ? first.replace(/(-[a-z-]+)?\.ts$/, '') : first;
}

function rank(room: string): number {
  return street.findIndex((rooms) => rooms.includes(room));
}

function localImports(file: string, text: string): { file: string; room: string }[] {
  return moduleNames(text)
    .filter((name) => name.startsWith('.'))
    .map((name) => relative(source, resolve(dirname(join(source, file)), name)))
    .map((imported) => ({ file: imported, room: roomOf(imported) }));
}

function moduleNames(text: string): string[] {
  return [
    ...text.matchAll(/(?:^|\n)\s*(?:import|export)\b[^'";]*?\bfrom\s*'([^']+)'|\bimport\s*\(?\s*'([^']+)'/g),
  ].map((match) => match[1] ?? match[2] ?? '');
}
