import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { credentials, status } from '@grpc/grpc-js';
import { afterEach, describe, expect, test } from 'vitest';
import type { CaReport } from '../../src/http/ca-report.ts';
import { CheckResponse } from '../../src/wire/authz.ts';
import { SigningClient } from '../../src/wire/sign.ts';
import { makeCsr } from '../ca/csr-writer.ts';
import { checkBytes } from '../ext-authz/check-input.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { sendCheck } from '../harness/check-client.ts';
import { eventually } from '../harness/eventually.ts';
import { type FullDisk, mayMount, noFileMayGrow, smallDisk } from '../harness/full-disk.ts';
import { ask } from '../harness/http.ts';
import { policy } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { followSecret } from '../harness/sds-stream.ts';
import { makeTempDir } from '../harness/temp.ts';

let scope = createScope();
afterEach(async () => {
  await scope.close();
  scope = createScope();
});

const id = (name: string) => `spiffe://mesh.test/ns/shop/sa/${name}`;
const ways: readonly (readonly [string, FullDisk])[] = [
  ['no file may grow', noFileMayGrow],
  // Where namespaces are forbidden the way above remains.
  ...(mayMount() ? [['its disk is full', smallDisk] as const] : []),
];

describe.each(ways)('when %s', (_, disk) => {
  test('what is issued is served, nothing new is, the cause is named, and it recovers by itself', async () => {
    const directory = makeTempDir(scope);
    const data = join(directory, 'disk');
    mkdirSync(data, { mode: 0o700 });
    const authority = await startAuthority(scope, {
      directory,
      env: {
        COUNTERSIGN_DATA_DIR: join(data, 'data'),
        COUNTERSIGN_ALLOWED_CALLS_WINDOW_SECONDS: '0',
      },
      wrapper: disk.wrapper(data),
    });
    const { pid } = authority.child();
    const keys = () => readdirSync(join(`/proc/${pid}/root`, data, 'data/keys')).sort();
    const own = [`unix:uid:${process.getuid?.() ?? 0}`];
    for (const name of ['web', 'orders']) {
      await post(authority, '/v1/entries', { id: name, spiffeId: id(name), selectors: own });
    }
    await authority.apply(policy('shop', 'all', { rules: [{ to: [{ operation: { methods: ['GET'] } }] }] }));
    const stream = followSecret(scope, authority.workloadSocket, id('web'));
    await eventually('a certificate', () => stream.certificates.length === 1);
    const check = async (method: string) => {
      const input = { principal: id('orders'), destination: id('web'), method };
      const bytes = await sendCheck(authority.workloadSocket, checkBytes(input));
      return {
        code: CheckResponse.decode(bytes).status?.code,
        revision: /revision[^0-9]*([0-9]+)/.exec(bytes.toString())?.[1],
      };
    };
    const before = [await check('GET'), await check('POST')];
    expect(before.map(({ code }) => code)).toEqual([0, 7]);
    const [authorities, files] = [await report(authority), keys()];

    disk.fill(pid, data);
    const filler = policy('shop', 'filler', { rules: [{ to: [{ operation: { methods: ['PUT'] } }] }] });
    const refused = await eventually('a refusal', async () => {
      // What lies in files of the store already may still be overwritten.
      const answer = await post(authority, '/v1/apply', {
        files: [{ file: 'f', text: `${filler}# ${Math.random()}\n` }],
      });
      return answer.status === 200 ? undefined : answer;
    });
    expect([refused.status, refused.json.code]).toEqual([503, 'store_unavailable']);
    const readiness = await ask({ to: authority.adminSocket, path: '/readyz' });
    expect([readiness.status, JSON.parse(readiness.body)]).toMatchObject([
      503,
      { ready: false, causes: [expect.stringMatching(/^store: .*SQLITE_(FULL|IOERR_WRITE)/)] },
    ]);
    expect((await ask({ to: authority.adminSocket, path: '/healthz' })).status).toBe(200);
    for (const scopeOf of ['root', 'intermediate']) {
      const answer = await post(authority, '/v1/ca/rotate', { scope: scopeOf });
      expect([answer.status, answer.json.code]).toEqual([503, 'store_unavailable']);
    }
    expect(await report(authority)).toEqual(authorities);
    expect(keys()).toEqual(files);
    await expect(sign(authority, id('orders'))).rejects.toMatchObject({ code: status.UNAVAILABLE });
    const during = [await check('GET'), await check('POST')];
    expect(during.map(({ code }) => code)).toEqual([0, 7]);
    expect([stream.certificates.length, stream.withdrawals(), stream.ended()]).toEqual([1, 0, undefined]);

    disk.free(pid, data);
    await eventually(
      'it to be ready',
      async () => (await ask({ to: authority.adminSocket, path: '/readyz' })).status === 200,
    );
    await authority.apply(policy('shop', 'more', { rules: [{ to: [{ operation: { methods: ['PUT'] } }] }] }));
    expect(await check('PUT')).toMatchObject({ code: 0 });
    expect(await sign(authority, id('orders'))).toBe(2);
    expect((await post(authority, '/v1/ca/rotate', { scope: 'root' })).status).toBe(200);
    expect(keys().length).toBe(files.length + 2);
    expect(stream.ended()).toBeUndefined();
    // What was decided without room has waited for it: nothing is missing.
    const methods = await eventually('five decisions in the log', async () => {
      const found = (await authority.audit('type=decision')).map(({ method }) => method);
      return found.length >= 5 && found;
    });
    expect(methods).toEqual(['GET', 'POST', 'GET', 'POST', 'PUT']);
    expect(await authority.audit('type=loss')).toEqual([]);
  }, 90_000);
});

// In blocks of 1,024 bytes: the lock, the database, its log and the keys are stopped in turn.
test.each([0, 2, 24, 120])(
  'a start that may write files of %i KiB is refused with the cause',
  (kilobytes) => {
    const directory = makeTempDir(scope);
    const main = join(import.meta.dirname, '../../src/cli/main.ts');
    const script = `ulimit -f ${kilobytes}; exec "$@"`;
    const args = [
      main,
      'up',
      '--data-dir',
      join(directory, 'data'),
      '--workload-socket',
      join(directory, 'w.sock'),
    ];
    const found = spawnSync(
      'bash',
      ['-c', script, 'bash', process.execPath, ...args, '--admin-address', 'off'],
      {
        encoding: 'utf8',
        env: { ...process.env, COUNTERSIGN_ADMIN_SOCKET: join(directory, 'a.sock') },
        timeout: 50_000,
      },
    );
    expect([found.status, found.stderr]).toEqual([69, expect.stringContaining('error[store_unavailable]')]);
    expect(found.stderr).not.toContain('a mistake of ours');
  },
);

describe.runIf(mayMount())('a start on a disk of its own', () => {
  const inNamespace = (script: string, directory: string, data: string) => {
    const main = join(import.meta.dirname, '../../src/cli/main.ts');
    // Until it is ready or has ended, however long the machine takes.
    const up = `{
      : >"$0.log"
      "$1" "$2" up --data-dir "$3" --workload-socket "$0.w" --admin-address off >"$0.log" 2>&1 & up=$!
      for _ in {1..400}; do
        if [ -z "$(jobs -pr)" ] || grep -q "Ctrl-C stops" "$0.log"; then break; fi
        sleep 0.1
      done
      kill $up 2>/dev/null; wait $up; code=$?
      cat "$0.log"; echo "exit $code"; }`;
    const found = spawnSync(
      'unshare',
      [
        '--user',
        '--map-root-user',
        '--mount',
        'bash',
        '-c',
        script.replaceAll('UP', up),
        directory,
        process.execPath,
        main,
        data,
      ],
      {
        encoding: 'utf8',
        env: { ...process.env, COUNTERSIGN_ADMIN_SOCKET: `${directory}.a` },
        timeout: 100_000,
      },
    );
    return found.stdout + found.stderr;
  };
  const mount = (options: string) => `mount -t tmpfs -o ${options},mode=700 tmpfs "$0" && `;

  test.each(['4k', '100k', '192k'])(
    'of %s is refused with the cause, and goes on where there is room',
    (size) => {
      const directory = join(makeTempDir(scope), 'disk');
      mkdirSync(directory, { mode: 0o700 });
      const script = `${mount(`size=${size}`)} UP; mount -o remount,size=30m "$0"; UP`;
      const output = inNamespace(script, directory, join(directory, 'data'));
      const [first = '', second = ''] = output.split('exit ').slice(0, 2);
      expect([first.includes('trust domain'), second]).toEqual([
        false,
        expect.stringMatching(/^69\n[^]*state +ready/),
      ]);
      expect(output).toContain('error[store_unavailable]');
      expect(output).not.toContain('a mistake of ours');
    },
  );

  test.each([
    ['with data on it', 'data', 'store_unavailable', 69],
    ['without', 'new', 'file_permissions', 77],
  ])('that is read-only, %s, is refused with the cause', (_, name, code, exit) => {
    const directory = join(makeTempDir(scope), 'disk');
    mkdirSync(directory, { mode: 0o700 });
    const script = `${mount('size=30m')} mkdir -m 700 "$0/data" && mount -o remount,ro "$0" && UP`;
    const output = inNamespace(script, directory, join(directory, name));
    expect(output).toContain(`error[${code}]`);
    expect(output).toContain(`exit ${exit}`);
    expect(output).not.toContain('a mistake of ours');
  });
});

async function post(authority: Authority, path: string, body: object) {
  const answer = await ask({
    to: authority.adminSocket,
    method: 'POST',
    path,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return { status: answer.status, json: JSON.parse(answer.body) as { code?: string } };
}

/** Has a new key certified for an identity of ours. @returns the length of the chain */
function sign({ workloadSocket }: Authority, spiffeId: string): Promise<number> {
  const client = new SigningClient(`unix:${workloadSocket}`, credentials.createInsecure());
  const request = { csr: Buffer.from(makeCsr()), spiffeId, ttlSeconds: 0n };
  return new Promise<number>((resolve, reject) => {
    client.signX509(request, (error, answer) =>
      error === null ? resolve(answer.certificates.length) : reject(error),
    );
  }).finally(() => client.close());
}

async function report(authority: Authority): Promise<CaReport['authorities']> {
  return (JSON.parse((await ask({ to: authority.adminSocket, path: '/v1/ca' })).body) as CaReport)
    .authorities;
}
