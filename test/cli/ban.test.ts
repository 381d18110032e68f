import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startAuthority } from '../harness/authority.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { type Outcome, runCli } from './run-cli.ts';

const scope = createScope();
const directory = makeTempDir(scope);
beforeAll(() => startAuthority(scope, { directory }));
afterAll(() => scope.close());

const cli = (...args: string[]): Promise<Outcome> => runCli(['--socket', join(directory, 'a.sock'), ...args]);
const json = async (...args: string[]) => JSON.parse((await cli(...args, '-o', 'json')).out);
const web = 'spiffe://mesh.test/ns/shop/sa/web';
const orders = 'spiffe://mesh.test/ns/shop/sa/orders';

test('bans are made, listed with reason, author and end, and lifted', async () => {
  const made = await cli('ban', 'spiffe-id', web, '--reason', 'host 7 taken over', '--until', '2h');
  expect(made.out).toMatch(
    /^banned spiffe-id spiffe:.* until 20.*Z; no certificate issued to it is valid any more\n$/,
  );
  expect(await json('ban', 'serial', '40:AB', '--reason', 'leaked')).toMatchObject({
    value: '40ab',
    until: null,
    actor: { kind: 'uid', role: 'admin' },
  });
  const listed = await cli('ban', 'list');
  expect(listed.out).toMatch(/^KIND +VALUE +UNTIL +BY +CERTIFICATES VALID UNTIL +REASON\n/);
  expect(listed.out).toMatch(/serial +40ab +lifted +uid [0-9]+ \(admin\) +leaked\n/);
  expect(listed.out).toMatch(
    /spiffe-id +spiffe:\S+web +20\S+Z +uid [0-9]+ \(admin\) +none +host 7 taken over\n/,
  );
  const checked = await cli(
    'authz',
    'check',
    '--from',
    web,
    '--to',
    orders,
    '--method',
    'GET',
    '--path',
    '/x',
  );
  expect([checked.code, checked.out]).toEqual([1, expect.stringContaining('banned')]);
  expect((await cli('unban', 'spiffe-id', web)).out).toBe(`lifted the ban of spiffe-id ${web}\n`);
  expect((await cli('unban', 'serial', '40AB')).out).toBe('lifted the ban of serial 40ab\n');
  expect((await json('ban', 'list')).items).toEqual([]);
  const logged = await cli('audit', 'list', '--type', 'ban');
  expect(logged.out).toMatch(/ban lifted serial 40ab by uid [0-9]+: leaked/);
});

test.each([
  [['ban'], 64, 'usage'],
  [['ban', 'serial', '40ab'], 64, 'usage'],
  [['ban', 'node', 'x', '--reason', 'y'], 64, 'usage'],
  [['ban', 'lst', 'x', '--reason', 'y'], 64, 'usage'],
  [['ban', 'serial', 'x', '--reason', 'y'], 2, 'ban_invalid'],
  [['ban', 'serial', '40ab', '--reason', ''], 2, 'ban_invalid'],
  [['ban', 'serial', '40ab', '--reason', 'y', '--until', 'yesterday'], 2, 'ban_invalid'],
  [['ban', 'list', '--limit', '0'], 64, 'usage'],
  [['unban', 'serial', '40ab'], 2, 'ban_not_found'],
  [['unban', 'serial'], 64, 'usage'],
])('%j exits %i with %s', async (args, code, error) => {
  const outcome = await cli(...args);
  expect([outcome.code, outcome.out]).toEqual([code, '']);
  expect(outcome.err).toContain(`error[${error}]`);
});
