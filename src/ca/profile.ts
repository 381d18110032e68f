import { MeshError, quote } from '../errors.ts';
import { type PublicKeyKind, publicKeyKinds } from './public-key.ts';

/** The kinds of key a CA may have. */
export const authorityKeyKinds = ['ecdsa-p256', 'ecdsa-p384'] as const;
export type AuthorityKeyKind = (typeof authorityKeyKinds)[number];

/** What new CAs of ours are confined to: nothing, or URI names of the trust domain (RFC 5280 section 4.2.1.10). */
export const nameConstraintKinds = ['off', 'uri'] as const;
export type NameConstraints = (typeof nameConstraintKinds)[number];

/** The bounds of a leaf's lifetime, whatever a profile says. */
export const leafTtlBounds = { minSeconds: 20, maxSeconds: 86_400 } as const;

/** A profile as it is configured. What is left out has the default named at each field. */
export type ProfileConfig = {
  /** `ecdsa-p256` (default) or `ecdsa-p384`: the key of a new root and of a new intermediate. */
  readonly authorityKey?: string;
  /** 1 day to 20 years; default 10 years (315,360,000). */
  readonly rootTtlSeconds?: number;
  /** 1 hour to the root's lifetime, at most 1 year; default 30 days (2,592,000). */
  readonly intermediateTtlSeconds?: number;
  /** The longest leaf: 20 to 86,400, less than the intermediate's lifetime; default 86,400. */
  readonly maxLeafTtlSeconds?: number;
  /** How far notBefore lies in the past, for clocks that are behind: 0 to 600; default 30. */
  readonly backdateSeconds?: number;
  /** Kinds of leaf key we certify; default all of {@link publicKeyKinds}. */
  readonly leafKeys?: readonly string[];
  /** `uri`: new CAs of ours may certify URI names of their own trust domain only. Default `off`. */
  readonly nameConstraints?: string;
};

/** A proven profile: only {@link parseProfile} makes one. Every certificate of one authority is built from one of these. */
export type Profile = {
  readonly [proven]: true;
  readonly authorityKey: AuthorityKeyKind;
  readonly rootTtlSeconds: number;
  readonly intermediateTtlSeconds: number;
  readonly maxLeafTtlSeconds: number;
  readonly backdateSeconds: number;
  readonly leafKeys: ReadonlySet<PublicKeyKind>;
  readonly nameConstraints: NameConstraints;
};

/**
 * Proves configured values and turns them into a profile, once, at the start.
 * @throws MeshError `profile_invalid`
 */
export function parseProfile(config: ProfileConfig = {}): Profile {
  const { authorityKey = 'ecdsa-p256', leafKeys = publicKeyKinds, nameConstraints = 'off' } = config;
  const rootTtlSeconds = within(config, 'rootTtlSeconds', 10 * year, day, 20 * year);
  const longestIntermediate = Math.min(rootTtlSeconds, year);
  const intermediateTtlSeconds = within(
    config,
    'intermediateTtlSeconds',
    Math.min(30 * day, longestIntermediate),
    3_600,
    longestIntermediate,
  );
  const longestLeaf = Math.min(leafTtlBounds.maxSeconds, intermediateTtlSeconds - 1);
  if (!isOneOf(authorityKeyKinds, authorityKey)) {
    refuse('authorityKey', `is ${quote(authorityKey)}, not one of ${authorityKeyKinds.join(', ')}`);
  }
  if (!isOneOf(nameConstraintKinds, nameConstraints)) {
    refuse('nameConstraints', `is ${quote(nameConstraints)}, not one of ${nameConstraintKinds.join(', ')}`);
  }
  if (leafKeys.length === 0) refuse('leafKeys', 'is empty');
  for (const kind of leafKeys) {
    if (!isOneOf(publicKeyKinds, kind))
      refuse('leafKeys', `has ${quote(kind)}, not one of ${publicKeyKinds.join(', ')}`);
  }
  return Object.freeze({
    [proven]: true as const,
    authorityKey,
    rootTtlSeconds,
    intermediateTtlSeconds,
    maxLeafTtlSeconds: within(
      config,
      'maxLeafTtlSeconds',
      longestLeaf,
      leafTtlBounds.minSeconds,
      longestLeaf,
    ),
    backdateSeconds: within(config, 'backdateSeconds', 30, 0, 600),
    leafKeys: new Set(leafKeys.filter((kind) => isOneOf(publicKeyKinds, kind))),
    nameConstraints,
  });
}

type NumberField = 'rootTtlSeconds' | 'intermediateTtlSeconds' | 'maxLeafTtlSeconds' | 'backdateSeconds';

function within(
  config: ProfileConfig,
  field: NumberField,
  fallback: number,
  min: number,
  max: number,
): number {
  const value = config[field] ?? fallback;
  if (!Number.isSafeInteger(value)) refuse(field, 'is not a whole number of seconds');
  if (value < min || value > max) refuse(field, `is ${value}, not within ${min} to ${max}`);
  return value;
}

function isOneOf<T extends string>(kinds: readonly T[], kind: string): kind is T {
  return kinds.some((known) => known === kind);
}

function refuse(field: string, why: string): never {
  throw new MeshError('profile_invalid', `the certificate profile's ${field} ${why}`);
}

const day = 86_400;
const year = 365 * day;
const proven = Symbol('proven');
