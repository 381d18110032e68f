import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseTlogProof } from '../../src/audit/tlog-proof.ts';
import { decision } from '../audit/events.ts';
import { createCosigner } from '../../src/audit/cosignature.ts';
import { logSigner, makeLogFiles, makeNoteSigner, someEntries } from '../audit/log-files.ts';
import { openCli } from '../cli/run-cli.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { type Harness, startHarness } from '../http/harness.ts';
import { buildGoClient, goIsHere, runClient } from './go-client.ts';

// The log of a server, verified by code of others alone: golang.org/x/mod/sumdb, transparency-dev/merkle and Tessera.
describe.skipIf(!goIsHere())('Go', () => {
  const scope = createScope();
  const directory = makeTempDir(scope);
  const at = (name: string) => join(directory, name);
  const run = openCli(scope, { cwd: directory });
  let harness: Harness;
  let client = '';
  beforeAll(async () => {
    client = await buildGoClient('tlogverify');
    harness = await startHarness();
    scope.defer(() => harness.close());
    await record(900);
    await cli('export', 'log', '--key', logSigner.verifierKey);
    writeFileSync(at('old'), readFileSync(at('log/checkpoint')));
    await record(600);
    await cli('export', 'log', '--key', logSigner.verifierKey);
  });
  afterAll(() => scope.close());

  function record(count: number) {
    return harness.store.recordEvents(
      Array.from({ length: count }, (_, i) => decision({ decisionId: `d-${i}` })),
    );
  }

  async function cli(...args: string[]): Promise<string> {
    const { code, out, err } = await run(['--socket', harness.unix.address, 'audit', ...args]);
    expect([code, err]).toEqual([0, '']);
    return out;
  }

  async function verify(command: string, options: Readonly<Record<string, string>>) {
    const given = { cp: at('log/checkpoint'), vkey: logSigner.verifierKey, ...options };
    const { code, output } = await runClient(client, [
      command,
      ...Object.entries(given).flatMap(([name, value]) => [`-${name}`, value]),
    ]);
    return [code, output.trim()] as const;
  }

  test('opens the checkpoint, and no other', async () => {
    expect(await verify('checkpoint', {})).toEqual([
      0,
      expect.stringMatching(/^OK checkpoint origin="example.org\/audit" size=15\d\d .* extension_lines=0$/),
    ]);
    const other = makeNoteSigner(logSigner.name, 5).verifierKey;
    expect((await verify('checkpoint', { vkey: other }))[0]).toBe(1);
  });

  test('finds every tile to be that of the checkpoint', async () => {
    expect(await verify('tile', { dir: at('log') })).toEqual([
      0,
      expect.stringMatching(/^OK tiles size=15\d\d/),
    ]);
  });

  test('finds those of a log of 70,000 entries too, in which all levels of tiles are', async () => {
    const { files, note } = makeLogFiles(someEntries(70_000));
    for (const [path, bytes] of files) {
      if (path.startsWith('tile/entries/')) continue;
      mkdirSync(dirname(at(`large/${path}`)), { recursive: true });
      writeFileSync(at(`large/${path}`), bytes);
    }
    writeFileSync(at('large/checkpoint'), note);
    const given = { dir: at('large'), cp: at('large/checkpoint') };
    expect(await verify('tile', given)).toEqual([0, expect.stringContaining('OK tiles size=70000 ')]);
    const forged = files.get('tile/0/100')!;
    writeFileSync(
      at('large/tile/0/100'),
      forged.map((byte, place) => (place === 40 ? byte ^ 1 : byte)),
    );
    expect(await verify('tile', given)).toEqual([1, expect.stringContaining('FAIL tiles at leaf 25600')]);
  });

  test.each([0, 255, 256, 1_023, 1_024, 1_499])('proves entry %i', async (index) => {
    const { path, extra, checkpoint } = parseTlogProof(await cli('prove', `${index}`));
    writeFileSync(at('cp'), checkpoint);
    const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
    const proof = { leafIndex: index, leaf: base64(extra!), hashes: path.map(base64) };
    writeFileSync(at('proof'), JSON.stringify(proof));
    const given = { cp: at('cp'), proof: at('proof') };
    expect(await verify('inclusion', given)).toEqual([
      0,
      expect.stringContaining(`OK inclusion index=${index} `),
    ]);
    writeFileSync(at('proof'), JSON.stringify({ ...proof, leafIndex: index + 1 }));
    expect((await verify('inclusion', given))[0]).toBe(1);
  });

  test('finds the log to go on from an older checkpoint', async () => {
    const [, size = ''] = readFileSync(at('old'), 'utf8').split('\n');
    const ask = { path: `/v1/audit/consistency?from=${size}` };
    const { json } = await harness.overTls(ask, 'auditor');
    writeFileSync(at('cp'), json.checkpoint);
    const hashes = json.hashes.map((hash: string) => Buffer.from(hash, 'hex').toString('base64'));
    writeFileSync(at('proof'), JSON.stringify({ from: Number(size), to: json.size, hashes }));
    const given = { cp: at('cp'), old: at('old'), proof: at('proof') };
    expect(await verify('consistency', given)).toEqual([
      0,
      expect.stringContaining(`OK consistency ${size} -> `),
    ]);
    writeFileSync(at('proof'), JSON.stringify({ hashes: hashes.toReversed() }));
    expect((await verify('consistency', given))[0]).toBe(1);
  });

  test('finds a cosignature of ours to be one, and over this checkpoint only', async () => {
    const cosigner = createCosigner('example.net/witness', makeNoteSigner('x', 9).privateKey);
    const note = readFileSync(at('log/checkpoint'), 'utf8');
    const text = note.slice(0, note.indexOf('\n\n') + 1);
    const when = new Date('2026-01-31T12:00:00.000Z');
    const given = { cp: at('cosigned'), witness: cosigner.verifierKey };
    writeFileSync(at('cosigned'), note + cosigner.cosign(text, when));
    expect(await verify('cosigned', given)).toEqual([
      0,
      'OK cosigned by example.net/witness at 2026-01-31T12:00:00Z',
    ]);
    writeFileSync(at('cosigned'), note + cosigner.cosign(`${text}more\n`, when));
    expect((await verify('cosigned', given))[0]).toBe(1);
  });

  // A failure of it may hang, or exit 0: what counts is that it says so.
  describe('fsck of Tessera, as it is', () => {
    let fsck = '';
    beforeAll(async () => {
      fsck = await buildGoClient('tesserafsck', 'github.com/transparency-dev/tessera/cmd/fsck');
      writeFileSync(at('key'), logSigner.verifierKey);
    });
    const success = "Successfully fsck'd log";
    /** Whether it says that the log is right. */
    const isRight = async (url: string, ...args: string[]) => {
      const given = ['--ui=false', '--N=4', `--public_key=${at('key')}`, `--storage_url=${url}`, ...args];
      const limits = { timeoutMs: 20_000, env: { SSL_CERT_FILE: at('ca') } };
      const { output } = await runClient(fsck, given, undefined, limits);
      return [output.includes(success), output] as const;
    };

    test('finds nothing in an export, nor in the log of a server over HTTP', async () => {
      expect((await isRight(`file://${at('log')}/`))[0]).toBe(true);
      writeFileSync(at('ca'), harness.caPem);
      const port = harness.tls.address.split(':').at(-1);
      const url = `https://localhost:${port}/v1/audit/log/`;
      const [served, output] = await isRight(url, `--bearer_token=${harness.tokens.auditor}`);
      expect([served, output]).toEqual([true, expect.any(String)]);
      expect((await isRight(url))[0]).toBe(false);
    });

    test.each(['tile/entries/002', 'tile/0/003', 'tile/1/000.p/5'])(
      'finds a changed bit of %s',
      async (path) => {
        rmSync(at('bad'), { recursive: true, force: true });
        cpSync(at('log'), at('bad'), { recursive: true });
        const bytes = readFileSync(at(`bad/${path}`));
        bytes[40]! ^= 1;
        writeFileSync(at(`bad/${path}`), bytes);
        expect((await isRight(`file://${at('bad')}/`))[0]).toBe(false);
      },
    );
  });
});
