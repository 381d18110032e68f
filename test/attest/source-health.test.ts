import { createServer } from 'node:http';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { createDockerSource } from '../../src/attest/docker.ts';
import { createSourceHealths, isFailing } from '../../src/attest/source-health.ts';
import { createWorkloadAttestor } from '../../src/attest/workload.ts';
import type { UnixPeer } from '../../src/identity/evidence.ts';
import { sourceReport } from '../../src/up-outlook.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

const containerId = 'ab'.repeat(32);
const subject = {
  peer: {} as UnixPeer,
  cgroups: [
    { hierarchy: 'unified', from: 'root' as const, path: `system.slice/docker-${containerId}.scope` },
  ],
};

test('a source is unused, then well or failing, as the last question ended', async () => {
  const clock = manualClock();
  const healths = createSourceHealths(clock);
  healths.add('kubelet', 'https://127.0.0.1:10250');
  const told = () => healths.all().map(sourceReport)[0];
  expect(told()).toMatchObject({ state: 'unused', calls: 0, lastSuccessAt: null, lastFailureAt: null });
  healths.note('kubelet', null);
  expect(told()).toMatchObject({ state: 'ok', calls: 1, failures: 0, lastSuccessAt: clock.now() });
  await clock.advance(1_000);
  healths.note('kubelet', 'x'.repeat(5_000));
  expect(told()).toMatchObject({ state: 'failing', calls: 2, failures: 1, lastFailureAt: clock.now() });
  expect(told()?.lastFailure).toHaveLength(256);
  await clock.advance(1_000);
  healths.note('kubelet', null);
  expect(isFailing(healths.all()[0]!)).toBe(false);
  healths.note('__proto__', 'nobody');
  expect(healths.all()).toHaveLength(1);
});

test.each([
  ['there is no socket', undefined, 'there is no socket'],
  ['it answers with an error', 500, 'the Docker engine answered 500'],
  ['it does not know the container', 404, null],
])('the Docker engine: %s', async (_, status, failure) => {
  const socketPath = join(makeTempDir(scope), 'docker.sock');
  if (status !== undefined) {
    const server = createServer((_request, response) => response.writeHead(status).end());
    await new Promise<void>((resolve) => server.listen(socketPath, resolve));
    scope.defer(() => void server.close());
  }
  const noted: (string | null)[] = [];
  const source = createDockerSource({ socketPath, clock: manualClock(), note: (why) => noted.push(why) });
  await source.selectorsOf(subject, new AbortController().signal).catch(() => undefined);
  expect(noted).toEqual([failure]);
});

test('the sources of a machine are named with what they ask, before they are asked', () => {
  const healths = createSourceHealths(manualClock());
  const directory = makeTempDir(scope);
  for (const name of ['token', 'ca']) writeFileSync(join(directory, name), 'x');
  createWorkloadAttestor({
    kubelet: {
      url: new URL('https://127.0.0.1:10250'),
      tokenFile: join(directory, 'token'),
      caFile: join(directory, 'ca'),
    },
    dockerSocket: '/run/docker.sock',
    wanted: () => new Set(),
    clock: manualClock(),
    warn: () => undefined,
    healths,
  });
  expect(healths.all().map(({ name, place }) => [name, place])).toEqual([
    ['systemd', ''],
    ['process tree', ''],
    ['executable digest', ''],
    ['kubelet', 'https://127.0.0.1:10250'],
    ['Docker engine', '/run/docker.sock'],
  ]);
});
