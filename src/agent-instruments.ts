import type { Instruments } from './up-metrics.ts';

/** Where the doors of an agent report. */
export function createAgentInstruments(
  onCheckFailure: (error: unknown) => void,
): Pick<Instruments, 'sds' | 'checks' | 'workloadApi'> {
  return {
    sds: {},
    checks: { decided: () => undefined, outage: () => undefined, failed: onCheckFailure },
    workloadApi: {},
  };
}
