import { MeshError, quote } from '../errors.ts';

/** The selector kinds that an attestor of this version can produce; an entry may ask for no others. */
export const selectorKinds = ['unix:uid', 'unix:gid', 'unix:user', 'unix:path'] as const;
export type SelectorKind = (typeof selectorKinds)[number];

const maxValueLength = 1_024;

/** One attested property of a workload, such as `unix:uid:1000`. Equal when their texts are. */
export type Selector = { readonly kind: SelectorKind; readonly value: string; readonly text: string };

/**
 * Parses `unix:uid:1000`.
 * @throws MeshError `selector_invalid`
 */
export function parseSelector(text: string): Selector {
  const kind = selectorKinds.find((known) => text.startsWith(`${known}:`));
  if (kind === undefined) {
    throw new MeshError('selector_invalid', `selector ${quote(text)} has an unknown kind`, {
      fix: `use one of ${selectorKinds.join(', ')}, for example unix:uid:1000`,
    });
  }
  return selector(kind, text.slice(kind.length + 1));
}

/**
 * A selector of parts.
 * @param value 1 to 1,024 printable characters; for uid and gid a decimal number without leading zeros
 * @throws MeshError `selector_invalid`
 */
export function selector(kind: SelectorKind, value: string): Selector {
  const why = valueProblem(kind, value);
  if (why !== undefined) {
    throw new MeshError('selector_invalid', `selector ${quote(`${kind}:${value}`)} ${why}`, {
      fix: kind === 'unix:path' ? 'give an absolute path' : `write it as ${example[kind]}`,
    });
  }
  return { kind, value, text: `${kind}:${value}` };
}

const example: Record<SelectorKind, string> = {
  'unix:uid': 'unix:uid:1000',
  'unix:gid': 'unix:gid:1000',
  'unix:user': 'unix:user:web',
  'unix:path': 'unix:path:/usr/bin/envoy',
};

function valueProblem(kind: SelectorKind, value: string): string | undefined {
  if (value === '') return 'has no value';
  if (value.length > maxValueLength) return `has a value of more than ${maxValueLength} characters`;
  if (/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(value)) return 'has control characters';
  switch (kind) {
    case 'unix:uid':
    case 'unix:gid':
      return /^(0|[1-9][0-9]{0,9})$/.test(value) && Number(value) <= 0xffff_ffff
        ? undefined
        : 'is not a number';
    case 'unix:path':
      return value.startsWith('/') ? undefined : 'is not an absolute path';
    case 'unix:user':
      return undefined;
    default:
      return kind satisfies never;
  }
}
