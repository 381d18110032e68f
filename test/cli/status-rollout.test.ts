import { mkdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { policy } from '../http/documents.ts';
import { openCli } from './run-cli.ts';
import { startUp } from './up-child.ts';

const scope = createScope();
const dir = makeTempDir(scope);
const data = join(dir, 'data');
const run = openCli(scope, { cwd: dir });
const cli = (...args: string[]) => run(['--data-dir', data, ...args]);

beforeAll(async () => {
  mkdirSync(`${data}.run`, { recursive: true });
  const all = policy('orders', 'shop');
  writeFileSync(join(dir, 'policy.yaml'), all);
  writeFileSync(join(dir, 'candidate.yaml'), all.replace('spec: {}', 'spec: { rules: [{}] }'));
  await startUp(scope, dir, ['--trust-domain', 'mesh.test', '--admin-address', '127.0.0.1:0']);
});
afterAll(() => scope.close());

const line = async () => (await cli('status')).out.match(/^policy rollout.*$/m)?.[0];
const samples = async (): Promise<readonly string[]> => {
  const answer = await new Promise<NodeJS.ReadableStream>((resolve, reject) => {
    request({ socketPath: `${data}.run/admin.sock`, path: '/metrics' }, resolve)
      .on('error', reject)
      .end();
  });
  return (await text(answer)).match(/(?<=^countersign_policy_rollout)\S* [1-9]\d*$/gm) ?? [];
};

test('a rollout is in the status and the metrics while it lasts', async () => {
  expect((await cli('apply', '-f', 'policy.yaml')).code).toBe(0);
  expect([await line(), await samples()]).toEqual([undefined, []]);
  expect((await cli('policy', 'shadow', '-f', 'candidate.yaml')).code).toBe(0);
  expect([await line(), await samples()]).toEqual([
    expect.stringMatching(
      /^policy rollout +[0-9a-f]{8} beside revision 1: shadow; 0 calls judged, 0 newly denied, 0 newly allowed$/,
    ),
    ['{stage="shadow"} 1'],
  ]);
  expect((await cli('policy', 'canary', '25')).code).toBe(0);
  expect([await line(), await samples()]).toEqual([
    expect.stringMatching(/: canary, 25% of the workloads; 0 calls judged/),
    ['{stage="canary"} 1', '_percent 25'],
  ]);
  const { policyRollout } = JSON.parse((await cli('status', '-o', 'json')).out);
  expect(policyRollout).toMatchObject({ base: 1, stage: 'canary', percent: 25, judged: 0 });
  expect((await cli('policy', 'abort')).code).toBe(0);
  expect([await line(), await samples()]).toEqual([undefined, []]);
});
