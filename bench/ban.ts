// How soon a ban bites: the time from sending the ban to the admin API until the answer to it, and until the first call
// that a connected Envoy denies, under constant requests over connections that stay open. Takes about 30 seconds.
import { Agent, request } from 'node:http';
import { performance } from 'node:perf_hooks';
import { startHttpApp } from '../test/harness/apps.ts';
import { startAuthority } from '../test/harness/authority.ts';
import { eventually } from '../test/harness/eventually.ts';
import { entry, policy, startSidecar } from '../test/harness/mesh.ts';
import { createScope } from '../test/harness/scope.ts';
import { freePorts, makeTempDir } from '../test/harness/temp.ts';
import { printReport } from './report.ts';

const wanted = 120;
const budgetMs = 45_000;
const lanes = 4;
// About 400 requests a second in all: what is measured is the ban, not a machine out of breath.
const pauseMs = 10;

const scope = createScope();
try {
  await measure();
} finally {
  await scope.close();
}

async function measure(): Promise<void> {
  const directory = makeTempDir(scope);
  const authority = await startAuthority(scope, { directory });
  const [inbound, outbound] = (await freePorts(2)) as [number, number];
  const app = await startHttpApp(scope, 'orders');
  const orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: { inbound: `127.0.0.1:${inbound}`, app: `127.0.0.1:${app.port}` },
  });
  const web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: { outbound: [`127.0.0.1:${outbound}=${orders.id}@127.0.0.1:${inbound}`] },
  });
  await authority.apply(
    [entry(web.id, web.binary), entry(orders.id, orders.binary), policy('shop', 'all', { rules: [{}] })].join(
      '',
    ),
  );
  await Promise.all([web.live(), orders.live()]);
  const call = caller(outbound);
  await eventually('a call to pass', async () => (await call()) === 200);

  const denied: number[] = [];
  const answered: number[] = [];
  // Allowed although they began after the ban had been answered: there may be none.
  let late = 0;
  let requests = 0;
  let [bannedAt, answeredAt, deniedAt] = [Infinity, Infinity, Infinity];
  let running = true;
  const load = async (): Promise<void> => {
    while (running) {
      const started = performance.now();
      const status = await call();
      requests += 1;
      if (status === 403) deniedAt = Math.min(deniedAt, performance.now());
      else if (status === 200) late += started > answeredAt ? 1 : 0;
      else throw new Error(`a call was answered with ${status}`);
      await pause(pauseMs);
    }
  };
  const load4 = Array.from({ length: lanes }, load);
  const started = performance.now();
  while (denied.length < wanted && performance.now() - started < budgetMs) {
    deniedAt = Infinity;
    bannedAt = performance.now();
    await authority.ban('spiffe-id', web.id);
    answeredAt = performance.now();
    answered.push(answeredAt - bannedAt);
    while (deniedAt === Infinity) await pause(1);
    denied.push(deniedAt - bannedAt);
    answeredAt = Infinity;
    await authority.unban('spiffe-id', web.id);
    // The next ban falls on calls that pass again, at no fixed distance.
    await eventually('a call to pass', async () => (await call()) === 200, { everyMs: 5 });
    await pause(20 + Math.random() * 80);
  }
  const seconds = (performance.now() - started) / 1_000;
  running = false;
  await Promise.all(load4);

  const [toDenial, toAnswer] = [percentiles(denied), percentiles(answered)];
  printReport(
    'ban',
    [
      { name: 'bans', value: String(denied.length), unit: '' },
      { name: 'requests meanwhile', value: requests / seconds, unit: '/s' },
      { name: 'ban to first denial, p50', value: toDenial.p50, unit: 'ms' },
      { name: 'ban to first denial, p99', value: toDenial.p99, unit: 'ms' },
      { name: 'ban to first denial, max', value: toDenial.max, unit: 'ms' },
      { name: 'ban to its answer, p50', value: toAnswer.p50, unit: 'ms' },
      { name: 'ban to its answer, p99', value: toAnswer.p99, unit: 'ms' },
      { name: 'allowed after the answer', value: String(late), unit: '' },
    ],
    {
      bans: denied.length,
      requests_per_second: round(requests / seconds),
      denial_p50_ms: round(toDenial.p50),
      denial_p99_ms: round(toDenial.p99),
      denial_max_ms: round(toDenial.max),
      answer_p50_ms: round(toAnswer.p50),
      answer_p99_ms: round(toAnswer.p99),
      allowed_after_answer: late,
    },
  );
}

/** Calls over connections that stay open, and gives the status. */
function caller(port: number): () => Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: lanes + 1 });
  scope.defer(() => agent.destroy());
  return () =>
    new Promise((resolve, reject) => {
      const sent = request({ host: '127.0.0.1', port, path: '/', agent, timeout: 10_000 }, (response) => {
        response.on('error', reject);
        response.on('end', () => resolve(response.statusCode ?? 0));
        response.resume();
      });
      sent.on('timeout', () => sent.destroy(new Error('no answer')));
      sent.on('error', reject);
      sent.end();
    });
}

/** Nearest rank, so that the 99th of 120 is the second largest. */
function percentiles(samples: readonly number[]): { p50: number; p99: number; max: number } {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function round(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}
