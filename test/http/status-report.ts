import type { StatusReport } from '../../src/http/status-report.ts';

/** What a server says of itself that serves nobody. */
export function statusReport(startedAt: Date, trustDomain: string): StatusReport {
  return {
    version: '0.0.0',
    serves: 'machine',
    trustDomain,
    now: startedAt,
    startedAt,
    ready: true,
    causes: [],
    warnings: [],
    conditions: [],
    dataDir: '/data',
    workloadSocket: '/run/workload.sock',
    adminSocket: '/run/admin.sock',
    adminUrl: null,
    nodeAddress: null,
    trustEndpoint: null,
    custody: 'test',
    attestation: 'test',
    revision: 0,
    entries: 0,
    policies: 0,
    policyRevision: null,
    policyMode: 'strict',
    breakGlass: [],
    auditSize: 0,
    streams: 0,
    authorities: [],
    workloads: [],
    workloadsInAll: 0,
    sources: [],
    proxies: [],
    proxiesInAll: 0,
    nodes: { attested: 0, connected: 0, laggard: null },
  };
}
