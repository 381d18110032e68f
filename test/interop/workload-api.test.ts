import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startChild } from '../harness/child.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope, type Scope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { entry } from '../workload-api/entries.ts';
import { type RunningWorkloadApi, startWorkloadApi, until } from '../workload-api/harness.ts';
import { createAuthority } from '../xds/certificates.ts';
import { buildGoClient, goIsHere, runClient } from './go-client.ts';
import { pythonWith } from './python-packages.ts';

// Two independent clients of the Workload API. Without Go, python3 or the network they are skipped, but never in CI.
const python = pythonWith('spiffe-0.3.2', [
  'spiffe==0.3.2',
  'cffi==2.1.1',
  'cryptography==50.0.2',
  'grpcio==1.85.1',
  'pem==23.1.0',
  'protobuf==7.36.2',
  'pyasn1==0.6.5',
  'pyasn1_modules==0.4.2',
  'pycparser==3.12',
  'PyJWT==2.15.1',
  'typing_extensions==4.16.0',
]);
const script = fileURLToPath(new URL('./spiffe_client.py', import.meta.url));

let scope: Scope;
let door: RunningWorkloadApi;
beforeEach(async () => {
  scope = createScope();
  door = await startWorkloadApi(scope);
});
afterEach(() => scope.close());

type Line = Record<string, unknown> & { readonly event: string };

/** Runs a client to its end. @returns its lines */
async function lines(command: string, args: readonly string[]): Promise<{ code: number; lines: Line[] }> {
  const { code, output } = await runClient(command, args);
  return { code, lines: linesOf(output) };
}

function linesOf(output: string): Line[] {
  // The last line may be half written.
  const found = output.split('\n').slice(0, -1);
  return found.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Line);
}

const web = 'spiffe://example.org/web';

describe.skipIf(!goIsHere())('go-spiffe', () => {
  let client: string;
  beforeAll(async () => {
    client = await buildGoClient('spiffeclient');
  }, 600_000);
  const go = (mode: string, ...args: readonly string[]) =>
    lines(client, [mode, '-socket', `unix://${door.path}`, ...args]);

  test('fetches certificates and bundles, foreign ones too, and verifies the chain', async () => {
    door.register([entry('/orders', { hint: 'h' }), entry('/web', { hint: 'h' })]);
    door.publish(1, (await createAuthority('other.example')).bundle);
    const { code, lines: said } = await go('fetch');
    const bundles = { 'example.org': 1, 'other.example': 1 };
    expect(said).toMatchObject([
      {
        event: 'x509',
        // Were the hint there twice, go-spiffe would drop the second.
        svids: [
          { id: 'spiffe://example.org/orders', hint: 'h', chain: 2, verified: true },
          { id: web, hint: '', chain: 2, verified: true },
        ],
        bundles,
      },
      { event: 'x509_bundles', bundles },
      { event: 'jwt_bundles', keys: { 'example.org': ['k1'] } },
    ]);
    expect(code).toBe(0);
  });

  test('follows a renewal, survives a ban and comes back after it', { timeout: 60_000 }, async () => {
    door.register([entry('/web')]);
    const watching = startChild(scope, {
      command: client,
      args: ['watch', '-socket', `unix://${door.path}`, '-for', '120s'],
      logFile: join(makeTempDir(scope), 'watch.log'),
    });
    const serials = () =>
      linesOf(watching.output())
        .filter(({ event }) => event === 'x509')
        .map(({ svids }) => (svids as { serial: string }[])[0]!.serial);
    await until(() => door.streams() === 3 && door.deliveries.length === 1);
    await eventually('the first certificate', () => serials().length === 1);
    door.register([entry('/web', { dnsNames: ['web.test'], revision: 2 })]);
    await until(() => door.deliveries.length === 2);
    door.publishJwt(2);
    door.ban(web);
    await until(() => door.refusals.length > 0);
    door.ban();
    // The keeper forgets the certificate of a banned identity: what comes after it is a third one.
    await eventually('a third certificate', () => new Set(serials()).size === 3);
    await watching.stop();
    const said = linesOf(watching.output());
    expect(new Set(serials()).size).toBe(3);
    expect(said.filter(({ event }) => event === 'watch_error')[0]).toMatchObject({
      code: 'PermissionDenied',
    });
    expect(said.at(-1)).toMatchObject({ event: 'watch_end' });
  });

  test('fetches tokens that the server and go-spiffe validate', async () => {
    door.register([entry('/orders'), entry('/web')]);
    const { code, lines: said } = await go('jwt', '-aud', 'a,b');
    expect([code, said.map(({ event, id }) => `${event} ${String(id).split('/').at(-1)}`)]).toEqual([
      0,
      ['orders', 'web'].flatMap((id) => [`jwt ${id}`, `validated_by_server ${id}`, `validated_here ${id}`]),
    ]);
    const one = await go('jwt', '-aud', 'a', '-sub', web);
    expect(one.lines.filter(({ event }) => event === 'jwt')).toMatchObject([{ id: web, aud: ['a'] }]);
    const token = String(one.lines[0]?.['token']);
    const { lines: other } = await go('validate', '-aud', 'b', '-token', token);
    expect(other).toMatchObject(
      [
        { event: 'refused_by_server', code: 'InvalidArgument', error: /jwt_audience_mismatch: / },
        { event: 'refused_here' },
      ].map(({ error, ...rest }) =>
        error === undefined ? rest : { ...rest, error: expect.stringMatching(error) as string },
      ),
    );
  });

  test.each([
    ['fetch', [], 'PermissionDenied'],
    ['jwt', ['-aud', 'a'], 'PermissionDenied'],
  ])('%s is refused without an entry', async (mode, args, code) => {
    const { code: exit, lines: said } = await go(mode, ...args);
    expect([exit, said]).toMatchObject([1, [{ event: 'failed', code }]]);
  });

  test('learns that WIT-SVIDs are not served', async () => {
    door.register([entry('/web')]);
    expect((await go('wit')).lines).toMatchObject([{ event: 'wit', code: 'Unimplemented' }]);
  });
});

describe.skipIf(python === undefined)("Python's spiffe", () => {
  test('fetches, validates and follows a renewal', { timeout: 90_000 }, async () => {
    door.register([entry('/web', { hint: 'h' })]);
    const running = lines(python ?? '', [script, 'all', `unix://${door.path}`, 'example.org']);
    await until(
      () => door.streams() === 1 && door.answered.filter((call) => call === 'x509_svid').length === 2,
      20_000,
    );
    door.register([entry('/web', { hint: 'h', dnsNames: ['web.test'], revision: 2 })]);
    const { code, lines: said } = await running;
    const [serial] = said.filter(({ event }) => event === 'context').map((one) => one['serial']);
    expect(said.find(({ event }) => event === 'seen')).toMatchObject({
      id: web,
      chain: 2,
      authorities: 1,
      context_authorities: 1,
      token_of: web,
      validated_by_server: web,
      validated_here: web,
      refused: expect.stringContaining('jwt_audience_mismatch') as string,
      watched: { serials: [serial, expect.not.stringMatching(String(serial)) as string], errors: [] },
    });
    expect(code).toBe(0);
  });

  test('is refused without an entry', { timeout: 60_000 }, async () => {
    const { lines: said } = await lines(python ?? '', [script, 'refused', `unix://${door.path}`]);
    expect(said).toHaveLength(3);
    for (const { error } of said) expect(error).toContain('no registration entry matches the caller');
  });
});
