import { parseMoment, unitMs } from '../../audit/moment.ts';
import { MeshError, quote } from '../../errors.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import { closestName } from '../../yaml-suggest.ts';

/** A parameter of a question: how its text is read, and what it is when it is left out. */
export type Parameter<T> = {
  /** One line for people: lower case, no full stop. */
  readonly line: string;
  /** @throws MeshError `audit_query_invalid` */
  readonly parse: (text: string, name: string, now: Date) => T;
  /** Null: it may not be left out. */
  readonly otherwise: ((now: Date) => T) | null;
};

/** The parameters of a question by their names. */
export type ParameterTable = Readonly<Record<string, Parameter<unknown>>>;

/** The values that a table of parameters gives. */
export type ValuesOf<P extends ParameterTable> = {
  readonly [K in keyof P]: P[K] extends Parameter<infer T> ? T : never;
};

/**
 * Reads what was asked against the parameters of a question.
 * @throws MeshError `audit_query_invalid` for an unknown, a missing or a wrong one
 */
export function parseParameters<P extends ParameterTable>(
  table: P,
  fields: ReadonlyMap<string, string>,
  now: Date,
): ValuesOf<P> {
  const names = Object.keys(table);
  for (const name of fields.keys()) {
    if (names.includes(name)) continue;
    const near = closestName(name, names);
    const known = names.length === 0 ? 'this question takes none' : `use ${names.join(', ')}`;
    throw new MeshError('audit_query_invalid', `there is no parameter ${quote(name)}`, {
      fix: near === undefined ? known : `did you mean ${near}?`,
    });
  }
  const values = Object.entries(table).map(([name, { parse, otherwise, line }]) => {
    const text = fields.get(name);
    if (text !== undefined && text.length > maxTextLength) refuse(name, 'is too long', 'shorten it');
    if (text !== undefined) return [name, parse(text, name, now)];
    if (otherwise === null) refuse(name, 'is missing', `give it: ${line}`);
    return [name, otherwise(now)];
  });
  return Object.fromEntries(values) as ValuesOf<P>;
}

/** One that may not be left out. */
export function required<T>(line: string, parse: Parameter<T>['parse']): Parameter<T> {
  return { line, parse, otherwise: null };
}

/** One that may be left out. @param otherwise its value then */
export function optional<T, D>(line: string, parse: Parameter<T>['parse'], otherwise: D): Parameter<T | D> {
  return { line, parse, otherwise: () => otherwise };
}

/** Since when and until when: both may be left out. */
export const window = {
  since: optional('from this time on: 10m, 7d, or RFC 3339', moment, null),
  until: optional('before this time; now when it is left out', moment, null),
};

/** How many rows, and where they begin. */
export const paging = {
  limit: optional('the most rows, 1 to 1000', wholeNumber(1, 1_000), 100),
  cursor: optional('where an earlier answer ended: its next', anyText, null),
};

/** @throws MeshError `audit_query_invalid` */
export function moment(text: string, name: string, now: Date): Date {
  return (
    parseMoment(text, now) ??
    refuse(name, `${quote(text)} is no time`, 'write 10m, 2h, 7d or 2026-01-31T12:00:00Z')
  );
}

/** A length of time in milliseconds: `90s`, `10m`, `2h`, `7d`, `4w`. */
export function duration(text: string, name: string): number {
  const [, digits = '', unit = ''] = /^([0-9]{1,6})([smhdw])$/.exec(text) ?? [];
  const ms = Number(digits) * (unitMs.get(unit) ?? 0);
  return ms > 0 ? ms : refuse(name, `${quote(text)} is no length of time`, 'write 90s, 10m, 2h, 7d or 4w');
}

/** Any SPIFFE ID, as its text. */
export function identity(text: string, name: string): string {
  try {
    return SpiffeId.parse(text).text;
  } catch (cause) {
    if (!(cause instanceof MeshError)) throw cause;
    throw new MeshError('audit_query_invalid', `${name}: ${cause.message}`, {
      ...(cause.fix === undefined ? {} : { fix: cause.fix }),
      cause,
    });
  }
}

/** A serial number as the log has it: lower-case hex. */
export function serial(text: string, name: string): string {
  if (text.length > 80 || !/^[0-9a-f]+(:[0-9a-f]+)*$/i.test(text)) {
    refuse(name, `${quote(text)} is no serial number`, 'write it in hex, as the log prints it');
  }
  return text.replaceAll(':', '').toLowerCase();
}

/** `namespace/name`. */
export function policyKey(text: string, name: string): string {
  return /^[a-z0-9][a-z0-9-]{0,62}\/[a-z0-9][a-z0-9.-]{0,252}$/.test(text)
    ? text
    : refuse(name, `${quote(text)} is no policy`, 'write it as namespace/name');
}

/** The name of a namespace. */
export function namespace(text: string, name: string): string {
  return /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(text)
    ? text
    : refuse(name, `${quote(text)} is no namespace`, 'use 1 to 63 of a-z 0-9 -, as Kubernetes does');
}

/** A whole number in decimal, both bounds included. */
export function wholeNumber(least: number, most: number): Parameter<number>['parse'] {
  return (text, name) => {
    const number = /^(0|[1-9][0-9]{0,15})$/.test(text) ? Number(text) : Number.NaN;
    return number >= least && number <= most
      ? number
      : refuse(name, `${quote(text)} is out of range`, `use ${least} to ${most}`);
  };
}

/** Any text, as long as all parameters may be. */
export function anyText(text: string): string {
  return text;
}

/** One word of a closed list. */
export function choice<T extends string>(...choices: readonly T[]): Parameter<T>['parse'] {
  return (text, name) =>
    choices.find((known) => known === text) ??
    refuse(name, `${quote(text)} is unknown`, `use ${choices.join(', ')}`);
}

/** @throws MeshError `audit_query_invalid`, always */
export function refuse(name: string, why: string, fix: string): never {
  throw new MeshError('audit_query_invalid', `${name}: ${why}`, { fix });
}

const maxTextLength = 4_096;
