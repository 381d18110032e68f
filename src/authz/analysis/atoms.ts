import { SpiffeId, type TrustDomain } from '../../spiffe/id.ts';
import type { Cidr } from '../cidr.ts';
import type { Facts } from '../facts.ts';
import { claimOf } from '../match.ts';
import type { Predicate } from '../policy.ts';
import type { Steps } from '../steps.ts';
import { cutAddresses, formatAddress } from './address.ts';
import { type Draft, factsOf, merge, type Patch } from './draft.ts';
import { type Glob, globOfText, keyOfGlob } from './glob.ts';
import { globsOf, isManifold, type Literal } from './literal.ts';
import { classesOf, type TextClasses } from './text-classes.ts';
import * as domains from './text-domain.ts';

/**
 * One value of a dimension for each class of values that literals cannot tell apart, the usual ones first. Of a manifold
 * dimension `texts` are the lines that it may have, several at once; `values` stand for all else.
 */
export type Atoms = {
  readonly values: readonly Atom[];
  readonly texts: readonly Atom[];
  /** Whether there may be classes that were not found. */
  readonly isComplete: boolean;
  /** The value with those texts; of no text none is asked for. */
  readonly ofTexts: (texts: readonly Atom[]) => Patch;
};

/** A value: what it says of a call, and what rules read of such a call. */
export type Atom = { readonly patch: Patch; readonly facts: Facts; readonly text: string };

/** What atoms are made for. */
export type AtomGround = {
  readonly trustDomain: TrustDomain;
  /** What is said of a call by all else; its time is the earliest. */
  readonly blank: Draft;
  readonly maxStates: number;
};

/**
 * Cuts a dimension into atoms.
 * @param literals all that are about it. @param demanded those of them that must hold: only what may satisfy them is made
 */
export function* atomsOf(
  ground: AtomGround,
  dimension: string,
  literals: readonly Literal[],
  demanded: readonly Literal[],
): Steps<Atoms> {
  const predicates = literals.flatMap((one) => one.predicates);
  const own = ground.trustDomain.name;
  const atom = (patch: Patch, text = ''): Atom => ({
    patch,
    facts: factsOf(merge(ground.blank, patch), ground.trustDomain),
    text,
  });
  if (isManifold(dimension)) return yield* manifoldAtoms(ground, dimension, predicates, atom);
  const single = function* (patches: readonly Patch[], isComplete = true): Steps<Atoms> {
    const values: Atom[] = [];
    for (const [i, patch] of patches.entries()) {
      if (i % patchesInStep === patchesInStep - 1) yield;
      if (i === maxAtoms) break;
      values.push(atom(patch));
    }
    return { values, texts: [], isComplete: isComplete && patches.length <= maxAtoms, ofTexts: () => ({}) };
  };
  const texts = function* (domain: domains.TextDomain): Steps<TextClasses> {
    // What must be one of a few texts needs no walk.
    const written = demanded.find(({ cover }) => cover !== undefined && cover.prefixes.length === 0)?.cover;
    if (written !== undefined) return { classes: [...written.exact].filter(domain.has), isComplete: true };
    const { globs, wanted } = gather(predicates, demanded, own);
    return yield* classesOf(globs, domain, wanted, ground.maxStates);
  };
  switch (dimension) {
    case 'caller': {
      const { classes, isComplete } = yield* texts(domains.callerDomain);
      return yield* single(
        classes.map((text) => ({ source: SpiffeId.parse(`spiffe://${text}`) })),
        isComplete,
      );
    }
    case 'request.path': {
      const { classes, isComplete } = yield* texts(domains.pathDomain);
      return yield* single(
        classes.map((path) => ({ path })),
        isComplete,
      );
    }
    case 'request.method': {
      const { classes, isComplete } = yield* texts(domains.methodDomain);
      return yield* single(
        classes.map((method) => ({ method })),
        isComplete,
      );
    }
    case 'connection.sni': {
      const { classes, isComplete } = yield* texts(domains.serverNameDomain);
      // A last dot is dropped when the name is read.
      const patches = classes.map((name) => ({ sni: name.endsWith('.') ? `${name}.` : name }));
      return yield* single([...patches, { sni: undefined }], isComplete);
    }
    case 'request.host': {
      const { classes, isComplete } = yield* texts(domains.hostDomain);
      const ports = [null, ...portsOf(predicates)];
      const isNumeric = predicates.some(
        (one) =>
          one.kind === 'host' &&
          one.matches.some(({ name }) => name.kind === 'suffix' && mayEndAddress(name.text)),
      );
      return yield* single(
        pairsOf(classes, ports, (host, hostPort) => ({ host, hostPort })),
        isComplete && !isNumeric,
      );
    }
    case 'destination.port':
      return yield* single([...portsOf(predicates), 0].map((port) => ({ port })));
    case 'client':
      return yield* single([...addresses(predicates).map((client) => ({ client })), { client: undefined }]);
    case 'destination.ip':
      return yield* single([
        ...addresses(predicates).map((destinationIp) => ({ destinationIp })),
        { destinationIp: undefined },
      ]);
    case 'time':
      return yield* single(momentsOf(predicates, ground.blank.atMs).map((atMs) => ({ atMs })));
    default:
      return yield* tokenAtoms(ground, predicates, single);
  }
}

const patchesInStep = 64;
/** Beyond so many kinds of values nothing is proven. */
const maxAtoms = 16_384;

/** A name that ends so may be an address, and no other name. */
function mayEndAddress(suffix: string): boolean {
  return /^(?:.*\.)?[0-9]+$/.test(suffix);
}

/** The globs of predicates, each once, and of what must hold which of them must be met. */
function gather(
  predicates: readonly Predicate[],
  demanded: readonly Literal[],
  own: string,
): { readonly globs: readonly Glob[]; readonly wanted: readonly (readonly number[])[] } {
  const indexes = new Map<string, number>();
  const globs: Glob[] = [];
  const indexOf = (glob: Glob): number => {
    const key = keyOfGlob(glob);
    const known = indexes.get(key);
    if (known !== undefined) return known;
    indexes.set(key, globs.length);
    globs.push(glob);
    return globs.length - 1;
  };
  for (const predicate of predicates) for (const glob of globsOf(predicate, own)) indexOf(glob);
  const wanted = demanded.flatMap((literal) => literal.wanted.map((group) => group.map(indexOf)));
  return { globs, wanted };
}

function* manifoldAtoms(
  ground: AtomGround,
  dimension: string,
  predicates: readonly Predicate[],
  atom: (patch: Patch, text?: string) => Atom,
): Steps<Atoms> {
  const [first] = predicates;
  const { globs } = gather(predicates, [], ground.trustDomain.name);
  const isHeader = dimension.startsWith('header ');
  const domain = isHeader ? domains.headerDomain : domains.textDomain;
  const { classes, isComplete } = yield* classesOf(globs, domain, [], ground.maxStates);
  const make = makerOf(dimension, first);
  const texts = classes.map((text) => atom(make([text]), text));
  const ofTexts = (some: readonly Atom[]): Patch => make(some.map(({ text }) => text));
  if (isHeader) {
    const values = [make([]), make(undefined)].map((patch) => atom(patch));
    return { values, texts, isComplete, ofTexts };
  }
  if (dimension.startsWith('claim ')) return { values: [atom(make([]))], texts, isComplete, ofTexts };
  const note = (value: unknown): Atom => atom(noteOf(dimension, first, value));
  return { values: [...classes.map(note), note(1), note(undefined)], texts, isComplete, ofTexts };
}

/** What makes the value of a manifold dimension from its texts. */
function makerOf(
  dimension: string,
  first: Predicate | undefined,
): (texts: readonly string[] | undefined) => Patch {
  if (dimension.startsWith('header ')) {
    const name = dimension.slice('header '.length);
    return (texts) => ({ headers: new Map([[name, texts]]) });
  }
  if (dimension.startsWith('claim ') && first !== undefined) {
    const { names } = claimOf(first);
    return (texts = []) => ({ claims: new Map([[dimension, { names, texts }]]) });
  }
  return (texts) => noteOf(dimension, first, texts);
}

function noteOf(dimension: string, first: Predicate | undefined, value: unknown): Patch {
  const [filter = '', key = ''] = first?.names ?? [];
  return { notes: new Map([[dimension, { filter, key, value }]]) };
}

function* tokenAtoms(
  ground: AtomGround,
  predicates: readonly Predicate[],
  single: (patches: readonly Patch[], isComplete: boolean) => Steps<Atoms>,
): Steps<Atoms> {
  const matches = predicates.flatMap((one) => (one.kind === 'token' ? one.matches : []));
  const walk = function* (globs: readonly Glob[]) {
    return yield* classesOf(globs, domains.textDomain, [], ground.maxStates);
  };
  const issuers = yield* walk(matches.map(({ issuer }) => globOfText(issuer)));
  const subjects = yield* walk(matches.map(({ subject }) => globOfText(subject)));
  const pairs = pairsOf(issuers.classes, subjects.classes, (issuer, subject) => ({
    subject: { issuer, subject },
  }));
  return yield* single([...pairs, { subject: undefined }], issuers.isComplete && subjects.isComplete);
}

/** All pairs; of too many one more than are looked at. */
function pairsOf<A, B>(
  some: readonly A[],
  others: readonly B[],
  make: (a: A, b: B) => Patch,
): readonly Patch[] {
  const pairs: Patch[] = [];
  for (const a of some) {
    for (const b of others) {
      if (pairs.length > maxAtoms) return pairs;
      pairs.push(make(a, b));
    }
  }
  return pairs;
}

/** Those that are named, and one that is not. */
function portsOf(predicates: readonly Predicate[]): readonly number[] {
  const named = new Set(
    predicates.flatMap((one) => {
      if (one.kind === 'port') return one.matches;
      return one.kind === 'host' ? one.matches.flatMap(({ port }) => (port === null ? [] : [port])) : [];
    }),
  );
  let other = usualPort;
  while (named.has(other)) other -= 1;
  return [...named, other];
}

const usualPort = 8_080;

function addresses(predicates: readonly Predicate[]): readonly string[] {
  const blocks: Cidr[] = predicates.flatMap((one) => (one.kind === 'address' ? one.matches : []));
  return cutAddresses(blocks).map(formatAddress);
}

/** Now, and each bound that is still to come: time only goes on. */
function momentsOf(predicates: readonly Predicate[], nowMs: number): readonly number[] {
  const bounds = predicates.flatMap((one) =>
    one.kind === 'time' ? one.matches.map(({ atMs }) => atMs) : [],
  );
  return [nowMs, ...[...new Set(bounds)].filter((atMs) => atMs > nowMs).sort((a, b) => a - b)];
}
