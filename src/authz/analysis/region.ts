/** A set of atoms: the bit of the i-th is bit `i & 31` of word `i >> 5`. */
export type Bits = Uint32Array;

/** An empty set for so many atoms. */
export function bitsFor(count: number): Bits {
  return new Uint32Array((count + 31) >> 5);
}

/** The set of those atoms that fit. */
export function bitsOf<T>(atoms: readonly T[], fits: (atom: T) => boolean): Bits {
  const bits = bitsFor(atoms.length);
  for (const [i, atom] of atoms.entries())
    if (fits(atom)) bits[i >> 5] = (bits[i >> 5] ?? 0) | (1 << (i & 31));
  return bits;
}

/** The members of a set, in their order. */
export function membersOf<T>(atoms: readonly T[], bits: Bits): readonly T[] {
  return atoms.filter((_, i) => (((bits[i >> 5] ?? 0) >>> (i & 31)) & 1) === 1);
}

/**
 * What is left of a dimension: any of `values`; or several texts at once, all of `within` and at least one of each of
 * `some`. Immutable.
 */
export type Region = {
  readonly values: Bits;
  readonly within: Bits;
  readonly some: readonly Bits[];
};

/** What satisfies a literal: these values, and texts as its quantifier says. */
export type Mask = {
  readonly quantifier: 'one' | 'every' | 'some';
  readonly values: Bits;
  readonly texts: Bits;
};

/** The part of a region in which a literal holds. */
export function meet(region: Region, { quantifier, values, texts }: Mask): Region {
  const left = and(region.values, values);
  if (quantifier === 'every') return { values: left, within: and(region.within, texts), some: region.some };
  return {
    values: left,
    within: region.within,
    some: quantifier === 'some' ? [...region.some, texts] : region.some,
  };
}

/** The part in which it does not. */
export function miss(region: Region, { quantifier, values, texts }: Mask): Region {
  const left = without(region.values, values);
  if (quantifier === 'some')
    return { values: left, within: without(region.within, texts), some: region.some };
  const others = quantifier === 'every' ? [...region.some, without(all(texts), texts)] : region.some;
  return { values: left, within: region.within, some: others };
}

/** Whether nothing is left. */
export function isEmpty(region: Region): boolean {
  return isNone(region.values) && !hasTexts(region);
}

/** Whether several texts may be what is left. */
export function hasTexts({ within, some }: Region): boolean {
  return !isNone(within) && some.every((one) => overlaps(one, within));
}

/** Whether a literal holds in all of a region, in none of it, or in a part. */
export function holdsIn(region: Region, mask: Mask): 'all' | 'none' | 'part' {
  if (mask.quantifier === 'one') {
    if (!overlaps(region.values, mask.values)) return 'none';
    return isNone(without(region.values, mask.values)) ? 'all' : 'part';
  }
  if (isEmpty(meet(region, mask))) return 'none';
  return isEmpty(miss(region, mask)) ? 'all' : 'part';
}

/** How many atoms are left: by which it is guessed where to look first. */
export function sizeOf({ values, within }: Region): number {
  return count(values) + count(within);
}

export function and(a: Bits, b: Bits): Bits {
  return a.map((word, i) => word & (b[i] ?? 0));
}

function without(a: Bits, b: Bits): Bits {
  return a.map((word, i) => word & ~(b[i] ?? 0));
}

/** Beyond its atoms a set may have bits, which meet those of no other set. */
function all(like: Bits): Bits {
  return new Uint32Array(like.length).fill(0xffff_ffff);
}

function isNone(bits: Bits): boolean {
  for (const word of bits) if (word !== 0) return false;
  return true;
}

function overlaps(a: Bits, b: Bits): boolean {
  for (let i = 0; i < a.length; i++) if (((a[i] ?? 0) & (b[i] ?? 0)) !== 0) return true;
  return false;
}

function count(bits: Bits): number {
  let sum = 0;
  for (const word of bits) for (let rest = word; rest !== 0; rest &= rest - 1) sum += 1;
  return sum;
}
