import type { Place } from '../errors.ts';
import type { Cidr } from './cidr.ts';
import type { Attribute, PolicyAction, TargetRef } from './document.ts';
import type { PolicyTest } from './policy-test.ts';

/** How one value of a predicate compares with text. A `*` stands only first or last, or alone. */
export type StringMatch =
  | { readonly kind: 'exact'; readonly text: string }
  | { readonly kind: 'prefix'; readonly text: string }
  | { readonly kind: 'suffix'; readonly text: string }
  /** `*`: present and not empty. */
  | { readonly kind: 'present' };

/** A value of `paths` may also be a template; `prefix` is what stands before its first operator. */
export type TextMatch =
  StringMatch | { readonly kind: 'template'; readonly text: string; readonly prefix: string };

/** A value of `hosts`: the name, and the port when one was written (`null` for any). */
export type HostMatch = { readonly name: StringMatch; readonly port: number | null };

/** A value of `requestPrincipals`: who made the token, and for whom. */
export type TokenMatch = { readonly issuer: StringMatch; readonly subject: StringMatch };

/** A value of a filter's metadata: compared with text, or with each text of a list. */
export type MetadataMatch = { readonly inList: boolean; readonly match: StringMatch };

/** A bound of a policy in time: it matches from `notBefore` on, and until just before `expiresAt`. */
export type TimeBound = { readonly bound: 'notBefore' | 'expiresAt'; readonly atMs: number };

/** The values of a predicate, made ready to be compared with the kind of thing that its attribute is. */
export type Matches =
  | { readonly kind: 'text'; readonly matches: readonly TextMatch[] }
  | { readonly kind: 'host'; readonly matches: readonly HostMatch[] }
  | { readonly kind: 'port'; readonly matches: readonly number[] }
  | { readonly kind: 'address'; readonly matches: readonly Cidr[] }
  | { readonly kind: 'token'; readonly matches: readonly TokenMatch[] }
  | { readonly kind: 'metadata'; readonly matches: readonly MetadataMatch[] }
  | { readonly kind: 'time'; readonly matches: readonly TimeBound[] };

/** A list of values: true when any of them matches, or, negated, when none does. At least one value. */
export type Predicate = {
  readonly attribute: Attribute;
  /** The header; the way to a claim; the filter and its key. Empty for all others. */
  readonly names: readonly string[];
  /** As its author named it: `methods`, `notMethods`, `request.headers[x]`, `request.headers[x] notValues`. */
  readonly field: string;
  readonly negated: boolean;
  /** The values as written, for people. */
  readonly values: readonly string[];
  /** Where the values begin in the author's file. */
  readonly place: Place;
  /** How many characters of that line they take. */
  readonly length: number;
} & Matches;

/** One entry of `from` or of `to`, or all of `when`: all its predicates must hold. At least one. */
export type Entry = { readonly predicates: readonly Predicate[] };

/** The parts of a rule; a rule matches when any entry of each does, and an empty part matches everything. */
export const sides = ['from', 'to', 'when'] as const;
export type Side = (typeof sides)[number];

/** `when` has one entry at most; the bounds of its policy in time stand last in it. */
export type Rule = {
  /** `namespace/name rule[0]`, as decisions name it. */
  readonly name: string;
  readonly place: Place;
} & Readonly<Record<Side, readonly Entry[]>>;

/** Who answers for a policy, and between which moments it matches: what Istio's language has no words for. */
export type PolicyTerms = {
  readonly notBefore: Date | null;
  /** After `notBefore`. */
  readonly expiresAt: Date | null;
  /** For people; one line of at most 256 characters each. */
  readonly owner: string | null;
  readonly ticket: string | null;
  /** Why this ALLOW policy may outweigh a liftable DENY; one line. Then it has a ticket and an end. Null for every other. */
  readonly breakGlass: string | null;
  /** Of a DENY policy: whether a break-glass grant outweighs it. */
  readonly liftable: boolean;
  /** `notBefore` and `expiresAt` as its rules have them, which is how they are enforced. */
  readonly bounds: readonly Predicate[];
};

/** A parsed AuthorizationPolicy. Immutable. */
export type Policy = {
  /** `namespace/name`. */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly action: PolicyAction;
  /** Who is asked when a CUSTOM policy matches; null for every other action. */
  readonly provider: string | null;
  /** Evaluated beside the others and enforced by nobody. */
  readonly dryRun: boolean;
  /** A workload must carry all of these labels; empty for every workload of the namespace. */
  readonly selector: ReadonlyMap<string, string>;
  /** Gateways of the policy's namespace; never beside a selector. When there are any, it applies to nothing else. */
  readonly targetRefs: readonly TargetRef[];
  readonly terms: PolicyTerms;
  /** What its author expects of calls; it decides nothing. At most 256. */
  readonly tests: readonly PolicyTest[];
  /** At most 512. An ALLOW policy without rules allows nothing. */
  readonly rules: readonly Rule[];
  readonly place: Place;
  /** The author's text and the line of the file it begins on, for excerpts. */
  readonly text: string;
  readonly line: number;
};
