import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { parseCgroups, placeLines } from '../../src/attest/cgroup.ts';
import { createKubelet, isLoopback } from '../../src/attest/kubelet.ts';
import { createKubernetesSource } from '../../src/attest/kubernetes.ts';
import { createPodBook } from '../../src/attest/pod-book.ts';
import type { PodList } from '../../src/attest/pod-list.ts';
import { systemClock } from '../../src/clock.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { makeClusterCa, serve, type TlsPair } from './kubelet-stub.ts';
import { imageDigest, podListOf, podOf } from './pods.ts';
import { peerOf } from './programs.ts';

const [a, b] = ['aa'.repeat(32), 'bb'.repeat(32)];
const uid = '2c48913c-b29f-11e7-9350-020968147796';
const other = 'f0000000-b29f-11e7-9350-020968147796';
const never = new AbortController().signal;
const under = uid.replaceAll('-', '_');
const cgroup = `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${under}.slice/cri-containerd-${a}.scope\n`;

let directory: string;
let tokenFile: string;
let caFile: string;
let pair: TlsPair;
let clientPair: TlsPair;
let foreignPair: TlsPair;
const opened: (() => Promise<void>)[] = [];

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'kubelet-'));
  const ca = await makeClusterCa();
  pair = await ca.sign('server', 'node-1');
  clientPair = await ca.sign('client', 'node-1');
  foreignPair = await (await makeClusterCa()).sign('server', 'node-1');
  tokenFile = join(directory, 'token');
  caFile = join(directory, 'ca.crt');
  writeFileSync(tokenFile, 'eyJhbGciOiJSUzI1NiJ9.e30.c2ln\n');
  writeFileSync(caFile, ca.pem);
});
afterEach(async () => {
  for (const close of opened.splice(0)) await close();
});
afterAll(() => rmSync(directory, { recursive: true }));

const onePod = podListOf([
  podOf({ uid, containers: [{ id: a, name: 'app' }], labels: { app: 'web', 'shop.test/tier': '' } }),
  podOf({ uid: other, containers: [{ id: b }], name: 'other' }),
]);

describe('a process in a pod', () => {
  test('has the selectors of its pod and container, from a kubelet with TLS and a token', async () => {
    const seen: IncomingMessage[] = [];
    const url = await kubelet((request, response) => {
      seen.push(request);
      response.setHeader('content-type', 'application/json').end(onePod);
    });
    expect(await selectors(url, cgroup)).toEqual([
      'k8s:ns:shop',
      'k8s:sa:web',
      'k8s:pod-name:web-6658cb9566-5n4b4',
      `k8s:pod-uid:${uid}`,
      'k8s:pod-label:app:web',
      'k8s:pod-label:shop.test/tier:',
      'k8s:container-name:app',
      `k8s:container-image:${imageDigest}`,
      'k8s:node-name:node-1',
    ]);
    expect(seen.map(({ method, url: path, headers }) => [method, path, headers.authorization])).toEqual([
      ['GET', '/pods', 'Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln'],
    ]);
  });

  test('is known by the read-only port, which is shown no token', async () => {
    let authorization: string | undefined = 'none asked';
    const url = await kubelet((request, response) => {
      authorization = request.headers.authorization;
      response.end(onePod);
    }, null);
    expect(await selectors(url, cgroup)).toContain('k8s:ns:shop');
    expect(authorization).toBeUndefined();
  });

  test.each([
    ['no container', '0::/system.slice/web.service\n'],
    ['a container of no pod', `0::/docker/${a}\n`],
  ])('nobody is asked for %s', async (_, text) => {
    let asked = 0;
    const url = await kubelet(() => (asked += 1));
    expect(await selectors(url, text)).toEqual([]);
    expect(asked).toBe(0);
  });

  test('has none when pod and container do not belong together', async () => {
    const url = await kubelet((_, response) => response.end(onePod));
    expect(await selectors(url, cgroup.replace(a, b))).toEqual([]);
  });

  test('has none when two pods claim its container', async () => {
    const pods = [uid, other].map((each) => podOf({ uid: each, containers: [{ id: a }] }));
    const url = await kubelet((_, response) => response.end(podListOf(pods)));
    expect(await selectors(url, cgroup)).toEqual([]);
  });

  test('has labels that are valid, and no others', async () => {
    const labels = { app: 'a b', 'bad key': 'x', ok: 'yes', 'a:b': 'c', newline: 'a\nb' };
    const url = await kubelet((_, response) =>
      response.end(podListOf([podOf({ uid, labels, containers: [{ id: a }] })])),
    );
    expect((await selectors(url, cgroup)).filter((text) => text.startsWith('k8s:pod-label'))).toEqual([
      'k8s:pod-label:ok:yes',
    ]);
  });

  test('a long list of many pods is read', async () => {
    const ids = Array.from({ length: 250 }, (_, i) => i.toString(16).padStart(64, '0'));
    const pods = ids.map((id) =>
      podOf({ uid, containers: [{ id }], metadata: { annotations: { filler: 'x'.repeat(20_000) } } }),
    );
    const document = podListOf(pods);
    expect(document.length).toBeGreaterThan(5_000_000);
    const url = await kubelet((_, response) => response.end(document));
    expect(await selectors(url, cgroup.replace(a, ids[249] ?? ''))).toContain('k8s:ns:shop');
  });
});

describe('a kubelet that', () => {
  test.each<[string, RequestListener, RegExp]>([
    ['refuses', (_, response) => response.writeHead(403).end('Forbidden'), /refused: 403.*nodes\/proxy/],
    ['does not know us', (_, response) => response.writeHead(401).end('Unauthorized'), /refused: 401/],
    [
      'sends us on',
      (_, response) => response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end(),
      /answered 302/,
    ],
    ['fails', (_, response) => response.writeHead(500).end(), /answered 500/],
    ['answers with a page', (_, response) => response.end('<html>'), /not an object/],
    ['breaks off', (_, response) => response.end(onePod.slice(0, -20)), /not whole/],
    [
      'hangs up',
      (_, response) => {
        response.writeHead(200, { 'content-length': '9999999' });
        response.write(onePod);
        setTimeout(() => response.destroy(), 20);
      },
      /aborted|cut short|ECONNRESET/,
    ],
    [
      'answers with too much',
      (_, response) => response.end(`{"a":"${'x'.repeat(9_000_000)}"}`),
      /more than 8388608/,
    ],
    ['does not answer', () => undefined, /timeout|aborted/],
    [
      'sends too many headers',
      (_, response) => response.setHeader('x', 'y'.repeat(20_000)).end(onePod),
      /overflow/i,
    ],
  ])('%s gives no list', async (_, listener, why) => {
    const url = await kubelet(listener);
    const fetch = createKubelet({ url, tokenFile, caFile, timeoutMs: 1_000 });
    await expect(fetch(never)).rejects.toThrow(why);
  });

  test.each<[string, () => TlsPair]>([
    ['another CA has signed', () => foreignPair],
    ['shows the certificate of a client', () => clientPair],
  ])('%s is not shown the token', async (_, shown) => {
    let asked = 0;
    const url = await kubelet(() => (asked += 1), shown());
    await expect(createKubelet({ url, tokenFile, caFile })(never)).rejects.toThrow(Error);
    expect(asked).toBe(0);
  });

  test('is not on a loopback address must show its name', async () => {
    const { port } = await kubelet((_, response) => response.end(onePod));
    const fetch = createKubelet({ url: new URL(`https://localhost:${port}`), tokenFile, caFile });
    await expect(fetch(never)).rejects.toThrow(/altnames|not match/i);
  });

  test.each([
    ['https://127.0.0.1:10250', true],
    ['https://[::1]:10250', true],
    ['https://localhost:10250', false],
    ['https://127.0.0.1.nip.test:10250', false],
    ['https://10.0.0.1:10250', false],
  ])('%s is on loopback: %s', (url, loopback) => {
    expect(isLoopback(new URL(url))).toBe(loopback);
  });

  test.each([
    ['no token', '', /holds no token/],
    ['a token that would add a header', 'a\r\nx: y', /holds no token/],
    ['more than 1 MiB', 'a'.repeat(1_048_577), /more than/],
  ])('is not asked with a file of %s', async (_, text, why) => {
    const file = join(directory, 'other-token');
    writeFileSync(file, text);
    chmodSync(file, 0o600);
    const url = await kubelet((_, response) => response.end(onePod));
    await expect(createKubelet({ url, tokenFile: file, caFile })(never)).rejects.toThrow(why);
  });
});

describe('the last answer', () => {
  const facts = (podUid = uid) => ({
    podUid,
    podName: 'web',
    namespace: 'shop',
    serviceAccount: 'web',
    nodeName: 'node-1',
    labels: [],
    containerName: 'app',
    imageDigest: undefined,
  });
  const inPod = { containerId: a, podUid: uid };
  const known: PodList = new Map([[a, facts()]]);

  function book(answers: (PodList | Error)[]) {
    const clock = manualClock();
    let fetches = 0;
    const find = createPodBook(async () => {
      const answer = answers[Math.min(fetches, answers.length - 1)] ?? new Error('no answer');
      fetches += 1;
      await Promise.resolve();
      if (answer instanceof Error) throw answer;
      return answer;
    }, clock);
    return { clock, find, fetches: () => fetches };
  }

  test('is shared by all who ask at once, and holds for five seconds', async () => {
    const { clock, find, fetches } = book([known]);
    const found = await Promise.all(Array.from({ length: 100 }, () => find(inPod, never)));
    expect(found.every((each) => each?.namespace === 'shop')).toBe(true);
    expect(fetches()).toBe(1);
    await clock.advance(4_999);
    await find(inPod, never);
    expect(fetches()).toBe(1);
    await clock.advance(1);
    await find(inPod, never);
    expect(fetches()).toBe(2);
  });

  test('is asked for again, half a second apart, until it knows the container', async () => {
    const { clock, find, fetches } = book([new Map(), new Map(), known]);
    const finding = find(inPod, never);
    await clock.advance(499);
    expect(fetches()).toBe(1);
    await clock.advance(501);
    expect((await finding)?.podUid).toBe(uid);
    expect(fetches()).toBe(3);
  });

  test('is not asked for ever, and a stranger is remembered for ten seconds', async () => {
    const { clock, find, fetches } = book([new Map()]);
    const finding = find(inPod, never);
    await clock.advance(5_000);
    expect(await finding).toBeUndefined();
    expect(fetches()).toBe(4);
    expect(await find(inPod, never)).toBeUndefined();
    expect(fetches()).toBe(4);
    await clock.advance(10_000);
    void find(inPod, never);
    await clock.advance(0);
    expect(fetches()).toBe(5);
  });

  test('of a kubelet that went away holds for a minute, for containers it knew', async () => {
    const { clock, find } = book([known, new Error('away')]);
    await find(inPod, never);
    await clock.advance(59_999);
    expect((await find(inPod, never))?.podUid).toBe(uid);
    const stranger = find({ containerId: b, podUid: uid }, never);
    stranger.catch(() => undefined);
    await clock.advance(10_000);
    await expect(stranger).rejects.toThrow('away');
    const late = find(inPod, never);
    late.catch(() => undefined);
    await clock.advance(10_000);
    await expect(late).rejects.toThrow('away');
  });

  test('is asked for less and less often while the kubelet fails', async () => {
    const { clock, find, fetches } = book([new Error('away')]);
    for (let i = 0; i < 600; i++) {
      void find(inPod, never).catch(() => undefined);
      await clock.advance(100);
    }
    // At 0, 1, 3, 7, 15 seconds and each 8 after that.
    expect(fetches()).toBeLessThanOrEqual(12);
    expect(fetches()).toBeGreaterThanOrEqual(8);
  });

  test.each<[string, PodList]>([
    ['of another pod', new Map([[a, facts(other)]])],
    ['that two claim', new Map([[a, 'ambiguous' as const]])],
  ])('gives nothing for a container %s', async (_, list) => {
    const { find } = book([list]);
    expect(await find(inPod, never)).toBeUndefined();
  });

  test('is not waited for when nobody waits any longer', async () => {
    const { clock, find } = book([new Map()]);
    const limit = new AbortController();
    const finding = find(inPod, limit.signal);
    finding.catch(() => undefined);
    await clock.advance(100);
    limit.abort();
    await expect(finding).rejects.toThrow('in time');
  });
});

async function kubelet(listener: RequestListener, shown: TlsPair | null = pair): Promise<URL> {
  const { url, close } = await serve(listener, shown === null ? {} : { pair: shown });
  opened.push(close);
  return url;
}

async function selectors(url: URL, text: string): Promise<readonly string[]> {
  const source = createKubernetesSource(
    createPodBook(createKubelet({ url, tokenFile, caFile }), systemClock),
  );
  const cgroups = placeLines(parseCgroups(text), undefined);
  return (await source.selectorsOf({ peer: peerOf({ pid: process.pid }), cgroups }, never)).map(
    (selector) => selector.text,
  );
}
