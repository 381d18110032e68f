import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { formatJwtKeys } from '../../src/cli/jwt-key-report.ts';
import type { Child } from '../harness/child.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { openCli, type Outcome, runCli } from './run-cli.ts';
import { startUp } from './up-child.ts';

const scope = createScope();
const dir = makeTempDir(scope);
const data = join(dir, 'data');
const web = 'spiffe://mesh.internal/ns/shop/sa/web';
let server: Child;

beforeAll(async () => {
  const args = [
    '--workload-socket',
    join(dir, 'w.sock'),
    '--admin-address',
    'off',
    '--jwt-ttl-seconds',
    '120',
  ];
  server = await startUp(scope, dir, [...args, '--jwt-issuer', 'https://oidc.example.org']);
  expect((await cli('entry', 'create', 'web', '--spiffe-id', web, '--selector', 'unix:uid:4711')).code).toBe(
    0,
  );
}, 60_000);
afterAll(() => scope.close());

const run = openCli(scope, { cwd: dir });
const cli = (...args: string[]): Promise<Outcome> => run(['--data-dir', data, ...args]);
const mint = (...args: string[]): Promise<Outcome> =>
  cli('jwt', 'mint', '--spiffe-id', web, '--audience', 'db', ...args);

test('what is minted is a token and nothing else, and whoever reads the log does not get it', async () => {
  const { code, out, err } = await mint('--audience', 'cache', '--ttl', '60s');
  expect([code, err]).toEqual([0, '']);
  expect(out).toMatch(/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\n$/);
  const token = out.trim();
  writeFileSync(join(dir, 'token.jwt'), out);
  const valid = await cli('jwt', 'validate', 'token.jwt', '--audience', 'cache', '-o', 'json');
  expect(JSON.parse(valid.out)).toMatchObject({
    spiffeId: web,
    audiences: ['db', 'cache'],
    claims: { iss: 'https://oidc.example.org', sub: web },
  });
  const piped = await runCli(['--data-dir', data, 'jwt', 'validate', '-', '--audience', 'db'], {
    stdin: token,
  });
  expect([piped.code, piped.out.includes(`SPIFFE ID  ${web}`)]).toEqual([0, true]);
  const log = await cli('audit', 'list', '--type', 'jwt_issuance', '-o', 'json');
  expect(log.out).toContain(web);
  for (const part of [token, token.split('.')[2] ?? '']) {
    expect(log.out).not.toContain(part);
    expect(server.output()).not.toContain(part);
  }
  const table = await cli('audit', 'list', '--type', 'jwt_issuance');
  expect(table.out).toMatch(/sa\/web for db, cache token [0-9a-f]{32} until .* by uid /);
});

test('with -o json the token comes with what it says', async () => {
  const { out } = await mint('-o', 'json');
  const { issuedAt, expiresAt, ...rest } = JSON.parse(out);
  expect(rest).toMatchObject({ spiffeId: web, audiences: ['db'], entryId: 'web' });
  // As the server is configured.
  expect(Date.parse(expiresAt) - Date.parse(issuedAt)).toBe(120_000);
});

test('the keys it prints verify a token without the server', async () => {
  writeFileSync(join(dir, 'keys.json'), (await cli('jwt', 'bundle')).out);
  writeFileSync(join(dir, 'token.jwt'), (await mint()).out);
  const { code, out } = await runCli(['inspect', 'jwt', 'token.jwt', '--bundle', 'keys.json'], { cwd: dir });
  expect([code, out.includes(web)]).toEqual([0, true]);
});

test.each<[string[], number, string]>([
  [['jwt', 'mint', '--audience', 'db'], 64, 'usage'],
  [['jwt', 'mint', '--spiffe-id', web], 64, 'usage'],
  [['jwt', 'mint', '--spiffe-id', web, '--entry', 'web', '--audience', 'db'], 64, 'usage'],
  [['jwt', 'mint', '--spiffe-id', `${web}-not`, '--audience', 'db'], 2, 'entry_not_found'],
  [['jwt', 'mint', '--entry', 'web', '--audience', ''], 2, 'jwt_audience_invalid'],
  [['jwt', 'mint', '--entry', 'web', '--audience', 'db', '--ttl', '1s'], 2, 'profile_invalid'],
  [['jwt', 'validate', 'none.jwt', '--audience', 'db'], 2, 'file_missing'],
  [['jwt', 'validate', 'none.jwt'], 64, 'usage'],
  [['ca', 'rotate', '--root', '--jwt'], 64, 'usage'],
  [['ca', 'activate', '--jwt'], 2, 'rotation_out_of_order'],
  [['ca', 'retire', '--jwt'], 2, 'rotation_out_of_order'],
])('%j is refused', async (args, exit, code) => {
  const { code: got, out, err } = await cli(...args);
  expect([got, out, err.includes(`error[${code}]`), err]).toEqual([exit, '', true, err]);
});

test('a rotation of the keys, seen in the status', async () => {
  const token = (await mint()).out;
  writeFileSync(join(dir, 'token.jwt'), token);
  expect((await cli('ca', 'status')).out).toMatch(/JWT next {3,}a new JWT key is made at /);
  expect((await cli('ca', 'rotate', '--jwt')).out).toMatch(/[0-9a-f]{40} +ec-p256 +prepared/);
  const early = await cli('ca', 'activate', '--jwt');
  expect(early.err).toMatch(/error\[rotation_unproven\]: a validator may not have the new JWT key before 20/);
  expect((await cli('ca', 'activate', '--jwt', '--force')).out).toMatch(/[0-9a-f]{40} +ec-p256 +retiring/);
  expect((await cli('jwt', 'validate', 'token.jwt', '--audience', 'db')).code).toBe(0);
  const kid = JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString()).kid as string;
  expect((await cli('ca', 'taint', kid)).code).toBe(0);
  expect((await cli('jwt', 'validate', 'token.jwt', '--audience', 'db')).err).toContain(
    'error[jwt_key_unknown]',
  );
  expect((await cli('audit', 'list', '--type', 'jwt_key')).out).toContain(
    `tainted JWT key of mesh.internal ${kid}`,
  );
}, 60_000);

test('the report is a table that nothing in it can break', () => {
  const text = formatJwtKeys({
    jwtBundleSequence: 2,
    jwtKeys: [
      {
        keyId: 'a\u001b[2J\nb',
        keyType: 'ec-p256',
        state: 'retiring',
        publishedAt: 'p',
        activatedAt: 'a',
        stoppedAt: 's',
        lastTokenExpiresAt: null,
      },
    ],
    jwtNext: [{ step: 'retire', keyId: 'a\u001b', safeFrom: 'x', byItselfAt: 'x' }],
  });
  expect(text).toContain('a\\u001b[2J\\u000ab');
  expect(text).not.toContain('\u001b');
});
