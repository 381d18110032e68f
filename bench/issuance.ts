// How fast certificates are issued, from the bytes of a request to a certificate that is recorded, signed and checked:
// on one core, beside the arithmetic nobody can do without and @peculiar/x509; over the SignX509 call with a durable
// record, beside an empty call; and 10,000 at once through the keeper. About 45 seconds.
import { randomBytes } from 'node:crypto';
import { loadavg } from 'node:os';
import { startProofThread } from '../src/signing/thread.ts';
import { createAuthority } from '../src/ca/authority.ts';
import { makeTestAuthority } from '../test/ca/test-authority.ts';
import { measureCore } from './issuance/core.ts';
import { findCaller } from './issuance/caller.ts';
import { type CallRate, measureEcho, measureSigning, openStage, signRequests } from './issuance/rpc.ts';
import { measureStorm } from './issuance/storm.ts';
import { printReport, type ReportRow } from './report.ts';

const rpcRounds = 3;
const rpcSeconds = 3;
const stormLeaves = 10_000;

const rows: ReportRow[] = [];
const metrics: Record<string, number> = {};
const add = (name: string, value: number, unit: string, metric: string): void => {
  rows.push({ name, value, unit });
  metrics[metric] = Math.round(value * 1_000) / 1_000;
};

const proofs = startProofThread();
const made = await makeTestAuthority(new Date());
// The same without the checks after signing, so that the arithmetic can be told apart from them.
const unchecked = createAuthority({ ...made, randomBytes, lint: () => undefined });
const served = await makeTestAuthority(new Date(), {}, 'example.org', proofs.lintLeaf);
const heapBefore = heapMiB();

for (const [kind, label, tag] of [
  ['ec-prime256v1', 'P-256', 'p256'],
  ['rsa-2048', 'RSA-2048', 'rsa2048'],
] as const) {
  const core = await measureCore(kind, made, unchecked);
  add(`${label}: request to certificate, processor time`, core.whole, 'us', `${tag}_whole_us`);
  add(`${label}: the same without the checks after signing`, core.unchecked, 'us', `${tag}_unchecked_us`);
  add(`${label}:   of which the checks after signing`, core.lint, 'us', `${tag}_lint_us`);
  add(`${label}:   of which reading the request and its proof`, core.csr, 'us', `${tag}_csr_us`);
  add(`${label}:   of which deciding and encoding`, core.prepare, 'us', `${tag}_prepare_us`);
  add(`${label}: reference, SPKI import + verify + sign`, core.reference, 'us', `${tag}_reference_us`);
  add(`${label}: reference, @peculiar/x509 issuing alone`, core.peculiar, 'us', `${tag}_peculiar_us`);
  add(
    `${label}: reference / ours, checks apart (>= 0.75)`,
    core.reference / core.unchecked,
    'x',
    `${tag}_ratio`,
  );
  add(
    `${label}: reference / ours, checks included`,
    core.reference / core.whole,
    'x',
    `${tag}_ratio_checked`,
  );
  add(
    `${label}: @peculiar/x509 / ours, checks apart (>= 15)`,
    core.peculiar / core.unchecked,
    'x',
    `${tag}_peculiar_ratio`,
  );
  if (tag !== 'p256') continue;
  add('strict leaf check', core.leafCheck, 'us', 'leaf_check_us');
  add('peer certificate ids', core.peerIds, 'us', 'peer_ids_us');
}

// As it is served: with the thread that reads requests and judges leaves.
const stage = await openStage(served.authority, proofs);
const caller = await findCaller();
const load = { caller, requests: signRequests(), seconds: rpcSeconds };
const echoes: CallRate[] = [];
const signings: CallRate[] = [];
for (let round = 0; round < rpcRounds; round++) {
  echoes.push(await measureEcho(stage, load));
  signings.push(await measureSigning(stage, load));
}
const [echo, signing] = [best(echoes), best(signings)];
rows.push({ name: 'the caller, on the same cores, is in', value: caller.language, unit: '' });
add('empty call over the same socket, best round', echo.perSecond, '/s', 'echo_per_second');
add('SignX509, durable, best round (>= 3,000)', signing.perSecond, '/s', 'sign_per_second');
add('SignX509 / empty call', signing.perSecond / echo.perSecond, 'x', 'sign_to_echo');
add('SignX509: p99 with 128 in flight', signing.p99Ms, 'ms', 'sign_p99_ms');
add('SignX509: event-loop delay p99', signing.loopDelayP99Ms, 'ms', 'sign_loop_p99_ms');
add('SignX509: processor time, main thread', signing.mainCpuUs, 'us', 'sign_main_us');
add('SignX509: processor time, all threads of the server', signing.cpuUs, 'us', 'sign_process_us');
add('empty call: processor time, all threads of the server', echo.cpuUs, 'us', 'echo_process_us');

const storm = await measureStorm(stage, stormLeaves);
add(`${stormLeaves} leaves at once through the keeper`, storm.seconds, 's', 'storm_seconds');
add('storm: event-loop delay p50', storm.loopDelayP50Ms, 'ms', 'storm_loop_p50_ms');
add('storm: event-loop delay p99 (< 20)', storm.loopDelayP99Ms, 'ms', 'storm_loop_p99_ms');
add('storm: event-loop delay, longest', storm.loopDelayMaxMs, 'ms', 'storm_loop_max_ms');
add('storm: failures', storm.failures, '', 'storm_failures');
await stage.close();
await proofs.close();
add('heap growth over the run', heapMiB() - heapBefore, 'MiB', 'heap_growth_mib');

add('load of the machine over the last minute', loadavg()[0] ?? Number.NaN, '', 'load_1m');
printReport('issuance', rows, metrics);

function best(rates: readonly CallRate[]): CallRate {
  const [first, ...rest] = rates;
  if (first === undefined) throw new Error('nothing was measured');
  return rest.reduce((a, b) => (b.perSecond > a.perSecond ? b : a), first);
}

function heapMiB(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed / 1_048_576;
}
