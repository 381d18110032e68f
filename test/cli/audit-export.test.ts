import { writeFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { maxTries, openOtlpSender, readRetryAfter } from '../../src/cli/otlp-sender.ts';
import { decision, oneOfEach } from '../audit/events.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { type Harness, startHarness } from '../http/harness.ts';
import { main, openCli, type Outcome } from './run-cli.ts';

const scope = createScope();
const directory = makeTempDir(scope);
const at = (name: string) => join(directory, name);
const run = openCli(scope, { cwd: directory });
const cli = (...args: string[]): Promise<Outcome> =>
  run(['--socket', harness.unix.address, 'audit', 'export', ...args]);
let harness: Harness;

beforeAll(async () => {
  harness = await startHarness();
  scope.defer(() => harness.close());
  await harness.store.recordEvents(oneOfEach);
});
afterAll(() => scope.close());

type Line = { readonly type: string; readonly metadata: { readonly event_code: string } };

const linesOf = ({ out }: Outcome): readonly Line[] =>
  out
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);

test.each<[string, (line: Line) => unknown]>([
  ['cloudevents', ({ type }) => type],
  ['ocsf', ({ metadata }) => `countersign.audit.${/^\w+/.exec(metadata.event_code)![0]}`],
])('%s: a line for each record, the oldest first', async (format, typeOf) => {
  const window = ['--since', '2026-01-31', '--until', '2026-02-01'];
  const all = await cli('--format', format, ...window);
  expect([all.code, all.err]).toEqual([0, '']);
  expect(linesOf(all).map(typeOf)).toEqual(oneOfEach.map(({ type }) => `countersign.audit.${type}`));
  expect(all.out).not.toContain('/accounts/7');
  const two = linesOf(await cli('--format', format, ...window, '--type', 'ban', '--type', 'node,loss'));
  expect(two.map(typeOf).sort()).toEqual(['ban', 'loss', 'node'].map((type) => `countersign.audit.${type}`));
  const personal = await cli('--format', format, ...window, '--type', 'decision', '--personal');
  expect(personal.out).toContain('/accounts/7');
});

test('otlp: a request for each page', async () => {
  const { code, out } = await cli('--format', 'otlp', '--until', '2026-02-01');
  const [request = '', ...more] = out.split('\n');
  expect([code, more]).toEqual([0, ['']]);
  expect(recordsOf(request)).toBe(oneOfEach.length);
});

test('a cursor file goes on where the run before ended, and only for the same question', async () => {
  const ask = (...more: string[]) =>
    cli('--format', 'cloudevents', '--type', 'decision', '--cursor-file', 'place', ...more);
  await harness.store.recordEvents(Array.from({ length: 3 }, () => decision()));
  expect(linesOf(await ask())).toHaveLength(4);
  expect(linesOf(await ask())).toHaveLength(0);
  await harness.store.recordEvents([decision({ decisionId: 'later' })]);
  expect(linesOf(await ask())).toMatchObject([{ data: { event: { decisionId: 'later' } } }]);
  const other = await ask('--type', 'ban');
  expect([other.code, other.err]).toEqual([2, expect.stringContaining('error[audit_cursor_invalid]')]);
  writeFileSync(at('place'), '{}');
  expect((await ask()).err).toContain('was not written by an export');
});

describe('what is not as it should be is refused', () => {
  test.each<[string, string[], RegExp]>([
    ['nothing', [], /needs a directory for a copy of the log, or a --format/],
    ['a format that is none', ['--format', 'csv'], /error\[usage\]/],
    ['a directory and a format', ['x', '--format', 'ocsf'], /not into a directory/],
    ['a key and a format', ['--format', 'ocsf', '--key', 'k'], /--key goes with a copy/],
    ['a window of a copy', ['x', '--since', '1d'], /--since goes with --format/],
    ['a cursor of a copy', ['x', '--cursor-file', 'p'], /--cursor-file goes with --format/],
    ['a collector of another format', ['--format', 'ocsf', '--to', 'http://127.0.0.1:1/'], /--to goes with/],
    [
      'a collector elsewhere, without TLS',
      ['--format', 'otlp', '--to', 'http://example.org/'],
      /only be this machine/,
    ],
    [
      'a password in a URL',
      ['--format', 'otlp', '--to', 'https://a:b@example.org/'],
      /no place for a password/,
    ],
    ['a URL that is none', ['--format', 'otlp', '--to', 'ftp://127.0.0.1/'], /no http or https URL/],
    ['an end of what has none', ['--format', 'ocsf', '--follow', '--until', '1d'], /--follow has no --until/],
    ['a time that is none', ['--format', 'ocsf', '--since', 'monday'], /--since: "monday" is no time/],
  ])('%s', async (_, args, message) => {
    const { code, out, err } = await cli(...args);
    expect([code, out, err]).toEqual([64, '', expect.stringMatching(message)]);
  });
});

describe('a collector', () => {
  test('gets all records in a few requests, and the rest after it was away', async () => {
    const collector = await startCollector([503, 200]);
    const to = ['--format', 'otlp', '--type', 'decision', '--to', collector.url, '--cursor-file', 'sent'];
    await harness.store.recordEvents(Array.from({ length: 700 }, () => decision()));
    const sent = await cli(...to);
    expect([sent.code, sent.out, sent.err]).toEqual([0, '', '']);
    const counts = collector.bodies.map(recordsOf);
    expect(counts).toEqual([500, 500, counts[2]]);
    collector.answers.push(400);
    await harness.store.recordEvents([decision()]);
    const refused = await cli(...to);
    expect([refused.code, refused.err]).toEqual([2, expect.stringContaining('error[collector_refused]')]);
    expect((await cli(...to)).code).toBe(0);
    expect(recordsOf(collector.bodies.at(-1)!)).toBe(1);
  });

  test.each<[string, number[], string, string | undefined, number]>([
    ['that is busy for a while', [429, 502, 504], '', undefined, 4],
    ['that is busy for ever', Array.from({ length: 9 }, () => 503), '', 'collector_unreachable', maxTries],
    ['that hangs up', [0, 0], '', undefined, 3],
    ['that refuses', [401], '', 'collector_refused', 1],
    ['that has moved', [307], '', 'collector_refused', 1],
    ['that took a part', [], '{"partialSuccess":{"rejectedLogRecords":"3"}}', 'collector_refused', 1],
    ['that took all', [], '{"partialSuccess":{}}', undefined, 1],
    ['that answers with something else', [], '<html>', undefined, 1],
    ['that answers without end', [], 'x'.repeat(100_000), 'collector_unreachable', maxTries],
  ])('%s', async (_, answers, text, code, requests) => {
    const collector = await startCollector(answers, text);
    const send = openOtlpSender(collector.url, undefined, 1);
    const failed = await send('{}').then(
      () => undefined,
      (error) => error.code,
    );
    expect([failed, collector.bodies.length]).toEqual([code, requests]);
  });
});

describe('a collector that says when to come again', () => {
  const now = new Date('2026-01-31T12:00:00.000Z');
  test.each<[string | undefined, number]>([
    [undefined, 0],
    ['0', 0],
    ['7', 7_000],
    ['60', 60_000],
    ['61', 60_000],
    ['9'.repeat(60), 60_000],
    ['9'.repeat(65), 0],
    ['Sat, 31 Jan 2026 12:00:09 GMT', 9_000],
    ['Sat, 31 Jan 2026 11:59:59 GMT', 0],
    ['Sun, 31 Jan 2027 12:00:00 GMT', 60_000],
    ['Abc, 99 Xyz 2026 12:00:00 GMT', 0],
    ['2026-01-31T12:00:09Z', 0],
    ['-1', 0],
    ['1.5', 0],
    ['', 0],
  ])('%j: %i ms', (text, ms) => {
    expect(readRetryAfter(text, now)).toBe(ms);
  });

  test('is not asked sooner', async () => {
    const collector = await startCollector([503], '', { 'retry-after': '1' });
    const began = performance.now();
    await openOtlpSender(collector.url, undefined, 1)('{}');
    expect(collector.bodies.length).toBe(2);
    // A timer of a second may end a moment early by another clock.
    expect(performance.now() - began).toBeGreaterThan(950);
  });
});

test('--follow goes on until a signal', async () => {
  const socket = harness.unix.address;
  const args = [
    '--socket',
    socket,
    'audit',
    'export',
    '--format',
    'cloudevents',
    '--type',
    'ban',
    '--follow',
  ];
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  scope.defer(() => void child.kill('SIGKILL'));
  const ended = new Promise((resolve) => child.once('close', resolve));
  const lines = child.stdout.setEncoding('utf8')[Symbol.asyncIterator]();
  expect((await lines.next()).value).toContain('countersign.audit.ban');
  const ban = oneOfEach.find((event) => event.type === 'ban')!;
  await harness.store.recordEvents([{ ...ban, reason: 'while it follows' }]);
  expect((await lines.next()).value).toContain('while it follows');
  child.kill('SIGTERM');
  expect(await ended).toBe(0);
});

/** A collector on loopback: answers with these statuses, then with 200; 0 hangs up. */
async function startCollector(answers: number[], text = '', headers: Record<string, string> = {}) {
  const bodies: string[] = [];
  const server = createServer((request, response) => {
    void readBody(request).then((body) => {
      bodies.push(body);
      const status = answers.shift() ?? 200;
      if (status === 0) request.socket.destroy();
      else response.writeHead(status, headers).end(text);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  scope.defer(() => new Promise<void>((resolve) => server.close(() => resolve())));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/v1/logs`, answers, bodies };
}

async function readBody(request: IncomingMessage): Promise<string> {
  let body = '';
  for await (const chunk of request.setEncoding('utf8')) body += chunk;
  return body;
}

function recordsOf(body: string): number {
  return JSON.parse(body).resourceLogs[0].scopeLogs[0].logRecords.length;
}
