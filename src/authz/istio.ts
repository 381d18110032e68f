import {
  type Condition,
  type DocumentRule,
  gatewayGroup,
  isHttpOnly,
  type PolicyDocument,
  ruleId,
} from './document.ts';
import { type Comparison, conditionHolds } from './istio-match.ts';
import type { ShadowVerdict } from './decision.ts';
import type { IstioMesh, IstioWorkload, ProxyRequest } from './istio-request.ts';
import { normalizedPath } from './normalized-path.ts';

/** What Istio and Envoy 1.40 make of a call. */
export type IstioVerdict = {
  readonly allow: boolean;
  /** The rule that decided; of several that match, the one whose name comes first. Null when none did. */
  readonly rule: string | null;
  /** What the policies on trial would have said; null where there are none. */
  readonly shadow: ShadowVerdict;
  /** The provider that is asked, and taken to say yes. */
  readonly custom: string | null;
  /** The rules of AUDIT policies that match. */
  readonly audited: readonly string[];
  /** One sentence: lower case, no full stop. */
  readonly why: string;
};

/**
 * Judges a call as a sidecar of Istio does, policy by policy: this is the specification of `compat: istio` in code, with
 * no thought for speed. CUSTOM before DENY before ALLOW; without an ALLOW policy all is allowed.
 * @see istio.io, Authorization Policy; envoy/config/rbac/v3
 */
export function decideAsIstio(
  mesh: IstioMesh,
  workload: IstioWorkload,
  policies: readonly PolicyDocument[],
  request: ProxyRequest,
): IstioVerdict {
  const attached = policies.filter((policy) => isAttached(mesh, workload, policy));
  const enforced = (action: PolicyDocument['action']): readonly PolicyDocument[] =>
    attached.filter((policy) => policy.action === action && !policy.dryRun);
  const onTrial = (action: PolicyDocument['action']): readonly PolicyDocument[] =>
    attached.filter((policy) => policy.action === action && policy.dryRun);
  const match = (some: readonly PolicyDocument[]): readonly string[] =>
    some.flatMap((policy) => matchingRules({ mesh, policy, request })).sort(byCodeUnit);
  const custom = enforced('CUSTOM');
  const asked = [
    ...new Set(custom.filter((policy) => match([policy]).length > 0).map(({ provider }) => provider ?? '')),
  ].sort(byCodeUnit);
  const answer = (allow: boolean, rule: string | undefined, why: string): IstioVerdict => ({
    allow,
    rule: rule ?? null,
    shadow: {
      allow: shadowOf(onTrial('ALLOW'), match, 'allowed'),
      deny: shadowOf(onTrial('DENY'), match, 'denied'),
    },
    custom: asked[0] ?? null,
    audited: match(enforced('AUDIT')),
    why,
  });
  const refused = refusedBeforePolicy(mesh, request);
  if (refused !== undefined) return answer(false, undefined, refused);
  const providers = new Set(custom.map(({ provider }) => provider));
  if (providers.size > 1 && asked.length > 0) {
    return answer(false, match(custom)[0], 'the workload has CUSTOM policies of several providers');
  }
  const [denied] = match(enforced('DENY'));
  if (denied !== undefined) return answer(false, denied, `denied by ${denied}`);
  if (enforced('ALLOW').length === 0) return answer(true, undefined, 'no ALLOW policy applies');
  const [allowed] = match(enforced('ALLOW'));
  return allowed === undefined
    ? answer(false, undefined, 'no rule of an ALLOW policy matches')
    : answer(true, allowed, `allowed by ${allowed}`);
}

/** Envoy keeps rules in the order of their names. */
function byCodeUnit(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function shadowOf(
  policies: readonly PolicyDocument[],
  match: (some: readonly PolicyDocument[]) => readonly string[],
  whenMatched: 'allowed' | 'denied',
): ShadowVerdict['allow'] {
  if (policies.length === 0) return null;
  const other = whenMatched === 'allowed' ? 'denied' : 'allowed';
  return match(policies).length > 0 ? whenMatched : other;
}

function refusedBeforePolicy({ pathNormalization }: IstioMesh, { protocol, path }: ProxyRequest) {
  if (protocol === 'tcp' || path === null || normalizedPath(path, pathNormalization) !== null)
    return undefined;
  return 'the proxy answers this path with 400 before any policy';
}

function isAttached(mesh: IstioMesh, { namespace, labels }: IstioWorkload, policy: PolicyDocument): boolean {
  if (policy.namespace !== mesh.rootNamespace && policy.namespace !== namespace) return false;
  const gateway = labels.get(`${gatewayGroup}/gateway-name`);
  if (policy.targetRefs.length > 0) {
    return policy.targetRefs.some(
      ({ group, kind, name, namespace: target }) =>
        gateway !== undefined &&
        group === gatewayGroup &&
        kind === 'Gateway' &&
        name === gateway &&
        policy.namespace === namespace &&
        (target === null || target === policy.namespace),
    );
  }
  return [...policy.selector].every(([key, value]) => labels.get(key) === value);
}

function matchingRules(against: Comparison): readonly string[] {
  const { policy } = against;
  return policy.rules.flatMap((rule, index) => (ruleHolds(rule, against) ? [ruleId(policy, index)] : []));
}

function ruleHolds(rule: DocumentRule, against: Comparison): boolean {
  const { policy, request } = against;
  const isTcp = request.protocol === 'tcp';
  const all = [...rule.from.flat(), ...rule.to.flat(), ...rule.when];
  // On a connection that is no HTTP an ALLOW rule about HTTP is dropped, and any other is widened by what it says of it.
  if (isTcp && policy.action === 'ALLOW' && all.some(({ attribute }) => isHttpOnly(attribute))) return false;
  const holds = (condition: Condition): boolean =>
    (isTcp && isHttpOnly(condition.attribute)) || conditionHolds(condition, against);
  const anyHolds = (entries: readonly (readonly Condition[])[]): boolean =>
    entries.length === 0 || entries.some((conditions) => conditions.every(holds));
  return anyHolds(rule.from) && anyHolds(rule.to) && rule.when.every(holds);
}
