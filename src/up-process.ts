import { monitorEventLoopDelay, PerformanceObserver } from 'node:perf_hooks';
import { getHeapStatistics } from 'node:v8';
import type { Metrics } from './metrics.ts';

/** How the process itself fares. */
export type ProcessState = {
  /** The 99th percentile of the event loop's delay, over the last finished window of ten seconds. */
  readonly loopDelaySeconds: number;
  readonly residentBytes: number;
  readonly heapUsedBytes: number;
  readonly heapLimitBytes: number;
  /** Spent collecting garbage since the watch began. */
  readonly garbageSeconds: number;
};

/** Looks at this process. The watch begins with the first look and never keeps the process alive. */
export function processState(): ProcessState {
  watch ??= startWatch();
  const { heap_size_limit: heapLimitBytes } = getHeapStatistics();
  const { rss, heapUsed } = process.memoryUsage();
  return { ...watch(), residentBytes: rss, heapUsedBytes: heapUsed, heapLimitBytes };
}

/** Metrics of the process. */
export function addProcessMetrics(metrics: Pick<Metrics, 'gauge'>): void {
  processState();
  metrics.gauge(
    'countersign_event_loop_delay_seconds',
    '99th percentile of the delay of the event loop, over the last ten seconds.',
    () => processState().loopDelaySeconds,
  );
  metrics.gauge('process_resident_memory_bytes', 'Resident memory.', () => processState().residentBytes);
  metrics.gauge('countersign_heap_used_bytes', 'Used heap.', () => processState().heapUsedBytes);
  metrics.gauge(
    'countersign_heap_limit_bytes',
    'The most heap that there may be.',
    () => processState().heapLimitBytes,
  );
  metrics.gauge(
    'countersign_garbage_seconds',
    'Spent collecting garbage since the start.',
    () => processState().garbageSeconds,
  );
}

// One for the process, whatever runs in it: it is the process that is measured.
let watch: (() => Pick<ProcessState, 'loopDelaySeconds' | 'garbageSeconds'>) | undefined;

function startWatch() {
  const delays = monitorEventLoopDelay({ resolution: resolutionMs });
  delays.enable();
  let [loopDelaySeconds, garbageSeconds] = [0, 0];
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) garbageSeconds += duration / 1_000;
  }).observe({ entryTypes: ['gc'] });
  setInterval(() => {
    // It counts its own rest between two looks as delay.
    const delayMs = delays.count === 0 ? 0 : delays.percentile(99) / 1e6 - resolutionMs;
    loopDelaySeconds = Math.max(0, delayMs) / 1_000;
    delays.reset();
  }, windowMs).unref();
  return () => ({ loopDelaySeconds, garbageSeconds });
}

const resolutionMs = 20;
const windowMs = 10_000;
