import { gatewayGroup, type PolicyDocument } from './document.ts';
import type { ShadowVerdict } from './decision.ts';
import type { IstioMesh, IstioWorkload, ProxyRequest } from './istio-request.ts';
import { compileIstio, type IstioCause, type IstioJudgement, judgeAsIstio } from './istio-rules.ts';

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
 * Judges one call as a sidecar of Istio does, by all policies of a mesh: {@link judgeAsIstio} by those that apply to the
 * workload.
 * @see istio.io, Authorization Policy; envoy/config/rbac/v3
 */
export function decideAsIstio(
  mesh: IstioMesh,
  workload: IstioWorkload,
  policies: readonly PolicyDocument[],
  request: ProxyRequest,
): IstioVerdict {
  const attached = policies.filter((policy) => isAttached(mesh, workload, policy));
  return verdictOf(judgeAsIstio(compileIstio(mesh, attached), request, timeless));
}

/** A judgement as Istio and Envoy name things. */
export function verdictOf({ allow, rule, shadow, asked, audited, because }: IstioJudgement): IstioVerdict {
  const id = rule?.id ?? null;
  return {
    allow,
    rule: id,
    shadow,
    custom: asked?.provider ?? null,
    audited: audited.map((one) => one.id),
    why: whys[because](id ?? ''),
  };
}

/** Policies of Istio hold at any time. */
const timeless = new Date(0);

const whys: Readonly<Record<IstioCause, (rule: string) => string>> = {
  path_refused: () => 'the proxy answers this path with 400 before any policy',
  several_providers: () => 'the workload has CUSTOM policies of several providers',
  deny_rule: (rule) => `denied by ${rule}`,
  no_allow_policy: () => 'no ALLOW policy applies',
  allow_rule: (rule) => `allowed by ${rule}`,
  no_allow_rule: () => 'no rule of an ALLOW policy matches',
};

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
