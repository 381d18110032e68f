const judged = {
  verdict: 'text',
  reason: 'text',
  rule: 'text',
  leaf: 'text',
  revision: 'number',
  source: 'text',
  destination: 'text',
  protocol: 'text',
  method: 'text',
  port: 'number',
  sourceSerial: 'text',
  caller: 'caller',
} as const;

/** The fields of events about what proxies decided by themselves: a part of `eventFields`. */
export const proxyFields = {
  proxy_verdict: { time: 'time', ...judged, host: 'text', path: 'personal', sourceAddress: 'personal' },
  proxy_verdicts: {
    time: 'time',
    from: 'time',
    to: 'time',
    count: 'number',
    ...judged,
    pathPattern: 'text',
  },
  proxy_coverage: {
    time: 'time',
    from: 'time',
    to: 'time',
    count: 'number',
    missing: 'number',
    destination: 'text',
    started: 'time',
    counted: 'number',
    dropped: 'number',
    caller: 'caller',
  },
} as const;
