import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { SealingSecret } from '../src/ca/key-envelope.ts';
import { type Config, type ConfigText, loadConfig } from '../src/config.ts';
import type { CaReport } from '../src/http/ca-report.ts';
import { openLog } from '../src/log.ts';
import { TrustDomain } from '../src/spiffe/id.ts';
import { encodePem } from '../src/spiffe/pem.ts';
import { type Running, startUp } from '../src/up.ts';
import { importChain, initOfflineRoot, readWaitingRequest, type SetUp } from '../src/up-hierarchy.ts';
import {
  checkRootTask,
  createOfflineRoot,
  type OfflineRoot,
  readOfflineRoot,
  signRootTask,
} from '../src/up-offline-root.ts';
import { attributes, extensionRequest, makeCsr } from './ca/csr-writer.ts';
import { makeKey, makeTestAuthority } from './ca/test-authority.ts';
import { ask } from './harness/http.ts';
import { altNames, uri } from './spiffe/odd-certificate.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const secret: SealingSecret = { kind: 'random_key', bytes: Buffer.alloc(32, 9) };
let directory: string;
let running: Running | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cs-hierarchy-'));
});

afterEach(async () => {
  await running?.close();
  running = undefined;
  rmSync(directory, { recursive: true, force: true });
});

const code = (expected: string) => expect.objectContaining({ code: expected }) as Error;
const path = (name: string) => join(directory, name);

function config(changes: ConfigText = {}): Config {
  return loadConfig({ flags: { ...flags(), ...changes }, environment: {}, file: null, isRoot: false });
}

function flags(): ConfigText {
  return {
    dataDir: path('data'),
    trustDomain: 'mesh.test',
    workloadSocket: path('w.sock'),
    adminSocket: path('a.sock'),
    adminAddress: 'off',
    shutdownGraceSeconds: '0',
  };
}

async function makeRoot(name = 'root', keyType = 'ec-p256'): Promise<OfflineRoot> {
  return createOfflineRoot({
    dir: path(name),
    trustDomain,
    keyType,
    ttlSeconds: undefined,
    nameConstraints: 'off',
    secret,
  });
}

async function sign(csr: Uint8Array, name = 'root', ttlSeconds?: number): Promise<string> {
  const root = readOfflineRoot(path(name));
  const task = checkRootTask(root, csr, undefined);
  const options = { dir: path(name), ttlSeconds, nameConstraints: 'off', secret };
  return (await signRootTask(root, task, options)).chainPem;
}

const take = (text: string, changes: ConfigText = {}) =>
  importChain(config(changes), { file: 'chain.pem', text });
const csrOf = ({ request }: SetUp) => request?.csr ?? new Uint8Array(0);

describe('before the first start', () => {
  test('init, csr, import, up', async () => {
    await makeRoot('root', 'ec-p384');
    const made = await initOfflineRoot(config({ authorityKeyType: 'ec-p384' }));
    expect((await readWaitingRequest(config())).request).toEqual(made.request);
    // Told again, it makes no second key.
    expect((await initOfflineRoot(config())).request).toEqual(made.request);
    await expect(startUp(config(), openLog('silent'))).rejects.toThrow(code('authority_waiting'));
    const done = await take(await sign(csrOf(made)));
    expect(done.authorities.map(({ kind, state, offline }) => [kind, state, offline])).toEqual([
      ['root', 'active', true],
      ['intermediate', 'active', false],
    ]);
    await expect(take(await sign(csrOf(made)))).rejects.toThrow(code('csr_not_waiting'));
    await expect(readWaitingRequest(config())).rejects.toThrow(code('csr_not_waiting'));
    await expect(initOfflineRoot(config())).rejects.toThrow(code('authority_exists'));
    running = await startUp(config(), openLog('silent'));
    expect(await running.status()).toMatchObject({ ready: true, warnings: [] });
    // The root has no key here.
    const keys = readdirSync(path('data/keys')).filter((file) => file.endsWith('.json'));
    expect(keys).toContain(`${made.request?.keyId}.json`);
    expect(keys).not.toContain(`${readOfflineRoot(path('root')).keyId}.json`);
  });

  test('a running server keeps the commands out, and a server that has made its own CA has no such key', async () => {
    running = await startUp(config(), openLog('silent'));
    await expect(initOfflineRoot(config())).rejects.toThrow(code('store_locked'));
    await running.close();
    running = undefined;
    await expect(initOfflineRoot(config())).rejects.toThrow(code('authority_exists'));
  });

  test('another trust domain than the directory has', async () => {
    await initOfflineRoot(config());
    await expect(initOfflineRoot(config({ trustDomain: 'other.test' }))).rejects.toThrow(
      code('config_invalid'),
    );
  });

  test('an import into a directory that nobody has prepared settles no trust domain', async () => {
    await makeRoot();
    const chain = await sign(csrFor('ec-prime256v1', 'spiffe://mesh.test'));
    await expect(take(chain, { trustDomain: 'other.test' })).rejects.toThrow(code('csr_not_waiting'));
    expect((await initOfflineRoot(config())).trustDomain.name).toBe('mesh.test');
  });

  test('a chain that is refused changes nothing', async () => {
    await makeRoot();
    const made = await initOfflineRoot(config());
    const good = await sign(csrOf(made));
    await makeRoot('other');
    const foreign = await sign(csrFor('ec-prime256v1', 'spiffe://mesh.test'), 'other');
    const [intermediate = '', root = ''] = good.split(/(?<=-----END CERTIFICATE-----\n)/);
    for (const [text, expected] of [
      [foreign, 'chain_key_mismatch'],
      [intermediate, 'chain_root_missing'],
      [root + intermediate, 'chain_root_missing'],
      [intermediate + readOfflineRoot(path('other')).certificatePem, 'chain_broken'],
      ['', 'chain_malformed'],
    ] as const) {
      await expect(take(text)).rejects.toThrow(code(expected));
      expect((await readWaitingRequest(config())).request).toEqual(made.request);
    }
    await take(good);
  });

  test('the key must open: with another passphrase nothing is taken in', async () => {
    await makeRoot();
    const [first, second] = [path('first'), path('second')];
    writeFileSync(first, 'the first passphrase', { mode: 0o600 });
    writeFileSync(second, 'the second passphrase', { mode: 0o600 });
    const made = await initOfflineRoot(config({ passphraseFile: first }));
    const chain = await sign(csrOf(made));
    await expect(take(chain, { passphraseFile: second })).rejects.toThrow(code('key_passphrase_wrong'));
    await take(chain, { passphraseFile: first });
  });
});

describe('SIGKILL', () => {
  test.each<['init' | 'import', string, 'waits' | 'nothing' | 'done']>([
    ['init', 'keys_sealed', 'nothing'],
    ['init', 'stored', 'waits'],
    ['import', 'stored', 'done'],
    ['import', 'published', 'done'],
    ['import', 'signer_switched', 'done'],
  ])(
    'of %s at %s leaves what was stored, and the next one goes on',
    async (step, failpoint, left) => {
      await makeRoot();
      const chain = step === 'import' ? await sign(csrOf(await initOfflineRoot(config()))) : '';
      expect(await die({ step, failpoint, chain })).toBe('SIGKILL');
      if (left === 'done') {
        await expect(take(chain)).rejects.toThrow(code('csr_not_waiting'));
      } else {
        const again = await initOfflineRoot(config());
        await take(await sign(csrOf(again)));
      }
      running = await startUp(config(), openLog('silent'));
      expect(await running.status()).toMatchObject({ ready: true });
      expect((await report()).authorities.map(({ state }) => state)).toEqual(['active', 'active']);
    },
    60_000,
  );
});

test('a live server: the key that waits, refusals by code, and the import', async () => {
  await makeRoot();
  await take(await sign(csrOf(await initOfflineRoot(config()))));
  running = await startUp(config(), openLog('silent'));
  expect(await call('GET', 'csr')).toMatchObject({ status: 404, body: { code: 'csr_not_waiting' } });
  const imported = (pem: string) => call('POST', 'import', { pem, file: 'x.pem' });
  expect(await imported(readOfflineRoot(path('root')).certificatePem)).toMatchObject({
    status: 404,
    body: { code: 'csr_not_waiting' },
  });
  expect((await call('POST', 'rotate', { scope: 'root' })).status).toBe(200);
  expect(await call('POST', 'rotate', { scope: 'intermediate' })).toMatchObject({
    body: { code: 'rotation_out_of_order' },
  });
  const { body } = await call('GET', 'csr');
  const csr = Buffer.from(String(body['pem']));
  expect(await imported('nonsense')).toMatchObject({
    status: 400,
    body: { code: 'chain_malformed', place: { file: 'x.pem' } },
  });
  expect((await imported(await sign(csr, 'root', 3_600 * 24))).status).toBe(200);
  const after = await report();
  expect(after.authorities.map(({ kind, state }) => `${kind} ${state}`)).toEqual([
    'root active',
    'intermediate retiring',
    'intermediate active',
  ]);
});

describe('ca root', () => {
  test('a directory that holds something is left alone', async () => {
    await makeRoot();
    const before = readFileSync(path('root/root.pem'), 'utf8');
    await expect(makeRoot()).rejects.toThrow(code('file_exists'));
    expect(readFileSync(path('root/root.pem'), 'utf8')).toBe(before);
  });

  test.each<[string, () => Uint8Array, string]>([
    ['another trust domain', () => csrFor('ec-prime256v1', 'spiffe://other.test'), 'csr_trust_domain'],
    ['the ID of a workload', () => csrFor('ec-prime256v1', 'spiffe://mesh.test/web'), 'csr_trust_domain'],
    ['no name', () => csrFor('ec-prime256v1'), 'csr_trust_domain'],
    ['two names', () => csrFor('ec-prime256v1', 'spiffe://mesh.test', 'spiffe://a'), 'csr_trust_domain'],
    ['an RSA key', () => csrFor('rsa-2048', 'spiffe://mesh.test'), 'public_key_unsupported'],
    ['no proof', () => flipped(csrFor('ec-prime256v1', 'spiffe://mesh.test')), 'csr_proof_invalid'],
    ['nothing', () => new Uint8Array(0), 'csr_invalid'],
    ['a certificate', () => Buffer.from(readFileSync(path('root/root.pem'))), 'csr_invalid'],
  ])('does not sign for %s', async (_, csr, expected) => {
    const root = await makeRoot();
    expect(() => checkRootTask(root, csr(), undefined)).toThrow(code(expected));
  });

  test('signs only the key that was read out', async () => {
    const root = await makeRoot();
    const made = await initOfflineRoot(config());
    expect(() => checkRootTask(root, csrOf(made), 'ab'.repeat(20))).toThrow(code('csr_key_unexpected'));
    expect(checkRootTask(root, csrOf(made), made.request?.keyId).keyId).toBe(made.request?.keyId);
    const pem = Buffer.from(encodePem('CERTIFICATE REQUEST', csrOf(made)));
    expect(checkRootTask(root, pem, undefined).keyId).toBe(made.request?.keyId);
  });

  test('with the wrong passphrase, or a root of somebody else, nothing is signed', async () => {
    const root = await makeRoot();
    const made = await initOfflineRoot(config());
    const task = checkRootTask(root, csrOf(made), undefined);
    const wrong = { kind: 'random_key', bytes: Buffer.alloc(32, 8) } as const;
    const options = { dir: path('root'), ttlSeconds: undefined, nameConstraints: 'off', secret: wrong };
    await expect(signRootTask(root, task, options)).rejects.toThrow(code('key_passphrase_wrong'));
    const { intermediate } = await makeTestAuthority(new Date(), {}, 'mesh.test');
    writeFileSync(path('root/root.pem'), encodePem('CERTIFICATE', intermediate.certificate));
    expect(() => readOfflineRoot(path('root'))).toThrow(code('authority_invalid'));
  });

  test.each([
    ['a lifetime over a year', 366 * 86_400],
    ['a lifetime under an hour', 60],
  ])('refuses %s', async (_, ttlSeconds) => {
    await makeRoot();
    await expect(sign(csrOf(await initOfflineRoot(config())), 'root', ttlSeconds)).rejects.toThrow(
      code('profile_invalid'),
    );
  });

  test('name constraints do not go with a trust domain that looks like an address', async () => {
    const options = {
      dir: path('ip'),
      keyType: 'ec-p256',
      ttlSeconds: undefined,
      nameConstraints: 'uri',
      secret,
    };
    await expect(
      createOfflineRoot({ ...options, trustDomain: TrustDomain.parse('10.0.0.1') }),
    ).rejects.toThrow(code('config_invalid'));
    await expect(
      startUp(config({ trustDomain: '10.0.0.1', nameConstraints: 'uri' }), openLog('silent')),
    ).rejects.toThrow(code('config_invalid'));
  });
});

/** A request with a proof that holds, for any names. */
function csrFor(kind: string, ...uris: readonly string[]): Uint8Array {
  const names = altNames(false, ...uris.map((one) => uri(one)));
  return makeCsr(makeKey(kind), uris.length === 0 ? {} : { attributes: attributes(extensionRequest(names)) });
}

function flipped(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[copy.length - 1] = (copy.at(-1) ?? 0) ^ 1;
  return copy;
}

async function report(): Promise<CaReport> {
  return (await call('GET', '')).body as unknown as CaReport;
}

async function call(method: string, step: string, body?: object) {
  const answer = await ask({
    to: path('a.sock'),
    method,
    path: step === '' ? '/v1/ca' : `/v1/ca/${step}`,
    headers: body === undefined ? {} : { 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: JSON.parse(answer.body) as Record<string, unknown> };
}

function die(task: object): Promise<number | string | null> {
  const text = JSON.stringify({ flags: flags(), ...task });
  const child = spawn(process.execPath, [join(import.meta.dirname, 'harness/dying-setup.ts'), text], {
    stdio: ['ignore', 'ignore', 'inherit'],
    timeout: 40_000,
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (exit, signal) => resolve(signal ?? exit));
  });
}
