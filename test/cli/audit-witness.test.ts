import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createCosigner } from '../../src/audit/cosignature.ts';
import { decision } from '../audit/events.ts';
import { logSigner, makeLogFiles, makeNoteSigner, someEntries } from '../audit/log-files.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { type Harness, startHarness } from '../http/harness.ts';
import { openCli } from './run-cli.ts';

const scope = createScope();
const directory = makeTempDir(scope);
const at = (name: string) => join(directory, name);
const run = openCli(scope, { cwd: directory });
const cli = (...args: string[]) => run(['--socket', harness.unix.address, 'audit', ...args]);
const [first, second] = [21, 22].map((seed) =>
  createCosigner(`w${seed}.example/w`, makeNoteSigner('x', seed).privateKey),
) as [ReturnType<typeof createCosigner>, ReturnType<typeof createCosigner>];
const when = new Date('2026-01-31T12:00:00.000Z');
/** What the server says instead of its checkpoint. */
let answer: string | undefined;
let harness: Harness;

beforeAll(async () => {
  harness = await startHarness({ auditCheckpoint: async () => answer ?? harness.store.auditCheckpoint() });
  scope.defer(() => harness.close());
  await harness.store.recordEvents(Array.from({ length: 20 }, () => decision()));
  writeFileSync(at('log.key'), logSigner.verifierKey);
  writeFileSync(at('w.key'), `${first.verifierKey}\n`);
  const policy = `log ${logSigner.verifierKey}\nwitness A ${first.verifierKey}\nwitness B ${second.verifierKey}\n`;
  writeFileSync(at('both'), `${policy}group all all A B\nquorum all\n`);
  writeFileSync(at('either'), `${policy}group one any A B\nquorum one\n`);
  writeFileSync(at('nobody'), `${policy}quorum none\n`);
  writeFileSync(at('broken'), 'quorum A\n');
  // An export that one of them has cosigned, and a stranger.
  const { files, note } = makeLogFiles(someEntries(20));
  for (const [path, bytes] of files) {
    mkdirSync(join(at('export'), path, '..'), { recursive: true });
    writeFileSync(join(at('export'), path), bytes);
  }
  const text = note.slice(0, note.indexOf('\n\n') + 1);
  const stranger = createCosigner('stranger.example/w', makeNoteSigner('x', 23).privateKey);
  writeFileSync(at('export/checkpoint'), note + stranger.cosign(text, when) + first.cosign(text, when));
});
afterAll(() => scope.close());

describe('an export that one of two witnesses has cosigned', () => {
  test.each<[string, string[], number, string]>([
    ['either', ['--policy', 'either'], 0, ''],
    ['either, with the key of the log', ['--policy', 'either', '--key', 'log.key'], 0, ''],
    ['none', ['--policy', 'nobody'], 0, ''],
    ['that one', ['--key', 'log.key', '--witness', 'w.key'], 0, ''],
    [
      'one of two',
      ['--key', 'log.key', '--witness', 'w.key', '--witness', second.verifierKey, '--quorum', '1'],
      0,
      '',
    ],
    ['both', ['--policy', 'both'], 1, 'audit_quorum_missing'],
    [
      'both by their keys',
      ['--key', 'log.key', '--witness', 'w.key', '--witness', second.verifierKey],
      1,
      'audit_quorum_missing',
    ],
    [
      'a log that is not in the policy',
      ['--policy', 'either', '--key', makeNoteSigner('x', 8).verifierKey],
      2,
      'audit_policy_invalid',
    ],
    ['a policy that is none', ['--policy', 'broken'], 2, 'audit_policy_invalid'],
    ['no such policy', ['--policy', 'none'], 2, 'file_missing'],
    ['a policy and a witness', ['--policy', 'both', '--witness', 'w.key'], 64, 'usage'],
    ['a quorum of nobody', ['--key', 'log.key', '--quorum', '1'], 64, 'usage'],
    [
      'a quorum of more',
      ['--key', 'log.key', '--witness', 'w.key', '--quorum', '2'],
      2,
      'audit_policy_invalid',
    ],
    [
      'a quorum that is no number',
      ['--key', 'log.key', '--witness', 'w.key', '--quorum', 'all'],
      64,
      'usage',
    ],
    ['a witness that is a log', ['--key', 'log.key', '--witness', 'log.key'], 2, 'audit_note_invalid'],
    ['witnesses and no log', ['--witness', 'w.key'], 64, 'usage'],
  ])('verified with %s', async (_, options, code, error) => {
    const outcome = await cli('verify', 'export', ...options);
    expect([outcome.code, outcome.err]).toEqual([
      code,
      error === '' ? '' : expect.stringContaining(`error[${error}]`),
    ]);
  });

  test('says who has cosigned it, and when', async () => {
    const { out } = await cli('verify', 'export', '--policy', 'either');
    expect(out).toMatch(/\nwitness +w21\.example\/w\+[0-9a-f]{8} at 2026-01-31T12:00:00\.000Z\n/);
    const json = JSON.parse((await cli('verify', 'export', '--policy', 'either', '-o', 'json')).out);
    expect(json.witnesses).toMatchObject([{ name: first.name, cosignedAt: when.toISOString() }]);
  });

  test('is refused when a known witness has cosigned it wrongly', async () => {
    const note = readFileSync(at('export/checkpoint'), 'utf8');
    writeFileSync(at('export/checkpoint'), note + second.cosign('another\n', when));
    const outcome = await cli('verify', 'export', '--policy', 'either');
    writeFileSync(at('export/checkpoint'), note);
    expect([outcome.code, outcome.err]).toEqual([
      1,
      expect.stringContaining('error[audit_signature_invalid]'),
    ]);
  });
});

test('a server that nobody cosigns says so, and is no witness', async () => {
  const verified = await cli('verify', '--policy', 'either');
  expect([verified.code, verified.err]).toEqual([1, expect.stringContaining('error[audit_quorum_missing]')]);
  const unproven = await cli('prove', '1', '--witnessed');
  expect([unproven.code, unproven.err]).toEqual([1, expect.stringContaining('error[audit_quorum_missing]')]);
  expect((await cli('prove', '1', '--out', at('1.tlog-proof'))).code).toBe(0);
  const proof = await cli('verify', '--proof', at('1.tlog-proof'), '--policy', 'either');
  expect([proof.code, proof.err]).toEqual([1, expect.stringContaining('error[audit_quorum_missing]')]);
  expect((await cli('verify', '--proof', at('1.tlog-proof'), '--policy', 'nobody')).code).toBe(0);
  expect((await cli('witnesses')).out).toBe(
    'nobody is configured to cosign the log of this server\n\nno logs of others are cosigned here\n',
  );
  const key = await cli('key', '--witness');
  expect([key.code, key.err]).toEqual([2, expect.stringContaining('set witnessLogs')]);
});

// The same table for a file and for an answer of a server: 2 for what is no checkpoint, 1 for one that is wrong.
describe.each(['file', 'server'])('a checkpoint of a %s that is', (from) => {
  test.each<[string, string, number, string]>([
    ['empty', '', 2, 'audit_note_invalid'],
    ['a page', '<!doctype html>\n<title>502</title>\n', 2, 'audit_note_invalid'],
    ['JSON', '{"size":5}', 2, 'audit_note_invalid'],
    ['a terminal escape', '\u001b[2J\n\n— a AAAAAAA=\n', 2, 'audit_note_invalid'],
    ['a signed text that is no checkpoint', logSigner.sign('hello\n'), 2, 'audit_note_invalid'],
    [
      'of another log',
      makeNoteSigner('other.example/log', 5).sign('other.example/log\n0\n\n'),
      1,
      'audit_signature_invalid',
    ],
  ])('%s', async (_, text, code, error) => {
    mkdirSync(at('garbage'), { recursive: true });
    writeFileSync(at('garbage/checkpoint'), text);
    answer = text;
    const outcome = await cli('verify', ...(from === 'file' ? ['garbage'] : []), '--key', 'log.key');
    answer = undefined;
    expect([outcome.code, outcome.out]).toEqual([code, '']);
    expect(outcome.err).toContain(`error[${error}]`);
    expect(outcome.err).not.toContain('\u001b[2J');
  });
});

test.skipIf(process.getuid?.() === 0)('proof of a fork that cannot be kept is printed', async () => {
  mkdirSync(at('closed'));
  writeFileSync(at('closed/old'), makeLogFiles(someEntries(10, 'other')).note);
  chmodSync(at('closed'), 0o500);
  const outcome = await cli('verify', 'export', '--key', 'log.key', '--since', 'closed/old');
  chmodSync(at('closed'), 0o700);
  expect([outcome.code, outcome.err]).toEqual([1, expect.stringContaining('could not be kept')]);
  expect(outcome.err).toContain('error[audit_log_forked]');
});
