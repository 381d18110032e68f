import { createPrivateKey, X509Certificate } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { writeSvidFiles } from '../../src/cli/svid-files.ts';
import type { FetchedSvid } from '../../src/cli/svid-stream.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { makeKey, makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { startChild } from '../harness/child.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { main, openCli, runCli } from './run-cli.ts';

const scope = createScope();
afterAll(() => scope.close());
const directory = makeTempDir(scope);
const run = openCli(scope, { cwd: directory });
const names = ['bundle.pem', 'key.pem', 'svid.pem', 'svid.tlog-proof'];

describe('against a server', () => {
  const id = 'spiffe://mesh.test/ns/shop/sa/shell';
  let authority: Authority;
  let socket: string[];
  beforeAll(async () => {
    authority = await startAuthority(scope, { directory });
    socket = ['--workload-socket', authority.workloadSocket];
  });

  test('a process without an entry is told what it is seen as', async () => {
    const { code, err } = await runCli(['svid', 'fetch', ...socket, '--timeout', '1s', '-o', 'json']);
    expect(code).toBe(77);
    const { error } = JSON.parse(err) as { error: { code: string; fix: string } };
    expect(error.code).toBe('identity_none');
    expect(error.fix).toContain(`unix:uid:${process.geteuid?.()}`);
    expect(error.fix).toContain(`unix:path:${process.execPath}`);
  });

  test('fetch shows the certificate and writes it; watch sees it change', async () => {
    await authority.apply(
      JSON.stringify({
        apiVersion: 'countersign.dev/v1',
        kind: 'RegistrationEntry',
        metadata: { name: 'shell' },
        spec: { spiffeId: id, selectors: [`unix:uid:${process.geteuid?.()}`], ttlSeconds: 20 },
      }),
    );
    const target = join(directory, 'certs');
    const fetched = await runCli(['svid', 'fetch', ...socket, '--write', target, '-o', 'json']);
    expect(fetched).toMatchObject({ code: 0, err: '' });
    expect(JSON.parse(fetched.out)).toMatchObject({
      ok: true,
      directory: target,
      facts: { certificates: [{ spiffeId: id }, { ca: true }], trust: { anchor: { ca: true } } },
    });
    expect(fetched.out).not.toContain('PRIVATE');
    expectPair(target);

    const key = await run(['audit', 'key', '--socket', authority.adminSocket]);
    const proof = ['--proof', join(target, 'svid.tlog-proof'), '--key', key.out.trimEnd()];
    const verify = async (certificate: string) =>
      run(['audit', 'verify', ...proof, '--certificate', join(target, certificate), '-o', 'json']);
    const proven = await verify('svid.pem');
    expect([proven.code, JSON.parse(proven.out)]).toMatchObject([
      0,
      { verified: true, origin: 'mesh.test/audit', certificate: { spiffeId: id, serial: serialOf(target) } },
    ]);
    // Neither a CA nor a key passes for it.
    expect((await verify('bundle.pem')).code).toBe(2);
    expect((await verify('key.pem')).code).toBe(2);

    const other = await run(['svid', 'fetch', ...socket, '--spiffe-id', id]);
    expect(other.out).toMatch(new RegExp(`^SPIFFE ID +${id}\n[^]*expires in 1?[0-9] s[^]*no rule broken\n$`));
    const wrong = await run(['svid', 'fetch', ...socket, '--spiffe-id', `${id}x`, '--timeout', '1s']);
    expect([wrong.code, wrong.out]).toEqual([77, '']);

    const watch = startChild(scope, {
      command: process.execPath,
      args: [main, 'svid', 'watch', ...socket, '--write', target],
      logFile: join(directory, 'watch.log'),
    });
    const lines = (): string[] =>
      watch
        .output()
        .split('\n')
        .filter((line) => line.includes(id));
    await eventually('two rotations', () => lines().length >= 2, { withinMs: 15_000 });
    const serials = lines().map((line) => / serial ([0-9a-f]+) /.exec(line)?.[1]);
    expect(new Set(serials).size).toBe(serials.length);
    await eventually(
      'the files to follow',
      () =>
        serialOf(target) ===
        lines()
          .at(-1)
          ?.match(/serial ([0-9a-f]+)/)?.[1],
    );
    expectPair(target);

    const jwt = ['svid', 'fetch', '--jwt', '--audience', 'orders', 'billing'];
    const token = await runCli([...jwt], {
      env: { SPIFFE_ENDPOINT_SOCKET: `unix://${authority.workloadSocket}` },
    });
    expect([token.code, token.err]).toEqual([0, '']);
    const [, payload = ''] = token.out.split('.');
    expect(JSON.parse(Buffer.from(payload, 'base64url').toString())).toMatchObject({
      sub: id,
      aud: ['orders', 'billing'],
    });
    const named = await run([...jwt, ...socket, '--spiffe-id', id, '-o', 'json']);
    expect(JSON.parse(named.out)).toMatchObject({ svids: [{ spiffeId: id }] });
    const refused = await run([...jwt, ...socket, '--spiffe-id', `${id}x`, '-o', 'json']);
    expect([refused.code, JSON.parse(refused.err)]).toMatchObject([77, { error: { code: 'identity_none' } }]);

    await authority.kill();
    await eventually('the loss to be said', () => watch.output().includes('trying again'));
    watch.kill('SIGINT');
    expect(await watch.exited).toBe(0);
    expect(watch.output()).not.toContain('PRIVATE');
  });
});

test.each([
  [['--workload-socket', join(directory, 'nowhere.sock')], 69, 'server_unreachable'],
  [['--spiffe-id', 'web'], 2, 'spiffe_id_scheme'],
  [['--spiffe-id', 'spiffe://mesh.test'], 2, 'spiffe_id_path_missing'],
  [['--timeout', 'soon'], 64, 'usage'],
  [['--jwt'], 64, 'usage'],
  [['--audience', 'orders'], 64, 'usage'],
  [['--jwt', '--audience', 'orders', '--write', './certs'], 64, 'usage'],
  [
    ['--jwt', '--audience', 'orders', '--workload-socket', join(directory, 'nowhere.sock')],
    69,
    'server_unreachable',
  ],
])('fetch %j exits %i with %s', async (args, exitCode, code) => {
  const outcome = await run(['svid', 'fetch', ...args, '-o', 'json']);
  expect(outcome.code).toBe(exitCode);
  expect(JSON.parse(outcome.err)).toMatchObject({ error: { code } });
});

describe('the files', () => {
  let ca: TestAuthority;
  let target: string;
  let number = 0;
  beforeAll(async () => {
    ca = await makeTestAuthority(new Date());
  });
  beforeEach(() => {
    number += 1;
    target = join(directory, `files-${number}`);
  });
  const issue = async (changes: Partial<FetchedSvid> = {}): Promise<FetchedSvid> => {
    const key = makeKey('ec-prime256v1');
    const id = SpiffeId.parse('spiffe://example.org/web');
    const request = { id, publicKey: key.spki, dnsNames: [], ttlSeconds: 600 };
    const { certificates } = await ca.authority.sign(ca.authority.prepare(request, new Date()));
    const privateKeyPem = encodePem('PRIVATE KEY', key.pkcs8);
    const authorities = [ca.root.certificate];
    return { certificates, privateKeyPem, authorities, proof: 'c2sp.org/tlog-proof@v1\n', ...changes };
  };

  test('are swapped in one step, and nothing old stays', async () => {
    for (let i = 0; i < 3; i++) {
      writeSvidFiles(target, await issue());
      expectPair(target);
      expect(readdirSync(target).toSorted()).toEqual(
        ['..data', readlinkSync(join(target, '..data')), ...names].toSorted(),
      );
    }
    expect(statSync(target).mode & 0o777).toBe(0o700);
    expect(readlinkSync(join(target, 'svid.pem'))).toBe('..data/svid.pem');
  });

  test('that a killed run left half done are cleared away', async () => {
    writeSvidFiles(target, await issue());
    mkdirSync(join(target, '..svid_0123456789abcdef'));
    symlinkSync('x', join(target, '..data_0123456789abcdef'));
    mkdirSync(join(target, '..other'));
    writeSvidFiles(target, await issue());
    expect(readdirSync(target).filter((name) => /0123456789abcdef/.test(name))).toEqual([]);
    expect(existsSync(join(target, '..other'))).toBe(true);
    expectPair(target);
  });

  test.each<[string, () => void]>([
    ['a file of that name', () => writeFileSync(join(target, 'key.pem'), 'mine')],
    ['a directory that others write', () => chmodSync(target, 0o777)],
    ['a directory of that name', () => mkdirSync(join(target, '..data'))],
  ])('are not written over %s', async (_, spoil) => {
    mkdirSync(target, { mode: 0o700 });
    spoil();
    const before = readdirSync(target);
    const svid = await issue();
    expect(() => writeSvidFiles(target, svid)).toThrow(expect.objectContaining({ code: 'file_permissions' }));
    expect(readdirSync(target)).toEqual(before);
  });

  test('are not written through a link, nor where a file stands', async () => {
    const svid = await issue();
    symlinkSync(directory, target);
    expect(() => writeSvidFiles(target, svid)).toThrow(expect.objectContaining({ code: 'file_permissions' }));
    writeFileSync(`${target}-file`, '');
    expect(() => writeSvidFiles(`${target}-file`, svid)).toThrow(
      expect.objectContaining({ code: 'file_permissions' }),
    );
  });

  test('of a key that belongs to another certificate are not written', async () => {
    const { privateKeyPem } = await issue();
    for (const changes of [{ privateKeyPem }, { privateKeyPem: 'junk' }, { certificates: [] }]) {
      const svid = await issue(changes);
      expect(() => writeSvidFiles(target, svid)).toThrow(expect.objectContaining({ code: 'svid_invalid' }));
    }
    expect(existsSync(target)).toBe(false);
  });
});

/** The three files belong together, and only their owner reads the key. */
function expectPair(target: string): void {
  const read = (name: string): string => readFileSync(join(target, name), 'utf8');
  const leaf = new X509Certificate(read('svid.pem'));
  expect(leaf.checkPrivateKey(createPrivateKey(read('key.pem')))).toBe(true);
  expect(new X509Certificate(read('bundle.pem')).ca).toBe(true);
  expect(statSync(join(target, 'key.pem')).mode & 0o777).toBe(0o600);
  for (const name of names) expect(lstatSync(join(target, name)).isSymbolicLink()).toBe(true);
}

function serialOf(target: string): string {
  return new X509Certificate(readFileSync(join(target, 'svid.pem'))).serialNumber.toLowerCase();
}
