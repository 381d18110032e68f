import { hash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createContext, runInContext } from 'node:vm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { PackFiles, PackManifest, PackReport } from '../../src/audit/pack-manifest.ts';
import { decision, noon, oneOfEach } from '../audit/events.ts';
import { retention } from '../audit/retention-events.ts';
import { logSigner, makeLogFiles, makeNoteSigner, someEntries } from '../audit/log-files.ts';
import { type Browser, startBrowser } from '../harness/browser.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { type Harness, startHarness } from '../http/harness.ts';
import { changes, indexOf, leaveOut, lines } from './pack-changes.ts';
import { openCli, type Outcome } from './run-cli.ts';

const scope = createScope();
const directory = makeTempDir(scope);
const at = (name: string) => join(directory, name);
const run = openCli(scope, { cwd: directory });
const cli = (...args: string[]): Promise<Outcome> =>
  run(['--socket', harness.unix.address, 'audit', ...args]);
const window = ['--from', '2026-01-01', '--to', '2026-02-01', '--key', 'log.key'];
const hostile = '</script><img src=x onerror=alert(1)>\u2028\u202e\u0001';
let harness: Harness;
let browser: Browser;

beforeAll(async () => {
  harness = await startHarness();
  scope.defer(() => harness.close());
  browser = await startBrowser();
  scope.defer(() => browser.close());
  await harness.store.recordEvents(
    oneOfEach.map((event) => (event.type === 'ban' ? { ...event, reason: hostile } : event)),
  );
  writeFileSync(at('log.key'), `${logSigner.verifierKey}\n`);
  writeFileSync(at('other.key'), `${makeNoteSigner(logSigner.name, 5).verifierKey}\n`);
  expect((await cli('export', 'early', '--key', 'log.key')).code).toBe(0);
  await harness.store.recordEvents(Array.from({ length: 300 }, (_, i) => decision({ decisionId: `d-${i}` })));
  await harness.store.recordEvents(oneOfEach.filter(({ type }) => type !== 'issuance'));
  const made = await cli(
    ...['pack', ...window, '--out', 'pack', '--seed', 'q1', '--sample', '8', '--since', 'early/checkpoint'],
  );
  expect([made.code, made.err]).toEqual([0, '']);
  expect((await cli('export', 'export', '--key', 'log.key')).code).toBe(0);
});
afterAll(() => scope.close());

const manifest = () => JSON.parse(readFileSync(at('pack/manifest.json'), 'utf8')) as PackManifest;

test('a pack has the population, the sample that its seed draws, and the coverage', async () => {
  const { population, calls, sample, coverage, since, window } = manifest();
  expect(window).toEqual({ from: '2026-01-01T00:00:00.000Z', until: '2026-02-01T00:00:00.000Z' });
  expect(population.types).not.toContain('decision');
  expect([population.records, population.byType['ban']]).toEqual([37, 2]);
  expect([calls, coverage]).toEqual([
    { allowed: 234, denied: 302, byProxies: { allowed: 234, denied: 2 } },
    { losses: 2, lost: 24, starts: 2, stops: 0 },
  ]);
  expect(since?.size).toBeLessThan(manifest().log.size);
  // As the documentation has it: anybody can draw the sample with sha256sum and sort.
  const indexes = readFileSync(at('pack/population.jsonl'), 'utf8').match(/(?<=^\{"index":)[0-9]+/gm)!;
  const drawn = indexes
    .map((index) => [hash('sha256', `q1:${index}`), Number(index)] as const)
    .sort()
    .slice(0, 8);
  expect(sample.indexes).toEqual(drawn.map(([, index]) => index));
  expect([statSync(at('pack')).mode & 0o777, statSync(at('pack/population.jsonl')).mode & 0o777]).toEqual([
    0o700, 0o600,
  ]);
  const proof = `pack/proofs/${sample.indexes[0]}.tlog-proof`;
  expect((await cli('verify', '--proof', proof, '--key', 'log.key')).code).toBe(0);
});

test('a pack is proven under the key that is given, and complete against an export', async () => {
  const verified = await cli('pack', 'verify', 'pack', '--key', 'log.key', '--log', 'export');
  expect([verified.code, verified.err]).toEqual([0, '']);
  expect(verified.out).toMatch(/^proofs +8 sampled records are in the log under this checkpoint$/m);
  expect(verified.out).toMatch(
    /^complete +the log of \d+ entries has exactly these 37 records in the window, and 234 allowed and 302 denied calls, and 234 allowed and 2 denied that proxies told of having decided$/m,
  );
  const one = await cli('pack', ...window, '--out', 'one.html', '--type', 'grant_change,ban', '--seed', 's');
  expect([one.code, one.err]).toEqual([0, '']);
  const json = await cli('pack', 'verify', 'one.html', '--key', 'log.key', '--log', 'export', '-o', 'json');
  expect(JSON.parse(json.out)).toMatchObject({
    verdict: 'proven',
    complete: expect.stringContaining('exactly these 4 records'),
    manifest: { calls: null, sample: { size: 25 } },
  });
  const all = await cli('pack', ...window, '--out', 'all', '--calls', '--sample', '0', '-o', 'json');
  expect(JSON.parse(all.out).manifest.population.byType).toMatchObject({ decision: 302, allowed_calls: 2 });
});

test('a pack is written below directories that are not there, however they are named', async () => {
  const made = await cli('pack', ...window, '--out', 'deep/er/../ly/./q1/', '--type', 'ban');
  expect([made.code, made.err]).toEqual([0, '']);
  expect(statSync(at('deep/ly/q1/manifest.json')).isFile()).toBe(true);
});

test.each<[string, object, number, RegExp]>([
  ['lacks, as of an earlier version', {}, 0, /and 234 allowed and 302 denied calls$/m],
  ['has too few', { byProxies: { allowed: 233, denied: 2 } }, 1, /234 allowed and 2 denied that proxies/],
  ['hides the denied', { byProxies: { allowed: 234, denied: 0 } }, 1, /the manifest tells others/],
  ['has no number of', { byProxies: { allowed: 234 } }, 1, /audit_pack_invalid\]: manifest: /],
  ['has nothing of', { byProxies: null }, 1, /audit_pack_invalid\]: manifest: /],
])('calls that proxies decided, which a manifest %s', async (_, byProxies, code, message) => {
  rmSync(at('told'), { recursive: true, force: true });
  cpSync(at('pack'), at('told'), { recursive: true });
  const calls = { allowed: 234, denied: 302, ...byProxies };
  writeFileSync(at('told/manifest.json'), JSON.stringify({ ...manifest(), calls }));
  const found = await cli('pack', 'verify', 'told', '--key', 'log.key', '--log', 'export');
  expect([found.code, code === 0 ? found.out : found.err]).toEqual([code, expect.stringMatching(message)]);
});

test('who may not read calls gets neither them nor their number, and nobody gets what may identify a person', async () => {
  writeFileSync(at('viewer.token'), harness.tokens.viewer, { mode: 0o600 });
  writeFileSync(at('ca.pem'), harness.caPem);
  const url = `https://localhost:${harness.tls.address.split(':').at(-1)}`;
  const server = ['--server', url, '--token-file', 'viewer.token', '--ca-file', 'ca.pem'];
  const viewer = (...args: string[]) => run([...server, 'audit', ...args]);
  const made = await viewer('pack', ...window, '--out', 'viewed.html', '-o', 'json');
  expect([made.code, made.err]).toEqual([0, '']);
  expect(JSON.parse(made.out).manifest).toMatchObject({ calls: null, population: { records: 37 } });
  const calls = await viewer('pack', ...window, '--out', 'x', '--calls');
  expect([calls.code, calls.err]).toEqual([77, expect.stringContaining('error[forbidden]')]);
  const exported = await viewer('export', '--format', 'cloudevents', '--personal');
  expect([exported.code, exported.out]).toEqual([0, expect.stringContaining('countersign.audit.admin')]);
  expect(exported.out).not.toMatch(/countersign\.audit\.(decision|allowed_calls)|192\.0\.2\.7|\/accounts\/7/);
  for (const file of ['pack/population.jsonl', 'all/population.jsonl', 'viewed.html'])
    expect(readFileSync(at(file), 'utf8')).not.toMatch(/192\.0\.2\.7|\/accounts\/7/);
});

test('a pack of a log that was restored, and has lost calls of the window, tells of both and counts none', async () => {
  const other = await startHarness();
  scope.defer(() => other.close());
  const ask = (...args: string[]) => run(['--socket', other.unix.address, 'audit', ...args]);
  const olderThan = new Date(noon.getTime() + 1_000);
  await other.store.recordEvents([
    decision(),
    { type: 'lifecycle', time: noon, action: 'restored', version: '1.0.0' },
    retention({ olderThan }),
  ]);
  const made = await ask('pack', ...window, '--out', 'restored', '-o', 'json');
  expect([made.code, made.err]).toEqual([0, '']);
  expect(JSON.parse(made.out).manifest).toMatchObject({ calls: null, coverage: { starts: 0, stops: 0 } });
  const coverage = readFileSync(at('restored/coverage.jsonl'), 'utf8');
  expect(coverage).toMatch(/"action":"restored".*\n.*"action":"pruned"/);
  expect((await ask('export', 'restored-log', '--key', 'log.key')).code).toBe(0);
  const verified = await ask('pack', 'verify', 'restored', '--key', 'log.key', '--log', 'restored-log');
  expect([verified.code, verified.err]).toEqual([0, '']);
});

describe('what is not as it should be is refused', () => {
  test.each<[string, string[], number, RegExp]>([
    ['no window', ['--out', 'x'], 64, /usage\]: a pack needs --from and --out/],
    ['no place', ['--from', '1d'], 64, /usage\]: a pack needs/],
    ['a time that is none', ['--from', 'monday', '--out', 'x'], 64, /--from: "monday" is no time/],
    ['a window backwards', ['--from', '1d', '--to', '2d', '--out', 'x'], 64, /--from is not before --to/],
    ['a type that is none', ['--from', '1d', '--type', 'x', '--out', 'x'], 64, /--type: "x" is unknown/],
    ['a seed with a space', ['--from', '1d', '--seed', 'a b', '--out', 'x'], 64, /"a b" cannot be a seed/],
    ['a sample of -1', ['--from', '1d', '--sample', '-1', '--out', 'x'], 64, /from 0 to 10000/],
    ['a place that is taken', [...window, '--out', 'export'], 2, /file_exists\].*not empty/],
    ['a place that takes nothing', [...window, '--out', '/proc/none/x'], 77, /file_permissions\]/],
    ['a page that is there', [...window, '--out', 'log.html'], 2, /file_exists\]/],
    [
      'another key',
      [...window.slice(0, 4), '--key', 'other.key', '--out', 'x'],
      1,
      /audit_signature_invalid/,
    ],
    ['an older checkpoint that is none', [...window, '--since', 'log.key', '--out', 'x'], 2, /audit_note_/],
    ['a longer log', [...window, '--since', 'long', '--out', 'x'], 1, /audit_log_shorter/],
    ['another history', [...window, '--since', 'fork', '--out', 'x'], 1, /audit_pack_invalid\].*rewritten/],
    ['verify without a key', ['verify', 'pack'], 64, /verified with --key/],
    ['verify without a pack', ['verify', 'none', '--key', 'log.key'], 2, /file_missing/],
    [
      'verify what is no pack',
      ['verify', 'early', '--key', 'log.key'],
      1,
      /audit_pack_invalid\]: manifest: /,
    ],
    ['verify a page without one', ['verify', 'log.html', '--key', 'log.key'], 1, /no page with a pack in it/],
    ['verify under another key', ['verify', 'pack', '--key', 'other.key'], 1, /it is not signed by/],
    ['a log that is older', ['verify', 'pack', '--key', 'log.key', '--log', 'early'], 1, /audit_log_shorter/],
  ])('%s', async (_, args, code, message) => {
    writeFileSync(at('log.html'), '');
    writeFileSync(at('long'), makeLogFiles(someEntries(2_000)).note);
    writeFileSync(at('fork'), makeLogFiles(someEntries(5)).note);
    const found = await cli('pack', ...args);
    expect([found.code, found.out, found.err]).toEqual([code, '', expect.stringMatching(message)]);
  });
});

describe('a pack in which somebody has changed, and made the manifest fit', () => {
  let verify: (files: PackFiles, key: string) => Promise<PackReport>;
  beforeAll(() => {
    // The page's own script: it must need nothing that a browser lacks.
    const page = readFileSync(at('pack/verify.html'), 'utf8');
    const script = /<script>([^]*)void startPage\(document\);\n<\/script>/.exec(page)![1]!;
    const world = createContext({ crypto, TextEncoder, TextDecoder, atob, btoa });
    verify = runInContext(`${script}; verifyPack`, world) as typeof verify;
  });

  test('nothing', async () => {
    expect((await verify(readFiles('pack'), logSigner.verifierKey)).verdict).toBe('proven');
    expect((await verify(readFiles('pack'), '')).verdict).toBe('unkeyed');
    expect((await verify(readFiles('pack'), 'x')).verdict).toBe('wrong');
    expect((await verify(new Map(), '')).verdict).toBe('wrong');
  });

  test.each(changes)('%s', async (_, change, message) => {
    const files = new Map(readFiles('pack'));
    const plan = { manifest: manifest() };
    change(files, plan);
    files.delete('manifest.json');
    const listed = [...files].filter(([name]) => name !== 'notes.txt');
    const digests = Object.fromEntries(listed.map(([name, text]) => [name, hash('sha256', text)]));
    files.set('manifest.json', JSON.stringify({ ...plan.manifest, files: digests }));
    for (const key of [logSigner.verifierKey, '']) {
      const report = await verify(files, key);
      const wrong = report.checks.filter(({ ok }) => !ok).map(({ name, words }) => `${name}: ${words}`);
      expect([report.verdict, wrong.join('; ')]).toEqual(['wrong', expect.stringMatching(message)]);
    }
  });

  test.each<[string, (dir: string) => void, RegExp]>([
    [
      'a digest that does not fit',
      (dir) => writeFileSync(join(dir, 'since.proof'), 'AAAA\n'),
      /files: .*; older checkpoint: /,
    ],
    ['a file away', (dir) => rmSync(join(dir, 'coverage.jsonl')), /the file coverage\.jsonl is missing/],
    [
      'bytes that are no text',
      (dir) => writeFileSync(join(dir, 'population.jsonl'), Buffer.alloc(9, 0xff)),
      /files: /,
    ],
    ['a link', (dir) => symlinkSync('/etc/passwd', join(dir, 'proofs/1')), /no regular file/],
    ['a manifest away', (dir) => rmSync(join(dir, 'manifest.json')), /manifest\.json is missing/],
  ])('on the command line: %s', async (_, change, message) => {
    rmSync(at('changed'), { recursive: true, force: true });
    cpSync(at('pack'), at('changed'), { recursive: true });
    change(at('changed'));
    const { code, out, err } = await cli('pack', 'verify', 'changed', '--key', 'log.key');
    expect([code === 1 || code === 77, out, err]).toEqual([true, '', expect.stringMatching(message)]);
  });

  test('a record that is left out with all that tells of it is missing in the log, and a changed page is said to be one', async () => {
    const files = new Map(readFiles('pack'));
    const { records } = manifest().population;
    const spare = lines(files).find(
      (line) => !manifest().sample.indexes.includes(indexOf(line)) && line.includes('"entry_change"'),
    )!;
    const plan = { manifest: manifest() };
    leaveOut(files, plan.manifest, indexOf(spare));
    files.delete('manifest.json');
    const digests = Object.fromEntries([...files].map(([name, text]) => [name, hash('sha256', text)]));
    files.set('manifest.json', JSON.stringify({ ...plan.manifest, files: digests }));
    rmSync(at('short'), { recursive: true, force: true });
    for (const [name, text] of files) {
      mkdirSync(join(at('short'), name, '..'), { recursive: true });
      writeFileSync(join(at('short'), name), text);
    }
    const alone = await cli('pack', 'verify', 'short', '--key', 'log.key');
    expect([alone.code, alone.out]).toEqual([0, expect.stringContaining(`${records - 1} records`)]);
    expect(alone.err).toMatch(/^warning: the page of the pack is not the one/);
    const held = await cli('pack', 'verify', 'short', '--key', 'log.key', '--log', 'export');
    expect([held.code, held.err]).toEqual([
      1,
      expect.stringMatching(/audit_pack_invalid\]: entry \d+ of the log is missing in population\.jsonl/),
    ]);
  });
});

describe('in a browser', () => {
  const verdict = `document.getElementById('verdict').textContent`;
  const open = async (name: string) => browser.open(pathToFileURL(at(name)).href);

  test('the page proves its pack offline, and shows hostile text as text', async () => {
    const page = await open('pack/verify.html');
    await page.until(`${verdict}.startsWith('NOT PROVEN YET: all 7 checks passed')`);
    await page.read(`document.getElementById('key').value = ${JSON.stringify(logSigner.verifierKey)}`);
    await page.read(`document.getElementById('verify').click()`);
    await page.until(`${verdict}.startsWith('PROVEN: all 7 checks passed')`);
    expect(await page.read(`document.querySelectorAll('#sample tr').length`)).toBe(8);
    await page.read(
      `document.getElementById('key').value = ${JSON.stringify(readFileSync(at('other.key'), 'utf8'))}`,
    );
    await page.read(`document.getElementById('verify').click()`);
    await page.until(`${verdict}.startsWith('WRONG: ')`);
    expect(await page.read(`document.getElementById('checks').textContent`)).toContain('× FAILED');
    expect(page.requests).toEqual([pathToFileURL(at('pack/verify.html')).href]);
    expect(page.complaints).toEqual([]);
  });

  test('a page with hostile records makes no element of them', async () => {
    expect((await cli('pack', ...window, '--type', 'ban', '--out', 'ban.html')).code).toBe(0);
    const page = await open('ban.html');
    await page.until(`${verdict}.startsWith('NOT PROVEN YET')`);
    expect(await page.read(`document.getElementById('sample').textContent`)).toContain('</script><img src=x');
    expect(await page.read(`document.querySelectorAll('img, #sample :not(tr, td)').length`)).toBe(0);
    expect([page.requests.length, page.complaints]).toEqual([1, []]);
  });

  test('a page without a pack verifies the directory that is chosen', async () => {
    const { code, out } = await cli('pack', 'page', 'empty.html');
    expect([code, out]).toEqual([0, expect.stringMatching(/script +sha256-/)]);
    const page = await open('empty.html');
    await page.until(`${verdict}.startsWith('NO PACK')`);
    await page.read(`document.getElementById('key').value = ${JSON.stringify(logSigner.verifierKey)}`);
    await page.choose('#directory', [at('pack')]);
    await page.until(`${verdict}.startsWith('PROVEN')`);
    await page.choose('#directory', [at('early')]);
    await page.until(`${verdict}.startsWith('WRONG')`);
    expect(page.complaints).toEqual([]);
  });

  test('a page in which somebody has changed a record says so, and one with another script does nothing', async () => {
    const page = readFileSync(at('pack/verify.html'), 'utf8');
    writeFileSync(
      at('record.html'),
      page.replace(String.raw`\"actor\":{\"kind\":\"uid\"`, String.raw`\"actor\":{\"kind\":\"uld\"`),
    );
    const changed = await open('record.html');
    await changed.until(`${verdict}.startsWith('WRONG: ')`);
    writeFileSync(at('script.html'), page.replace('let turns = 0', 'let turns = 1'));
    const other = await open('script.html');
    await other.until(`document.readyState === 'complete'`);
    expect(await other.read(verdict)).toBe('not verified: this page needs JavaScript');
    await expect
      .poll(() => other.complaints.join(), { timeout: 30_000 })
      .toContain('Content Security Policy');
  });
});

function readFiles(name: string): PackFiles {
  const { sample, files } = manifest();
  expect(sample.indexes).toHaveLength(8);
  const names = ['manifest.json', ...Object.keys(files)];
  return new Map(names.map((one) => [one, readFileSync(join(at(name), one), 'utf8')]));
}
