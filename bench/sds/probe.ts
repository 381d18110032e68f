// Loaded into a server or an agent with `--import`: answers whoever connects to the socket in BENCH_PROBE with what its
// event loop did since the last time it was asked.
import { rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { isMainThread } from 'node:worker_threads';

// `--import` holds for the threads of the program, too, and the last to listen would answer in the place of all.
const path = isMainThread ? process.env['BENCH_PROBE'] : undefined;
const tickMs = 5;
const delay = monitorEventLoopDelay({ resolution: tickMs });
delay.enable();
let cpu = process.cpuUsage();
// The processor time of this thread between two ticks: how long the loop was held up by its own work, and not by other
// programs that had the processor.
let [ticked, busiestMs] = [process.threadCpuUsage(), 0];
setInterval(() => {
  const { user, system } = process.threadCpuUsage(ticked);
  ticked = process.threadCpuUsage();
  busiestMs = Math.max(busiestMs, (user + system) / 1e3);
}, tickMs).unref();

if (path !== undefined) {
  // Of one that was killed.
  rmSync(path, { force: true });
  const server = createServer((socket) => {
    const { user, system } = process.cpuUsage(cpu);
    cpu = process.cpuUsage();
    const [p99Ms, maxMs] = [delay.percentile(99) / 1e6 - tickMs, delay.max / 1e6 - tickMs];
    const answer = { p99Ms, maxMs, busiestMs, cpuMs: (user + system) / 1e3 };
    delay.reset();
    busiestMs = 0;
    socket.on('error', () => undefined);
    socket.end(JSON.stringify(answer));
  });
  server.on('error', () => undefined);
  server.listen(path).unref();
}
