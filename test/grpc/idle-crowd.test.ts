import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { defaultGrpcLimits, startGrpcListener } from '../../src/grpc/listener.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

let scope = createScope();
afterEach(async () => {
  await scope.close();
  scope = createScope();
});

const nobody = 65_534;
const crowd = `
const { connect } = require('node:net');
let open = 0, shut = 0;
const tell = () => { if (open === ${defaultGrpcLimits.connectionsPerUid} && shut === 100) console.log('full'); };
const next = (left) => {
  if (left === 0) return;
  let isOpen = false;
  const socket = connect(process.argv[1], () => { isOpen = true; open += 1; next(left - 1); tell(); });
  // The queue of the kernel is shorter than this.
  socket.on('error', () => { if (!isOpen) setTimeout(next, 20, left); });
  socket.on('close', () => { if (isOpen) { open -= 1; shut += 1; tell(); } });
};
next(${defaultGrpcLimits.connectionsPerUid + 100});
setTimeout(() => process.exit(1), 60_000);
`;

test.skipIf(process.getuid?.() !== 0)(
  'a thousand idle connections of one uid are all it gets, and everybody else is served',
  async () => {
    const directory = makeTempDir(scope);
    chmodSync(directory, 0o755);
    const path = join(directory, 'api.sock');
    const listener = await startGrpcListener({ path, mode: 0o666, services: [] });
    scope.defer(() => listener.close(0));
    const child = spawn(process.execPath, ['-e', crowd, path], {
      uid: nobody,
      cwd: '/',
      env: {},
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    scope.defer(() => child.kill('SIGKILL'));
    await once(child.stdout, 'data');
    expect(listener.connections()).toBe(defaultGrpcLimits.connectionsPerUid);
    const ours = connect(path);
    scope.defer(() => ours.destroy());
    await once(ours, 'connect');
    await eventually(
      'ours to be taken',
      () => listener.connections() === defaultGrpcLimits.connectionsPerUid + 1,
    );
    child.kill('SIGKILL');
    // Who is gone costs nothing.
    await eventually('the crowd to be forgotten', () => listener.connections() === 1);
    expect(ours.destroyed).toBe(false);
  },
  90_000,
);
