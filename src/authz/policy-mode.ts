/**
 * How policies are read when a proxy asks. `strict`: what is not allowed is denied, and what is ambiguous too. `istio`: as
 * Istio and Envoy 1.40 do, where a call that no ALLOW policy is about is allowed.
 */
export const policyModes = ['strict', 'istio'] as const;
export type PolicyMode = (typeof policyModes)[number];
