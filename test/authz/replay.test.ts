import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type CallContext, untold } from '../../src/authz/context.ts';
import type { AuthzRequest } from '../../src/authz/decision.ts';
import { type Attribute, attributes } from '../../src/authz/document.ts';
import type { RawCall } from '../../src/authz/istio-mode.ts';
import { judgeCall } from '../../src/authz/judge.ts';
import { policyModes } from '../../src/authz/policy-mode.ts';
import { replayCall } from '../../src/authz/replay.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { policies, request, workloads } from './generated.ts';
import { ledger, meshOf, noon, policyText, readPolicies, web } from './mesh.ts';

const hidable = attributes.filter(
  (one) =>
    !['time', 'request.method', 'request.host', 'destination.port'].includes(one) &&
    !one.startsWith('source.p') &&
    !['source.namespace', 'source.serviceAccount', 'source.trustDomain'].includes(one),
);

function rawOf({ host, hostPort, ...rest }: AuthzRequest): RawCall {
  const { protocol, source, destination, port, context } = rest;
  const common = { source, destination, port, context };
  if (protocol === 'tcp') return { protocol, ...common };
  const { method, path } = rest;
  return { protocol, ...common, method, path, authority: hostPort === null ? host : `${host}:${hostPort}` };
}

/** The call as it is without what is hidden. */
function hide(call: RawCall, hidden: ReadonlySet<Attribute>, isPortHidden: boolean): RawCall {
  const { context: { ...context } = untold } = call;
  const has = (begin: string): boolean => [...hidden].some((one) => one.startsWith(begin));
  const kept: CallContext = {
    headerLines: hidden.has('request.headers') ? undefined : context.headerLines,
    sourceIp: hidden.has('source.ip') ? undefined : context.sourceIp,
    remoteIp: hidden.has('remote.ip') ? undefined : context.remoteIp,
    destinationIp: hidden.has('destination.ip') ? undefined : context.destinationIp,
    sni: hidden.has('connection.sni') ? undefined : context.sni,
    claims: has('request.auth') ? undefined : context.claims,
    metadata: hidden.has('filter.metadata') ? undefined : context.metadata,
  };
  if (call.protocol === 'tcp') return { ...call, context: kept };
  const path = hidden.has('request.path') ? '/a/b' : call.path;
  const authority = isPortHidden ? call.authority.replace(/:.*/, '') : call.authority;
  return { ...call, path, authority, context: kept };
}

test.each(policyModes)('what is told of a call in %s mode holds whatever is not known of it', (mode) => {
  const seen = { allow: 0, deny: 0, unknown: 0 };
  const requests = fc.array(request, { minLength: 10, maxLength: 20 });
  const tokens = hidable.filter((one) => one.startsWith('request.auth.'));
  fc.assert(
    fc.property(
      policies(6),
      requests,
      fc.subarray(hidable),
      fc.boolean(),
      (list, calls, some, isPortHidden) => {
        const snapshot = compileSnapshot({ ...meshOf(list, workloads), mode });
        // A token is known or not, and so is what filters noted, which tokens are part of.
        const isTokenHidden = some.some(
          (one) => one.startsWith('request.auth.') || one === 'filter.metadata',
        );
        const hidden = new Set<Attribute>([
          ...some,
          ...(isTokenHidden ? [...tokens, 'filter.metadata' as const] : []),
        ]);
        // In Istio mode a port of the host is part of the host.
        const unknown =
          mode === 'istio' && isPortHidden ? new Set<Attribute>([...hidden, 'request.host']) : hidden;
        for (const one of calls) {
          const call = rawOf(one);
          const { decision } = judgeCall(snapshot, call, noon);
          const partly = { call: hide(call, hidden, isPortHidden), unknown, isHostPortUnknown: isPortHidden };
          const replay = finish(replayCall(snapshot, partly, noon));
          seen[replay.verdict] += 1;
          if (replay.verdict === 'unknown') {
            expect(replay.explanation).toBeNull();
            continue;
          }
          expect(replay.verdict).toBe(decision.verdict);
          if (replay.reason !== null) expect(replay.reason).toBe(decision.reason);
          if (replay.verdict === 'deny' && replay.reason !== null) expect(replay.rule).toBe(decision.rule);
        }
      },
    ),
    { numRuns: 100 },
  );
  expect(Math.min(seen.allow, seen.deny, seen.unknown)).toBeGreaterThan(5);
});

const asked: RawCall = {
  ...{ protocol: 'http', source: web, destination: ledger, method: 'GET', path: '/a', authority: 'ledger' },
  ...{ port: 8_080, context: untold },
};
const from = 'from: [{ source: { principals: [example.org/ns/shop/sa/web] } }]';

test.each<[string, string, readonly Attribute[], string, string | null, readonly string[]]>([
  ['nothing that matters', `rules: [{ ${from} }]`, ['request.headers'], 'allow', 'allow_rule', []],
  [
    'a header of an ALLOW rule',
    `rules: [{ ${from}, when: [{ key: 'request.headers[x-a]', values: [a] }] }]`,
    ['request.headers'],
    ...(['unknown', null, ['request.headers[x-a]']] as const),
  ],
  [
    'a claim of a DENY rule',
    "action: DENY\nrules: [{ when: [{ key: 'request.auth.claims[a][b]', values: [a] }] }]",
    ['request.auth.claims'],
    ...(['deny', null, []] as const),
  ],
  [
    'what filters noted',
    `rules: [{ ${from}, when: [{ key: 'experimental.envoy.filters.http.f[k]', values: [a] }] }]`,
    ['filter.metadata'],
    ...(['unknown', null, ['experimental.envoy.filters.http.f[k]']] as const),
  ],
  [
    'the port of the host',
    `rules: [{ to: [{ operation: { hosts: ['ledger:80', 'other'] } }] }]`,
    [],
    ...(['unknown', null, ['request.host']] as const),
  ],
  [
    'the port of a host that no rule asks a port of',
    `rules: [{ to: [{ operation: { hosts: [ledger] } }] }]`,
    [],
    ...(['allow', 'allow_rule', []] as const),
  ],
  [
    'the end of a policy, which is not open',
    `expiresAt: 2026-11-21T12:00:01Z\nrules: [{ ${from} }]`,
    ['request.headers'],
    ...(['allow', 'allow_rule', []] as const),
  ],
])('not known is %s', (_, spec, unknown, verdict, reason, dependsOn) => {
  const snapshot = compileSnapshot(meshOf(readPolicies(policyText(spec))));
  const partly = { call: asked, unknown: new Set(unknown), isHostPortUnknown: true };
  expect(finish(replayCall(snapshot, partly, noon))).toMatchObject({ verdict, reason, dependsOn });
});
