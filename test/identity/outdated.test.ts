import { afterEach, expect, test } from 'vitest';
import { noBans } from '../../src/identity/ban-list.ts';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import type { Attestation } from '../../src/identity/evidence.ts';
import { stillHolds } from '../../src/identity/evidence.ts';
import { createKeeper } from '../../src/identity/keeper.ts';
import { createNotice } from '../../src/identity/notice.ts';
import { indexEntries } from '../../src/identity/registry.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { createWatch } from '../../src/identity/watch.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { manualClock } from '../harness/manual-clock.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const caller = { pid: 1, uid: 1_000, gid: 1_000 };
const stop = new AbortController();
const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

function attested(texts: readonly string[], more: Partial<Attestation> = {}): Attestation {
  return { selectors: texts.map(parseSelector), caller, ...more };
}

function watch(attestation: Attestation, selectors: readonly string[]) {
  const clock = manualClock();
  const changed = createNotice();
  const entry = parseEntry(
    { id: 'web', spiffeId: 'spiffe://mesh.test/web', selectors },
    { trustDomain, ttlSeconds: 60 },
    1,
  );
  const keeper = createKeeper({
    issue: async () => ({
      certificates: [new Uint8Array([1])],
      serial: '1',
      issuerKeyId: 'aa',
      notBefore: clock.now(),
      notAfter: new Date(clock.now().getTime() + 60_000),
    }),
    generateKeyPair: async () => ({ publicKey: new Uint8Array(1), privateKey: new Uint8Array(1) }),
    bans: () => noBans,
    onChange: changed.subscribe,
    clock,
    random: () => 0.5,
    onFailure: () => undefined,
  });
  closers.push(() => keeper.close());
  const states = createWatch({
    trustDomain,
    registry: () => indexEntries([entry]),
    bans: () => noBans,
    bundles: () => new Map(),
    jwtBundles: () => new Map(),
    keeper,
    clock,
    onChange: changed.subscribe,
  })(attestation, stop.signal)[Symbol.asyncIterator]();
  return { clock, changed, states };
}

const inTenSeconds = new Date(manualClock().now().getTime() + 10_000);
const pending = { code: 'credentials_pending' };

test('a caller without an identity is sent to attest again when a source is worth another question', async () => {
  const { clock, states } = watch(attested(['unix:uid:1000'], { retryAt: inTenSeconds }), ['k8s:ns:shop']);
  expect((await states.next()).value).toMatchObject({ svids: [] });
  const next = states.next();
  let ended = false;
  next.catch(() => (ended = true));
  await clock.advance(9_999);
  expect(ended).toBe(false);
  await clock.advance(1);
  await expect(next).rejects.toMatchObject(pending);
});

test('one that has an identity stays', async () => {
  const { clock, states } = watch(attested(['unix:uid:1000'], { retryAt: inTenSeconds }), ['unix:uid:1000']);
  expect((await states.next()).value?.svids).toHaveLength(1);
  let ended = false;
  void states.next().then(undefined, () => (ended = true));
  await clock.advance(15_000);
  expect(ended).toBe(false);
});

test('everybody is sent when a kind begins to matter that nobody looked for', async () => {
  let lacks = false;
  const { changed, clock, states } = watch(attested(['unix:uid:1000'], { lacks: () => lacks }), [
    'unix:uid:1000',
  ]);
  expect((await states.next()).value?.svids).toHaveLength(1);
  const next = states.next();
  next.catch(() => undefined);
  lacks = true;
  changed.announce();
  await clock.advance(0);
  await expect(next).rejects.toMatchObject(pending);
});

test.each<[string, string[], string[], boolean]>([
  ['the same', ['unix:uid:1'], ['unix:uid:1'], true],
  ['more', ['unix:uid:1'], ['unix:gid:1', 'unix:uid:1'], true],
  ['less', ['unix:gid:1', 'unix:uid:1'], ['unix:uid:1'], false],
  ['another', ['unix:path:/a', 'unix:uid:1'], ['unix:path:/b', 'unix:uid:1'], false],
  ['nothing', ['unix:uid:1'], [], false],
])('what was attested holds when later there is %s: %s, %s, %s', (_, before, now, holds) => {
  expect(stillHolds(attested(before), attested(now))).toBe(holds);
});
