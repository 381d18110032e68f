import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CaAnswer, formatReport } from '../../src/cli/ca-command.ts';
import { createScope } from '../harness/scope.ts';
import { fetchKeyPair } from '../harness/sds-client.ts';
import { makeTempDir } from '../harness/temp.ts';
import { join } from 'node:path';
import { writeFileSync } from 'node:fs';
import { openCli, type Outcome, runCli } from './run-cli.ts';
import { startUp } from './up-child.ts';

const scope = createScope();
const dir = makeTempDir(scope);
const data = join(dir, 'data');
const workload = join(dir, 'w.sock');

beforeAll(async () => {
  await startUp(scope, dir, ['--workload-socket', workload, '--admin-address', 'off']);
});
afterAll(() => scope.close());

const run = openCli(scope, { cwd: dir });
const cli = (...args: string[]): Promise<Outcome> => run(['--data-dir', data, ...args]);
const status = async (): Promise<CaAnswer> =>
  JSON.parse((await cli('ca', 'status', '-o', 'json')).out) as CaAnswer;

test.each<[string[], string]>([
  [['ca', 'activate'], 'rotation_out_of_order'],
  [['ca', 'retire'], 'rotation_out_of_order'],
  [['ca', 'retire', '--force'], 'rotation_out_of_order'],
  [['ca', 'taint', 'ab'.repeat(20)], 'authority_not_found'],
  [['ca', 'taint', 'xyz'], 'body_invalid'],
])('%j is refused before there is anything to act on', async (args, code) => {
  const { code: exit, err } = await cli(...args);
  expect([exit, err.includes(`error[${code}]`)]).toEqual([2, true]);
});

test('a rotation waits for somebody who confirmed nothing, by name, and goes on by force', async () => {
  const id = 'spiffe://mesh.internal/web';
  const uid = process.getuid?.() ?? 0;
  writeFileSync(
    join(dir, 'mesh.yaml'),
    `apiVersion: countersign.dev/v1\nkind: RegistrationEntry\nmetadata: { name: web }\nspec: { spiffeId: "${id}", selectors: ["unix:uid:${uid}"] }\n`,
  );
  expect((await runCli(['--data-dir', data, 'apply', '-f', 'mesh.yaml'], { cwd: dir })).code).toBe(0);
  // It takes its certificate and leaves without a word.
  await fetchKeyPair(workload);
  expect((await cli('ca', 'rotate')).out).toMatch(/intermediate +[0-9a-f]{40} +retiring/);
  expect((await cli('ca', 'rotate', '--root')).out).toContain('would be refused');
  const refused = await cli('ca', 'activate');
  expect(refused.code).toBe(2);
  expect(refused.err).toContain('error[rotation_unproven]: not everybody trusts the new root yet');
  expect(refused.err).toContain(id);
  expect((await status()).laggards).toMatchObject([{ spiffeId: id }]);
  expect((await cli('ca', 'activate', '--force')).code).toBe(0);
  expect((await cli('ca', 'retire')).err).toContain('the old root is still needed');
  expect((await cli('ca', 'retire', '--force')).code).toBe(0);
  const after = await status();
  expect(after).toMatchObject({ bundleSequence: 3, next: null });
  const log = await cli('audit', 'list', '--type', 'authority');
  expect(log.out).toContain('forced root');
  expect(log.out).toContain(`by uid ${uid}`);
  // A stolen key is replaced at once.
  const signer = after.authorities.find(({ kind }) => kind === 'intermediate')?.keyId ?? '';
  expect((await cli('ca', 'taint', signer)).out).toContain('retiring, tainted');
}, 60_000);

test('the report is a table that nothing in it can break', () => {
  const text = formatReport({
    bundleSequence: 2,
    authorities: [],
    waiting: null,
    warnings: [],
    coverage: { sequence: 2, confirmed: 1, holders: 22 },
    next: { step: 'activate', safe: false },
    laggards: [
      {
        spiffeId: 'spiffe://mesh.test/web',
        node: 'a\u001b[2J\nb',
        lastSeen: null,
        why: 'late',
        until: 'soon',
      },
    ],
    moreLaggards: 20,
    doubt: 'the clock was moved',
  });
  expect(text).toContain('1 of 22 with a certificate have confirmed bundle 2');
  expect(text).toContain('`ca activate` would be refused: 21 in the way');
  expect(text).toContain('a\\u001b[2J\\u000ab');
  expect(text).toContain('and 20 more');
  expect(text).not.toContain('\u001b');
});
