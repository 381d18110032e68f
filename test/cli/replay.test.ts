import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { allowedCalls } from '../audit/events.ts';
import { entry, id, policy } from '../http/documents.ts';
import { type Harness, startHarness } from '../http/harness.ts';
import { createScope } from '../harness/scope.ts';
import { openCli } from './run-cli.ts';

let harness: Harness;
const scope = createScope();
const directory = mkdtempSync(join(tmpdir(), 'cs-replay-cli-'));
const cli = openCli(scope, { cwd: directory });
const [web, ledger] = [id('web'), id('ledger', 'pay')];
const open = (methods: string) =>
  policy('p', 'pay').replace(
    'spec: {}',
    `spec: { rules: [{ from: [{ source: { principals: ['${web.slice(9)}'] } }], to: [{ operation: { methods: [${methods}] } }] }] }`,
  );
const labelled = entry('ledger', 'pay').replace(
  '{ name: ledger }',
  '{ name: ledger, labels: { app: ledger } }',
);
const file = (name: string, text: string) => {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
};

beforeAll(async () => {
  harness = await startHarness();
  const text = [entry('web'), labelled, open('GET, PUT')].join('---\n');
  const body = { files: [{ file: 'mesh.yaml', text }] };
  expect((await harness.overTls({ method: 'POST', path: '/v1/apply', body })).status).toBe(200);
  const [time, revision] = [harness.clock.now(), harness.ports.administration.current().revision];
  const call = { time, from: time, to: time, revision, source: web, destination: ledger, pathPattern: '*' };
  await harness.store.recordEvents([
    allowedCalls({ ...call, rule: 'pay/p rule[0]' }),
    allowedCalls({ ...call, rule: 'pay/p rule[0]', method: 'PUT', count: 3 }),
  ]);
  harness.clock.move(60_000);
});
afterAll(async () => {
  await scope.close();
  await harness.close();
  rmSync(directory, { recursive: true });
});

const run = (...args: string[]) => cli(['--socket', harness.unix.address, 'policy', 'replay', ...args]);

test.each<[string, string, string[], number]>([
  ['nothing changes', 'GET, PUT', [], 0],
  ['a call would be denied', 'GET', [], 1],
  ['as many as may be', 'GET', ['--allow-denials', '3'], 0],
  ['more than may be', 'GET', ['--allow-denials', '2'], 1],
  ['others are allowed, which nobody calls', 'GET, PUT, POST', ['--fail-on', 'newly-allowed', 'unknown'], 0],
  ['where nobody called', 'GET', ['--destination', web], 2],
  ['where nobody called, and that may be', 'GET', ['--destination', web, '--allow-unjudged'], 0],
  ['of a namespace that nobody called', 'GET', ['--namespace', 'elsewhere'], 2],
  ['from before the log began', 'GET', ['--since', '1999-01-01', '--until', '2000-01-01'], 2],
])('%s', async (_, methods, args, code) => {
  const { code: found, out } = await run(
    '--since',
    '1h',
    file('new.yaml', open(methods)),
    '-o',
    'json',
    ...args,
  );
  expect([found, JSON.parse(out).ok]).toEqual([code, code === 0]);
});

test('a table for people, and csv', async () => {
  const path = file('tight.yaml', open('GET'));
  const { code, out } = await run(path);
  expect(code).toBe(1);
  expect(out.split('\n').map((line) => line.replace(/ {2,}/g, ' | '))).toEqual([
    'updated policy pay/p',
    '',
    expect.stringMatching(/^of 120 recorded calls from 20.* to 20/),
    ' | newly denied | 3',
    ' | newly allowed | 0',
    ' | cannot be told | 0',
    ' | unchanged | 117',
    '',
    'newly denied',
    'CALLS | CALLER | SERVICE | METHOD | PATH | DENIED BY | ALLOWED NOW BY | LAST | INDEX',
    expect.stringContaining(
      `3 | ${web} | ${ledger} | PUT | * | no rule; nearest pay/p rule[0] at ${path}:4:116: methods is GET, the call used PUT | pay/p rule[0] at mesh.yaml:`,
    ),
    '',
    expect.stringMatching(/^not here/),
    expect.stringMatching(/^proven by/),
    expect.stringMatching(/^covers/),
    '',
  ]);
  const csv = await run('--without', 'pay/p', '-o', 'csv');
  expect(csv.out.split('\r\n')[1]).toContain(
    `newly_denied,117,${web},${ledger},http,GET,*,8080,deny,no_policy`,
  );
});

test('what is in force needs no call', async () => {
  const text = [entry('web'), labelled, open('GET, PUT')].join('---\n');
  file('mesh.yaml', text);
  const { code, out } = await run('--destination', web, 'mesh.yaml');
  expect([code, out.split('\n')[0]]).toEqual([0, 'nothing would change: this is what is in force']);
});

test('says that nothing was judged, and why', async () => {
  const path = file('unseen.yaml', open('GET'));
  const none = await run(path, '--destination', web);
  expect([none.code, none.err]).toEqual([
    2,
    expect.stringContaining('warning: nothing was judged: no call that is meant is in the log\n'),
  ]);
  const header = "when: [{ key: 'request.headers[x-team]', values: [pay] }]";
  const told = file('told.yaml', open('GET, PUT').replace(' }] }] }', ` }], ${header} }] }`));
  const unknown = await run(told, '-o', 'json');
  expect([unknown.code, JSON.parse(unknown.out)]).toEqual([
    2,
    expect.objectContaining({
      ok: false,
      judged: 0,
      totals: expect.objectContaining({ calls: 120, unknown: 120 }),
    }),
  ]);
  expect(unknown.err).toBe('warning: nothing was judged: 120 recorded calls, and none of them can be told\n');
  expect((await run(told, '--allow-unjudged')).code).toBe(0);
  // What was asked for besides is still no.
  expect((await run(told, '--allow-unjudged', '--fail-on', 'unknown')).code).toBe(1);
});

test('what is suggested can be replayed as it is', async () => {
  const { code, out, err } = await cli(['policy', 'suggest', '--socket', harness.unix.address]);
  expect([code, out.split('\n')[0]]).toEqual([0, `# ${ledger}`]);
  // In one column with the lines before.
  expect(err).toMatch(/^covers {6}\S[^]*\ntry them {4}\S+ policy replay --without pay\/p FILE\n$/m);
  const path = file('suggested.yaml', out);
  expect(
    (await run('--since', '30d', '--without', 'pay/p', '--fail-on', 'newly-allowed', 'unknown', '--', path))
      .code,
  ).toBe(0);
  const json = await cli([
    'policy',
    'suggest',
    '--namespace',
    'shop',
    '-o',
    'json',
    '--socket',
    harness.unix.address,
  ]);
  expect(JSON.parse(json.out).services).toEqual([]);
});

test.each<[string, string[], number]>([
  ['nothing', [], 64],
  ['files and a revision', ['--revision', '1', 'x.yaml'], 64],
  ['no number', ['--revision', 'x'], 64],
  ['no number of calls', ['--allow-denials', '-1', '--revision', '1'], 64],
  ['an unknown condition', ['--fail-on', 'moon', '--revision', '1'], 64],
  ['a file that is not there', ['/nonexistent.yaml'], 2],
  ['an empty file', [file('empty.yaml', '# nothing\n')], 64],
  ['a file of something else', [file('bad.yaml', 'kind: Moon\n')], 2],
  ['a time to come', ['--since', '2999-01-01T00:00:00Z', '--without', 'pay/p'], 2],
  ['a revision that is not kept', ['--revision', '77'], 2],
  ['a policy that is not there', ['--without', 'pay/q'], 2],
])('refused: %s', async (_, args, code) => {
  const { code: found, err } = await run(...args);
  expect([found, err]).toEqual([code, expect.stringContaining('error')]);
});
