import type { Place } from '../errors.ts';

/** Which reading of the language is in force. `istio`, bug for bug, is not offered yet. */
export type Compat = 'strict';

/** How one value of a predicate compares with text. A `*` stands only first or last, or alone. */
export type StringMatch =
  | { readonly kind: 'exact'; readonly text: string }
  | { readonly kind: 'prefix'; readonly text: string }
  | { readonly kind: 'suffix'; readonly text: string }
  /** `*`: present and not empty. */
  | { readonly kind: 'present' };

/** A value of `hosts`: the name, and the port when one was written (`null` for any). */
export type HostMatch = { readonly name: StringMatch; readonly port: number | null };

/** The fields of a source and of an operation, without their `not` forms. */
export const sourceFields = ['principals', 'namespaces'] as const;
export const operationFields = ['hosts', 'ports', 'methods', 'paths'] as const;
export type PredicateField = (typeof sourceFields)[number] | (typeof operationFields)[number];

/**
 * One field of a source or operation: true when any of its values matches, or, negated, when none does. At least one
 * value.
 */
export type Predicate = {
  readonly negated: boolean;
  /** The values as written, for people. */
  readonly values: readonly string[];
  /** Where the values begin in the author's file. */
  readonly place: Place;
  /** How many characters of that line they take. */
  readonly length: number;
} & (
  | {
      readonly field: 'principals' | 'namespaces' | 'methods' | 'paths';
      readonly matches: readonly StringMatch[];
    }
  | { readonly field: 'hosts'; readonly matches: readonly HostMatch[] }
  | { readonly field: 'ports'; readonly matches: readonly number[] }
);

/** One entry of `from`: all its predicates must hold. At least one. */
export type Source = { readonly predicates: readonly Predicate[]; readonly place: Place };
/** One entry of `to`: all its predicates must hold. At least one. */
export type Operation = { readonly predicates: readonly Predicate[]; readonly place: Place };

/** Matches when any of `from` and any of `to` does; an empty list matches everything. */
export type Rule = {
  /** `namespace/name rule[0]`, as decisions name it. */
  readonly name: string;
  readonly from: readonly Source[];
  readonly to: readonly Operation[];
  readonly place: Place;
};

/** A parsed AuthorizationPolicy. Immutable. */
export type Policy = {
  /** `namespace/name`. */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly action: 'ALLOW' | 'DENY';
  /** A workload must carry all of these labels; empty for every workload of the namespace. */
  readonly selector: ReadonlyMap<string, string>;
  /** At most 512. An ALLOW policy without rules allows nothing. */
  readonly rules: readonly Rule[];
  readonly place: Place;
  /** The author's text and the line of the file it begins on, for excerpts. */
  readonly text: string;
  readonly line: number;
};

/** The field as its author wrote it: `methods` or `notMethods`. */
export function fieldName(predicate: Predicate): string {
  return predicate.negated ? negatedName(predicate.field) : predicate.field;
}

/** The `not` form of a field: `notMethods` of `methods`. */
export function negatedName(field: string): string {
  return `not${field.charAt(0).toUpperCase()}${field.slice(1)}`;
}
