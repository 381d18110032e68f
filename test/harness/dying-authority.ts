// Run as a process of its own: starts an authority, takes the steps it is told, and dies by SIGKILL at a failpoint of the
// last one. Exits with 0 when it came through.
import { startUp } from '../../src/up.ts';
import { loadConfig, type ConfigText } from '../../src/config.ts';
import { systemClock } from '../../src/clock.ts';
import { openLog } from '../../src/log.ts';
import { ask } from './http.ts';

type Task = {
  readonly flags: ConfigText;
  readonly steps: readonly (readonly [path: string, body: object])[];
  readonly failpoint: string;
};

const { flags, steps, failpoint } = JSON.parse(process.argv[2] ?? '') as Task;
const config = loadConfig({ flags, environment: {}, file: null, isRoot: false });
let armed = steps.length === 0;
const running = await startUp(config, openLog('silent'), systemClock, {
  failpoint: (name) => {
    if (armed && name === failpoint) process.kill(process.pid, 'SIGKILL');
  },
});
for (const [at, [step, body]] of steps.entries()) {
  armed = at === steps.length - 1;
  const answer = await ask({
    to: config.adminSocket,
    method: 'POST',
    path: `/v1/ca/${step}`,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (answer.status !== 200) throw new Error(answer.body);
}
await running.close();
