import type { PolicyMode } from './authz/policy-mode.ts';
import type { Log } from './log.ts';

/** Says at the start of whoever decides calls what Istio mode gives up. */
export function sayPolicyMode(mode: PolicyMode, log: Pick<Log, 'warn'>): void {
  if (mode === 'strict') return;
  log.warn(
    { policyMode: mode },
    'policies are read in Istio mode: a call that no ALLOW policy is about is allowed, with or without a certificate. See docs/policy.md, Istio mode',
  );
}
