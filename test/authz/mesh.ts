import type { AuthzRequest } from '../../src/authz/decision.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import type { Policy } from '../../src/authz/policy.ts';
import { canonicalizeHttp, isRejection } from '../../src/authz/request.ts';
import type { SnapshotInput } from '../../src/authz/snapshot.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { readDocuments } from '../../src/yaml.ts';

export const trustDomain = TrustDomain.parse('example.org');
/** When calls are judged, unless a test says otherwise. */
export const noon = new Date('2026-11-21T12:00:00Z');
export const web = SpiffeId.parse('spiffe://example.org/ns/shop/sa/web');
export const ledger = SpiffeId.parse('spiffe://example.org/ns/pay/sa/ledger');

/** The policies of a text of YAML. */
export function readPolicies(text: string): readonly Policy[] {
  return readDocuments({ file: 'p.yaml', text }).map(parsePolicy);
}

/** A policy of namespace `pay` from the lines of its spec. */
export function policyText(spec: string, name = 'p', namespace = 'pay', dryRun = false): string {
  const lines = spec.split('\n').map((line) => `  ${line}`);
  return [
    'apiVersion: security.istio.io/v1',
    'kind: AuthorizationPolicy',
    `metadata: { name: ${name}, namespace: ${namespace}${dryRun ? ", annotations: { istio.io/dry-run: 'true' }" : ''} }`,
    ...(spec === '{}' ? ['spec: {}'] : ['spec:', ...lines]),
    '',
  ].join('\n');
}

export function meshOf(
  policies: readonly Policy[],
  workloads: SnapshotInput['workloads'] = [],
): SnapshotInput {
  return { revision: 7, trustDomain, rootNamespace: 'istio-system', policies, workloads };
}

/** `web` calls `ledger`: GET ledger.pay:8080/charge on port 8080, unless told otherwise. */
export function call(
  overrides: Partial<{
    source: string | null;
    destination: string;
    method: string;
    path: string;
    authority: string;
    port: number;
  }> = {},
): AuthzRequest {
  const made = canonicalizeHttp({
    source:
      overrides.source === undefined
        ? web
        : overrides.source === null
          ? null
          : SpiffeId.parse(overrides.source),
    destination: overrides.destination === undefined ? ledger : SpiffeId.parse(overrides.destination),
    method: overrides.method ?? 'GET',
    path: overrides.path ?? '/charge',
    authority: overrides.authority ?? 'ledger.pay:8080',
    port: overrides.port ?? 8_080,
  });
  if (isRejection(made)) throw new Error(made.why);
  return made;
}
