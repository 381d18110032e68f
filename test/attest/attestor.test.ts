import { describe, expect, test } from 'vitest';
import { createAttestor } from '../../src/attest/attestor.ts';
import type { SelectorSource } from '../../src/attest/source.ts';
import { createUnixAttestor } from '../../src/attest/unix.ts';
import type { UnixPeer } from '../../src/identity/evidence.ts';
import { parseSelector, type SelectorKind } from '../../src/identity/selector.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { peerOf } from './programs.ts';

type Answer = SelectorSource['selectorsOf'];
const gives =
  (...texts: string[]): Answer =>
  async () =>
    texts.map(parseSelector);
const fails: Answer = async () => {
  throw new Error('out of order');
};
const hangs: Answer = () => new Promise(() => undefined);

function source(name: string, selectorsOf: Answer, costly?: SelectorKind): SelectorSource {
  return {
    name,
    kinds: costly === undefined ? ['systemd:unit'] : [costly],
    isCostly: costly !== undefined,
    selectorsOf,
  };
}

function attestor(sources: readonly SelectorSource[], wanted: ReadonlySet<SelectorKind> = new Set()) {
  const clock = manualClock();
  const warnings: string[] = [];
  const attest = createAttestor({
    unix: createUnixAttestor(),
    sources,
    wanted: () => wanted,
    clock,
    warn: (name, why) => warnings.push(`${name}: ${why}`),
  });
  const texts = async (of: Partial<UnixPeer> = {}): Promise<readonly string[]> =>
    (await attest(peerOf({ pid: process.pid, ...of }))).selectors.map(({ text }) => text);
  return { clock, warnings, texts, attest };
}

test('selectors of all sources come together, sorted and without duplicates', async () => {
  const { texts } = attestor([
    source('a', gives('systemd:unit:b.service', 'systemd:unit:a.service')),
    source('b', gives('systemd:unit:a.service', 'k8s:ns:shop')),
  ]);
  const found = await texts();
  expect(found.filter((text) => !text.startsWith('unix:'))).toEqual([
    'k8s:ns:shop',
    'systemd:unit:a.service',
    'systemd:unit:b.service',
  ]);
  expect(found).toContain(`unix:uid:${process.getuid?.()}`);
  expect(found).toEqual([...found].sort());
  expect(new Set(found).size).toBe(found.length);
});

test('one that fails costs its own selectors, and is told of once a minute', async () => {
  const { clock, texts, warnings } = attestor([
    source('bad', fails),
    source('good', gives('systemd:unit:a.service')),
  ]);
  for (let i = 0; i < 3; i++) expect(await texts()).toContain('systemd:unit:a.service');
  expect(warnings).toEqual(['bad: out of order']);
  await clock.advance(60_000);
  await texts();
  expect(warnings).toEqual(['bad: out of order', 'bad: out of order']);
});

test('one that throws at once is no worse', async () => {
  const { texts } = attestor([
    source('bad', () => {
      throw new Error('at once');
    }),
    source('good', gives('systemd:unit:a.service')),
  ]);
  expect(await texts()).toContain('systemd:unit:a.service');
});

test('one that is late costs its own selectors after four seconds, and hears of it', async () => {
  let aborted = false;
  const late: Answer = (subject, signal) => {
    signal.addEventListener('abort', () => (aborted = true));
    return hangs(subject, signal);
  };
  const { clock, texts, warnings } = attestor([
    source('late', late),
    source('good', gives('systemd:unit:a.service')),
  ]);
  const found = texts();
  await clock.advance(3_999);
  expect(aborted).toBe(false);
  await clock.advance(1);
  expect(await found).toContain('systemd:unit:a.service');
  expect(aborted).toBe(true);
  expect(warnings).toEqual(['late: it did not answer in time']);
  expect(clock.sleepers()).toBe(0);
});

describe('refused', () => {
  test('a process that ended while sources were asked', async () => {
    let alive = true;
    const ends: Answer = async () => {
      alive = false;
      return [parseSelector('systemd:unit:a.service')];
    };
    const { texts } = attestor([source('a', ends)]);
    await expect(texts({ isAlive: () => alive })).rejects.toMatchObject({ code: 'attestation_failed' });
  });

  test('a process that the kernel does not vouch for: nobody is asked', async () => {
    let asked = 0;
    const counts: Answer = async () => {
      asked += 1;
      return [];
    };
    const { texts } = attestor([source('a', counts)]);
    await expect(texts({ isAlive: () => false })).rejects.toMatchObject({ code: 'attestation_failed' });
    await expect(texts({ pid: 0 })).rejects.toMatchObject({ code: 'attestation_failed' });
    expect(asked).toBe(0);
  });
});

test('a costly source is asked from the first entry that names its kind, and from then on', async () => {
  const wanted = new Set<SelectorKind>(['unix:uid']);
  const digest = `unix:sha256:${'ab'.repeat(32)}`;
  const { texts } = attestor([source('costly', gives(digest), 'unix:sha256')], wanted);
  expect(await texts()).not.toContain(digest);
  wanted.add('unix:sha256');
  expect(await texts()).toContain(digest);
  wanted.delete('unix:sha256');
  expect(await texts()).toContain(digest);
});

test('what was left out is told: kinds that nobody looked for, and sources that failed', async () => {
  const wanted = new Set<SelectorKind>();
  const { attest, clock } = attestor(
    [source('costly', gives(), 'unix:sha256'), source('good', gives())],
    wanted,
  );
  const found = await attest(peerOf({ pid: process.pid }));
  expect([found.lacks?.(), found.retryAt]).toEqual([false, null]);
  wanted.add('unix:sha256');
  expect(found.lacks?.()).toBe(true);
  expect((await attest(peerOf({ pid: process.pid }))).lacks?.()).toBe(false);
  const failed = await attestor([source('bad', fails)]).attest(peerOf({ pid: process.pid }));
  expect(failed.retryAt).toEqual(new Date(clock.now().getTime() + 10_000));
});
