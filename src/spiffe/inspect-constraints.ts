import { quote } from '../errors.ts';
import { DerReader, derTag, latin1 } from './der.ts';
import type { AltNames } from './extensions.ts';

/** The names of a certificate that constraints above it judge. */
export type ConstrainedNames = {
  readonly names: AltNames | undefined;
  readonly hasSubject: boolean;
};

/**
 * Says why names lie outside the name constraints of a CA; empty when they lie within. URI and DNS constraints are
 * judged; names of another kind that is constrained are not, and count as outside: an unread constraint permits nothing.
 * @param value of the extension
 * @throws MeshError `der_invalid`
 * @see RFC 5280 section 4.2.1.10
 */
export function namesOutside(value: Uint8Array, { names, hasSubject }: ConstrainedNames): readonly string[] {
  const { permitted, excluded } = readConstraints(value);
  const outside: string[] = [];
  const judge = (kind: string, tag: number, of: readonly string[], within: Matcher): void => {
    const allow = permitted.filter((base) => base.tag === tag);
    const deny = excluded.filter((base) => base.tag === tag);
    const wrong = of.find(
      (name) =>
        (allow.length > 0 && !allow.some((base) => within(name, base.text))) ||
        // A URI without a host can be held against no list, so it is outside of each.
        deny.some((base) => within(name, base.text) || (tag === uriTag && hostOf(name) === undefined)),
    );
    if (wrong !== undefined) outside.push(`the ${kind} name ${quote(wrong)} is not permitted`);
  };
  judge('URI', uriTag, names?.uris ?? [], uriWithin);
  judge('DNS', dnsTag, names?.dnsNames ?? [], dnsWithin);
  const kinds = [...permitted, ...excluded]
    .map(({ tag }) => tag)
    .filter((tag) => tag !== uriTag && tag !== dnsTag);
  if (kinds.includes(directoryTag) && hasSubject) outside.push('a constraint on subjects is not evaluated');
  if (kinds.length > 0 && (names?.others ?? 0) > 0)
    outside.push('a constraint on other names is not evaluated');
  return outside;
}

/**
 * Whether constraints judge DNS or directory names: what workload certificates and the CAs above them have besides
 * their SPIFFE IDs.
 * @param value of the extension
 * @throws MeshError `der_invalid`
 */
export function constrainsCommonNames(value: Uint8Array): boolean {
  const { permitted, excluded } = readConstraints(value);
  return [...permitted, ...excluded].some(({ tag }) => tag === dnsTag || tag === directoryTag);
}

type Base = { readonly tag: number; readonly text: string };
type Matcher = (name: string, base: string) => boolean;

function readConstraints(value: Uint8Array): { permitted: Base[]; excluded: Base[] } {
  const outer = DerReader.over(value);
  const fields = outer.enter(derTag.sequence);
  outer.finish();
  const permitted = fields.peek() === permittedTag ? readSubtrees(fields.enter(permittedTag)) : [];
  const excluded = fields.peek() === excludedTag ? readSubtrees(fields.enter(excludedTag)) : [];
  fields.finish();
  return { permitted, excluded };
}

function readSubtrees(list: DerReader): Base[] {
  const bases: Base[] = [];
  while (list.peek() !== undefined) {
    const subtree = list.enter(derTag.sequence);
    const tag = subtree.peek() ?? 0;
    bases.push({ tag, text: latin1(subtree.content(tag)).toLowerCase() });
    // Minimum and maximum: RFC 5280 permits neither.
    subtree.finish();
  }
  return bases;
}

function uriWithin(name: string, base: string): boolean {
  const host = hostOf(name);
  if (host === undefined) return false;
  return (
    base === '' || (base.startsWith('.') ? host.length > base.length && host.endsWith(base) : host === base)
  );
}

function dnsWithin(name: string, base: string): boolean {
  const host = name.toLowerCase();
  return (
    base === '' || (base.startsWith('.') ? host.endsWith(base) : host === base || host.endsWith(`.${base}`))
  );
}

function hostOf(uri: string): string | undefined {
  const host = /^[^/?#]*:\/\/(?:[^/?#@]*@)?(?<host>[^/?#:@]+)/.exec(uri)?.groups?.['host'];
  return host?.toLowerCase();
}

const permittedTag = 0xa0;
const excludedTag = 0xa1;
const dnsTag = 0x82;
const uriTag = 0x86;
const directoryTag = 0xa4;
