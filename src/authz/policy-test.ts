import type { Place } from '../errors.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { DecisionReason } from './decision.ts';
import type { RawHttpRequest } from './request.ts';

/** What an author expects of a call, written beside the rules. */
export type PolicyTest = {
  /** As its author calls it, or `test[0]`. One line of at most 256 characters. */
  readonly name: string;
  readonly want: 'allow' | 'deny';
  /** `namespace/name rule[0]`: the rule that must decide; null for whichever does. */
  readonly rule: string | null;
  /** Why it must fall so; null for whatever reason. */
  readonly reason: DecisionReason | null;
  readonly call: TestedCall;
  readonly place: Place;
};

/** A call as a proxy would report it, all of it: what a test leaves out the call does not have, addresses aside. */
export type TestedCall = Omit<Required<RawHttpRequest>, 'source' | 'destination'> & {
  readonly protocol: 'http' | 'tcp';
  readonly source: SpiffeId;
  /** Null: every workload that the policy applies to. */
  readonly destination: SpiffeId | null;
  /** Null: now, or while the policy is in force. */
  readonly at: Date | null;
};

/** The most tests of one policy. */
export const maxTests = 256;
