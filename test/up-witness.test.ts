import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { createCosigner } from '../src/audit/cosignature.ts';
import { type ConfigText, loadConfig } from '../src/config.ts';
import { openLog } from '../src/log.ts';
import { TrustDomain } from '../src/spiffe/id.ts';
import { type Running, startUp } from '../src/up.ts';
import { signAuditLog } from '../src/up-audit-key.ts';
import { openWitness } from '../src/up-witness.ts';
import { parseWitnessUrl } from '../src/up-witness-call.ts';
import { openWitnesses, type WitnessesParts } from '../src/up-witnesses.ts';
import { logSigner, makeNoteSigner } from './audit/log-files.ts';
import { openCli } from './cli/run-cli.ts';
import { eventually } from './harness/eventually.ts';
import { manualClock } from './harness/manual-clock.ts';
import { createScope } from './harness/scope.ts';
import { freePorts } from './harness/temp.ts';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'cs-witness-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const at = (name: string) => join(directory, name);

describe('two servers', () => {
  const running = new Map<string, Running>();
  const scope = createScope();
  const runCli = openCli(scope, { cwd: tmpdir() });
  afterEach(async () => {
    await scope.close();
    for (const one of running.values()) await one.close();
  });

  async function start(name: string, port: number, flags: ConfigText): Promise<void> {
    await running.get(name)?.close();
    const config = loadConfig({
      flags: {
        trustDomain: `${name}.example`,
        dataDir: at(name),
        workloadSocket: at(`${name}.w`),
        adminSocket: at(`${name}.a`),
        adminAddress: 'off',
        trustAddress: `127.0.0.1:${port}`,
        shutdownGraceSeconds: '0',
        ...flags,
      },
      environment: {},
      file: null,
      isRoot: false,
    });
    running.set(name, await startUp(config, openLog('fatal')));
  }

  async function cli(name: string, ...args: string[]): Promise<string> {
    const { code, out, err } = await runCli(['--socket', at(`${name}.a`), ...args]);
    expect([args, code, err]).toEqual([args, 0, '']);
    return out;
  }
  const report = async (name: string) => JSON.parse(await cli(name, 'audit', 'witnesses', '-o', 'json'));

  test('witness each other, rest when there is nothing new, and are verified by their policy', async () => {
    const [left = 0, right = 0] = await freePorts(2);
    await start('a', left, {});
    const keyOfA = (await cli('a', 'audit', 'key')).trim();
    await start('b', right, { witnessLogs: keyOfA });
    const keyOfB = (await cli('b', 'audit', 'key')).trim();
    const policy = async (of: string, log: string, witness: string, port: number) => {
      const key = (await cli(witness, 'audit', 'key', '--witness')).trim();
      const url = `https://localhost:${port}/witness`;
      writeFileSync(at(`${of}.policy`), `log ${log}\nwitness other ${key} ${url}\nquorum other\n`);
      writeFileSync(at(`${of}.ca`), await cli(witness, 'trust-bundle'));
      return { auditWitnessesFile: at(`${of}.policy`), auditWitnessesCaFile: at(`${of}.ca`) };
    };
    await start('a', left, { witnessLogs: keyOfB, ...(await policy('a', keyOfA, 'b', right)) });
    await start('b', right, { witnessLogs: keyOfA, ...(await policy('b', keyOfB, 'a', left)) });
    for (const name of ['a', 'b']) {
      // Cosigning makes no entries: else one would follow from the other for ever.
      await eventually(`the whole log of ${name} to be cosigned`, async () => {
        const { cosigned } = await report(name);
        const { auditSize } = await running.get(name)!.status();
        return cosigned.size === auditSize && cosigned.behindSince === null;
      });
      const verified = JSON.parse(
        await cli(name, 'audit', 'verify', '--policy', at(`${name}.policy`), '-o', 'json'),
      );
      expect(verified.witnesses).toMatchObject([{ name: `${name === 'a' ? 'b' : 'a'}.example/witness` }]);
    }
    expect((await report('a')).witness.logs).toMatchObject([{ origin: 'b.example/audit', fork: null }]);
    const text = await cli('a', 'audit', 'witnesses');
    expect(text).toMatch(/WITNESS +KEY +STATE/);
    expect(text).toMatch(/other +b\.example\/witness\+[0-9a-f]{8} +ok /);
    // A proof of one entry carries them too, for whoever has the policy and nothing else.
    await cli('a', 'audit', 'prove', '1', '--witnessed', '--out', at('1.tlog-proof'));
    const proven = await cli(
      'a',
      'audit',
      'verify',
      '--proof',
      at('1.tlog-proof'),
      '--policy',
      at('a.policy'),
    );
    expect(proven).toMatch(/entry +1 of \d+: proven\n/);
    // An export carries the cosignatures, and needs no server.
    await cli('a', 'audit', 'export', at('export'), '--policy', at('a.policy'));
    expect(await cli('a', 'audit', 'verify', at('export'), '--policy', at('a.policy'))).toContain(
      'b.example/witness',
    );
    const other = await runCli([
      ...['audit', 'verify', at('export'), '--key', keyOfA],
      ...['--witness', makeWitnessKeyText()],
    ]);
    expect([other.code, other.err]).toEqual([1, expect.stringContaining('error[audit_quorum_missing]')]);
  });
});

describe('a start with', () => {
  const clock = manualClock();
  const nobody = async (): Promise<never> => {
    throw new Error('nobody should ask');
  };
  const parts = (config: Partial<WitnessesParts['config']>): WitnessesParts => ({
    config: { auditWitnessesFile: null, auditWitnessesCaFile: null, ...config },
    store: {
      readMeta: async () => logSigner.verifierKey,
      auditCheckpoint: nobody,
      witnessedCheckpoint: nobody,
      keepWitnessed: nobody,
      proveGrowth: nobody,
    },
    clock,
    log: openLog('fatal'),
  });
  const withPolicy = (text: string) => {
    writeFileSync(at('policy'), text);
    return { auditWitnessesFile: at('policy') };
  };
  const witness = `witness A ${makeWitnessKeyText()}`;
  test.each<[string, () => Partial<WitnessesParts['config']>, string, RegExp]>([
    ['no such file', () => ({ auditWitnessesFile: at('none') }), 'config_invalid', /cannot be read/],
    ['a policy that is none', () => withPolicy('quorum A\n'), 'audit_policy_invalid', /not defined/],
    [
      'a policy of another log',
      () => withPolicy(`log ${makeNoteSigner('x', 8).verifierKey}\n${witness}\nquorum A\n`),
      'config_invalid',
      /not about this log/,
    ],
    [
      'a URL of no kind',
      () => withPolicy(`${witness} a.example\nquorum A\n`),
      'config_invalid',
      /no plain https/,
    ],
    [
      'a URL in the clear',
      () => withPolicy(`${witness} http://a.example\nquorum A\n`),
      'config_invalid',
      /https/,
    ],
    [
      'no such file of CAs',
      () => ({ ...withPolicy(`${witness} https://a.example\nquorum A\n`), auditWitnessesCaFile: at('none') }),
      'config_invalid',
      /auditWitnessesCaFile/,
    ],
  ])('%s is refused', async (_, config, code, message) => {
    await expect(openWitnesses(parts(config()))).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  const longest = TrustDomain.parse(`${'a'.repeat(63)}.`.repeat(4).slice(0, 250));
  const sealing = {
    keyDir: directory,
    trustDomain: longest,
    secret: null as never,
    randomBytes: null as never,
  };
  test('a witness that nobody could reach is refused, and one whose name is too long', async () => {
    const store = { readMeta: async () => null } as never;
    const config = { witnessLogs: [], witnessName: null, trustAddress: null };
    expect(await openWitness({ ...sealing, config, store, clock, log: openLog('fatal') })).toBeNull();
    const logs = { ...config, witnessLogs: [{ name: 'x', keyId: '', publicKey: null as never }] };
    for (const [trustAddress, message] of [
      [null, /public door/],
      [{ host: 'h', port: 1 }, /too long/],
    ] as const) {
      await expect(
        openWitness({ ...sealing, config: { ...logs, trustAddress }, store, clock, log: openLog('fatal') }),
      ).rejects.toMatchObject({ code: 'config_invalid', message: expect.stringMatching(message) });
    }
  });

  test('a trust domain that is too long for the log names the option', async () => {
    const store = { readMeta: async () => null, signLog: nobody };
    await expect(signAuditLog({ ...sealing, store, auditOrigin: null })).rejects.toMatchObject({
      code: 'config_invalid',
      fix: expect.stringContaining('auditOrigin'),
    });
  });
});

test.each([
  ['https://a.example/witness', true],
  ['https://a.example:8443', true],
  ['http://127.0.0.1:80/w', true],
  ['http://[::1]/w', true],
  ['http://localhost:1', true],
  ['http://127.0.0.1.example', false],
  ['http://a.example', false],
  ['https://user@a.example', false],
  ['https://a.example?x', false],
  ['https://a.example#x', false],
  ['file:///etc/passwd', false],
  ['', false],
])('%j as the URL of a witness: %j', (text, isGood) => {
  if (isGood) expect(parseWitnessUrl(text).href).toContain('://');
  else expect(() => parseWitnessUrl(text)).toThrow();
});

function makeWitnessKeyText(): string {
  return createCosigner('stranger.example/w', makeNoteSigner('x', 7).privateKey).verifierKey;
}
