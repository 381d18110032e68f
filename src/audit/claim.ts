/**
 * Reasons of decisions that were made without knowing who the proxy is: what such a decision is about is what somebody said
 * to be.
 */
export const claimReasons: ReadonlySet<string> = new Set([
  'caller_unknown',
  'destination_forged',
  'engine_failed',
]);
