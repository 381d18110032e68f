import type { Clock } from '../clock.ts';
import type { AgentReport, ProxyPolicies } from '../identity/node-presence.ts';
import { createLatch, latchOrSleep } from '../identity/notice.ts';
import type { AgentReport as Wire, NodeClient, ProxyPolicies as WireProxyPolicies } from '../wire/node.ts';
import { keptTrustFromWire, keptTrustToWire } from './kept-trust.ts';
import { ask } from './node-client.ts';
import { dateOf, integerOf } from './wire-values.ts';

/** @throws MeshError `message_invalid` */
export function agentReportFromWire(report: Wire): AgentReport {
  return {
    viewRevision: integerOf(report.viewRevision, 'a revision'),
    eventsQueued: integerOf(report.eventsQueued, 'a count'),
    eventsLost: integerOf(report.eventsLost, 'a count'),
    workloads: integerOf(report.workloads, 'a count'),
    darkAt: report.darkAtMs === undefined ? null : dateOf(report.darkAtMs),
    proxyPolicies: report.proxyPolicies === undefined ? null : proxyPoliciesFromWire(report.proxyPolicies),
    kept: report.kept === undefined ? null : keptTrustFromWire(report.kept),
  };
}

export function agentReportToWire(report: AgentReport): Wire {
  return {
    viewRevision: BigInt(report.viewRevision),
    eventsQueued: BigInt(report.eventsQueued),
    eventsLost: BigInt(report.eventsLost),
    workloads: BigInt(report.workloads),
    darkAtMs: report.darkAt === null ? undefined : BigInt(report.darkAt.getTime()),
    proxyPolicies: report.proxyPolicies === null ? undefined : proxyPoliciesToWire(report.proxyPolicies),
    kept: report.kept === null ? undefined : keptTrustToWire(report.kept),
  };
}

function proxyPoliciesFromWire(wire: WireProxyPolicies): ProxyPolicies {
  const { filters, behind, rejecting, lacking, oldestPolicy } = wire;
  return {
    filters: integerOf(filters, 'a count'),
    behind: integerOf(behind, 'a count'),
    rejecting: integerOf(rejecting, 'a count'),
    lacking: integerOf(lacking, 'a count'),
    oldestPolicy: oldestPolicy === undefined ? null : integerOf(oldestPolicy, 'a revision'),
  };
}

function proxyPoliciesToWire(policies: ProxyPolicies): WireProxyPolicies {
  const { filters, behind, rejecting, lacking, oldestPolicy } = policies;
  return {
    filters: BigInt(filters),
    behind: BigInt(behind),
    rejecting: BigInt(rejecting),
    lacking: BigInt(lacking),
    oldestPolicy: oldestPolicy === null ? undefined : BigInt(oldestPolicy),
  };
}

/**
 * Tells the server how the agent is: soon after each change of its view and of what its cache holds, spread over two
 * seconds so that not all nodes tell at once, and every half minute. What fails is told the next time.
 */
export function createAgentReporter(parts: {
  readonly client: () => NodeClient;
  readonly isConnected: () => boolean;
  readonly read: () => AgentReport;
  readonly onChange: (listener: () => void) => () => void;
  readonly clock: Clock;
  /** 0 to 1, evenly spread. */
  readonly random: () => number;
}): { readonly close: () => Promise<void> } {
  const { clock } = parts;
  const latch = createLatch();
  const stop = new AbortController();
  const unsubscribe = parts.onChange(latch.raise);
  const run = async (): Promise<void> => {
    latch.raise();
    while (!stop.signal.aborted) {
      await latchOrSleep(latch, everyMs, clock, stop.signal);
      await clock.sleep(parts.random() * spreadMs, stop.signal);
      if (stop.signal.aborted || !parts.isConnected()) continue;
      try {
        const own = parts.client();
        const report = { notes: [], agent: agentReportToWire(parts.read()) };
        await ask(
          (metadata, options, done) => own.reportCoverage(report, metadata, options, done),
          stop.signal,
        );
      } catch {
        // It is for people, and the next one follows.
      }
    }
  };
  const running = run();
  return {
    close: async () => {
      unsubscribe();
      stop.abort('closed');
      await running;
    },
  };
}

const everyMs = 30_000;
const spreadMs = 2_000;
