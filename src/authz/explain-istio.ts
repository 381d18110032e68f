import type { AuthzRequest, Decision } from './decision.ts';
import { type Explanation, explainDecision } from './explain.ts';
import { compileCondition, istioFacts } from './istio-match.ts';
import { proxyRequestOf, type RawCall } from './istio-mode.ts';
import { conditionOf } from './istio-rules.ts';
import type { Snapshot } from './snapshot.ts';

/**
 * Explains a decision that was made in Istio mode of this call under this snapshot: of each condition whether Istio holds
 * it to match. Nothing is inapplicable there: what a call lacks matches no value.
 * @param request the call as it was written
 */
export function explainLikeIstio(
  snapshot: Snapshot,
  call: RawCall,
  request: AuthzRequest,
  decision: Decision,
  now: Date,
): Explanation {
  const sets = snapshot.istio.rulesFor(call.destination);
  const mesh = sets[0]?.mesh;
  const headers = new Set(sets.flatMap(({ reads }) => [...reads.headers]));
  const proxied = proxyRequestOf(call, headers);
  return explainDecision(snapshot, request, decision, now, {
    policies: snapshot.istio.policiesFor(call.destination),
    holds: (predicate, { namespace }) =>
      mesh !== undefined &&
      compileCondition(conditionOf(predicate), { mesh, namespace })(istioFacts(mesh, proxied, now)),
  });
}
