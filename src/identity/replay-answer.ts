import type { AuditCoverage } from '../audit/coverage.ts';
import type { LogHead } from '../audit/query.ts';
import type { DecisionReason } from '../authz/decision.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import type { NearRule } from '../authz/rejudge.ts';
import type { Candidate } from './replay-candidate.ts';
import type { ReplayClass, ReplayTotals } from './replay-tally.ts';

/** Which calls are meant. */
export type CallsMeant = {
  readonly since: Date | null;
  readonly until: Date | null;
  /** SPIFFE ID of the called; null: of all. */
  readonly destination: string | null;
  /** Of the called. */
  readonly namespace: string | null;
  /** Whether paths and addresses may be read. */
  readonly mayReadPersonal: boolean;
};

/** Calls of one kind that would fare otherwise, and alike. */
export type ReplayEdge = {
  readonly class: ReplayClass;
  readonly source: string;
  readonly destination: string;
  readonly protocol: string;
  readonly method: string;
  /** As `TalliedEdge` has it. */
  readonly path: string | null;
  readonly port: number;
  readonly calls: number;
  readonly records: number;
  readonly first: Date;
  readonly last: Date;
  /** Of the last record, in the log. */
  readonly index: number;
  /** As the records say: the policies of then may have been others than those in force. */
  readonly recorded: { readonly allowed: number; readonly denied: number };
  /** Null when the record does not say who called whom. */
  readonly before: ReplayVerdict | null;
  readonly after: ReplayVerdict | null;
  /** The rule of the candidate that came nearest to allowing a call that would be denied. */
  readonly nearest: NearRule | null;
  readonly dependsOn: readonly string[];
};

/** A verdict, and the rule that decides. */
export type ReplayVerdict = {
  readonly verdict: 'allow' | 'deny' | 'unknown';
  readonly reason: DecisionReason | null;
  readonly rule: string;
  /** `file:line:column`, or empty. */
  readonly place: string;
};

/** What would become of recorded calls under other policies. */
export type PolicyReplay = {
  readonly candidate: Omit<Candidate, 'mesh'>;
  readonly mode: PolicyMode;
  readonly since: Date | null;
  readonly until: Date;
  readonly totals: ReplayTotals & {
    /** Calls that were counted and whose records are kept no longer: they are in none of the other numbers. */
    readonly notHeld: number;
    /** Of `calls`, those that a proxy alone told of. */
    readonly seen: number;
  };
  /** The worst first: of each class those of most calls. */
  readonly edges: readonly ReplayEdge[];
  /** How many edges are left out, and how many calls are in none that was kept. */
  readonly moreEdges: number;
  readonly beyond: number;
  /** Whether all calls that are meant were judged. */
  readonly complete: boolean;
  /** What the answer does not have, and why; sentences. */
  readonly missing: readonly string[];
  readonly coverage: AuditCoverage;
  readonly head: LogHead;
};
