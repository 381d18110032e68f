import { formatPlace, type Place } from '../errors.ts';
import type { AuthzRequest, Decision, DecisionReason, ShadowVerdict } from './decision.ts';
import type { PolicyAction } from './document.ts';
import { Facts } from './facts.ts';
import { compilePredicate } from './match.ts';
import { findNearMiss } from './nearest.ts';
import { type Entry, type Policy, type Predicate, sides } from './policy.ts';
import { findRemedy, type Remedy, type RemedyEdit } from './remedy.ts';
import type { PolicyMode } from './policy-mode.ts';
import type { Snapshot } from './snapshot.ts';
import { describeMiss, describeUsed } from './words.ts';

/** A line of a policy's source, and the columns that matter in it. */
export type Excerpt = {
  /** `file:line:column`. */
  readonly place: string;
  readonly line: number;
  /** One-based. */
  readonly column: number;
  /** At least 1. */
  readonly length: number;
  /** The line as written, at most 200 characters, control characters replaced. */
  readonly text: string;
};

/** How one predicate fared; `inapplicable` means the request lacks what it reads. */
export type PredicateOutcome = {
  /** `methods` or `notMethods`. */
  readonly field: string;
  /** At most eight. */
  readonly values: readonly string[];
  readonly place: string;
  readonly outcome: 'matched' | 'missed' | 'inapplicable';
  /** `the call used POST`. */
  readonly used: string;
};

/** One entry of `from` or `to`, or all of `when`. */
export type EntryOutcome = { readonly entry: string; readonly predicates: readonly PredicateOutcome[] };

/** How far one rule got. `matched` is the rule's effect: what cannot be judged fails for ALLOW and holds for all others. */
export type RuleOutcome = {
  readonly rule: string;
  readonly place: string;
  readonly matched: boolean;
  readonly entries: readonly EntryOutcome[];
};

export type PolicyOutcome = {
  /** `namespace/name`. */
  readonly policy: string;
  readonly action: PolicyAction;
  /** On trial: it decides nothing. */
  readonly dryRun: boolean;
  readonly place: string;
  readonly rules: readonly RuleOutcome[];
};

/** Why a decision fell as it did: plain data, ready for JSON. */
export type Explanation = {
  readonly verdict: 'allow' | 'deny';
  readonly reason: DecisionReason;
  /** Empty when no rule decided. */
  readonly rule: string;
  /** One sentence: lower case, no full stop. */
  readonly why: string;
  readonly revision: number;
  /** How policies were read. */
  readonly mode: PolicyMode;
  /** As in the decision. */
  readonly custom: string | null;
  readonly audited: string;
  readonly breakGlass: string;
  readonly shadow: ShadowVerdict | null;
  readonly request: {
    /** Null for a caller without a certificate. */
    readonly source: string | null;
    readonly destination: string;
    readonly protocol: 'http' | 'tcp';
    readonly method: string;
    readonly host: string;
    readonly hostPort: number | null;
    readonly path: string;
    readonly port: number;
  };
  /** The policies that apply to the destination, at most 64; the one that decided is among them. */
  readonly policies: readonly PolicyOutcome[];
  /** How many more apply. */
  readonly policiesOmitted: number;
  /** Where the deciding rule stands; null when none decided. */
  readonly decidedAt: Excerpt | null;
  /** The rule that came closest to allowing a denied call. */
  readonly nearest: {
    readonly rule: string;
    readonly missed: string;
    readonly matched: number;
    readonly total: number;
    /** What the call had instead: `the call used POST`. */
    readonly used: string;
    readonly at: Excerpt;
  } | null;
  /** What would allow the call, when policies deny it. */
  readonly remedy: RemedyOutcome | null;
};

/** {@link RemedyEdit} as plain data. */
export type RemedyChange = Pick<RemedyEdit, 'kind' | 'rule' | 'field' | 'values'> & { readonly at: Excerpt };

/** {@link Remedy} as plain data. */
export type RemedyOutcome = {
  readonly exemptions: readonly RemedyChange[];
  readonly edits: readonly RemedyChange[] | null;
  readonly policy: string | null;
};

/** Which policies apply, and which of their predicates hold; undefined for one that cannot be judged. */
export type Reading = {
  readonly policies: readonly Policy[];
  readonly holds: (predicate: Predicate, policy: Policy) => boolean | undefined;
};

/**
 * Explains a decision that `decide` made of this request under this snapshot, at that moment.
 * @param reading how policies were read when not strictly
 */
export function explainDecision(
  snapshot: Snapshot,
  request: AuthzRequest,
  decision: Decision,
  now: Date,
  reading?: Reading,
): Explanation {
  const {
    verdict,
    reason,
    rule,
    why,
    revision,
    custom,
    audited,
    breakGlass,
    shadow,
    mode = 'strict',
  } = decision;
  const applied = reading === undefined ? snapshot.appliedTo(request.destination) : null;
  const facts = new Facts(request, snapshot.trustDomain, now);
  const { policies, holds } = reading ?? {
    policies: applied?.policies ?? [],
    holds: (predicate, { action }) => compilePredicate(predicate, action)(facts),
  };
  const decided = policies
    .flatMap((policy) => policy.rules.map((candidate) => ({ policy, rule: candidate })))
    .find((candidate) => candidate.rule.name === rule);
  const shown = new Set(
    [...(decided === undefined ? [] : [decided.policy]), ...policies].slice(0, maxPolicies),
  );
  const miss = applied !== null && reason === 'no_allow_rule' ? findNearMiss(applied, facts) : null;
  return {
    verdict,
    reason,
    rule,
    why,
    revision,
    mode,
    custom,
    audited,
    breakGlass,
    shadow,
    request: describeRequest(request),
    policies: [...shown].map((policy) => explainPolicy(policy, facts, holds)),
    policiesOmitted: policies.length - shown.size,
    decidedAt: decided === undefined ? null : cutExcerpt(decided.policy, decided.rule.place, 1),
    nearest:
      miss === null
        ? null
        : {
            rule: miss.compiled.rule.name,
            missed: describeMiss(miss.missed, facts),
            matched: miss.matched,
            total: miss.total,
            used: describeUsed(miss.missed, facts),
            at: cutExcerpt(miss.compiled.policy, miss.missed.place, miss.missed.length),
          },
    remedy:
      applied !== null && deniedByPolicy.has(reason)
        ? describeRemedy(findRemedy(snapshot, request, now))
        : null,
  };
}

const deniedByPolicy: ReadonlySet<DecisionReason> = new Set(['deny_rule', 'no_allow_rule', 'no_policy']);

function describeRemedy(remedy: Remedy | null): RemedyOutcome | null {
  if (remedy === null) return null;
  const describe = ({ kind, rule, field, values, policy, at }: RemedyEdit): RemedyChange => ({
    kind,
    rule,
    field,
    // INVARIANT: all of them: whoever removes only some is denied still.
    values,
    at: cutExcerpt(policy, at.place, at.length),
  });
  const { exemptions, edits, policy } = remedy;
  return { exemptions: exemptions.map(describe), edits: edits?.map(describe) ?? null, policy };
}

function describeRequest({ source, destination, ...request }: AuthzRequest): Explanation['request'] {
  const { protocol, method, host, hostPort, path, port } = request;
  const ends = { source: source?.text ?? null, destination: destination.text };
  return { ...ends, protocol, method, host, hostPort, path, port };
}

const maxPolicies = 64;

function explainPolicy(policy: Policy, facts: Facts, holds: Reading['holds']): PolicyOutcome {
  const explainEntries = (list: string, entries: readonly Entry[]): readonly EntryOutcome[] =>
    entries.map(({ predicates }, index) => ({
      entry: list === 'when' ? list : `${list}[${index}]`,
      predicates: predicates.map((predicate) => explainPredicate(predicate, holds(predicate, policy), facts)),
    }));
  return {
    policy: policy.key,
    action: policy.action,
    dryRun: policy.dryRun,
    place: formatPlace(policy.place),
    rules: policy.rules.map((rule) => {
      const outcomes = sides.map((side) => explainEntries(side, rule[side]));
      return {
        rule: rule.name,
        place: formatPlace(rule.place),
        matched: outcomes.every((entries) => anyHolds(policy, entries)),
        entries: outcomes.flat(),
      };
    }),
  };
}

function explainPredicate(predicate: Predicate, held: boolean | undefined, facts: Facts): PredicateOutcome {
  return {
    field: predicate.field,
    values: predicate.values.slice(0, maxValues),
    place: formatPlace(predicate.place),
    outcome: held === undefined ? 'inapplicable' : held ? 'matched' : 'missed',
    used: describeUsed(predicate, facts),
  };
}

const maxValues = 8;

function anyHolds({ action }: Policy, entries: readonly EntryOutcome[]): boolean {
  const holds = ({ outcome }: PredicateOutcome): boolean =>
    outcome === 'matched' || (outcome === 'inapplicable' && action !== 'ALLOW');
  return entries.length === 0 || entries.some(({ predicates }) => predicates.every(holds));
}

/** The line of a policy that a place is on. INVARIANT: a policy's text begins on its `line`, at column 1. */
export function cutExcerpt(policy: Policy, place: Place, length: number): Excerpt {
  let start = 0;
  // A text may have a megabyte, and be asked for thousands of its lines.
  for (let line = policy.line; line < place.line; line++) {
    const end = policy.text.indexOf('\n', start);
    start = end === -1 ? policy.text.length : end + 1;
  }
  const [line = ''] = policy.text.slice(start, start + maxLineLength).split('\n', 1);
  return {
    place: formatPlace(place),
    line: place.line,
    column: place.column,
    length,
    text: line.replace(/[\u0000-\u001f\u007f-\u009f]/g, ' ').trimEnd(),
  };
}

const maxLineLength = 200;
