import { mkdtempSync, rmSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseCgroups, placeLines } from '../../src/attest/cgroup.ts';
import { createDockerSource } from '../../src/attest/docker.ts';
import { systemClock } from '../../src/clock.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { serve } from './kubelet-stub.ts';
import { peerOf } from './programs.ts';

const id = 'ab'.repeat(32);
const image = `sha256:${'1e'.repeat(32)}`;
const never = new AbortController().signal;
let directory: string;
let socketPath: string;
const opened: (() => Promise<void>)[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'docker-'));
  socketPath = join(directory, 'd.sock');
});
afterEach(async () => {
  for (const close of opened.splice(0)) await close();
  rmSync(directory, { recursive: true, force: true });
});

/** What the engine says of a container. */
function container(change: Record<string, unknown> = {}, config: Record<string, unknown> = {}): string {
  return JSON.stringify({
    Id: id,
    Created: '2026-01-01T00:00:00.000000000Z',
    Path: 'envoy',
    Args: ['-c', '/etc/envoy.yaml'],
    State: { Status: 'running', Running: true, Paused: false, Pid: 4_242, ExitCode: 0 },
    Image: image,
    Name: '/web',
    HostConfig: { NetworkMode: 'bridge', CgroupnsMode: 'private', Privileged: false },
    Mounts: [],
    Config: {
      Hostname: 'abababababab',
      Env: ['PATH=/usr/bin', 'SECRET=x'],
      Image: 'registry.test/shop/web:1.2',
      Labels: {
        'com.docker.compose.service': 'web',
        'org.opencontainers.image.title': 'Web server',
        empty: '',
      },
      ...config,
    },
    ...change,
  });
}

describe('a process in a container of the engine', () => {
  test.each([
    ['the cgroupfs driver', `0::/docker/${id}\n`],
    ['the systemd driver', `0::/system.slice/docker-${id}.scope\n`],
    ['cgroup version 1', `9:pids:/docker/${id}\n1:name=systemd:/docker/${id}\n`],
    [
      'cri-dockerd',
      `0::/kubepods.slice/kubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice/docker-${id}.scope\n`,
    ],
  ])('has labels and image under %s', async (_, cgroup) => {
    const paths: (string | undefined)[] = [];
    await engine((request, response) => {
      paths.push(request.url);
      response.setHeader('content-type', 'application/json').end(container());
    });
    expect(await selectors(cgroup)).toEqual([
      'docker:label:com.docker.compose.service:web',
      'docker:label:org.opencontainers.image.title:Web server',
      'docker:label:empty:',
      `docker:image-id:${image}`,
      'docker:image:registry.test/shop/web:1.2',
    ]);
    expect(paths).toEqual([`/containers/${id}/json`]);
  });

  test('has no label whose key holds a colon, nor one that could not be seen', async () => {
    const Labels = { 'a:b': 'c', bad: 'a\nb', turned: 'a\u202eb', number: 1, ok: 'a:b' };
    await engine((_, response) => response.end(container({}, { Labels })));
    const labels = (await selectors()).filter((text) => text.startsWith('docker:label'));
    expect(labels).toEqual(['docker:label:ok:a:b']);
  });

  test.each<[string, string]>([
    ['another container', container({ Id: 'cd'.repeat(32) })],
    ['one that does not run', container({ State: { Running: false } })],
    ['one of no state', container({ State: null })],
    ['nothing', 'null'],
    ['a list', '[]'],
  ])('has nothing when the engine speaks of %s', async (_, text) => {
    await engine((_, response) => response.end(text));
    expect(await selectors()).toEqual([]);
  });

  test.each<[string, string, string[]]>([
    ['no configuration', container({ Config: null }), [`docker:image-id:${image}`]],
    [
      'an image of no digest',
      container({ Image: 'web' }, { Labels: null, Image: 'web' }),
      ['docker:image:web'],
    ],
  ])('has what there is of %s', async (_, text, expected) => {
    await engine((_, response) => response.end(text));
    expect(await selectors()).toEqual(expected);
  });
});

test('a container that the engine does not know has nothing', async () => {
  await engine((_, response) => response.writeHead(404).end('{"message":"No such container"}'));
  expect(await selectors()).toEqual([]);
});

test('without a socket there is nothing, and no failure', async () => {
  expect(await selectors()).toEqual([]);
});

test('outside of containers nobody is asked', async () => {
  let asked = 0;
  await engine(() => (asked += 1));
  expect(await selectors('0::/system.slice/web.service\n')).toEqual([]);
  expect(asked).toBe(0);
});

test.each<[string, RequestListener, RegExp]>([
  ['fails', (_, response) => response.writeHead(500).end(), /answered 500/],
  ['answers with text', (_, response) => response.end('hello'), /JSON/],
  ['answers with too much', (_, response) => response.end(`"${'x'.repeat(1_100_000)}"`), /more than 1048576/],
  ['does not answer', () => undefined, /timeout|aborted/],
])('an engine that %s is a failure', async (_, listener, why) => {
  await engine(listener);
  await expect(selectors()).rejects.toThrow(why);
});

test('an answer is shared, and holds for a minute', async () => {
  let asked = 0;
  await engine((_, response) => {
    asked += 1;
    response.end(container());
  });
  const clock = manualClock();
  const source = createDockerSource({ socketPath, clock });
  const ask = () => source.selectorsOf({ peer: peerOf({}), cgroups: cgroupsOf(`0::/docker/${id}\n`) }, never);
  await Promise.all([ask(), ask(), ask()]);
  await clock.advance(59_999);
  await ask();
  expect(asked).toBe(1);
  await clock.advance(1);
  await ask();
  expect(asked).toBe(2);
});

async function engine(listener: RequestListener): Promise<void> {
  opened.push((await serve(listener, { socketPath })).close);
}

async function selectors(cgroup = `0::/docker/${id}\n`): Promise<readonly string[]> {
  const source = createDockerSource({ socketPath, clock: systemClock, timeoutMs: 1_000 });
  const found = await source.selectorsOf({ peer: peerOf({ pid: 1 }), cgroups: cgroupsOf(cgroup) }, never);
  return found.map(({ text }) => text);
}

function cgroupsOf(text: string) {
  return placeLines(parseCgroups(text), undefined);
}
