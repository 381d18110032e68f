// What a server and its agents do under load: `npm run bench -- sds [part...] [--outage-minutes N] [--nodes N]`.
// Each part has a server and an agent of its own, as processes with data directories of their own, compiled as they are
// installed, on loopback and Unix sockets. It stops by itself after about twelve minutes.
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { createScope, type Scope } from '../test/harness/scope.ts';
import { buildGoClient } from '../test/interop/go-client.ts';
import { type Figure, printFigures } from './report.ts';
import { measureArrival } from './sds/arrival.ts';
import { compile } from './sds/fleet.ts';
import { measureMany } from './sds/many.ts';
import { measureMemory } from './sds/memory.ts';
import { measureOpening } from './sds/opening.ts';
import { measureOutage } from './sds/outage.ts';
import { measureStampede, measureSwarm } from './sds/stampede.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    'outage-minutes': { type: 'string', default: '1' },
    nodes: { type: 'string', default: '1000' },
  },
});
const minutes = readNumber('outage-minutes', values['outage-minutes'], 0.1, 60);
const nodes = readNumber('nodes', values.nodes, 10, 10_000);

const whole = createScope();
let open = createScope();
// A part that fails twice, or beside what is awaited, must leave no process and no directory behind either.
process.on('unhandledRejection', (error) => {
  console.error(error);
  const leave = (): never => process.exit(1);
  void Promise.allSettled([open.close(), whole.close()]).then(leave);
});
try {
  const main = compile(whole);
  const client = await buildGoClient('sdsclient');
  const parts: Readonly<Record<string, (scope: Scope) => Promise<readonly Figure[]>>> = {
    arrival: (scope) => measureArrival(scope, main, 200),
    opening: (scope) => measureOpening(scope, main, client, 5),
    memory: (scope) => measureMemory(scope, main, client),
    many: (scope) => measureMany(scope, main, client),
    stampede: (scope) => measureStampede(scope, main, nodes),
    swarm: async (scope) => measureSwarm(scope, main, await buildGoClient('nodecrowd'), nodes),
    outage: (scope) => measureOutage(scope, main, client, minutes),
  };
  const unknown = positionals.filter((name) => !Object.hasOwn(parts, name));
  if (unknown.length > 0) throw new Error(`parts are ${Object.keys(parts).join(', ')}`);
  const figures: Figure[] = [];
  for (const [name, measure] of Object.entries(parts)) {
    if (positionals.length > 0 && !positionals.includes(name)) continue;
    open = createScope();
    try {
      figures.push(...(await measure(open)));
    } finally {
      await open.close();
    }
    const [load = Number.NaN] = loadavg();
    figures.push({ name: `${name}: load average after it`, value: load, unit: '', atMost: null });
  }
  printFigures('sds', figures);
} finally {
  await whole.close();
}

function readNumber(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (value >= least && value <= most) return value;
  throw new Error(`--${name} is ${least} to ${most}`);
}
