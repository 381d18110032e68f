import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { UnixPeer } from '../../src/identity/evidence.ts';
import {
  type AdmissionLimits,
  createAdmission,
  defaultAdmissionLimits,
} from '../../src/workload-api/admission.ts';
import { claimsForWire } from '../../src/workload-api/claims.ts';
import { ValidateJWTSVIDResponse } from '../../src/wire/workload.ts';
import { manualClock, settle } from '../harness/manual-clock.ts';

const peer = (uid: number): UnixPeer => ({
  kind: 'unix',
  connectionId: `c${uid}`,
  pid: uid,
  uid,
  gid: uid,
  isAlive: () => true,
});

function admit(changes: Partial<AdmissionLimits>) {
  const clock = manualClock();
  const admission = createAdmission({ ...defaultAdmissionLimits, ...changes }, clock);
  const ends: (() => void)[] = [];
  const outcomes: string[] = [];
  const open = async (uid: number): Promise<void> => {
    const work = () => new Promise<void>((resolve) => void ends.push(resolve));
    admission
      .stream(peer(uid), work)
      .then(() => void outcomes.push('ended'))
      .catch((error: { code: string }) => void outcomes.push(`${uid} ${error.code}`));
    await settle();
  };
  return { clock, admission, ends, outcomes, open };
}

test('one uid at its limit leaves room for another', async () => {
  const { open, ends, outcomes } = admit({ streamsPerUid: 2, streams: 3 });
  for (const uid of [1, 1, 1, 2, 2]) await open(uid);
  expect([ends.length, outcomes]).toEqual([3, ['1 stream_limit', '2 stream_limit']]);
  ends[0]!();
  await settle();
  await open(2);
  expect([ends.length, outcomes.at(-1)]).toEqual([4, 'ended']);
});

test('a stream that fails gives its place back', async () => {
  const { admission } = admit({ streamsPerUid: 1 });
  for (let i = 0; i < 3; i++) {
    await expect(admission.stream(peer(1), () => Promise.reject(new Error('x')))).rejects.toThrow('x');
  }
});

test('what was spent comes back with time, to each uid for itself', async () => {
  const { admission, clock } = admit({ mints: { burst: 2, perSecond: 1 } });
  const spend = (uid: number) => () => admission.spend('mints', peer(uid));
  const limited = expect.objectContaining({ code: 'rate_limited' }) as Error;
  spend(1)();
  spend(1)();
  expect(spend(1)).toThrow(limited);
  spend(2)();
  admission.spend('validations', peer(1));
  await clock.advance(1_000);
  spend(1)();
  expect(spend(1)).toThrow(limited);
});

test('calls wait in a bounded queue', async () => {
  const { admission } = admit({ atOnce: 1, waiting: 2 });
  const gate = Promise.withResolvers<string>();
  const calls = [
    admission.unary(peer(1), () => gate.promise),
    admission.unary(peer(1), () => Promise.resolve('second')),
  ];
  await expect(admission.unary(peer(2), () => Promise.resolve('third'))).rejects.toMatchObject({
    code: 'stream_limit',
  });
  gate.resolve('first');
  expect(await Promise.all(calls)).toEqual(['first', 'second']);
  expect(await admission.unary(peer(1), () => Promise.resolve('later'))).toBe('later');
});

test('calls of one uid that take long keep nobody else waiting, however many they are', async () => {
  const { admission } = admit({});
  const gate = Promise.withResolvers<string>();
  const calls = Array.from({ length: 2_000 }, () =>
    admission.unary(peer(1), () => gate.promise).catch((error: { code: string }) => error.code),
  );
  expect(await admission.unary(peer(2), () => Promise.resolve('other'))).toBe('other');
  gate.resolve('slow');
  const outcomes = await Promise.all(calls);
  expect(outcomes.filter((outcome) => outcome === 'slow')).toHaveLength(256);
  expect(outcomes.filter((outcome) => outcome === 'stream_limit')).toHaveLength(1_744);
  expect(await admission.unary(peer(1), () => Promise.resolve('again'))).toBe('again');
});

test('every claim of a token arrives as it is, but for aud, which is always a list', () => {
  const claims = fc.dictionary(
    fc.string().filter((name) => name !== '__proto__' && name !== 'aud'),
    fc.jsonValue({ maxDepth: 4 }).map((value) => JSON.parse(JSON.stringify(value)) as unknown),
  );
  fc.assert(
    fc.property(claims, fc.oneof(fc.string(), fc.array(fc.string())), (more, aud) => {
      fc.pre(!JSON.stringify(more).includes('__proto__'));
      const made = claimsForWire({ ...more, aud });
      const bytes = ValidateJWTSVIDResponse.encode({ spiffeId: '', claims: made }).finish();
      const read: unknown = ValidateJWTSVIDResponse.decode(bytes).claims;
      expect(read).toEqual({ ...more, aud: Array.isArray(aud) ? aud : [aud] });
    }),
  );
});

test.each([
  [31, false],
  [32, true],
  [5_000, true],
])('claims %i levels deep are refused: %s', (depth, refused) => {
  let value: unknown = 1;
  for (let i = 0; i < depth; i++) value = [value];
  const make = () => claimsForWire({ deep: value });
  if (refused) expect(make).toThrow(expect.objectContaining({ code: 'jwt_invalid' }));
  else expect(make()).toEqual({ deep: value });
});
