import type { Actor, Caller } from './event.ts';

/** A step of the rollout of a candidate: a whole set of policies that is tried beside the revision in force. */
export type PolicyRolloutEvent = {
  readonly type: 'policy_rollout';
  readonly time: Date;
  /**
   * `staged`: its texts are in the {@link PolicyTextEvent}s right before. `enforced`: it became the revision in force, with a
   * `policy_revision` event in the same transaction. `ended`: other policies were put in force.
   */
  readonly action: 'staged' | 'canary' | 'enforced' | 'aborted' | 'ended';
  /** 32 lower-case hex digits. */
  readonly rollout: string;
  /** The policy revision that it stands beside. */
  readonly base: number;
  /** From 1; one more with each step beside the same revision. */
  readonly step: number;
  /** Of the workloads, 0 to 100, whose calls the candidate decides. */
  readonly percent: number;
  readonly maxNewDenials: number;
  /** SHA-256 of the set, lower-case hex. */
  readonly candidate: string;
  /** Of the mesh. */
  readonly revision: number;
  readonly actor: Actor;
  readonly message: string;
  /** Of an end that nobody asked for: `new_denials`, `policies_changed`. Empty for all else. */
  readonly cause: string;
  /** The call that ended it: who called whom, and the rule that denied it (or allowed it until now). Empty for all else. */
  readonly source: string;
  readonly destination: string;
  readonly rule: string;
  /** Ed25519, base64; empty where a policy revision, which is signed, takes its place. */
  readonly signature: string;
};

/** Calls that were judged by a candidate beside the revision in force, those that agree in all that is told here counted together. */
export type CandidateCallsEvent = {
  readonly type: 'candidate_calls';
  /** Of the last of them, like `to`. */
  readonly time: Date;
  readonly from: Date;
  readonly to: Date;
  /** At least 1. */
  readonly count: number;
  readonly rollout: string;
  /** `same`: both say the same; then only the destination is told of the calls. */
  readonly change: 'same' | 'newly_denied' | 'newly_allowed';
  /** Whose verdict was the answer. `fallback`: that in force, though it was the candidate's turn. */
  readonly applied: 'active' | 'candidate' | 'fallback';
  /** Of the verdict in force: a closed code, see authz/decision.ts, and `namespace/name rule[n]` or empty. */
  readonly reason: string;
  readonly rule: string;
  /** The same of the candidate. */
  readonly candidateReason: string;
  readonly candidateRule: string;
  /** The mesh revision that decided. */
  readonly revision: number;
  readonly source: string;
  readonly destination: string;
  /** `http` or `tcp`. */
  readonly protocol: string;
  readonly method: string;
  /** The value of the `paths` of the rule that allows, or `*`. */
  readonly pathPattern: string;
  readonly port: number;
  /** The proxy that asked. */
  readonly caller: Caller;
};
