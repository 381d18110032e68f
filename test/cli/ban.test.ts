import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startAuthority } from '../harness/authority.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { openCli, type Outcome, runCli } from './run-cli.ts';

const scope = createScope();
const directory = makeTempDir(scope);
beforeAll(() => startAuthority(scope, { directory }));
afterAll(() => scope.close());

const socket = ['--socket', join(directory, 'a.sock')];
const run = openCli(scope, { cwd: directory });
const cli = (...args: string[]): Promise<Outcome> => run([...socket, ...args]);
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

test('a node is banned by its name, before it is there, and the ban is lifted', async () => {
  const node = 'spiffe://mesh.test/countersign/node/web-1';
  const made = await cli('node', 'ban', 'web-1', '--reason', 'stolen');
  expect(made.out).toBe(
    `banned the node web-1 (${node}) until it is lifted; certificates of its workloads are banned by their own IDs\n`,
  );
  expect((await json('ban', 'list')).items).toMatchObject([
    { kind: 'spiffe-id', value: node, reason: 'stolen' },
  ]);
  expect((await cli('node', 'unban', 'web-1')).out).toBe(`lifted the ban of the node web-1 (${node})\n`);
  expect((await json('ban', 'list')).items).toEqual([]);
});

test('a node alias is shown with what names it, and deleted when nothing does', async () => {
  const file = join(directory, 'edge.yaml');
  const alias = { kind: 'NodeAlias', metadata: { name: 'edge' }, spec: { selectors: ['join_token:web-1'] } };
  const spec = { spiffeId: web, selectors: ['unix:uid:1'], nodes: ['alias:edge'] };
  const named = { kind: 'RegistrationEntry', metadata: { name: 'web' }, spec };
  const documents = [alias, named].map((one) => JSON.stringify({ apiVersion: 'countersign.dev/v1', ...one }));
  writeFileSync(file, documents.join('\n---\n'));
  expect((await cli('apply', '-f', file)).code).toBe(0);
  expect((await cli('node', 'alias', 'list')).out).toMatch(
    /^NAME +REVISION +SELECTORS\nedge +[0-9]+ +join_token:web-1\n$/,
  );
  expect((await cli('node', 'alias', 'show', 'edge')).out).toMatch(/\nnodes +none\nentries +web\n/);
  const refused = await cli('node', 'alias', 'delete', 'edge');
  expect([refused.code, refused.out]).toEqual([2, '']);
  expect(refused.err).toContain('error[node_alias_in_use]');
  expect((await cli('entry', 'delete', 'web')).code).toBe(0);
  expect((await cli('node', 'alias', 'delete', 'edge')).out).toBe('deleted edge\n');
  expect(await json('node', 'alias', 'list')).toMatchObject({ items: [] });
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
  [['node', 'ban', 'web-1'], 64, 'usage'],
  [['node', 'ban', '../up', '--reason', 'y'], 2, 'node_name_invalid'],
  [['node', 'unban', 'web-1'], 2, 'ban_not_found'],
  [['node', 'alias', 'show', 'edge'], 2, 'node_alias_not_found'],
])('%j exits %i with %s', async (args, code, error) => {
  const outcome = await cli(...args);
  expect([outcome.code, outcome.out]).toEqual([code, '']);
  expect(outcome.err).toContain(`error[${error}]`);
});

test('a process of its own exits as the table says', async () => {
  const outcome = await runCli([...socket, 'unban', 'serial', '40ab']);
  expect([outcome.code, outcome.err.includes('error[ban_not_found]')]).toEqual([2, true]);
});
