import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { allowedCalls, decision, oneOfEach } from '../audit/events.ts';
import { formatCsv } from '../../src/cli/csv.ts';
import { type Harness, startHarness } from '../http/harness.ts';
import { main, openCli } from './run-cli.ts';

const scope = createScope();
const run = openCli(scope, { cwd: makeTempDir(scope) });
let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  scope.defer(() => harness.close());
  await harness.store.recordEvents([
    decision({ why: '=cmd|calc, "x"\u001b[31m', time: harness.clock.now() }),
    allowedCalls({ time: harness.clock.now() }),
    ...oneOfEach.filter(({ type }) => type === 'loss'),
  ]);
});
afterAll(() => scope.close());

const cli = (...args: string[]) => run(['--socket', harness.unix.address, ...args]);

test.each<[string, string]>([
  ['plain', 'plain'],
  ['a,b', '"a,b"'],
  ['say "x"', '"say ""x"""'],
  ['=1+1', "'=1+1"],
  ['+1', "'+1"],
  ['-1', "'-1"],
  ['@x', "'@x"],
  ['\t=1', "' =1"],
  ['\r\n=1', '\\u000d\\u000a=1'],
  ['\u001b[31m', '\\u001b[31m'],
  ['"=1', '"""=1"'],
  ['', ''],
])('a cell of %j is %j', (text, cell) => {
  expect(formatCsv([text], [])).toBe(`${cell}\r\n`);
});

describe('audit list', () => {
  test('as csv has a row for each record, and nothing that a terminal or a spreadsheet acts on', async () => {
    const { code, out, err } = await cli('audit', 'list', '--where', 'decisionId=d-1', '-o', 'csv');
    expect([code, err]).toEqual([
      0,
      expect.stringMatching(/^proven by   the checkpoint of \d+ entries, root [0-9a-f]{64}\n/),
    ]);
    expect(err).toContain('lost        12 decision from 2026-01-31T12:00:00.000Z');
    const [headings, row, end] = out.split('\r\n');
    expect(headings).toBe('index,time,type,what,leafHash,event');
    expect(row).toMatch(/^\d+,2027-/);
    expect(row).not.toContain('\u001b');
    expect(end).toBe('');
  });

  test.each([
    [['--where', 'polcy=x'], 2, 'did you mean policy?'],
    [['--where', 'rule'], 2, 'field=value'],
    [['--text', '!'], 2, 'has no words'],
    [['--follow', '--cursor', 'x'], 64, 'cannot be used with'],
    [['-o', 'xml'], 64, 'Allowed choices'],
  ])('%j exits %i', async (args, code, message) => {
    const outcome = await cli('audit', 'list', ...args);
    expect([outcome.code, outcome.out]).toEqual([code, '']);
    expect(outcome.err).toContain(message);
  });
});

describe('audit count', () => {
  test.each([
    ['table', /^VERDICT +COUNT +RECORDS +FIRST +LAST\nallow +117 +1 +2/],
    ['csv', /^verdict,count,records,first,last\r\nallow,117,1,2/],
    ['json', /"complete": true,/],
  ])('as %s', async (format, expected) => {
    const { code, out } = await cli('audit', 'count', '--by', 'verdict', '-o', format);
    expect([code, out]).toEqual([0, expect.stringMatching(expected)]);
  });

  test('of a personal field is refused', async () => {
    const { code, err } = await cli('audit', 'count', '--by', 'path');
    expect([code, err]).toEqual([2, expect.stringContaining('may identify a person')]);
  });
});

test('csv of a command that has no rows is refused', async () => {
  const { code, err } = await cli('status', '-o', 'csv');
  expect([code, err]).toEqual([64, expect.stringContaining('status does not print csv')]);
});

test('--follow prints what comes, once, and ends with 0 when it is interrupted', async () => {
  const args = [
    '--socket',
    harness.unix.address,
    'audit',
    'list',
    '--follow',
    '-o',
    'json',
    '--type',
    'decision',
  ];
  const child = spawn(process.execPath, [main, ...args], { timeout: 50_000 });
  scope.defer(() => void child.kill());
  let out = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  const lines = () => out.split('\n').filter((line) => line !== '');
  await eventually('the record that is there', () => lines().length === 1);
  await harness.store.recordEvents([decision({ decisionId: 'd-2' }), ...oneOfEach.slice(0, 3)]);
  await eventually('the new one', () => lines().length === 2);
  await harness.store.recordEvents([decision({ decisionId: 'd-3' })]);
  await eventually('the next', () => lines().length === 3);
  child.kill('SIGINT');
  const [code] = (await once(child, 'exit')) as [number | null];
  expect(code).toBe(0);
  expect(
    lines().map((line) => (JSON.parse(line) as { event: { decisionId: string } }).event.decisionId),
  ).toEqual(['d-1', 'd-2', 'd-3']);
});
