import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createJsonItems } from '../../src/attest/json-items.ts';
import { createPodListReader, type PodList } from '../../src/attest/pod-list.ts';
import { imageDigest, type PodContainer, podListOf, podOf } from './pods.ts';

const [a, b, c] = ['aa'.repeat(32), 'bb'.repeat(32), 'cc'.repeat(32)];
const uid = '2c48913c-b29f-11e7-9350-020968147796';
const other = 'f0000000-b29f-11e7-9350-020968147796';

describe('containers of a list', () => {
  test('have the facts of their pod and their own', () => {
    const list = read(
      podListOf([
        podOf({
          uid,
          containers: [
            { id: a },
            { id: b, name: 'init', kind: 'initContainerStatuses', runtime: 'cri-o' },
            { id: c, name: 'debug', kind: 'ephemeralContainerStatuses', runtime: 'docker' },
          ],
        }),
      ]),
    );
    const facts = {
      podUid: uid,
      podName: 'web-6658cb9566-5n4b4',
      namespace: 'shop',
      serviceAccount: 'web',
      nodeName: 'node-1',
      labels: [['app', 'web']],
      imageDigest,
    };
    expect(list.get(a)).toEqual({ ...facts, containerName: 'app' });
    expect(list.get(b)).toEqual({ ...facts, containerName: 'init' });
    expect(list.get(c)).toEqual({ ...facts, containerName: 'debug' });
  });

  test.each<[string, string | undefined, string | undefined]>([
    ['a digest of the registry', `registry.test/web@${imageDigest}`, imageDigest],
    ['a digest that Docker pulled', `docker-pullable://web@${imageDigest}`, imageDigest],
    ['the digest of a configuration', imageDigest, imageDigest],
    ['the same with Docker', `docker://${imageDigest}`, imageDigest],
    ['a tag', 'registry.test/web:1.2', undefined],
    ['a digest in the middle', `${imageDigest}/web`, undefined],
    ['a digest of other length', `web@${imageDigest}00`, undefined],
  ])('an image of %s', (_, imageId, digest) => {
    const list = read(podListOf([podOf({ uid, containers: [{ id: a, imageId: imageId ?? '' }] })]));
    expect(list.get(a)).toMatchObject({ imageDigest: digest });
  });

  test.each<[string, Partial<PodContainer>]>([
    ['waits', { state: { waiting: { reason: 'CrashLoopBackOff' } } }],
    ['has ended', { state: { terminated: { exitCode: 0 } } }],
    ['is in no state', { state: {} }],
    ['has an id of no runtime', { runtime: '' }],
    ['has an id in upper case', { id: a.toUpperCase() }],
    ['has an id of a path', { id: `${a}/x` }],
  ])('are left out when one %s', (_, container) => {
    const pod = podOf({ uid, containers: [{ id: a, ...container }] });
    expect(read(podListOf([pod])).size).toBe(0);
  });

  test.each(['Succeeded', 'Failed', 'Unknown', ''])('are left out in phase %j', (phase) => {
    expect(read(podListOf([podOf({ uid, phase, containers: [{ id: a }] })])).size).toBe(0);
  });

  test('are ambiguous when two claim one id, in one pod or in two', () => {
    const twice = podOf({ uid, containers: [{ id: a }, { id: a, kind: 'initContainerStatuses' }] });
    expect(read(podListOf([twice])).get(a)).toBe('ambiguous');
    const pods = [uid, other, uid].map((each) => podOf({ uid: each, containers: [{ id: a }] }));
    expect(read(podListOf(pods.slice(0, 2))).get(a)).toBe('ambiguous');
    expect(read(podListOf(pods)).get(a)).toBe('ambiguous');
  });

  test.each<[string, unknown, string[][]]>([
    ['none', undefined, []],
    ['of the wrong kind', { app: 1, tier: 'web' }, [['tier', 'web']]],
    ['in a list', ['app'], []],
    ['with an odd name', JSON.parse('{"__proto__":"x"}'), [['__proto__', 'x']]],
    ['too many', Object.fromEntries(Array.from({ length: 129 }, (_, i) => [`l${i}`, ''])), []],
  ])('have labels %s', (_, labels, expected) => {
    const pod = podOf({ uid, containers: [{ id: a }], metadata: { labels } });
    expect(read(podListOf([pod])).get(a)).toMatchObject({ labels: expected });
  });

  test('have no account where their pod has none', () => {
    const pod = podOf({ uid, containers: [{ id: a }], spec: { serviceAccountName: '' } });
    expect(read(podListOf([pod])).get(a)).toMatchObject({ serviceAccount: undefined });
  });

  test.each<[string, unknown]>([
    ['null', { metadata: null }],
    ['numbers', { metadata: { uid: 1 }, status: 5 }],
    ['arrays', { metadata: [], status: { containerStatuses: {} } }],
    [
      'statuses of nothing',
      { metadata: { uid }, status: { phase: 'Running', containerStatuses: [null, 1, []] } },
    ],
  ])('are none in a pod of %s', (_, pod) => {
    expect(read(podListOf([pod])).size).toBe(0);
  });
});

describe('a list', () => {
  test.each([
    ['of nothing', '{"kind":"PodList","items":[]}'],
    ['of null', '{"kind":"PodList","items":null}'],
    ['with items elsewhere', '{"metadata":{"items":[{"a":1}]},"items":[]}'],
  ])('%s is empty', (_, text) => {
    expect(read(text).size).toBe(0);
  });

  test.each([
    ['nothing', ''],
    ['an array', '[]'],
    ['text', 'Unauthorized'],
    ['no items', '{"kind":"PodList"}'],
    ['items of a number', '{"items":5}'],
    ['items of an object', '{"items":{}}'],
    ['items twice', '{"items":[],"items":[]}'],
    ['an item of a number', '{"items":[5]}'],
    ['an item of a string', '{"items":["a"]}'],
    ['an item that is not JSON', '{"items":[{"a":}]}'],
    ['a cut', '{"items":[{"a":1}'],
    ['a cut in a string', '{"items":[{"a":"'],
    ['something after it', '{"items":[]}{}'],
    ['a depth of 65', `{"items":[${'{"a":'.repeat(64)}1${'}'.repeat(64)}]}`],
    ['an item of more than 2 MiB', `{"items":[{"a":"${'x'.repeat(2_097_152)}"}]}`],
  ])('with %s is refused', (_, text) => {
    expect(() => read(text)).toThrow(Error);
  });
});

describe('properties', () => {
  test('however it arrives, items are those of JSON.parse', () => {
    const item = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 }));
    const extra = fc.dictionary(
      fc.string().filter((key) => key !== 'items'),
      fc.jsonValue({ maxDepth: 3 }),
    );
    fc.assert(
      fc.property(
        fc.array(item, { maxLength: 5 }),
        extra,
        fc.integer({ min: 1, max: 40 }),
        (list, more, size) => {
          const document = JSON.stringify({ ...more, items: list });
          const found: unknown[] = [];
          const items = createJsonItems(1_000_000, (text) => found.push(JSON.parse(text)));
          const bytes = Buffer.from(document);
          for (let at = 0; at < bytes.length; at += size) items.push(bytes.subarray(at, at + size));
          items.end();
          expect(found).toEqual(JSON.parse(JSON.stringify(list)));
        },
      ),
      { numRuns: 1_000 },
    );
  });

  test('bytes of any kind give a list or an Error', () => {
    const token = fc.constantFrom('{', '}', '[', ']', '"', '\\', ':', ',', '"items":', 'null', '1', ' ', 'x');
    fc.assert(
      fc.property(fc.array(token, { maxLength: 40 }), (tokens) => {
        try {
          read(tokens.join(''));
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
        }
      }),
      { numRuns: 3_000 },
    );
  });
});

function read(text: string): PodList {
  const reader = createPodListReader();
  reader.push(Buffer.from(text));
  reader.end();
  return reader.list();
}
