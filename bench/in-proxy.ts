// What it costs to decide in the proxy: `npm run bench -- in-proxy [latency|push] [--rounds N] [--ms N] [--pushes N]`.
// `latency` calls real Envoys over mTLS; `push` measures how soon a change is in force at 100 proxies.
import { parseArgs } from 'node:util';
import { measureLatency } from './in-proxy/latency.ts';
import { measurePushes } from './in-proxy/push.ts';
import { type Figure, printFigures } from './report.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '9' },
    ms: { type: 'string', default: '400' },
    pushes: { type: 'string', default: '30' },
  },
});
const parts: Readonly<Record<string, () => Promise<readonly Figure[]>>> = {
  latency: () => measureLatency(Number(values.rounds), Number(values.ms)),
  push: () => measurePushes(Number(values.pushes)),
};
const unknown = positionals.filter((name) => !Object.hasOwn(parts, name));
if (unknown.length > 0) throw new Error(`parts are ${Object.keys(parts).join(', ')}`);
const figures: Figure[] = [];
for (const [name, measure] of Object.entries(parts)) {
  if (positionals.length === 0 || positionals.includes(name)) figures.push(...(await measure()));
}
printFigures('in-proxy', figures);
